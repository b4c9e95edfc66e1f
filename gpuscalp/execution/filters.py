"""The exchange's filters: what an order must be like before it is an order at all.

Owns: the rules of one symbol and Binance's reject codes. Never: looks at books, positions or money.

Codes: BINANCE USD-M error codes, sections 11xx to 50xx (PRICE_FILTER, LOT_SIZE, MARKET_LOT_SIZE,
MIN_NOTIONAL, PERCENT_PRICE).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from gpuscalp.account import notional_e8
from gpuscalp.config import PaperConfig
from gpuscalp.execution.working import WorkingOrder
from gpuscalp.orders import OrderKind
from gpuscalp.schema import E8, Instrument


class Reject(IntEnum):
    """Binance's error codes, as far as the paper broker gives them."""

    NONE = 0
    TOO_MANY = -1015
    CANCEL_UNKNOWN = -2011
    MARGIN = -2019
    TRIGGERS = -2021
    REDUCE_ONLY = -2022
    MAX_ORDERS = -2025
    PRICE_NOT_POSITIVE = -4001
    QTY_NOT_POSITIVE = -4003
    MIN_QTY = -4004
    MAX_QTY = -4005
    TICK = -4014
    PRICE_TOO_HIGH = -4016
    STEP = -4023
    PRICE_TOO_LOW = -4024
    TAKE_BOUND = -4131
    MIN_NOTIONAL = -4164
    FILL_OR_KILL = -5021
    POST_ONLY = -5022


# Binance's largest lots of limit orders lie around this multiple of the step.
_MAX_STEPS: Final = 10_000_000


@dataclass(frozen=True, slots=True)
class SymbolRules:
    """The filters of one symbol; ratios are multiples of 1e-8, 0 switches a filter off."""

    tick_e8: int
    step_e8: int
    min_qty_e8: int
    max_qty_e8: int
    max_market_qty_e8: int
    min_notional_e8: int
    percent_up_e8: int
    percent_down_e8: int
    take_bound_e8: int

    @classmethod
    def of(cls, instrument: Instrument, config: PaperConfig) -> SymbolRules:
        """Return the rules of an instrument; what it does not tell comes from the configuration."""
        step = instrument.step_size_e8
        return cls(
            tick_e8=instrument.tick_size_e8,
            step_e8=step,
            min_qty_e8=instrument.min_qty_e8,
            max_qty_e8=step * _MAX_STEPS,
            max_market_qty_e8=instrument.max_market_qty_e8,
            min_notional_e8=instrument.min_notional_e8,
            percent_up_e8=round(config.percent_price_up * E8),
            percent_down_e8=round(config.percent_price_down * E8),
            take_bound_e8=round(config.market_take_bound * E8),
        )


def check(rules: SymbolRules, order: WorkingOrder, *, price_e8: int, mark_e8: int) -> Reject:
    """Return the code of the first filter that an order does not meet; ``Reject.NONE`` when it meets all.

    Parameters
    ----------
    price_e8 : its limit, or the trigger of a stop
    mark_e8 : 0 while no mark price is known: the filters that need one pass the order then
    """
    limit, qty = order.kind is OrderKind.LIMIT, order.qty_e8
    most = rules.max_qty_e8 if limit else rules.max_market_qty_e8
    if qty <= 0:
        return Reject.QTY_NOT_POSITIVE
    if qty < rules.min_qty_e8:
        return Reject.MIN_QTY
    if 0 < most < qty:
        return Reject.MAX_QTY
    if qty % rules.step_e8:
        return Reject.STEP
    if order.kind is not OrderKind.MARKET:
        if price_e8 <= 0:
            return Reject.PRICE_NOT_POSITIVE
        if price_e8 % rules.tick_e8:
            return Reject.TICK
    if limit and order.side > 0 and 0 < mark_e8 * rules.percent_up_e8 < price_e8 * E8:
        return Reject.PRICE_TOO_HIGH
    if limit and order.side < 0 and price_e8 * E8 < mark_e8 * rules.percent_down_e8:
        return Reject.PRICE_TOO_LOW
    # A rest that is too small to trade must still be closable; a stop is asked when it goes off.
    if not order.reduce_only and order.kind is not OrderKind.STOP_MARKET:
        valued_e8 = price_e8 if limit else mark_e8
        if valued_e8 > 0 and notional_e8(valued_e8, qty) < rules.min_notional_e8:
            return Reject.MIN_NOTIONAL
    return Reject.NONE
