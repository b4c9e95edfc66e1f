"""Who is asked about an account, and which orders are guards: stops that an end has placed.

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


def needless(guards: Sequence[FoundOrder], broker: RemoteBroker) -> list[FoundOrder]:
    """Return the guards of symbols that are flat, or that have the session's own stop again."""
    held = {index for index, each in enumerate(broker.account.positions) if each.qty_e8}
    stopped = {
        order.request.symbol_index
        for order in broker.orders.values()
        if order.request.kind is OrderKind.STOP_MARKET and order.state is not OrderState.NEW
    }
    return [each for each in guards if each.symbol not in held - stopped]
