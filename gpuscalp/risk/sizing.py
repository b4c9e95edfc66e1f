"""How large an entry is: a base amount, three factors, and every limit that can cut it.

Owns: the factors, the room that the limits leave, the rounding to the exchange's step. Never: refuses. What
is too small for the exchange, or comes from a number that is not known, gets size 0, and the risk gate
refuses that. docs/risk.md derives the formulas.

    value = order_usdt × min(c, volatility × kelly × drawdown),   each factor in 0 … c = ``max_scale``

    volatility = target / σ                     Moskowitz, Ooi and Pedersen (2012): a constant risk per trade
    kelly      = φ · k · m / σ² · equity / order_usdt        with m = |edge| − cost
                 m / σ² is the growth-optimal share of the equity (Merton 1969, Thorp 2006), φ the fraction of
                 it that is used, and k = m² / (m² + s²) shrinks it for the uncertainty s of the edge, which
                 is taken from the spread of the members (the idea of Baker and McHale 2013)
    drawdown   = 1 − drawdown / limit           Grossman and Zhou (1993): in proportion to what is left

σ is the standard deviation over the holding time. The limits are those of the gate, in the gate's own terms,
so that a size is never refused for a limit that it could have been cut to.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite
from typing import Final, final

from gpuscalp.config import OFF, RiskConfig, SizingConfig
from gpuscalp.orders import Intent
from gpuscalp.risk.rules import trade_risk_pct
from gpuscalp.schema import E8, Instrument

_NO_LIMIT: Final = 1 << 100


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What sizing looks at besides the intent.

    Attributes
    ----------
    price_e8 : that the order would cross to
    held_e8 : |quantity| held in the symbol
    open_e8 : value of the symbol's open orders that add risk
    others_e8 : Σ |value| of the other symbols, with their open orders
    equity_e8 : of the account; may be negative
    drawdown_pct : of the gate
    volatility_bps : σ over the holding time
    edge_spread_bps : standard deviation of the edge over the members
    """

    price_e8: int
    held_e8: int
    open_e8: int
    others_e8: int
    equity_e8: int
    drawdown_pct: float
    volatility_bps: float
    edge_spread_bps: float


@final
class Sizing:
    """Sizes entries. Pure: the same arguments, the same size.

    Parameters
    ----------
    config, risk : factors and limits
    """

    def __init__(self, config: SizingConfig, risk: RiskConfig) -> None:
        self.config = config
        self.risk = risk

    def distance_bps(self, volatility_bps: float) -> float:
        """Return how far the price of a trade that goes wrong is taken to move."""
        risk = self.risk
        return risk.stop_bps if risk.stop_bps is not None else risk.risk_sigmas * volatility_bps

    def scale(self, intent: Intent, around: Surroundings) -> float:
        """Return what the base amount of an entry is multiplied by: the product of the factors that are
        switched on, NaN where one of them is not known."""
        config, most = self.config, self.config.max_scale
        sigma = around.volatility_bps
        volatility = kelly = drawdown = 1.0
        if config.target_volatility_bps != OFF:
            volatility = _at_most(most, _ratio(float(config.target_volatility_bps), sigma))
        if config.kelly_fraction != OFF:
            kelly = _at_most(most, self._kelly(intent, around, float(config.kelly_fraction)))
        if config.drawdown:
            drawdown = min(1.0, max(0.0, 1.0 - around.drawdown_pct / self.risk.max_drawdown_pct))
        return _at_most(most, volatility * kelly * drawdown)

    def qty_e8(self, intent: Intent, scale: float, around: Surroundings, instrument: Instrument) -> int:
        """Return the quantity of one entry: cut to every limit, on the step grid, 0 if below the minimum."""
        assert intent.notional_usdt is not None
        wanted_usdt = intent.notional_usdt * scale
        price = around.price_e8
        if price <= 0 or not (isfinite(wanted_usdt) and wanted_usdt > 0):
            return 0
        value_e8 = min(int(wanted_usdt * E8), self._order_room_e8(around))
        qty = min(value_e8 * E8 // price, self._position_room_e8(around) * E8 // price - around.held_e8)
        if qty <= 0:
            return 0
        qty -= qty % instrument.step_size_e8
        return qty if qty >= instrument.min_qty_e8 else 0

    def _kelly(self, intent: Intent, around: Surroundings, fraction: float) -> float:
        """Return the value of the shrunken fractional Kelly position over the base amount."""
        assert intent.notional_usdt is not None
        mean = abs(intent.edge_bps) - intent.cost_bps
        if mean <= 0.0 or around.equity_e8 <= 0:
            return 0.0
        doubt = around.edge_spread_bps / mean
        shrink = 1.0 / (1.0 + doubt * doubt)
        # Both in bps: mean / variance is 1e4 times too small.
        share = fraction * shrink * 1e4 * _ratio(mean, around.volatility_bps * around.volatility_bps)
        return share * (around.equity_e8 / E8) / intent.notional_usdt

    def _order_room_e8(self, around: Surroundings) -> int:
        """Return the largest value of an order by the limits on one order."""
        risk = self.risk
        room = _largest(risk.max_order_usdt, E8)
        if risk.max_trade_risk_pct == OFF:
            return room
        limit, distance = float(risk.max_trade_risk_pct), self.distance_bps(around.volatility_bps)
        equity = around.equity_e8 / E8
        if not trade_risk_pct(0.0, distance, equity) <= limit:
            return 0  # not known
        if trade_risk_pct(room / E8, distance, equity) <= limit:
            return room
        # Here the distance is positive. The last place of the division may be too large by one.
        room = min(room, int(limit * equity * 100.0 / distance * E8))
        while room > 0 and not trade_risk_pct(room / E8, distance, equity) <= limit:
            room -= 1 + (room >> 52)
        return room

    def _position_room_e8(self, around: Surroundings) -> int:
        """Return the largest value of the symbol's position after the order, open orders apart."""
        risk = self.risk
        gross = _largest(risk.max_gross_usdt, E8)
        if risk.max_leverage != OFF:
            gross = min(gross, _largest(float(risk.max_leverage), around.equity_e8))
        return min(_largest(risk.max_position_usdt, E8), gross - around.others_e8) - around.open_e8


def _ratio(value: float, by: float) -> float:
    """Divide; by zero gives infinity, since nothing that moves was divided by."""
    return value / by if by != 0.0 else float("inf")


def _at_most(most: float, value: float) -> float:
    """Cut from above; NaN stays NaN."""
    return most if value > most else value


def _largest(limit: float, unit_e8: int) -> int:
    """Return the largest amount whose quotient by a unit, as a float64, does not exceed a limit."""
    if unit_e8 <= 0:
        return 0
    if not isfinite(limit * unit_e8):
        return _NO_LIMIT
    amount = int(limit * unit_e8)
    while amount / unit_e8 > limit:
        amount -= 1 + (amount >> 52)
    return amount
