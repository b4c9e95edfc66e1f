"""The words between a signal and a fill: market row, signal row, intent, verdict, order, fill.

Owns: the records that strategy, risk gate, trader and brokers hand to each other, and the kinds of orders.
Never: decides anything. Prices and quantities that become money are int64 multiples of 1e-8 (``_e8``).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import numpy as np
import numpy.typing as npt

from gpuscalp.schema import F32, F64, I32, U32

BUY: Final = 1
SELL: Final = -1


class IntentKind(StrEnum):
    ENTER = "enter"  # from flat, adds risk
    EXIT = "exit"  # reduces a position, never turns it around


class OrderKind(StrEnum):
    LIMIT = "limit"
    MARKET = "market"
    STOP_MARKET = "stop_market"  # a market order as soon as the last price has come to its trigger


class TimeInForce(StrEnum):
    GTC = "gtc"  # rests until filled or cancelled
    IOC = "ioc"  # fills what it can at arrival; the rest expires
    FOK = "fok"  # fills as a whole at arrival, or is refused
    GTX = "gtx"  # post only: rests, or is refused where it would take


@dataclass(frozen=True, slots=True)
class MarketRow:
    """What is known of S symbols at the close of one frame.

    Attributes
    ----------
    end_ns : end of the frame, exchange time
    bid_px, ask_px : int32[S]  last quote in ticks of the instrument; 0 until there was one
    mark : float64[S]          last mark price, quote currency; NaN until there was one
    quality : uint32[S]        Quality bits
    age_ms : float32[S]        age of the quote at ``end_ns``; NaN until there was one
    """

    end_ns: int
    bid_px: I32
    ask_px: I32
    mark: F64
    quality: U32
    age_ms: F32


@dataclass(frozen=True, slots=True)
class SignalRow:
    """What the model says of S symbols at one frame; NaN where it says nothing.

    Attributes
    ----------
    probability : float64[S, 3]  calibrated, classes in the order DOWN, FLAT, UP
    agreement : float64[S]       share of members that vote like the ensemble, in [0, 1]
    edge_bps : float64[S]        expected mid return over the horizon, signed, before all costs
    spread_bps : float64[S]      standard deviation over the members of their own edge
    """

    probability: F64
    agreement: F64
    edge_bps: F64
    spread_bps: F64

    def without(self, rows: npt.NDArray[np.bool_] | None) -> SignalRow:
        """Return what it says where some symbols, bool[S], do not count; None: all do."""
        if rows is None:
            return self
        return SignalRow(
            probability=np.where(rows[:, None], np.nan, self.probability),
            agreement=np.where(rows, np.nan, self.agreement),
            edge_bps=np.where(rows, np.nan, self.edge_bps),
            spread_bps=np.where(rows, np.nan, self.spread_bps),
        )


@dataclass(frozen=True, slots=True)
class Conditions:
    """What else is known when a frame is decided on: the program's own state, as values.

    Attributes
    ----------
    now_ns : exchange time of the decision
    clock_error_ms : how far our idea of exchange time may be off; NaN where it is not known. 0 in a backtest
    device_ok : whether the device that predicted is trusted
    extra_quality : uint32[S] or None   Quality bits on top of the market's: doubts that no tick carries
    """

    now_ns: int
    clock_error_ms: float
    device_ok: bool
    extra_quality: U32 | None


@dataclass(frozen=True, slots=True)
class Intent:
    """What the strategy wants. The risk gate sees every one of them.

    Attributes
    ----------
    side : +1 buys, -1 sells
    notional_usdt : size wanted; None = the whole position (exits only)
    reason : why, one word of a fixed vocabulary
    confidence : probability of the class that the edge points to
    cost_bps : what a round trip would cost now (fees and spread), the hurdle that the edge had to clear
    """

    symbol_index: int
    side: int
    kind: IntentKind
    notional_usdt: float | None
    reason: str
    confidence: float
    agreement: float
    edge_bps: float
    cost_bps: float


@dataclass(frozen=True, slots=True)
class Verdict:
    """The gate's answer to one intent: a value, never an exception.

    ``code`` is "" when accepted; else the reason code of the first rule that was not met, with the limit and
    the value that were compared.
    """

    accepted: bool
    code: str = ""
    limit: float = 0.0
    value: float = 0.0


@dataclass(frozen=True, slots=True)
class Order:
    """An accepted intent, sized and rounded to the exchange's filters.

    ``order_id`` counts from 1 within one trader and is never used twice. ``mid2_e8`` is twice the mid price
    at the decision (bid + ask, so that it stays an integer): the reference from which delay is measured.
    ``price_e8`` is the limit of a limit order, the trigger of a stop, and 0 for a market order.
    """

    order_id: int
    symbol_index: int
    side: int
    qty_e8: int
    reduce_only: bool
    decided_ns: int
    mid2_e8: int
    intent: Intent
    kind: OrderKind = OrderKind.MARKET
    time_in_force: TimeInForce = TimeInForce.IOC
    price_e8: int = 0


@dataclass(frozen=True, slots=True)
class Fill:
    """One execution at one price.

    Attributes
    ----------
    exec_ns : exchange time of the execution
    fee_e8 : paid (positive) or received (negative), 1e-8 of the quote currency
    mid2_e8 : bid + ask of the best level of the book that was hit
    touch_e8 : best price shown on the side that was hit, the own price for an order that rested; 0 where it
        is not known
    """

    order_id: int
    symbol_index: int
    side: int
    qty_e8: int
    price_e8: int
    fee_e8: int
    exec_ns: int
    mid2_e8: int
    touch_e8: int = 0
