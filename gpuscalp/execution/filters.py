"""The exchange's filters: what an order must be like before it is an order at all.

Owns: the rules of one symbol and Binance's reject codes. Never: looks at books, positions or money.

Codes: BINANCE USD-M error codes, sections 11xx to 50xx (PRICE_FILTER, LOT_SIZE, MARKET_LOT_SIZE,
MIN_NOTIONAL, PERCENT_PRICE).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from gpuscalp.account import notional_e8
from gpuscalp.config import PaperConfig
from gpuscalp.execution.messages import OrderKind
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


@dataclass(frozen=True, slots=True)
class Question:
    """An order in the terms of the filters.

    ``price_e8`` is the limit, or the trigger of a stop. ``mark_e8`` is 0 while no mark price is known: the
    filters that need one pass the order then.
    """

    kind: OrderKind
    side: int
    qty_e8: int
    price_e8: int
    reduce_only: bool
    mark_e8: int


_Filter = Callable[[SymbolRules, Question], bool]


def _limit(question: Question) -> bool:
    return question.kind is OrderKind.LIMIT


def _priced(question: Question) -> bool:
    return question.kind is not OrderKind.MARKET


def _too_large(rules: SymbolRules, question: Question) -> bool:
    most = rules.max_qty_e8 if _limit(question) else rules.max_market_qty_e8
    return 0 < most < question.qty_e8


def _above_band(rules: SymbolRules, question: Question) -> bool:
    cap = question.mark_e8 * rules.percent_up_e8
    return _limit(question) and question.side > 0 and 0 < cap < question.price_e8 * E8


def _below_band(rules: SymbolRules, question: Question) -> bool:
    return (
        _limit(question)
        and question.side < 0
        and question.price_e8 * E8 < question.mark_e8 * rules.percent_down_e8
    )


def _too_small(rules: SymbolRules, question: Question) -> bool:
    price = question.price_e8 if _limit(question) else question.mark_e8
    # Reduce-only orders are exempt: a rest that is too small to trade must still be closable.
    return (
        not question.reduce_only
        and question.kind is not OrderKind.STOP_MARKET  # asked when it goes off
        and price > 0
        and notional_e8(price, question.qty_e8) < rules.min_notional_e8
    )


# In the order in which they are asked; the first that is not met gives the code.
FILTERS: Final[tuple[tuple[Reject, _Filter], ...]] = (
    (Reject.QTY_NOT_POSITIVE, lambda _, q: q.qty_e8 <= 0),
    (Reject.MIN_QTY, lambda r, q: q.qty_e8 < r.min_qty_e8),
    (Reject.MAX_QTY, _too_large),
    (Reject.STEP, lambda r, q: q.qty_e8 % r.step_e8 != 0),
    (Reject.PRICE_NOT_POSITIVE, lambda _, q: _priced(q) and q.price_e8 <= 0),
    (Reject.TICK, lambda r, q: _priced(q) and q.price_e8 % r.tick_e8 != 0),
    (Reject.PRICE_TOO_HIGH, _above_band),
    (Reject.PRICE_TOO_LOW, _below_band),
    (Reject.MIN_NOTIONAL, _too_small),
)


def check(rules: SymbolRules, question: Question) -> Reject:
    """Return the code of the first filter that is not met; ``Reject.NONE`` when all are."""
    for code, refuses in FILTERS:
        if refuses(rules, question):
            return code
    return Reject.NONE
