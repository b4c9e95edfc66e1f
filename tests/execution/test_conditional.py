"""Stops of the paper broker: when they go off, and what becomes of them."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpuscalp.config import LegConfig
from gpuscalp.execution.broker import PaperBroker
from gpuscalp.execution.conditional import NO_RISE, Conditional
from gpuscalp.execution.display import Display
from gpuscalp.execution.messages import OrderKind, Report, ReportKind
from gpuscalp.execution.working import WorkingOrder
from tests.execution.market import (
    BOOK,
    CANCEL,
    E8,
    MARK,
    MS,
    STOP,
    SUBMIT,
    TRADE,
    book,
    broker,
    fills,
    play,
    trade,
)
from tests.execution.market import request as asked
from tests.thorough import examples


def held_long(**changes: object) -> PaperBroker:
    """Return a broker that has bought 5 at 101, with a book of 99/101 and a last trade at 100."""
    target = broker(**changes)
    book(target, 1, [(99, 9)], [(101, 9)])
    trade(target, 2, 100, 1, 1)
    target.submit(asked(1, 1, 5), 3 * MS)
    book(target, 4, [(99, 9)], [(101, 9)])
    assert target.account.positions[0].qty_e8 == 5 * E8
    return target


def kinds(reports: tuple[Report, ...]) -> list[tuple[int, str, int, str]]:
    return [(report.order_id, str(report.kind), report.code, report.reason) for report in reports]


def test_stop_waits_for_a_trade_and_meets_the_book_as_a_market_order() -> None:
    target = held_long(meets="last")
    target.submit(asked(2, -1, 5, 97, tif="stop", reduce_only=True), 5 * MS)
    assert kinds(target.advance(5 * MS)) == [(2, "accepted", 0, "")]
    # The quote is beyond the trigger, but no trade is.
    assert book(target, 6, [(96, 3), (95, 9)], [(98, 9)]) == ()
    assert trade(target, 7, 98, 4, 1) == ()
    reports = trade(target, 8, 97, 4, -1)
    assert fills(reports) == [(2, 96, 3, False), (2, 95, 2, False)]
    assert all(report.at_ns == 8 * MS for report in reports)
    assert not target.orders


def test_stop_that_buys_goes_off_above() -> None:
    target = broker(meets="last")
    book(target, 1, [(99, 9)], [(101, 9)])
    target.submit(asked(1, 1, 2, 103, tif="stop"), 2 * MS)
    target.advance(2 * MS)
    assert trade(target, 3, 102, 1, 1) == ()
    assert fills(trade(target, 4, 104, 1, 1)) == [(1, 101, 2, False)]


def test_stop_meets_the_next_book_where_orders_do() -> None:
    target = held_long()
    target.submit(asked(2, -1, 5, 97, tif="stop", reduce_only=True), 5 * MS)
    target.advance(5 * MS)
    assert trade(target, 7, 96, 4, -1) == ()
    assert fills(book(target, 9, [(94, 9)], [(98, 9)])) == [(2, 94, 5, False)]


@pytest.mark.parametrize("side", [1, -1])
def test_stop_that_would_go_off_at_once_is_refused(side: int) -> None:
    target = held_long()
    target.submit(asked(2, side, 5, 100, tif="stop"), 5 * MS)
    assert kinds(target.advance(5 * MS)) == [(2, "rejected", -2021, "")]


def test_mark_price_stands_in_before_the_first_trade() -> None:
    target = broker()
    target.on_mark(0, MS, 100 * E8)
    target.submit(asked(1, -1, 5, 100, tif="stop"), 2 * MS)
    target.submit(asked(2, -1, 5, 99, tif="stop"), 2 * MS)
    assert [report.code for report in target.advance(2 * MS)] == [-2021, 0]


def test_stop_needs_no_margin_and_no_book_while_it_waits() -> None:
    target = broker(start=1)
    target.submit(asked(1, 1, 500, 103, tif="stop"), MS)
    assert kinds(target.advance(MS)) == [(1, "accepted", 0, "")]
    book(target, 2, [(99, 9)], [(101, 9)])
    trade(target, 3, 103, 1, 1)
    assert kinds(book(target, 4, [(99, 9)], [(104, 9)])) == [(1, "expired", -2019, "")]


def test_stop_of_a_closed_position_ends_when_it_goes_off() -> None:
    target = held_long(meets="last")
    target.submit(asked(2, -1, 5, 97, tif="stop", reduce_only=True), 5 * MS)
    target.submit(asked(3, -1, 5), 5 * MS)
    assert fills(target.advance(5 * MS)) == [(3, 99, 5, False)]
    assert kinds(trade(target, 6, 97, 1, -1)) == [(2, "expired", -2022, "")]


def test_stop_can_be_cancelled() -> None:
    target = held_long()
    target.submit(asked(2, -1, 5, 97, tif="stop", reduce_only=True), 5 * MS)
    target.cancel(2, 5 * MS)
    seen = [*target.advance(5 * MS), *book(target, 6, [(99, 9)], [(101, 9)])]
    assert [(kind, code) for _, kind, code, _ in kinds(tuple(seen))] == [("accepted", 0), ("canceled", 0)]
    assert trade(target, 7, 90, 9, -1) == ()


def test_stop_that_finds_no_book_gives_up() -> None:
    target = held_long(max_wait_ms=100)
    target.submit(asked(2, -1, 5, 97, tif="stop", reduce_only=True), 5 * MS)
    target.advance(5 * MS)
    trade(target, 6, 97, 1, -1)
    assert kinds(target.advance(200 * MS)) == [(2, "expired", 0, "no_market")]


def test_only_so_many_stops_wait() -> None:
    target = broker(max_orders_per_10s="off")
    for number in range(1, 203):
        target.submit(asked(number, -1, 1, 97, tif="stop"), MS)
    codes = [report.code for report in target.advance(MS)]
    assert codes == [0] * 200 + [-2025, -2025]


SCRIPT = st.lists(
    st.one_of(BOOK, BOOK, TRADE, TRADE, SUBMIT, SUBMIT, STOP, STOP, CANCEL, MARK), min_size=30, max_size=80
)


@settings(max_examples=examples(80))
@given(SCRIPT, st.sampled_from(["next", "last"]), st.sampled_from([0.0, 3.0]))
def test_no_stop_fills_before_its_price_was_traded(script: list, meets: str, late_ms: float) -> None:  # type: ignore[type-arg]
    target = broker(meets=meets, request=LegConfig(low_ms=late_ms))
    done = play(target, script)
    now, trades = 0, []
    for step, kind, *what in script:
        now += step
        if kind == "trade":
            trades.append((now * MS, what[0] * E8))
    accepted = {
        report.order_id: report.at_ns for report in done.reports if report.kind is ReportKind.ACCEPTED
    }
    for report in done.reports:
        sent = done.requests.get(report.order_id)
        if report.fill is None or sent is None or sent.kind is not OrderKind.STOP_MARKET:
            continue
        assert not report.maker
        assert any(
            accepted[report.order_id] <= at <= report.at_ns and sent.side * (price - sent.price_e8) >= 0
            for at, price in trades
        )


def test_stop_that_was_cancelled_makes_room_for_another() -> None:
    target = broker()
    for number in range(1, 402, 2):
        target.submit(asked(number, 1, 1, 103, tif="stop"), MS)
        target.cancel(number, MS)
    assert {kind for _, kind, _, _ in kinds(target.advance(MS))} == {"accepted", "canceled"}


@given(
    st.lists(st.tuples(st.sampled_from([1, -1]), st.integers(95, 105)), max_size=8),
    st.lists(st.integers(93, 107), min_size=1, max_size=5),
)
def test_bounds_are_where_the_next_stop_goes_off(stops: list[tuple[int, int]], prices: list[int]) -> None:
    """Whoever reads recorded rows passes over all trades between them."""
    conditional = Conditional([Display(), Display()])
    for number, (side, price) in enumerate(stops, 1):
        conditional.add(WorkingOrder.of(asked(number, side, 1, price, tif="stop")))
    waiting = list(stops)
    for price in prices:
        low, high = conditional.bounds(0)
        gone = [(order.side, order.trigger_e8 // E8) for order in conditional.set_off(0, price * E8)]
        assert gone == [(side, at) for side, at in waiting if (at <= price if side > 0 else at >= price)]
        assert bool(gone) == (price * E8 <= low or price * E8 >= high)
        waiting = [each for each in waiting if each not in gone]
    assert conditional.bounds(1) == (0, NO_RISE)
