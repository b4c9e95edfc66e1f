"""What goes to a broker and what comes back.

Owns: the records. Never: decides anything. Prices, quantities and money are int64 multiples of 1e-8.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from gpuscalp.execution.lifecycle import OrderState
from gpuscalp.orders import Fill, OrderKind, TimeInForce

__all__ = ["OrderKind", "OrderRequest", "Report", "ReportKind", "TimeInForce"]


@dataclass(frozen=True, slots=True)
class OrderRequest:
    """A new order.

    Attributes
    ----------
    order_id : chosen by the caller, positive, never used twice
    side : +1 buys, -1 sells
    price_e8 : limit of a limit order, trigger of a stop; 0 for a market order
    """

    order_id: int
    symbol_index: int
    side: int
    qty_e8: int
    price_e8: int = 0
    kind: OrderKind = OrderKind.LIMIT
    time_in_force: TimeInForce = TimeInForce.GTC
    reduce_only: bool = False


class ReportKind(StrEnum):
    """What a report says."""

    ACCEPTED = "accepted"
    REJECTED = "rejected"
    FILL = "fill"
    CANCELED = "canceled"
    CANCEL_REJECTED = "cancel_rejected"
    EXPIRED = "expired"
    FUNDING = "funding"
    LIQUIDATION = "liquidation"  # the exchange has begun to close everything
    # Of an exchange that others use too (gpuscalp.execution.reconcile)
    STRANGER = "stranger"  # it has a position or an order that nobody here knows
    ALARM = "alarm"  # it does what nobody here asked for, or counts on
    CLOSE = "close"  # a position that was taken over has to be closed
    # Of these the trader does not hear:
    SEEN = "seen"  # trades up to a number are dealt with
    UNEXPLAINED = "unexplained"  # the balances differ by what no trade, fee or funding explains


@dataclass(frozen=True, slots=True)
class Report:
    """One thing that happened at the exchange.

    Attributes
    ----------
    order_id : 0 where it concerns no order; negative for orders of the exchange itself (liquidation)
    at_ns : when it happened, exchange time; never decreases from report to report
    known_ns : when it reaches us; never decreases either, as on one connection
    state : of the order afterwards; None where there is none
    code : Binance's error code of a refusal, else 0
    reason : why the exchange ended an order; of funding on paper, what was taken for granted; else ""
    left_e8 : of the order, still unfilled
    fill, maker : set for FILL
    money_e8 : realised profit of a fill before fees; amount received by funding (negative: paid)
    """

    kind: ReportKind
    order_id: int
    symbol_index: int
    at_ns: int
    known_ns: int
    state: OrderState | None = None
    code: int = 0
    reason: str = ""
    left_e8: int = 0
    fill: Fill | None = None
    maker: bool = False
    money_e8: int = 0
