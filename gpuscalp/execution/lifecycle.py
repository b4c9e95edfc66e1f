"""The life of an order as one table.

Owns: every state, every event, and which event leads from where to where. Never: knows which broker speaks.

A state and an event that are not in the table are an error, and the order stays what it was. Two rules stand
behind the table: an order that has ended never comes back (least of all with a fill), and an order whose
request got no answer stays NEW, not failed, until the exchange has said what became of it.
"""

from __future__ import annotations

from enum import StrEnum
from types import MappingProxyType
from typing import Final

from gpuscalp.errors import ExecutionError


class OrderState(StrEnum):
    NEW = "new"  # sent, not answered: it may be open, filled, ended, or never have arrived
    ACCEPTED = "accepted"  # open at the exchange, nothing filled
    PARTIALLY_FILLED = "partially_filled"  # open at the exchange, a part filled
    FILLED = "filled"
    CANCELED = "canceled"  # by us, what was left of it
    EXPIRED = "expired"  # by the exchange, what was left of it
    REJECTED = "rejected"  # never was an order at the exchange


class OrderEvent(StrEnum):
    """What the exchange says of an order."""

    ACCEPT = "accept"
    REJECT = "reject"
    FILL_PART = "fill_part"
    FILL_REST = "fill_rest"
    CANCEL = "cancel"
    EXPIRE = "expire"


_S, _E = OrderState, OrderEvent

TRANSITIONS: Final = MappingProxyType(
    {
        _S.NEW: MappingProxyType(
            {
                _E.ACCEPT: _S.ACCEPTED,
                _E.REJECT: _S.REJECTED,
                # Cancelled, or given up, before the exchange had confirmed it.
                _E.CANCEL: _S.CANCELED,
                _E.EXPIRE: _S.EXPIRED,
            }
        ),
        _S.ACCEPTED: MappingProxyType(
            {
                _E.FILL_PART: _S.PARTIALLY_FILLED,
                _E.FILL_REST: _S.FILLED,
                _E.CANCEL: _S.CANCELED,
                _E.EXPIRE: _S.EXPIRED,
            }
        ),
        _S.PARTIALLY_FILLED: MappingProxyType(
            {
                _E.FILL_PART: _S.PARTIALLY_FILLED,
                _E.FILL_REST: _S.FILLED,
                _E.CANCEL: _S.CANCELED,
                _E.EXPIRE: _S.EXPIRED,
            }
        ),
        _S.FILLED: MappingProxyType({}),
        _S.CANCELED: MappingProxyType({}),
        _S.EXPIRED: MappingProxyType({}),
        _S.REJECTED: MappingProxyType({}),
    }
)

ENDED: Final = frozenset(state for state, events in TRANSITIONS.items() if not events)
OPEN: Final = frozenset({OrderState.ACCEPTED, OrderState.PARTIALLY_FILLED})


def next_state(state: OrderState, event: OrderEvent, *, order_id: int) -> OrderState:
    """Return the state that an event leads to.

    Raises
    ------
    ExecutionError
        the event cannot happen in this state
    """
    try:
        return TRANSITIONS[state][event]
    except KeyError:
        raise ExecutionError(
            f"an order that is {state} cannot {event.replace('_', ' ')}",
            where=f"order {order_id}",
            fix="ask the exchange what became of the order",
        ) from None
