"""What the strategy sends, and in which order, without an engine of Nautilus."""

from __future__ import annotations

import asyncio
import threading
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("nautilus_trader", reason="NautilusTrader is not installed (extra nautilus)")

from nautilus_trader.common.component import LiveClock

from gpuscalp.live.engine import Outcome
from gpuscalp.nautilus.reports import Reporter
from gpuscalp.nautilus.strategy import GpuScalpStrategy
from gpuscalp.orders import Order
from gpuscalp.schema import E8
from tests.trading import market, signals, step, trader


def test_a_cancellation_of_an_order_that_leaves_with_it_goes_after_it() -> None:
    """Several frames were decided on at once: it was lost, and the order rested two seconds longer."""
    sent: list[Any] = []
    reports = Reporter("s", ["A", "B"], precision=9, best=[(0, 0), (0, 0)])

    def submit(order: Order) -> None:
        reports.sent(order.order_id, order.symbol_index, order.qty_e8)
        sent.append(order.order_id)

    strategy = SimpleNamespace(
        reports=reports,
        cache=SimpleNamespace(order=lambda name: name),
        cancel_order=sent.append,
        _submit=submit,
        _client_order_id=lambda number: f"end of {number}",
    )
    (order,) = step(trader(), market(0), signals(50.0, float("nan"))).orders
    reports.sent(77, 1, E8)
    outcome = Outcome(orders=[(order, 1)], cancels=[(77, 1), (order.order_id, 2), (99, 2)])
    GpuScalpStrategy._send(strategy, outcome)
    assert sent == ["end of 77", order.order_id, f"end of {order.order_id}"]


def test_a_live_clock_has_the_desk_asked_in_the_loops_thread() -> None:
    """It rings in a thread of Nautilus's, where the desk was asked while the loop's gave it rows."""
    asked: list[int] = []

    async def run() -> None:
        strategy = SimpleNamespace(clock=LiveClock(), poke=lambda: asked.append(threading.get_ident()))
        GpuScalpStrategy._poll(strategy, 1)
        async with asyncio.timeout(60.0):
            while not asked:
                await asyncio.sleep(0.01)
        strategy.clock.cancel_timers()
        await asyncio.sleep(0.1)  # one that rings just now still finds the loop

    asyncio.run(run())
    assert set(asked) == {threading.get_ident()}
