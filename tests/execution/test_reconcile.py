"""What follows from one look at an account, over cases written by hand."""

from __future__ import annotations

import pytest

from gpuscalp.execution.lifecycle import OrderState
from gpuscalp.execution.messages import OrderKind, OrderRequest, ReportKind, TimeInForce
from gpuscalp.execution.reconcile import (
    Difference,
    Found,
    FoundOrder,
    FoundTrade,
    compare,
    dismiss,
    funding,
    news,
    take_over,
)
from gpuscalp.execution.remote import FOREIGN, Heard, RemoteBroker
from gpuscalp.schema import E8

START = 1_000 * E8
NOW = 1_700_000_000 * 10**9
HOUR = 3_600 * 10**9


def broker(*numbers: int, seen: int = 10) -> RemoteBroker:
    """Return a book over two symbols, with orders to buy ten of the first."""
    made = RemoteBroker(START, 2)
    for symbol in range(2):
        made.take(Heard(ReportKind.SEEN, 0, 0, symbol=symbol, trade_id=seen))
    for number in numbers:
        made.submit(
            OrderRequest(number, 0, 1, 10 * E8, kind=OrderKind.MARKET, time_in_force=TimeInForce.IOC), NOW
        )
    return made


def trade(
    number: int, venue_id: int, qty: int, *, symbol: int = 0, side: int = 1, price: int = 50
) -> FoundTrade:
    return FoundTrade(symbol, number, venue_id, side, qty * E8, price * E8, number, False, NOW + number)


def found(*trades: FoundTrade, held: int = 0, entry: int = 50, **more: object) -> Found:
    spent = sum(each.fee_e8 for each in trades)
    given = {"wallet_e8": START - spent, "positions": [(held * E8, entry * E8), (0, 0)], "trades": trades}
    return Found(**{**given, **more})  # type: ignore[arg-type]


def learn(book: RemoteBroker, seen: Found, *, overdue: set[int] = frozenset()) -> list[Heard]:  # type: ignore[assignment]
    heard = news(book, seen, number_of=names(book), overdue=overdue, known_ns=NOW)
    for each in heard:
        book.take(each)
    return heard


def names(book: RemoteBroker) -> dict[str, int]:
    return {f"ours-{number}": number for number in book.orders}


def gone(number: int, venue_id: int, state: OrderState, executed: int) -> FoundOrder:
    return FoundOrder(0, f"ours-{number}", state, venue_id, 0, executed * E8)


def test_fills_while_we_were_dead_are_booked_once_and_end_their_order() -> None:
    book = broker(1)
    book.take(
        Heard(
            ReportKind.FILL,
            1,
            1,
            1,
            0,
            trade_id=11,
            venue_id=7,
            side=1,
            qty_e8=4 * E8,
            price_e8=50 * E8,
            fee_e8=11,
        )
    )
    look = found(trade(11, 7, 4), trade(12, 7, 6), held=10, asked={1: gone(1, 7, OrderState.FILLED, 10)})
    heard = learn(book, look)
    assert [each.trade_id for each in heard if each.kind is ReportKind.FILL] == [12]
    assert not book.orders
    assert book.seen[0] == 12
    assert compare(book, look, names(book)) == Difference({}, (), 0)
    assert learn(book, look) == [], "the same look says nothing new"


def test_an_order_whose_sending_is_unknown_is_found_by_its_name() -> None:
    book = broker(1)
    open_order = FoundOrder(0, "ours-1", OrderState.ACCEPTED, 7)
    learn(book, found(orders=[open_order]))
    assert (book.orders[1].state, book.orders[1].venue_id) == (OrderState.ACCEPTED, 7)


def test_an_order_that_is_nowhere_never_arrived_only_when_nothing_can_arrive_any_more() -> None:
    book = broker(1)
    look = found(asked={1: None})
    assert not [each for each in learn(book, look) if each.kind is ReportKind.REJECTED]
    assert 1 in book.orders
    (ended,) = [each for each in learn(book, look, overdue={1}) if each.kind is ReportKind.REJECTED]
    assert ended.reason == "it never arrived"
    assert not book.orders


def test_a_cancelled_rest_waits_for_the_trade_before_it() -> None:
    book = broker(1)
    learn(book, found(asked={1: gone(1, 7, OrderState.CANCELED, 4)}))
    assert book.orders[1].ending is not None
    learn(book, found(trade(11, 7, 4), held=4, asked={1: gone(1, 7, OrderState.CANCELED, 4)}))
    assert not book.orders


def test_a_first_look_takes_no_trade_of_the_past() -> None:
    book = RemoteBroker(START, 2)
    look = found(trade(40, 3, 5), held=5)
    learn(book, look)
    assert book.seen == [40, 0]
    assert compare(book, look, {}).positions == {0: 5 * E8}


@pytest.mark.parametrize("rule", ["adopt", "close"])
def test_what_is_taken_over_is_booked_as_it_was(rule: str) -> None:
    """Three traded beside us since the session began, two are older: 5 in all."""
    book = broker()
    theirs = [trade(21, 99, 4, price=40), trade(22, 98, 1, side=-1, price=60)]
    look = found(*theirs, held=5, entry=45)
    learn(book, look)
    assert book.seen[0] == 10, "a stranger's trade is not dealt with"
    difference = compare(book, look, {})
    assert difference.positions == {0: 5 * E8}
    heard = take_over(book, look, difference, rule, NOW)  # type: ignore[arg-type]
    assert all(each.order_id == FOREIGN for each in heard if each.kind is ReportKind.FILL)
    assert [each.kind for each in heard][-1] is (ReportKind.CLOSE if rule == "close" else ReportKind.SEEN)
    for each in heard:
        book.take(each)
    # Bought 4 at 40, sold 1 at 60: 20 won. Two more at the entry price that the exchange shows.
    assert book.account.realised_e8 == 20 * E8
    assert book.account.positions[0].cost_e8 == (3 * 40 + 2 * 45) * E8
    assert book.account.fees_e8 == 21 + 22
    assert book.seen[0] == 22


def test_our_trade_behind_a_strangers_is_booked_and_the_strangers_stays_new() -> None:
    book = broker(1)
    ours = FoundOrder(0, "ours-1", OrderState.PARTIALLY_FILLED, 7)
    look = found(trade(21, 99, 4), trade(22, 7, 3), held=7, orders=[ours])
    learn(book, look)
    assert book.account.positions[0].qty_e8 == 3 * E8
    assert book.seen[0] == 10
    assert not book.knows(0, 21)
    assert compare(book, look, names(book)).positions == {0: 4 * E8}


def test_a_strangers_round_trip_is_let_go_where_nothing_moves() -> None:
    book = broker()
    look = found(trade(21, 99, 4, price=40), trade(22, 98, 4, side=-1, price=60))
    learn(book, look)
    assert book.seen[0] == 10
    assert dismiss(book, look, set(), NOW) == []
    assert dismiss(book, found(*look.trades, held=1), {0, 1}, NOW) == [], "it has left something"
    for each in dismiss(book, look, {0, 1}, NOW):
        book.take(each)
    assert book.seen[0] == 22
    assert book.account.turnover_e8 == 0


def test_a_position_that_somebody_closed_for_us_is_booked_away() -> None:
    book = broker(1)
    book.take(Heard(ReportKind.FILL, 1, 1, 1, 0, trade_id=11, side=1, qty_e8=10 * E8, price_e8=50 * E8))
    look = found(held=0, entry=0)
    difference = compare(book, look, {})
    for each in take_over(book, look, difference, "adopt", NOW):
        book.take(each)
    assert (book.account.positions[0].qty_e8, book.account.realised_e8) == (0, 0)


def test_the_exchanges_own_orders_are_booked_and_alarm_once() -> None:
    book = broker(1)
    book.take(Heard(ReportKind.FILL, 1, 1, 1, 0, trade_id=11, side=1, qty_e8=10 * E8, price_e8=50 * E8))
    closing = [trade(12, 70, 4, side=-1), trade(13, 70, 6, side=-1)]
    look = found(*closing, held=0, client_ids={70: "autoclose-123"})
    heard = learn(book, look)
    assert [each.kind for each in heard].count(ReportKind.ALARM) == 1
    assert book.account.positions[0].qty_e8 == 0
    assert not compare(book, look, {}).strange


def test_a_fee_that_is_in_no_balance_here_alarms() -> None:
    """Paid in BNB, 384 USDT of fees once were no loss to any limit, and nothing said so but a status."""
    book = broker(1)
    own = FoundOrder(0, "ours-1", OrderState.FILLED, 70, executed_e8=10 * E8)
    look = found(trade(11, 70, 10), held=10, asked={1: own}, fee_assets=("BNB",))
    heard = learn(book, look)
    assert [each.kind for each in heard][-1] is ReportKind.ALARM
    assert heard[-1].reason.startswith("fees in BNB")
    assert book.account.positions[0].qty_e8 == 10 * E8, "the trade is booked all the same"
    assert ReportKind.ALARM not in [
        each.kind for each in news(book, found(held=10), number_of={}, overdue=(), known_ns=NOW)
    ]


def test_orders_of_others_are_strange_and_ours_are_not() -> None:
    book = broker(1)
    mine = FoundOrder(0, "ours-1", OrderState.ACCEPTED, 7)
    theirs = FoundOrder(1, "web_abc", OrderState.ACCEPTED, 8)
    look = found(orders=[mine, theirs])
    learn(book, look)
    difference = compare(book, look, names(book))
    assert difference.orders == (theirs,)
    assert difference.words(("A", "B")) == "order B web_abc"


@pytest.mark.parametrize(
    ("wallet", "passed_ns", "held", "expected"),
    [
        (-2, HOUR, {0: 100}, (0, -2)),
        (-2, HOUR, {0: 100, 1: 50}, (-1, -2)),
        (-2, HOUR, {}, None),  # nothing was held
        (-2, 0, {0: 100}, None),  # no full hour has passed
        (-20, HOUR, {0: 100}, None),  # no rate is that large
        (0, HOUR, {0: 100}, None),
    ],
)
def test_funding_explains_what_it_can(
    wallet: int, passed_ns: int, held: dict[int, int], expected: tuple[int, int] | None
) -> None:
    values = {index: value * E8 for index, value in held.items()}
    hour = NOW // HOUR * HOUR
    heard = funding(
        Difference({}, (), wallet * E8), values, agreed_ns=hour + 1, known_ns=hour + 1 + passed_ns
    )
    assert (None if heard is None else (heard.symbol, heard.money_e8 // E8)) == expected


def test_a_trade_of_an_order_that_has_ended_here_is_booked() -> None:
    """The stream lost the fill and brought the end: the look must not take our own trade for a stranger's."""
    book = broker(1)
    book.take(Heard(ReportKind.ACCEPTED, 1, 1, 1, 0, venue_id=7))
    book.take(Heard(ReportKind.CANCELED, 2, 2, 1, 0, executed_e8=0))
    assert not book.orders
    look = found(trade(11, 7, 4), held=4, client_ids={7: "gs-s-1"})
    heard = news(book, look, number_of={}, overdue=(), known_ns=NOW, ended={7: 1})
    for each in heard:
        book.take(each)
    assert book.account.positions[0].qty_e8 == 4 * E8
    assert book.seen[0] == 11
    assert not compare(book, look, ()).strange
    assert news(book, look, number_of={}, overdue=(), known_ns=NOW, ended={7: 1}) == []


def test_a_trade_of_an_order_whose_number_is_not_known_yet_is_its_own() -> None:
    book = broker(1)
    heard = news(book, found(trade(11, 7, 10)), number_of=names(book), overdue=(), known_ns=NOW, ended={7: 1})
    for each in heard:
        book.take(each)
    assert not book.orders, "its fill ends it"


def test_a_trade_of_an_order_that_a_fill_has_told_the_number_of_is_its_own() -> None:
    """An order whose acceptance was lost, or had no number, was told of by its first fill."""
    book = broker(1)
    book.take(Heard(ReportKind.FILL, 1, 1, 1, 0, venue_id=7, trade_id=11, side=1, qty_e8=4 * E8, price_e8=1))
    for each in news(book, found(trade(12, 7, 6)), number_of=names(book), overdue=(), known_ns=NOW):
        book.take(each)
    assert not book.orders, "its last fill ends it"
    assert book.account.positions[0].qty_e8 == 10 * E8
