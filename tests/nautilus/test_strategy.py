"""What the strategy sends, and in which order, without an engine of Nautilus."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("nautilus_trader", reason="NautilusTrader is not installed (extra nautilus)")

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
