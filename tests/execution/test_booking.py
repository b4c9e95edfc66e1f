"""Every kind of report becomes the booking it means, and nothing else."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gpuscalp.errors import ExecutionError
from gpuscalp.execution.booking import BookedFill, book, in_turn, request_of
from gpuscalp.execution.lifecycle import OrderState
from gpuscalp.execution.messages import OrderKind, OrderRequest, Report, ReportKind, TimeInForce
from gpuscalp.orders import Fill, Order
from gpuscalp.trader import Trader
from tests.backtest.market import order
from tests.trading import E8, NOTHING, NOW, market, signals, step, trader

ENTRY_PRICE = 6_000_010_000_000


def sent() -> tuple[Trader, Order]:
    machine = trader()
    (order,) = step(machine, market(0), signals(50.0, float("nan"))).orders
    return machine, order


def execution(
    order_id: int, side: int, qty_e8: int, state: OrderState, price_e8: int = ENTRY_PRICE
) -> Report:
    fill = Fill(order_id, 0, side, qty_e8, price_e8, 5, NOW, 0)
    return Report(ReportKind.FILL, order_id, 0, NOW, NOW, state=state, fill=fill, maker=True)


def plain(kind: ReportKind, order_id: int, state: OrderState | None, money_e8: int = 0) -> Report:
    return Report(kind, order_id, 0, NOW, NOW, state=state, money_e8=money_e8)


def test_orders_become_market_orders() -> None:
    machine, order = sent()
    assert request_of(order) == OrderRequest(
        1, 0, 1, 1_600_000, 0, OrderKind.MARKET, TimeInForce.IOC, reduce_only=False
    )
    book(machine, execution(1, 1, 1_600_000, OrderState.FILLED))
    (leave,) = step(machine, market(1_000), NOTHING).orders
    assert request_of(leave) == OrderRequest(
        2, 0, -1, 1_600_000, 0, OrderKind.MARKET, TimeInForce.IOC, reduce_only=True
    )


def test_executions_are_booked_and_the_last_one_ends_the_order() -> None:
    machine, order = sent()
    first = execution(1, 1, 600_000, OrderState.PARTIALLY_FILLED)
    assert book(machine, first) == BookedFill(first.fill, order, 0, maker=True)  # type: ignore[arg-type]
    assert machine.open_orders == {1: order}
    book(machine, execution(1, 1, 1_000_000, OrderState.FILLED))
    assert machine.open_orders == {}
    assert machine.account.positions[0].qty_e8 == 1_600_000
    assert machine.account.fees_e8 == 10


@pytest.mark.parametrize(
    ("kind", "state", "code", "free_ms"),
    [
        (ReportKind.REJECTED, OrderState.REJECTED, -2019, 2_000),
        (ReportKind.REJECTED, OrderState.REJECTED, 0, 2_000),
        (ReportKind.REJECTED, OrderState.REJECTED, -5022, 100),  # it would have taken
        (ReportKind.CANCELED, OrderState.CANCELED, 0, 100),
        (ReportKind.EXPIRED, OrderState.EXPIRED, 0, 100),
    ],
)
def test_an_end_frees_the_symbol_at_once_and_a_refusal_later(
    kind: ReportKind, state: OrderState, code: int, free_ms: int
) -> None:
    machine, _ = sent()
    assert book(machine, replace(plain(kind, 1, state), code=code)) is None
    assert machine.open_orders == {}
    said = signals(50.0, float("nan"))
    assert not any(step(machine, market(at), said).orders for at in range(100, free_ms, 100))
    assert len(step(machine, market(free_ms), said).orders) == 1


@pytest.mark.parametrize(
    ("kind", "order_id", "state"),
    [
        (ReportKind.ACCEPTED, 1, OrderState.ACCEPTED),
        (ReportKind.CANCEL_REJECTED, 99, None),
        (ReportKind.LIQUIDATION, 0, None),
    ],
)
def test_what_changes_no_book_is_let_pass(kind: ReportKind, order_id: int, state: OrderState | None) -> None:
    machine, order = sent()
    assert book(machine, plain(kind, order_id, state)) is None
    assert machine.open_orders == {1: order}
    assert machine.account.cash_e8 == 10_000 * E8


def test_funding_and_liquidation_are_booked_without_an_order() -> None:
    machine, _ = sent()
    book(machine, execution(1, 1, 1_600_000, OrderState.FILLED))
    assert book(machine, plain(ReportKind.FUNDING, 0, None, money_e8=-77)) is None
    assert machine.account.funding_e8 == -77
    report = execution(-1, -1, 1_600_000, OrderState.FILLED, price_e8=ENTRY_PRICE - E8)
    booked = book(machine, report)
    assert booked == BookedFill(report.fill, None, -1_600_000, maker=True)  # type: ignore[arg-type]
    assert machine.account.positions[0].qty_e8 == 0


@pytest.mark.parametrize(
    "report",
    [
        execution(7, 1, 100_000, OrderState.FILLED),
        plain(ReportKind.CANCELED, 7, OrderState.CANCELED),
    ],
)
def test_report_about_an_order_that_is_not_open_is_an_error_and_books_nothing(report: Report) -> None:
    machine, _ = sent()
    with pytest.raises(ExecutionError, match="not open"):
        book(machine, report)
    assert machine.account.cash_e8 == 10_000 * E8
    assert machine.open_orders.keys() == {1}


def test_cancellations_leave_first_but_for_those_of_orders_that_leave_only_now() -> None:
    """Two frames of one batch: the second wants the end of what the first has sent."""
    orders = [(order(1, 1.0, order_id=number), number) for number in (7, 8)]
    assert [
        what if isinstance(what, int) else f"order {what.order_id}"
        for what, _ in in_turn(orders, [(3, 1), (7, 2), (5, 3)])
    ] == [3, 5, "order 7", "order 8", 7]
    assert [at for _, at in in_turn(orders, [(3, 1), (7, 2)])] == [1, 7, 8, 2]
    assert list(in_turn([], [])) == []


def test_limits_and_stops_pass_to_the_broker_with_their_prices() -> None:
    made = replace(
        order(-1, 1.0, order_id=4, reduce_only=True),
        kind=OrderKind.STOP_MARKET, time_in_force=TimeInForce.GTC, price_e8=99 * 10**8,
    )  # fmt: skip
    sent = request_of(made)
    assert (sent.kind, sent.time_in_force, sent.price_e8) == (
        OrderKind.STOP_MARKET,
        TimeInForce.GTC,
        99 * 10**8,
    )
    assert (sent.order_id, sent.side, sent.reduce_only) == (4, -1, True)
