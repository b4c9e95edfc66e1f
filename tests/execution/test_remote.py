"""One book over what an exchange tells, whichever way it comes and however often."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from gpuscalp.execution.lifecycle import OrderState
from gpuscalp.execution.messages import OrderKind, OrderRequest, ReportKind, TimeInForce
from gpuscalp.execution.remote import FOREIGN, Heard, RemoteBroker
from gpuscalp.schema import E8

START = 10_000 * E8


def request(number: int, side: int = 1, qty: int = 10) -> OrderRequest:
    return OrderRequest(
        order_id=number,
        symbol_index=0,
        side=side,
        qty_e8=qty * E8,
        kind=OrderKind.MARKET,
        time_in_force=TimeInForce.IOC,
    )


def fill(number: int, trade: int, qty: int, *, side: int = 1, price: int = 100, fee: int = 0) -> Heard:
    return Heard(
        ReportKind.FILL,
        1,
        2,
        number,
        0,
        trade_id=trade,
        side=side,
        qty_e8=qty * E8,
        price_e8=price * E8,
        fee_e8=fee,
    )


def broker(*requests: OrderRequest) -> RemoteBroker:
    made = RemoteBroker(START, 1)
    made.take(Heard(ReportKind.SEEN, 0, 0, symbol=0, trade_id=0))
    for each in requests:
        made.submit(each, 0)
    return made


def test_a_trade_counts_once() -> None:
    book = broker(request(1))
    (report,) = book.take(fill(1, 7, 4, fee=3))
    assert (report.state, report.left_e8) == (OrderState.PARTIALLY_FILLED, 6 * E8)
    assert book.take(fill(1, 7, 4, fee=3)) == []
    (last,) = book.take(fill(1, 8, 6))
    assert last.state is OrderState.FILLED
    assert book.take(fill(1, 8, 6)) == []
    assert book.duplicate_count == 2
    assert book.account.positions[0].qty_e8 == 10 * E8
    assert book.account.wallet_e8 == START - 3
    assert not book.orders


def test_an_end_waits_for_the_trades_that_belong_to_it() -> None:
    book = broker(request(1))
    end = Heard(ReportKind.CANCELED, 5, 6, 1, 0, executed_e8=4 * E8)
    assert book.take(end) == []
    assert book.orders[1].ending == end
    filled, ended = book.take(fill(1, 9, 4))
    assert (filled.kind, ended.kind, ended.state) == (
        ReportKind.FILL,
        ReportKind.CANCELED,
        OrderState.CANCELED,
    )
    assert ended.left_e8 == 6 * E8
    assert not book.orders
    assert book.take(end) == []


def test_a_trade_that_nobody_asked_for_is_foreign() -> None:
    book = broker()
    (report,) = book.take(fill(5, 3, 2, side=-1))
    assert (report.order_id, report.state) == (FOREIGN, None)
    assert book.account.positions[0].qty_e8 == -2 * E8


def test_what_leaves_leaves_once_and_a_cancel_only_while_the_order_is_open() -> None:
    book = broker(request(1), request(2))
    assert [(each.order_id, each.request is None) for each in book.unsent()] == [(1, False), (2, False)]
    assert book.unsent() == []
    book.take(fill(1, 1, 10))
    book.cancel(1, 0)
    book.cancel(2, 0)
    assert [(each.order_id, each.request is None) for each in book.unsent()] == [(2, True)]
    assert book.orders[2].cancelling
    book.take(Heard(ReportKind.CANCEL_REJECTED, 1, 1, 2, 0))
    assert not book.orders[2].cancelling


def test_a_symbol_is_quiet_when_nothing_moves_and_nothing_is_under_way() -> None:
    book = broker()
    since = tuple(book.moves)
    assert book.quiet(since) == {0}
    book.submit(request(1), 0)
    assert book.quiet(tuple(book.moves)) == frozenset(), "an order without an answer"
    book.take(Heard(ReportKind.ACCEPTED, 1, 1, 1, 0))
    since = tuple(book.moves)
    assert book.quiet(since) == {0}
    book.take(fill(1, 5, 10))
    assert book.quiet(since) == frozenset(), "a trade"


def test_what_the_exchange_has_refused_has_moved_nothing() -> None:
    """An exit refused again and again once hid its symbol from every comparison with the exchange."""
    book = broker()
    since = tuple(book.moves)
    book.submit(request(1), 0)
    book.take(Heard(ReportKind.REJECTED, 1, 1, 1, 0))
    book.submit(replace(request(2), kind=OrderKind.STOP_MARKET), 0)
    book.take(Heard(ReportKind.ACCEPTED, 1, 1, 2, 0))
    book.take(Heard(ReportKind.CANCELED, 1, 1, 2, 0))
    assert book.quiet(since) == {0}
    book.submit(request(3), 0)
    book.take(Heard(ReportKind.ACCEPTED, 1, 1, 3, 0))
    assert book.quiet(since) == frozenset(), "it may have traded"
    since = tuple(book.moves)
    book.take(Heard(ReportKind.EXPIRED, 1, 1, 3, 0))
    assert book.quiet(since) == frozenset()


def test_an_acceptance_is_told_once() -> None:
    book = broker(request(1))
    assert len(book.take(Heard(ReportKind.ACCEPTED, 1, 1, 1, 0, venue_id=77))) == 1
    assert book.take(Heard(ReportKind.ACCEPTED, 1, 1, 1, 0, venue_id=77)) == []
    assert book.orders[1].venue_id == 77


def test_trades_up_to_a_number_are_forgotten_and_still_known() -> None:
    book = broker(request(1))
    book.take(fill(1, 4, 1))
    book.take(Heard(ReportKind.SEEN, 1, 1, symbol=0, trade_id=4))
    assert book.knows(0, 4)
    assert not book.knows(0, 5)
    assert book.take(fill(1, 4, 1)) == []


@pytest.mark.parametrize("seed", range(40))
def test_any_order_of_telling_gives_the_same_book(seed: int) -> None:
    """The sums by hand, over messages that are shuffled and repeated."""
    dice = random.Random(seed)
    requests, heards, cash, held, fees = [], [], 0, 0, 0
    trade = 0
    for number in range(1, 9):
        side, qty = dice.choice((1, -1)), dice.randint(2, 9)
        requests.append(request(number, side, qty))
        done = 0
        while done < qty and dice.random() < 0.8:
            part, price = dice.randint(1, qty - done), dice.randint(90, 110)
            trade += 1
            heards.append(fill(number, trade, part, side=side, price=price, fee=trade))
            cash -= side * part * price * E8
            held += side * part
            fees += trade
            done += part
        if done < qty:
            kind = dice.choice((ReportKind.CANCELED, ReportKind.EXPIRED))
            heards.append(Heard(kind, 1, 2, number, 0, executed_e8=done * E8))
        heards.append(Heard(ReportKind.ACCEPTED, 1, 2, number, 0, venue_id=100 + number))
    told = heards + dice.sample(heards, len(heards) // 2)
    dice.shuffle(told)
    book = broker(*requests)
    reports = [report for each in told for report in book.take(each)]
    assert not book.orders
    assert book.account.positions[0].qty_e8 == held * E8
    assert book.account.cash_e8 == START + cash - fees
    ends = [
        each.order_id
        for each in reports
        if each.state in (OrderState.FILLED, OrderState.CANCELED, OrderState.EXPIRED)
    ]
    assert sorted(ends) == list(range(1, 9)), "every order ends once"
