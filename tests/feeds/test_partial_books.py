"""Partial books: whole at once, in place of updates, over redundant connections, live and imported."""

from __future__ import annotations

from collections import Counter
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpuscalp.archive import Archive
from gpuscalp.archive.ingest import import_sources
from gpuscalp.config import FeedConfig
from gpuscalp.feeds.book import BookEvent, BookState, LocalBook, level_array
from gpuscalp.feeds.ingest import Ingest
from gpuscalp.feeds.messages import DepthSnapshot, DepthUpdate, Levels, PartialBook
from gpuscalp.schema import E8, Instrument, Quality, TickKind
from tests.feeds.test_market import market
from tests.thorough import examples

START_MS = 1_700_000_000_000
BROKEN = int(Quality.GAP | Quality.RESYNC)


def levels_of(best: int, count: int, *, step: int) -> list[tuple[int, int]]:
    """Return levels of whole units, best first."""
    return [(best + step * place, 1 + (best + place) % 5) for place in range(count)]


def partial_e8(number: int, previous: int, best: int = 100, *, depth: int = 20) -> PartialBook:
    sides = levels_of(best, depth, step=-1), levels_of(best + 1, depth, step=1)
    return PartialBook("X", 1_000 + number, depth, previous + 1, number, previous, *sides)


def message(
    number: int, previous: int | None = None, best: int = 100, *, stream: str = "depth20@100ms"
) -> bytes:
    """Return a partial book, or the update of a diff stream, as the venue sends it."""
    before = number - 1 if previous is None else previous
    sides = [
        ",".join(f'["{price}.0","{qty}.5"]' for price, qty in side)
        for side in (levels_of(best, 20, step=-1), levels_of(best + 1, 20, step=1))
    ]
    return (
        f'{{"stream":"btcusdt@{stream}","data":{{"e":"depthUpdate","E":{START_MS + number},"T":1,'
        f'"s":"BTCUSDT","U":{before + 1},"u":{number},"pu":{before},"b":[{sides[0]}],"a":[{sides[1]}],'
        f'"ps":"BTCUSDT","st":1}}}}'
    ).encode()


def ingest() -> Ingest:
    return Ingest([Instrument("BTCUSDT", "binance_usdm", E8 // 10, 1, 1, 1, "exchange_info")], FeedConfig())


SIDE = st.lists(st.tuples(st.integers(1, 60), st.integers(0, 3)), max_size=24)


@settings(max_examples=examples(150))
@given(st.lists(st.tuples(SIDE, SIDE, st.integers(1, 3), st.integers(0, 1)), min_size=1, max_size=12))
def test_book_is_the_newest_message_whatever_came_before(
    told: list[tuple[Levels, Levels, int, int]],
) -> None:
    book, last, before = LocalBook(), 0, None
    for bids, asks, step, lost in told:
        previous = last + lost
        last = previous + step
        array = level_array(bids, asks)
        event = book.on_partial(previous + 1, last, previous, array, 0, len(bids), len(asks))
        naive = []
        for side, sign in ((bids, -1), (asks, 1)):
            alive = {price: qty for price, qty in dict(side).items() if qty}
            best = sorted(alive, key=lambda price: sign * price)[:20]
            rest = [0] * (20 - len(best))
            naive += [best + rest, [alive[price] for price in best] + rest]
        assert list(book.top()) == naive
        # Not `sum`, which compensates from Python 3.12 on.
        running = [list(accumulate(qty / 1e8 for qty in naive[row])) for row in (1, 3)]
        sums = [side[count - 1] for count in (5, 20) for side in running]
        assert book.summary == (naive[0][0], naive[2][0], *sums)
        assert book.crossed == (0 < naive[2][0] <= naive[0][0])
        assert book.state is BookState.SYNCED
        if before is not None and lost:
            assert event is BookEvent.GAP
            assert book.missing == (previous, previous)
        elif event is BookEvent.APPLIED:
            assert naive == (before or naive)
        else:
            assert event is BookEvent.TOP
            assert naive != before
        before = naive


def test_break_of_the_chain_marks_one_row_and_no_more() -> None:
    subject, rows = market()
    assert subject.on_partial_book(5, partial_e8(10, 7)) == "taken"
    assert subject.on_partial_book(6, partial_e8(12, 10, 101)) == "taken"
    assert subject.on_partial_book(7, partial_e8(17, 15, 101)) == "taken"
    assert subject.on_partial_book(8, partial_e8(19, 17, 103)) == "taken"
    assert [row for row in rows if row[0] == "gap"] == [("gap", "depth", 6, 7, 13, 15)]
    books = [row[3:] for row in rows if row[0] == "book"]
    # The one after the loss comes although it says what was known before.
    assert books == [(0, 10, 100, 101), (0, 12, 101, 102), (BROKEN, 17, 101, 102), (0, 19, 103, 104)]


def test_speed_streams_side_by_side_are_no_loss() -> None:
    # A slower stream of the same depth covers what the faster one has told: its predecessor is older.
    subject, rows = market()
    for number, previous in ((10, 9), (12, 10), (14, 12), (15, 10), (16, 14)):
        assert subject.on_partial_book(1, partial_e8(number, previous, number)) == "taken"
    assert [row[3] for row in rows if row[0] == "book"] == [0] * 5


def test_repeated_older_and_unchanged_messages_make_no_row() -> None:
    subject, rows = market()
    fates = [
        subject.on_partial_book(1, partial_e8(number, previous))
        for number, previous in ((10, 9), (10, 9), (10, 7), (8, 7), (11, 10))
    ]
    assert fates == ["taken", "duplicate", "late", "late", "taken"]
    assert [row[0] for row in rows] == ["quote", "book"]


def test_empty_book_is_shown_as_such() -> None:
    subject, rows = market()
    subject.on_partial_book(1, partial_e8(10, 9))
    subject.on_partial_book(2, PartialBook("X", 1_020, 20, 11, 11, 10, [], []))
    assert rows[-1] == ("book", 2, 1_020, 0, 11, 0, 0)
    assert subject.book.summary == (0, 0, 0.0, 0.0, 0.0, 0.0)


def test_diff_stream_is_the_book_wherever_it_comes() -> None:
    subject, rows = market()
    assert subject.on_partial_book(1, partial_e8(10, 9)) == "taken"
    assert subject.on_diff(2, DepthUpdate("X", 1_011, 11, 12, 10, [(100, 7)], [])) == "before_snapshot"
    assert subject.on_partial_book(3, partial_e8(13, 12)) == "other_book_stream"
    assert subject.book.state is BookState.UNSYNCED
    # Twenty levels carried on by updates would be a book with a hole in it.
    assert subject.on_snapshot(4, DepthSnapshot("X", 0, 11, [(90, 1)], [(110, 1)])) == "taken"
    assert rows[-1][5:] == (100, 110)
    assert subject.on_partial_book(5, partial_e8(14, 12)) == "other_book_stream"


def test_deepest_of_several_is_the_book() -> None:
    subject, rows = market()
    cases = [(10, 5), (11, 20), (12, 10), (13, 5), (14, 20)]
    fates = [
        subject.on_partial_book(1, partial_e8(number, number - 1, number, depth=depth))
        for number, depth in cases
    ]
    assert fates == ["taken", "taken", "other_book_stream", "other_book_stream", "taken"]
    assert [row[4] for row in rows if row[0] == "book"] == [10, 11, 14]


def test_snapshot_beside_partial_books_is_not_needed() -> None:
    subject, rows = market()
    early = DepthSnapshot("X", 0, 5, [(90, 1)], [(110, 1)])
    assert subject.on_snapshot(1, early) == "taken"
    assert subject.on_partial_book(2, partial_e8(10, 9)) == "taken"
    assert subject.on_snapshot(3, DepthSnapshot("X", 0, 99, [(90, 1)], [(110, 1)])) == "snapshot_not_needed"
    assert subject.on_partial_book(4, partial_e8(11, 10, 105)) == "taken"
    assert [row[5] for row in rows if row[0] == "book"] == [90, 100, 105]
    assert not any(row[0] == "gap" for row in rows)


def test_interval_thins_rows_and_a_later_message_brings_what_was_held_back() -> None:
    subject, rows = market(book_interval_ns=100)
    for number, best in ((10, 100), (50, 101), (90, 102), (120, 102)):
        subject.on_partial_book(1, partial_e8(number, number - 1 if number == 10 else 10, best))
    assert [(row[4], row[5]) for row in rows if row[0] == "book"] == [(10, 100), (120, 102)]


@pytest.mark.parametrize("depth", [5, 10, 20])
def test_ticks_come_without_a_snapshot_read_in_bulk_or_not(depth: int) -> None:
    bodies = [message(number, best=100 + number, stream=f"depth{depth}") for number in range(1, 6)]
    bulk, decoded = ingest(), ingest()
    bulk.on_messages(0, 7, bodies)
    decoded.on_messages(0, 7, [body.replace(b'"e":', b'"e": ') for body in bodies])
    ticks = bulk.take()
    assert decoded.take().tobytes() == ticks.tobytes()
    assert Counter(ticks["kind"].tolist()) == {TickKind.BOOK: 5, TickKind.QUOTE: 5}
    assert (ticks["quality"] == 0).all()
    assert bulk.unsynced() == ()
    assert bulk.book_states() == {"BTCUSDT": "synced"}
    assert bulk.account()["taken"] == 5


def test_partial_stream_beside_the_diff_stream_is_counted_and_set_aside() -> None:
    subject = ingest()
    subject.on_messages(0, 1, [message(10, stream="depth@100ms"), message(11), message(12)])
    assert subject.unsynced() == ("BTCUSDT",)
    assert subject.fates == {"before_snapshot": 1, "other_book_stream": 2}
    assert len(subject.take()) == 0


@settings(max_examples=examples(80))
@given(data=st.data())
def test_two_connections_give_the_rows_of_one_and_nothing_is_held(data: Any) -> None:
    """Whoever brings a message first; what both have lost marks one row; nothing waits for anything."""
    bodies = {number: message(number, best=100 + number % 7) for number in range(1, 30)}
    lost = data.draw(st.sets(st.integers(5, 28), max_size=4))
    subject = ingest()
    subject.on_messages(0, 5, [bodies[1], bodies[2]])
    subject.on_messages(1, 5, [bodies[2]])
    at, sent = {0: 3, 1: 3}, [1, 2]
    while min(at.values()) < 30:
        number = data.draw(st.sampled_from([each for each in at if at[each] < 30]))
        size = data.draw(st.integers(1, 5))
        batch = [each for each in range(at[number], min(at[number] + size, 30)) if each not in lost]
        at[number] += size
        subject.on_messages(number, 5, [bodies[each] for each in batch])
        sent += [each for each in batch if each > sent[-1]]
        assert subject.merge.due_ns > 10**18, "something waits"
    alone = ingest()
    alone.on_messages(0, 5, [bodies[number] for number in sent])
    ticks = subject.take()
    assert ticks.tobytes() == alone.take().tobytes()
    books = ticks[ticks["kind"] == TickKind.BOOK]
    breaks = {number for number in sent[1:] if number - 1 in lost}
    assert set((books["exch_ns"][books["quality"] == BROKEN] // 10**6 - START_MS).tolist()) == breaks


def test_connection_has_joined_when_its_partial_stream_has() -> None:
    subject = ingest()
    streams = ("btcusdt@depth20@100ms",)
    subject.on_messages(0, 1, [message(1), message(2)])
    assert not subject.joined(1, streams)
    assert subject.joined(1, ("btcusdt@depth5",))
    subject.on_messages(1, 1, [message(3)])
    assert not subject.joined(1, streams), "it waits until the first has come so far"
    subject.on_messages(0, 1, [message(3)])
    assert subject.joined(1, streams)


def test_imported_recording_gives_the_rows_of_the_live_feed(tmp_path: Path) -> None:
    bodies = [message(number, best=100 + number % 9) for number in (1, 2, 3, 4, 8, 9, 10, 11)]
    path = tmp_path / "btcusdt.dat"
    lines = [b"%d %s" % ((START_MS + place) * 10**6, body) for place, body in enumerate(bodies, 5)]
    path.write_bytes(b"\n".join(lines) + b"\n")
    (source,) = import_sources([path], tmp_path / "archive").sources
    archive = Archive.open(tmp_path / "archive")
    (instrument,) = archive.instruments("binance_usdm")
    stored = np.concatenate(list(archive.tick_batches("binance_usdm", ["BTCUSDT"])))
    live = Ingest([instrument], FeedConfig())
    for place, body in enumerate(bodies, 5):
        live.on_messages(0, (START_MS + place) * 10**6, [body])
    assert live.take().tobytes() == stored.tobytes()
    books = stored[stored["kind"] == TickKind.BOOK]
    assert books["quality"].tolist() == [0, 0, 0, 0, BROKEN, 0, 0, 0]
    assert source.messages == {"partial_depth": 8}
    assert (source.rejects, source.gaps) == ({}, 1)
