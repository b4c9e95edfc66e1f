"""An order on the exchange and its life cycle.

Owns: the order's record, and where each event leads it. Every change of a status in this package goes through
``advance``. Never: matches, checks a filter or talks to a client.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from gpuscalp.account import divide_half_even
from gpuscalp.schema import E8


class Status(StrEnum):
    NEW = "NEW"
    PARTIALLY_FILLED = "PARTIALLY_FILLED"
    FILLED = "FILLED"
    CANCELED = "CANCELED"
    EXPIRED = "EXPIRED"
    EXPIRED_IN_MATCH = "EXPIRED_IN_MATCH"


class Event(StrEnum):
    """What happens to an order; ``wire`` is the execution type of ORDER_TRADE_UPDATE."""

    PART = "part"
    FULL = "full"
    AMEND = "amend"
    CANCEL = "cancel"
    EXPIRE = "expire"
    PREVENT = "prevent"  # self-trade prevention

    @property
    def wire(self) -> str:
        return _WIRE[self]


_WIRE: Final = {
    Event.PART: "TRADE",
    Event.FULL: "TRADE",
    Event.AMEND: "AMENDMENT",
    Event.CANCEL: "CANCELED",
    Event.EXPIRE: "EXPIRED",
    Event.PREVENT: "EXPIRED",
}

_OPEN: Final = frozenset({Status.NEW, Status.PARTIALLY_FILLED})
# Where an event leads an open order; an amended one keeps its status.
_LEADS_TO: Final = {
    Event.PART: Status.PARTIALLY_FILLED,
    Event.FULL: Status.FILLED,
    Event.CANCEL: Status.CANCELED,
    Event.EXPIRE: Status.EXPIRED,
    Event.PREVENT: Status.EXPIRED_IN_MATCH,
}


@dataclass(slots=True, eq=False)
class Order:
    """One order. Prices, quantities in 1e-8, ``quote_e8`` (Σ price × quantity) in units of the quote.

    ``side``: +1 buys, -1 sells. ``price_e8`` is 0 for market orders; ``limit_e8`` is the worst price at which
    the order may trade, for market orders too. ``owner`` is the number of the account.
    """

    order_id: int
    client_id: str
    owner: int
    symbol: str
    side: int
    type: str
    time_in_force: str
    price_e8: int
    qty_e8: int
    created_ms: int
    position_side: str = "BOTH"
    reduce_only: bool = False
    close_position: bool = False
    price_match: str = "NONE"
    prevention: str = "EXPIRE_MAKER"
    good_till_ms: int = 0
    original_type: str = ""
    working_type: str = "CONTRACT_PRICE"
    status: Status = Status.NEW
    executed_e8: int = 0
    quote_e8: int = 0
    updated_ms: int = 0
    amended_count: int = 0
    modify_id: int = 0
    limit_e8: int = 0
    queue_ahead_e8: int = 0
    expiry_reason: str = "0"
    last_qty_e8: int = 0

    @property
    def left_e8(self) -> int:
        return self.qty_e8 - self.executed_e8

    @property
    def is_open(self) -> bool:
        return self.status in _OPEN

    @property
    def average_e8(self) -> int:
        return divide_half_even(self.quote_e8 * E8, self.executed_e8) if self.executed_e8 else 0

    def advance(self, event: Event, now_ms: int) -> None:
        """Let an event happen to an open order."""
        assert self.is_open, f"order {self.order_id} is {self.status}, {event} cannot happen to it"
        self.status, self.updated_ms = _LEADS_TO.get(event, self.status), now_ms

    def execute(self, price_e8: int, qty_e8: int, now_ms: int) -> None:
        """Book a fill of the order itself: quantity, quote and status."""
        assert 0 < qty_e8 <= self.left_e8, "an order fills at most what is left of it"
        self.advance(Event.FULL if qty_e8 == self.left_e8 else Event.PART, now_ms)
        self.executed_e8 += qty_e8
        self.quote_e8 += divide_half_even(price_e8 * qty_e8, E8)
        self.last_qty_e8 = qty_e8
