"""Faults of streams and connections, and what must happen to a paper session under each of them.

All sessions end with the proof (``gpuscalp.live.verify``) and with a look at every entry: none was decided on
while its symbol was in doubt. Faults that hit signed calls only (timestamp, listen_key, orders without an
answer) are in ``tests/exchange/test_order_faults.py``: a paper session sends none.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
from msgspec import structs

from gpuscalp.exchange.embedded import Exchange
from gpuscalp.exchange.faults import Fault
from gpuscalp.journal import RecordKind
from gpuscalp.schema import NS_PER_MS, NS_PER_S, Quality
from tests.live.faulty import cuts, end, end_complete, is_live, public_connections
from tests.live.sessions import PATIENCE_S, newest_trades
from tests.waiting import until

BTC, ETH = 0, 1
# risk.max_quote_age_ms of these sessions, and what a decision may take (session.predict_within_ms).
_QUOTE_AGE_NS = 1_900 * NS_PER_MS
# So that silence is noticed soon; for tests of silence only.
SHARP = {"stale_min_ms": 400, "stale_max_ms": 3_000, "first_message_ms": 3_000}

Session = Callable[..., Any]


# Stream messages that are lost, doubled, late or out of order.


@pytest.mark.parametrize(
    "fault",
    [
        Fault("drop", probability=0.2),
        Fault("duplicate", probability=0.5),
        pytest.param(Fault("reorder", probability=0.3), marks=pytest.mark.thorough),
        pytest.param(Fault("delay", probability=0.5, delay_ms=100), marks=pytest.mark.thorough),
        Fault("silent"),
    ],
    ids=lambda fault: fault.kind,
)
def test_what_one_of_two_connections_does_wrong_costs_no_tick_and_doubles_none(
    session: Session, exchange: Exchange, fault: Fault
) -> None:
    with session(2) as running:
        exchange.set_fault(structs.replace(fault, connection=public_connections(exchange)[0]))
        running.wait_messages(250)
        story = end_complete(running, exchange)
    assert not any(trade.gap for trade in story.trades)
    assert not any(doubt.quality & Quality.GAP for doubt in story.doubts)
    # Nobody has missed anything: the gate was never closed for it.
    first = story.entries[0][0]
    assert not any(health.silent for record, health in story.health if record.seq > first)


@pytest.mark.parametrize("kind", [pytest.param("duplicate", marks=pytest.mark.thorough), "reorder"])
def test_with_one_connection_nothing_is_counted_twice(
    session: Session, exchange: Exchange, kind: Any
) -> None:
    with session(1) as running:
        exchange.set_fault(Fault(kind, probability=0.3))
        running.wait_messages(300)
        _, story = end(running, exchange)
    for symbol in (BTC, ETH):
        ids = [trade.trade_id for trade in story.trades if trade.symbol == symbol]
        assert len(ids) == len(set(ids))


def refusals(status: dict[str, Any]) -> int:
    return int(status["trading"]["refusals"].get("QUALITY", 0))


def test_with_one_connection_a_lost_trade_shows_as_a_gap_and_closes_its_frame(
    session: Session, exchange: Exchange
) -> None:
    with session(1) as running:
        before = refusals(running.wait(lambda status: True, "an answer"))
        begun_s, count = time.monotonic(), 0
        # Whether the model wants to enter in the frame of a gap is chance: it may hold a position.
        while count < 6 or refusals(running.wait(lambda status: True, "an answer")) < before + 2:
            assert time.monotonic() < begun_s + PATIENCE_S, f"{count} gaps, and nothing was refused"
            exchange.set_fault(Fault("drop", streams="btcusdt@trade", count=3))
            until(lambda: not exchange.status()["faults"], "the loss")
            newest = newest_trades(exchange)[BTC]
            until(lambda at=newest: newest_trades(exchange)[BTC] > at + 3, "trades after it")
            running.wait_messages(60)
            count += 1
        _, story = end(running, exchange)
    holes = [trade for trade in story.trades if trade.gap]
    assert len(holes) >= 6
    assert {trade.symbol for trade in holes} == {BTC}
    # What an eager model wanted in such a frame was refused, and only that.
    assert story.refused(Quality.GAP, BTC)
    assert not story.refused(Quality.GAP, ETH)


def test_on_a_market_that_comes_late_nothing_is_opened(session: Session, exchange: Exchange) -> None:
    with session(1) as running:
        began_ns = time.time_ns()
        exchange.set_fault(Fault("delay", delay_ms=1_500))
        running.wait(lambda status: time.time_ns() > began_ns + _QUOTE_AGE_NS + NS_PER_S, "a late market")
        ended_ns = time.time_ns()
        _, story = end(running, exchange)
    # The clock closes the frames, and what comes later belongs to none of them: the quote grows old.
    late = story.entries_between(story.seq_at(began_ns + _QUOTE_AGE_NS), story.seq_at(ended_ns))
    assert not late, "an entry on a quote that is older than the limit"


def test_a_gap_in_the_book_closes_its_symbol_until_a_snapshot_has_mended_it(
    session: Session, exchange: Exchange
) -> None:
    with session(1) as running:
        # The first snapshots are refused, so that the book stays broken for a while.
        exchange.set_fault(Fault("unknown_lost", path="/fapi/v1/depth", count=3))
        exchange.set_fault(Fault("gap", streams="btcusdt@depth*"))
        running.wait(lambda status: status["feeds"]["unsynced"] == ["BTCUSDT"], "a broken book")
        running.wait(lambda status: status["feeds"]["unsynced"] == [], "a whole book")
        running.wait_trading()
        running.wait_messages(100)
        _, story = end(running, exchange)
    broken = [each for each in story.unsynced if each[1] > story.entries[0][0]]
    assert [symbol for symbol, _, _ in broken] == [BTC]
    ((_, first, last),) = broken
    assert last is not None
    assert story.entries_between(last, story.records[-1].seq, BTC)
    assert story.entries_between(first, last, ETH)
    # The book's own ticks say so, and the gate has heard it.
    assert any(doubt.quality & Quality.RESYNC for doubt in story.doubts if first <= doubt.seq <= last)
    assert [verdict for record, verdict in story.refused(Quality.RESYNC, BTC) if first < record.seq]
    assert not story.refused(Quality.RESYNC, ETH)


# Connections that say nothing, or end.


def test_a_silent_stream_closes_its_symbol_until_it_delivers_again(
    session: Session, exchange: Exchange
) -> None:
    with session(1, **SHARP) as running:
        exchange.set_fault(Fault("silent", streams="btcusdt@trade"))
        running.wait(lambda status: status["feeds"]["silent"] == ["BTCUSDT"], "silence")
        # Reconnected, acknowledged, and as silent as before.
        again = running.wait(lambda status: cuts(status) >= 1 and is_live(status), "a reconnection")
        running.wait_messages(200)
        assert "silent" in next(each["reason"] for each in again["feeds"]["connections"] if each["cuts"])
        exchange.clear_faults()
        running.wait(lambda status: status["feeds"]["silent"] == [], "data")
        _, story = end(running, exchange)
    first = next(record.seq for record, health in story.health if BTC in health.silent)
    back = next(record.seq for record, health in story.health if record.seq > first and not health.silent)
    flows = [
        each.seq for each in story.of(RecordKind.RAW) if b"btcusdt@trade" in each.body and each.seq > first
    ]
    assert back > flows[0], "called healthy before anything had come"
    assert not story.entries_between(first, back, BTC)
    assert story.entries_between(back, story.records[-1].seq, BTC)
    assert story.refused(Quality.STALE, BTC)


def test_a_half_open_connection_is_noticed_without_one_byte_and_replaced(
    session: Session, exchange: Exchange
) -> None:
    with session(1, idle_timeout_ms=2_500) as running:
        for number in public_connections(exchange):
            exchange.set_fault(Fault("half_open", connection=number))
        dead_ns = time.time_ns()
        running.wait(lambda status: cuts(status) >= 1 and is_live(status), "another connection")
        _, story = end(running, exchange)
    assert any("half open" in note.reason for note in story.lost)
    # No older price was traded on than the limit allows, until the first message of another connection.
    first = story.seq_at(dead_ns + _QUOTE_AGE_NS)
    lost = next(each.seq for each in story.of(RecordKind.CONNECTION) if b"half open" in each.body)
    last = next(
        each.seq for each in story.of(RecordKind.RAW) if each.seq > lost and b"bookTicker" in each.body
    )
    assert not story.entries_between(first, last)
    assert story.entries_between(last, story.records[-1].seq)


def test_with_one_connection_a_cut_shows_as_a_gap_and_closes_all_books(
    session: Session, exchange: Exchange
) -> None:
    with session(1) as running:
        exchange.set_fault(Fault("cut", connection=public_connections(exchange)[0]))
        running.wait(lambda status: cuts(status) >= 1 and is_live(status), "another connection")
        _, story = end(running, exchange)
    first = next(each.seq for each in story.of(RecordKind.CONNECTION) if b'"lost"' in each.body)
    after = [trade for trade in story.trades if trade.gap]
    assert {trade.symbol for trade in after} == {BTC, ETH}
    broken = [each for each in story.unsynced if each[1] > first]
    assert {symbol for symbol, _, _ in broken} == {BTC, ETH}
    assert all(last is not None for _, _, last in broken)
    assert story.refused(Quality.GAP | Quality.RESYNC | Quality.STALE, BTC)
    assert story.refused(Quality.GAP | Quality.RESYNC | Quality.STALE, ETH)


def test_a_connection_whose_life_is_over_is_replaced_and_the_session_goes_on(
    session: Session, exchange: Exchange
) -> None:
    with session(1) as running:
        exchange.set_fault(Fault("cut", life_s=1.0))
        running.wait(lambda status: cuts(status) >= 4, "two ends of both connections")
        _, story = end(running, exchange)
    assert any(trade.gap for trade in story.trades)
    assert {symbol for symbol, _, last in story.unsynced if last is not None} == {BTC, ETH}
