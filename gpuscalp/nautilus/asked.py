"""Who is asked about an account, what the session's own stops cover, and which orders are guards: stops that
an end has placed.

Owns: which guards are in the way. Never: asks, or places one (gpuscalp.nautilus.ending).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

from gpuscalp.execution.lifecycle import OrderState
from gpuscalp.execution.messages import OrderKind
from gpuscalp.execution.reconcile import Found, FoundOrder
from gpuscalp.execution.remote import RemoteBroker
from gpuscalp.nautilus.names import is_guard


class Account(Protocol):
    """Who is asked (``gpuscalp.nautilus.account.AccountView``)."""

    @property
    def weight(self) -> int:
        """Of one look, as the exchange counts calls."""

    async def check(self) -> None: ...

    async def look(self, broker: RemoteBroker, number_of: dict[str, int]) -> Found: ...

    async def cancel(self, order: FoundOrder) -> None: ...


def apart(found: Found, session_id: str) -> tuple[Found, list[FoundOrder]]:
    """Return what a look has found without the guards of a process before, and those."""
    guards = [each for each in found.orders if is_guard(session_id, each.client_id)]
    return replace(found, orders=[each for each in found.orders if each not in guards]), guards


def stopped_e8(broker: RemoteBroker) -> list[int]:
    """Return how much of each position the session's own stops cover: those that the exchange has taken, and
    whose end nobody has asked for."""
    stopped = [0] * len(broker.account.positions)
    for order in broker.orders.values():
        request, there = order.request, order.state is not OrderState.NEW and not order.cancelling
        if request.kind is OrderKind.STOP_MARKET and there:
            side = broker.account.positions[request.symbol_index].side
            stopped[request.symbol_index] -= side * request.side * order.left_e8
    return stopped


def needless(guards: Sequence[FoundOrder], broker: RemoteBroker) -> list[FoundOrder]:
    """Return the guards of symbols that are flat, or that the session's own stops cover again as a whole."""
    positions, stopped = broker.account.positions, stopped_e8(broker)
    return [each for each in guards if stopped[each.symbol] >= abs(positions[each.symbol].qty_e8)]
