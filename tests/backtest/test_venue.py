"""A broker whose rows are skimmed reports what one reports that is told every row, whatever is sent."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpuscalp.backtest.venue import Venue
from gpuscalp.config import CostConfig, LegConfig, PaperConfig
from gpuscalp.execution.broker import PaperBroker
from gpuscalp.execution.messages import OrderKind, OrderRequest, Report, ReportKind, TimeInForce
from tests.backtest.rows import E8, INSTRUMENT, MS, NOW, Rows, random_rows
from tests.thorough import examples

COST = CostConfig(taker_fee_bps=5.0, maker_fee_bps=2.0)
LEGS = st.sampled_from(
    (
        LegConfig(low_ms=0.0),
        LegConfig(low_ms=3.0),
        LegConfig(kind="uniform", low_ms=0.0, high_ms=30.0),
        LegConfig(kind="empirical", samples_ms=(1.0, 50.0)),
    )
)
MARKET = st.fixed_dictionaries(
    {
        "seed": st.integers(0, 10**6),
        "count": st.integers(0, 400),
        "symbols": st.integers(1, 3),
        "late_ms": st.sampled_from((0, 0, 3, 60)),
        "wander": st.sampled_from((0, 1, 1, 4)),
        "book_share": st.sampled_from((0.0, 0.2, 0.5, 1.0)),
        # Positions are valued at the mid where no mark price has come, or none for a minute.
        "mark_share": st.sampled_from((0.0, 0.02, 0.08)),
        "pause_ms": st.sampled_from((900, 900, 70_000)),
    }
)
PAPER = st.builds(
    PaperConfig,
    request=LEGS,
    reply=LEGS,
    meets=st.sampled_from(("next", "next", "last")),
    max_wait_ms=st.sampled_from((20, 5_000)),
    queue=st.sampled_from(("pessimistic", "probabilistic", "proportional")),
    depth_age_ms=st.sampled_from((5, 30, 1_000)),
    leverage=st.sampled_from((5, 125)),
    market_take_bound=st.sampled_from((0.0, 0.05)),
    percent_price_up=st.just(10.0),
    percent_price_down=st.just(0.01),
)
# (row before which it is sent, ms that the sender's clock is ahead, what)
SUBMIT = st.tuples(
    st.just("submit"), st.integers(0, 2), st.sampled_from((1, -1)), st.integers(1, 30),
    st.one_of(st.none(), st.integers(-6, 6), st.integers(-2, 2)),
    st.sampled_from(("ioc", "fok", "gtc", "gtc", "gtx", "gtx", "stop")),
    st.booleans(),
)  # fmt: skip
CANCEL = st.tuples(st.just("cancel"), st.integers(1, 8))
SENT = st.lists(
    st.tuples(st.integers(0, 400), st.integers(0, 20), st.one_of(SUBMIT, SUBMIT, SUBMIT, SUBMIT, CANCEL)),
    max_size=25,
)


def send(target: Any, broker: PaperBroker, order_id: int, what: Any, symbols: int, now_ns: int) -> None:
    """Send one request; ``target`` takes new orders."""
    kind, *rest = what
    if kind == "cancel":
        broker.cancel(rest[0], now_ns)
    else:
        symbol, side, qty, offset, tif, reduce_only = rest
        order = OrderKind.MARKET if offset is None else OrderKind.LIMIT
        if tif == "stop":
            order, tif, offset = OrderKind.STOP_MARKET, "gtc", (offset or 0)
        price = 0 if offset is None else (1_000 + offset) * E8
        target.submit(
            OrderRequest(
                order_id, symbol % symbols, side, qty * E8, price, order, TimeInForce(tif), reduce_only
            ),
            now_ns,
        )


def clock_of(rows: Rows, row: int, ahead_ms: int) -> int:
    seen = rows.ticks["recv_ns"][:row]
    return (int(seen[-1]) if len(seen) else NOW) + ahead_ms * MS


def told_everything(
    rows: Rows, sent: list[Any], paper: PaperConfig, symbols: int, start: int
) -> tuple[list[Report], PaperBroker]:
    broker = PaperBroker([INSTRUMENT] * symbols, cost=COST, paper=paper, start_e8=start * E8)
    reports: list[Report] = []
    order_id, at = 0, 0
    for row in range(len(rows.ticks) + 1):
        while at < len(sent) and sent[at][0] <= row:
            order_id += sent[at][2][0] == "submit"
            send(broker, broker, order_id, sent[at][2], symbols, clock_of(rows, row, sent[at][1]))
            at += 1
        if row < len(rows.ticks):
            reports += rows.tell(broker, row)
    reports += broker.advance(broker.now_ns + 10**11)
    return reports, broker


def told_what_matters(
    rows: Rows, sent: list[Any], paper: PaperConfig, symbols: int, start: int, cuts: list[int]
) -> tuple[list[Report], Venue]:
    """The same through a venue: rows come in pieces, and what was played is dropped at the cuts."""
    venue = Venue([INSTRUMENT] * symbols, cost=COST, paper=paper, start_e8=start * E8, read_books=rows.books)
    reports: list[Report] = []
    order_id, added, count = 0, 0, len(rows.ticks)
    stops = sorted({*(row for row, *_ in sent), *(min(cut, count) for cut in cuts), count})
    at = 0
    for stop in stops:
        if added < stop:
            # Never less than is played, and mostly more.
            until = min(count, stop + 37)
            venue.tape.add(rows.ticks[added:until])
            added = until
        venue.play(stop)
        reports += venue.inbox.due(1 << 62)
        while at < len(sent) and sent[at][0] <= stop:
            order_id += sent[at][2][0] == "submit"
            send(venue, venue.broker, order_id, sent[at][2], symbols, clock_of(rows, stop, sent[at][1]))
            at += 1
        if stop in cuts:
            venue.drop()
    reports += venue.broker.advance(venue.broker.now_ns + 10**11)
    return reports, venue


@settings(max_examples=examples(300))
@given(MARKET, SENT, PAPER, st.sampled_from((200, 3_000, 100_000)), st.lists(st.integers(0, 400), max_size=6))
def test_reports_are_those_of_a_broker_that_is_told_every_row(
    market: dict[str, Any], sent: list[Any], paper: PaperConfig, start: int, cuts: list[int]
) -> None:
    rows, symbols = random_rows(**market), market["symbols"]
    sent = sorted(((min(row, len(rows.ticks)), *rest) for row, *rest in sent), key=lambda entry: entry[0])
    expected, full = told_everything(rows, sent, paper, symbols, start)
    found, venue = told_what_matters(rows, sent, paper, symbols, start, cuts)
    assert found == expected
    assert venue.broker.account.positions == full.account.positions
    assert venue.broker.account.cash_e8 == full.account.cash_e8


def many_orders(count: int, rows: int, seed: int) -> list[Any]:
    rng = np.random.default_rng(seed)
    places = np.sort(rng.integers(0, rows, count)).tolist()
    return [
        (row, int(rng.integers(0, 5)), ("submit", int(rng.integers(3)), int(rng.choice((-1, 1))),
         int(rng.integers(1, 25)), None, "ioc", False))
        for row in places
    ]  # fmt: skip


@pytest.mark.parametrize(("wander", "late_ms"), [(0, 4), (1, 4), (1, 60), (2, 20)])
def test_takes_are_remembered_over_long_stretches_that_nobody_looked_at(wander: int, late_ms: int) -> None:
    """Longer scripts have what short ones may lack: levels taken, out of sight, and met again."""
    rows = random_rows(5, count=6_000, symbols=2, late_ms=late_ms, wander=wander, book_share=0.3)
    paper = PaperConfig(request=LegConfig(low_ms=1.0), market_take_bound=0.0, leverage=125)
    sent = many_orders(1_500, 6_000, 6)
    expected, _ = told_everything(rows, sent, paper, 2, 10**6)
    found, _ = told_what_matters(rows, sent, paper, 2, 10**6, list(range(0, 6_000, 500)))
    assert found == expected
    kinds = Counter(report.kind for report in expected)
    assert kinds[ReportKind.FILL] > 1_000
    # Some found levels used up: there is something to remember.
    unfilled = [r for r in expected if r.kind is ReportKind.EXPIRED and r.left_e8]
    assert len(unfilled) > 100


@pytest.mark.parametrize("queue", ["pessimistic", "proportional", "probabilistic"])
@pytest.mark.parametrize(("wander", "late_ms"), [(0, 4), (1, 60)])
def test_resting_orders_move_in_their_queues_while_rows_are_skimmed(
    queue: str, wander: int, late_ms: int
) -> None:
    rows = random_rows(9, count=6_000, symbols=2, late_ms=late_ms, wander=wander, book_share=0.4)
    paper = PaperConfig(
        request=LegConfig(low_ms=1.0), queue=queue, percent_price_up=10.0, percent_price_down=0.01,
        leverage=125, market_take_bound=0.0,
    )  # fmt: skip
    rng = np.random.default_rng(10)
    mid = 1_000 + np.zeros(6_000, np.int64)
    for symbol in range(2):
        quotes = np.flatnonzero((rows.ticks["kind"] == 1) & (rows.ticks["symbol"] == symbol))
        seen = quotes[np.searchsorted(quotes, np.arange(6_000)).clip(max=len(quotes) - 1)]
        mid = np.where(rows.ticks["symbol"] == symbol, rows.ticks["px0"][seen], mid)
    sent: list[Any] = []
    for order_id, row in enumerate(np.sort(rng.integers(10, 6_000, 1_000)).tolist(), 1):
        side, symbol = int(rng.choice((-1, 1))), int(rows.ticks["symbol"][row])
        offset = int(mid[row]) - 1_000 + int(rng.integers(-3, 4))
        tif = str(rng.choice(("gtc", "gtx", "gtx", "ioc", "stop")))
        order = ("submit", symbol, side, int(rng.integers(1, 12)), offset, tif, order_id % 9 == 0)
        sent.append((row, 0, order))
        if order_id > 20 and order_id % 5:
            sent.append((row, 1, ("cancel", order_id - 20)))
    expected, full = told_everything(rows, sent, paper, 2, 10**6)
    found, venue = told_what_matters(rows, sent, paper, 2, 10**6, list(range(0, 6_000, 500)))
    assert found == expected
    assert venue.broker.orders.keys() == full.orders.keys()
    kinds = Counter((report.kind, report.maker) for report in expected)
    assert kinds[ReportKind.FILL, True] > 100, "hardly an order was filled where it rested"
    assert kinds[ReportKind.CANCELED, False] > 50


def test_account_is_liquidated_at_the_same_moment_where_no_mark_price_says_so() -> None:
    """The law above is not empty of it: hardly an example leaves an account near its end."""
    paper = PaperConfig(request=LegConfig(low_ms=1.0), leverage=125, market_take_bound=0.0)
    seen = 0
    for seed in range(8):
        rows = random_rows(seed, count=3_000, symbols=2, late_ms=4, wander=4, book_share=0.3, mark_share=0.0)
        sent = many_orders(60, 3_000, seed)
        expected, full = told_everything(rows, sent, paper, 2, 500)
        found, venue = told_what_matters(rows, sent, paper, 2, 500, list(range(0, 3_000, 400)))
        assert found == expected
        assert venue.broker.account.cash_e8 == full.account.cash_e8
        seen += sum(report.kind is ReportKind.LIQUIDATION for report in expected)
    assert seen > 3


def test_order_without_latency_meets_the_state_of_its_own_instant() -> None:
    """Another symbol's row of the same time lets it arrive; the next state of that time comes too late."""
    rows = random_rows(1, count=0, symbols=2, late_ms=0, wander=0, book_share=0.0)
    ticks = np.zeros(3, rows.ticks.dtype)
    for tick, symbol, ask in zip(ticks, (0, 1, 0), (101, 101, 103), strict=True):
        tick["symbol"], tick["kind"], tick["exch_ns"], tick["recv_ns"] = symbol, 1, NOW, NOW
        tick["px0"], tick["px1"], tick["q0"], tick["q1"] = 100, ask, 5, 5
    rows = Rows(ticks, {})
    sent = [(1, 0, ("submit", 0, 1, 2, None, "ioc", False))]
    paper = PaperConfig(request=LegConfig(low_ms=0.0))
    expected, _ = told_everything(rows, sent, paper, 2, 10**4)
    found, _ = told_what_matters(rows, sent, paper, 2, 10**4, [])
    assert found == expected
    assert [r.fill.price_e8 for r in expected if r.fill is not None] == [101 * E8]


def test_most_rows_are_not_told(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = random_rows(7, count=5_000, symbols=2, late_ms=0, wander=1, book_share=0.3)
    told = 0
    for name in ("on_quote", "on_book"):
        method = getattr(PaperBroker, name)

        def spy(self: PaperBroker, *args: Any, _method: Any = method, **options: Any) -> Any:
            nonlocal told
            told += 1
            return _method(self, *args, **options)

        monkeypatch.setattr(PaperBroker, name, spy)
    found, _ = told_what_matters(rows, many_orders(20, 5_000, 8), PaperConfig(), 2, 10**6, [2_500])
    assert any(report.kind is ReportKind.FILL for report in found)
    assert 0 < told < 500


def test_funding_that_is_announced_is_known_by_symbol() -> None:
    """Any row of marks used to count for all symbols, even one that names no funding time."""
    rows = random_rows(3, count=0, symbols=4, late_ms=0, wander=0, book_share=0.0)
    marks = [(0, 100.0, 50), (1, 100.0, 0), (2, float("nan"), 50)]
    ticks = np.zeros(len(marks), rows.ticks.dtype)
    for tick, (symbol, mark, ahead_ms) in zip(ticks, marks, strict=True):
        tick["symbol"], tick["kind"], tick["exch_ns"], tick["recv_ns"] = symbol, 3, NOW, NOW
        tick["q0"], tick["q2"], tick["q3"] = mark, 0.0001, NOW // MS + ahead_ms
    venue = Venue(
        [INSTRUMENT] * 4, cost=COST, paper=PaperConfig(), start_e8=10**4 * E8, read_books=rows.books
    )
    venue.tape.add(ticks)
    venue.play(len(ticks))
    assert venue.announced == {0}
