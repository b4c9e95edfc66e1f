"""A sized order in the terms of sizing and of the risk gate: everything that they compare, as numbers.

Owns: how each of these numbers is made. Never: decides, or changes anything.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, final

from gpuscalp.account import notional_e8
from gpuscalp.orders import Conditions, MarketRow, Order, SignalRow
from gpuscalp.risk.exposure import Exposure
from gpuscalp.risk.gate import RiskGate
from gpuscalp.risk.rules import Question, trade_risk_pct
from gpuscalp.risk.sizing import Sizing, Surroundings
from gpuscalp.risk.volatility import Volatility
from gpuscalp.schema import E8, F64, NS_PER_MS, NS_PER_S, Instrument
from gpuscalp.strategy import PREDICTED_REASONS

_NS_PER_H: Final = 3_600 * NS_PER_S
_UNKNOWN: Final = float("nan")


@final
class Inquiry:
    """Looks at a trader of S symbols.

    Parameters
    ----------
    instruments : S
    exposure, sizing, gate, volatility : of the trader; read only
    hold_ns : how long a position is held
    """

    def __init__(
        self,
        instruments: Sequence[Instrument],
        *,
        exposure: Exposure,
        sizing: Sizing,
        gate: RiskGate,
        volatility: Volatility,
        hold_ns: int,
    ) -> None:
        self._min_usdt = [instrument.min_notional_e8 / E8 for instrument in instruments]
        self._exposure = exposure
        self._sizing = sizing
        self._gate = gate
        self._volatility = volatility
        self._hold_ms = hold_ns / NS_PER_MS

    def surroundings(
        self, index: int, price_e8: int, equity_e8: int, *, edge_spread_bps: float
    ) -> Surroundings:
        """Return what an order of a symbol at a price would come to."""
        exposure = self._exposure
        open_here, others = exposure.others_e8(index)
        return Surroundings(
            price_e8=price_e8,
            held_e8=abs(exposure.account.positions[index].qty_e8),
            open_e8=open_here,
            others_e8=others,
            equity_e8=equity_e8,
            drawdown_pct=self._gate.drawdown_pct,
            volatility_bps=self._volatility.over_bps(index, self._hold_ms),
            edge_spread_bps=edge_spread_bps,
        )

    def question(
        self,
        order: Order,
        around: Surroundings,
        *,
        market: MarketRow,
        signals: SignalRow,
        conditions: Conditions,
        traded_ns: int,
        trained_until_ns: int | None,
    ) -> Question:
        """Put a sized order into the gate's terms.

        Parameters
        ----------
        traded_ns : last execution in the symbol; negative = none that matters
        """
        exposure, gate = self._exposure, self._gate
        index, intent, price = order.symbol_index, order.intent, around.price_e8
        bid, ask = exposure.bid_e8[index], exposure.ask_e8[index]
        held = exposure.account.positions[index].qty_e8
        reducing = order.reduce_only and held * order.side < 0 and order.qty_e8 <= abs(held)
        order_usdt = notional_e8(price, order.qty_e8) / E8 if price > 0 else _UNKNOWN
        after = abs(notional_e8(price, held + order.side * order.qty_e8)) + around.open_e8
        gross, equity = around.others_e8 + after, around.equity_e8
        mark, quality = float(market.mark[index]), int(market.quality[index])
        if conditions.extra_quality is not None:
            quality |= int(conditions.extra_quality[index])
        return Question(
            reducing=reducing,
            predicted=not reducing or intent.reason in PREDICTED_REASONS,
            order_usdt=order_usdt,
            position_usdt=after / E8,
            gross_usdt=gross / E8,
            leverage=gross / equity if equity > 0 else _UNKNOWN,
            trade_risk_pct=trade_risk_pct(
                order_usdt, self._sizing.distance_bps(around.volatility_bps), equity / E8
            ),
            min_notional_usdt=self._min_usdt[index],
            open_orders_total=1 + len(exposure.orders),
            since_trade_ms=float("inf") if traded_ns < 0 else (conditions.now_ns - traded_ns) / NS_PER_MS,
            spread_bps=2e4 * (ask - bid) / (ask + bid) if bid + ask > 0 else _UNKNOWN,
            quote_age_ms=float(market.age_ms[index]),
            collar_bps=1e4 * abs(price / E8 - mark) / mark if mark > 0 else _UNKNOWN,
            jump_bps=float(self._volatility.jump_bps[index]),
            volatility_bps=float(self._volatility.short_bps[index]),
            pause_ms=gate.pause_ms(index),
            blocked_quality=quality & gate.blocked_bits,
            clock_error_ms=abs(conditions.clock_error_ms),
            prediction_age_ms=(conditions.now_ns - market.end_ns) / NS_PER_MS,
            model_age_h=_UNKNOWN
            if trained_until_ns is None
            else (conditions.now_ns - trained_until_ns) / _NS_PER_H,
            device_faults=0 if conditions.device_ok else 1,
            edge_bps=abs(float(signals.edge_bps[index])),
            probability_error=_probability_error(signals.probability[index]),
            confidence=intent.confidence,
            agreement=intent.agreement,
        )


def _probability_error(probability: F64) -> float:
    """Return |Σ − 1|; infinite where a class lies outside 0 … 1, NaN where one is NaN."""
    values: list[float] = probability.tolist()
    if any(value < 0.0 or value > 1.0 for value in values):
        return float("inf")
    return abs(sum(values) - 1.0)
