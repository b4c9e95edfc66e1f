"""Laws that hold whatever is asked for and whatever the market does."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpuscalp.account import Account
from gpuscalp.config import LegConfig
from gpuscalp.execution.lifecycle import ENDED, OrderState
from gpuscalp.execution.messages import OrderKind, ReportKind
from tests.execution.market import (
    BOOK,
    CANCEL,
    E8,
    MARK,
    MS,
    STOP,
    SUBMIT,
    TRADE,
    Play,
    book,
    broker,
    fills,
    levels,
    play,
    request,
    trade,
)
from tests.thorough import examples

EXAMPLES = examples(80)
SCRIPT = st.lists(
    st.one_of(BOOK, BOOK, TRADE, TRADE, SUBMIT, SUBMIT, SUBMIT, STOP, CANCEL, MARK),
    min_size=30,
    max_size=80,
)
SETTINGS = st.fixed_dictionaries(
    {
        "queue": st.sampled_from(("pessimistic", "probabilistic", "proportional")),
        "meets": st.sampled_from(("next", "last")),
        "seed": st.integers(0, 3),
        "leverage": st.sampled_from((1, 20)),
        # Small enough that accounts are liquidated now and then, and orders refused for margin.
        "start": st.sampled_from((60, 5_000, 1_000_000)),
        "request": st.sampled_from(
            (LegConfig(low_ms=0.0), LegConfig(kind="uniform", low_ms=0.0, high_ms=6.0))
        ),
        "reply": st.just(LegConfig(kind="uniform", low_ms=0.0, high_ms=6.0)),
    }
)


@settings(max_examples=EXAMPLES)
@given(SCRIPT, SETTINGS, st.integers(50, 150))
def test_money_balances_to_the_last_unit(script: list, options: dict, price: int) -> None:  # type: ignore[type-arg]
    target = broker(**options)
    start = target.account.start_e8
    told = Account(start, 1)
    cash, held = start, 0
    for report in play(target, script).reports:
        if report.fill is not None:
            fill = report.fill
            signed = fill.side * fill.qty_e8
            assert told.apply_fill(0, signed, fill.price_e8, fill.fee_e8) == report.money_e8
            cash -= round(Fraction(fill.price_e8 * signed, E8)) + fill.fee_e8
            held += signed
        elif report.kind is ReportKind.FUNDING:
            told.funding_e8 += report.money_e8
            told.cash_e8 += report.money_e8
            cash += report.money_e8
    account = target.account
    assert (account.cash_e8, account.positions[0].qty_e8) == (cash, held)
    # A client that hears every report has the same books.
    for name in ("cash_e8", "realised_e8", "fees_e8", "funding_e8", "turnover_e8", "positions"):
        assert getattr(told, name) == getattr(account, name)
    equity = start + account.realised_e8 + account.unrealised_e8([price * E8])
    equity += account.funding_e8 - account.fees_e8
    assert equity == cash + held * price


def _check_times(done: Play) -> None:
    at = known = -1
    for report in done.reports:
        assert at <= report.at_ns <= report.known_ns
        assert known <= report.known_ns
        at, known = report.at_ns, report.known_ns
        if report.order_id > 0 and report.order_id in done.arrivals:
            late = report.kind is ReportKind.CANCEL_REJECTED
            assert late or report.at_ns >= done.arrivals[report.order_id]


def _check_lives(done: Play) -> None:
    states: dict[int, OrderState] = {}
    for report in done.reports:
        if report.state is None:
            continue
        before = states.get(report.order_id, OrderState.NEW)
        assert before not in ENDED, "an order that has ended never comes back"
        states[report.order_id] = report.state


@settings(max_examples=EXAMPLES)
@given(SCRIPT, SETTINGS)
def test_nothing_is_early_and_nothing_comes_back(script: list, options: dict) -> None:  # type: ignore[type-arg]
    target = broker(**options)
    done = play(target, script)
    _check_times(done)
    _check_lives(done)
    ended = {r.order_id for r in done.reports if r.state in ENDED}
    assert set(target.orders).isdisjoint(ended)
    assert set(target.orders) | ended >= set(done.requests)


@settings(max_examples=EXAMPLES)
@given(SCRIPT, SETTINGS)
def test_price_of_a_fill_is_never_better_than_the_book_or_the_limit(
    script: list,  # type: ignore[type-arg]
    options: dict,  # type: ignore[type-arg]
) -> None:
    done = play(broker(**options), script)
    limits = {number: sent.price_e8 for number, sent in done.requests.items()}
    for report in done.reports:
        fill = report.fill
        if fill is None:
            continue
        if report.maker:
            assert fill.price_e8 == limits[fill.order_id]
            continue
        shown = [entry for entry in done.books if entry[0] <= report.at_ns]
        best = shown[-1][2 if fill.side > 0 else 1][0][0] * E8
        assert fill.side * (fill.price_e8 - best) >= 0
        if fill.order_id > 0 and done.requests[fill.order_id].kind is OrderKind.LIMIT:
            assert fill.side * (fill.price_e8 - limits[fill.order_id]) <= 0


@settings(max_examples=EXAMPLES)
@given(SCRIPT, SETTINGS)
def test_each_displayed_unit_is_taken_once(script: list, options: dict) -> None:  # type: ignore[type-arg]
    done = play(broker(**options), script)
    takes = [
        (report.at_ns, report.fill.side, report.fill.price_e8 // E8, report.fill.qty_e8 // E8)
        for report in done.reports
        if report.fill is not None and not report.maker and report.reason != "liquidation"
    ]
    for side in (1, -1):
        added: dict[int, int] = {}
        before: dict[int, int] = {}
        times = [(at, dict(asks if side > 0 else bids)) for at, bids, asks in done.books]
        for index, (_, shown) in enumerate(times):
            for price, qty in shown.items():
                added[price] = added.get(price, 0) + max(0, qty - before.get(price, 0))
            before = shown
            end = times[index + 1][0] if index + 1 < len(times) else 1 << 62
            for price in added:
                taken = sum(q for at, s, p, q in takes if s == side and p == price and at < end)
                assert taken <= added[price]


@settings(max_examples=EXAMPLES)
@given(SCRIPT, SETTINGS)
def test_reduce_only_never_grows_or_turns_a_position(script: list, options: dict) -> None:  # type: ignore[type-arg]
    done = play(broker(**options), script)
    held = 0
    for report in done.reports:
        if report.fill is not None:
            after = held + report.fill.side * report.fill.qty_e8
            if report.order_id < 0 or done.requests[report.order_id].reduce_only:
                assert held * after >= 0
                assert abs(after) < abs(held)
            held = after


@settings(max_examples=EXAMPLES)
@given(SCRIPT, SETTINGS)
def test_same_seed_gives_the_same_reports(script: list, options: dict) -> None:  # type: ignore[type-arg]
    assert play(broker(**options), script).reports == play(broker(**options), script).reports


def _filled_by_time(script: list, latency_ms: int, options: dict, price: int, qty: int) -> dict[int, int]:  # type: ignore[type-arg]
    target = broker(start=10**9, request=LegConfig(low_ms=float(latency_ms)), **options)
    # Requests arrive at odd times of a market that moves at even ones.
    doubled = [(2 * step, *what) for step, *what in script]
    target.submit(request(1, 1, qty, price), MS)
    total, by_time = 0, {}
    for report in play(target, doubled).reports:
        if report.fill is not None:
            total += report.fill.qty_e8 // E8
            by_time[report.at_ns] = total
    return by_time


@pytest.mark.parametrize("queue", ["pessimistic", "proportional"])
@settings(max_examples=examples(150))
@given(
    st.lists(st.one_of(BOOK, TRADE, TRADE), min_size=20, max_size=40),
    st.integers(0, 20),
    st.integers(0, 20),
    st.sampled_from(("next", "last")),
    st.integers(96, 103),
    st.integers(1, 9),
)
def test_more_latency_never_fills_earlier(
    queue: str,
    script: list,
    first: int,
    more: int,
    meets: str,
    price: int,
    qty: int,  # type: ignore[type-arg]
) -> None:
    options = {"queue": queue, "meets": meets}
    early = _filled_by_time(script, 2 * first, options, price, qty)
    late = _filled_by_time(script, 2 * (first + more), options, price, qty)
    for at, total in late.items():
        before = max((done for when, done in early.items() if when <= at), default=0)
        assert before >= total


@pytest.mark.parametrize("kinder", ["proportional", "probabilistic"])
@settings(max_examples=examples(150))
@given(
    st.lists(st.one_of(BOOK, TRADE, TRADE), min_size=20, max_size=40),
    st.integers(0, 20),
    st.sampled_from(("next", "last")),
    st.integers(96, 103),
    st.integers(1, 9),
)
def test_pessimistic_queue_never_fills_more_at_any_time(
    kinder: str,
    script: list,  # type: ignore[type-arg]
    latency_ms: int,
    meets: str,
    price: int,
    qty: int,
) -> None:
    filled = {
        queue: _filled_by_time(script, latency_ms, {"queue": queue, "meets": meets}, price, qty)
        for queue in ("pessimistic", kinder)
    }
    for at, total in filled["pessimistic"].items():
        assert max((done for when, done in filled[kinder].items() if when <= at), default=0) >= total


@given(st.lists(BOOK, min_size=3, max_size=40), st.integers(0, 20), st.integers(0, 20), st.integers(1, 9))
def test_market_order_with_more_latency_never_fills_earlier(
    script: list,
    first: int,
    more: int,
    qty: int,  # type: ignore[type-arg]
) -> None:
    options = {"queue": "pessimistic", "meets": "next"}
    early = _filled_by_time(script, first, options, 0, qty)
    late = _filled_by_time(script, first + more, options, 0, qty)
    assert not late or min(early) <= min(late)


@given(st.integers(98, 101), st.integers(1, 20), st.lists(st.integers(1, 8), max_size=12))
def test_resting_order_never_fills_before_its_queue_has_traded(
    price: int, ahead: int, trades: list[int]
) -> None:
    target = broker()
    target.submit(request(1, 1, 5, price), 0)
    sides = [[(price, ahead)], levels(price + 1, 1, [3, 3, 3, 3])]
    target.on_book(
        0, 1, *([[p * E8 for p, _ in s], [q * E8 for _, q in s]][i] for s in sides for i in (0, 1))
    )
    traded = filled = 0
    for number, qty in enumerate(trades, 2):
        traded += qty
        for report in target.on_trade(0, number, price * E8, qty * E8, -1):
            assert report.fill is not None
            filled += report.fill.qty_e8 // E8
        assert filled == min(5, max(0, traded - ahead))


@pytest.mark.parametrize("side", [1, -1])
def test_however_many_rest_the_best_price_and_then_the_first_is_met_first(side: int) -> None:
    """Twenty orders at five prices, more than a queue begins with room for; a trade of two meets two."""
    target = broker(start=10**7)
    book(target, 1, [(90, 500)], [(110, 500)])
    for number in range(1, 21):
        target.submit(request(number, side, 1, 100 - side * (number * 7 % 5)), MS)
    target.advance(MS)
    order = sorted(range(1, 21), key=lambda number: (number * 7 % 5, number))
    met = [fills(trade(target, 2 + at, 100 - side * 5, 2, -side)) for at in range(10)]
    assert [number for each in met for number, *_ in each] == order
    assert [len(each) for each in met] == [2] * 10


@pytest.mark.parametrize(("early_ns", "price"), [(1, 101), (0, 102)])
def test_order_that_comes_with_a_state_meets_it_and_one_before_it_does_not(early_ns: int, price: int) -> None:
    target = broker(meets="last")
    book(target, 1, [(99, 9)], [(101, 9)])
    target.submit(request(1, 1, 1), 2 * MS - early_ns)
    assert [each[1] for each in fills(book(target, 2, [(99, 9)], [(102, 9)]))] == [price]


@pytest.mark.parametrize("side", [1, -1])
def test_order_that_the_book_moves_onto_fills_at_its_own_limit_as_far_as_that_shows(side: int) -> None:
    target = broker()
    book(target, 1, [(98, 9)], [(102, 9)])
    target.submit(request(1, side, 5, 100), MS)
    target.advance(MS)
    onto, away = [(100 - side, 1), (100, 2), (100 + side, 9)], [(100 - 2 * side, 9)]
    reports = book(target, 2, *((away, onto) if side > 0 else (onto, away)))
    assert fills(reports) == [(1, 100, 1, True), (1, 100, 2, True)]
