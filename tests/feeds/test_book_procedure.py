"""The exchange's written procedure for a local book, step by step, against every place of the snapshot.

Binance, USD-M futures, "How to manage a local order book correctly": buffer the stream; fetch a snapshot;
drop events with ``u < lastUpdateId``; the first one used has ``U <= lastUpdateId <= u``; each next one's
``pu`` is the ``u`` before it, else begin again; quantities are absolute, and 0 removes a level, which need
not be there.
"""

from __future__ import annotations

import pytest

from gpuscalp.feeds.book import BookEvent, BookState, LocalBook
from gpuscalp.feeds.messages import DepthSnapshot, DepthUpdate

# First id, last id, last id of the event before. The ids between two events are other symbols'.
CHAIN = [(5, 10, 2), (11, 15, 10), (18, 20, 15), (21, 21, 20)]
BASE = 1_000


def _diff(event: tuple[int, int, int]) -> DepthUpdate:
    """Return an update that leaves a mark: a bid at its last id."""
    first, last, previous = event
    return DepthUpdate("X", 1, first, last, previous, [(last, last)], [])


def _snapshot(last_id: int) -> DepthSnapshot:
    """Return a snapshot that has the marks of all events up to its id."""
    bids = [(BASE, 1), *((last, last) for _, last, _ in CHAIN if last <= last_id)]
    return DepthSnapshot("X", 1, last_id, bids, [(BASE + 1, 1)])


def _marks(book: LocalBook) -> set[int]:
    return {price for price in book.top()[0] if 0 < price < BASE}


def _joins(last_id: int) -> bool:
    """Whether the procedure lets a snapshot join the chain, as it is written."""
    left = [event for event in CHAIN if event[1] >= last_id]
    return bool(left) and left[0][0] <= last_id <= left[0][1]


def _nothing_between(last_id: int) -> bool:
    """Whether a snapshot lies where the chain says that there was nothing, behind ``pu`` and before ``U``."""
    return any(previous <= last_id < first for first, _, previous in CHAIN)


@pytest.mark.parametrize("last_id", range(23))
def test_snapshot_joins_the_buffer_exactly_where_nothing_is_missing(last_id: int) -> None:
    book = LocalBook()
    for event in CHAIN:
        assert book.on_diff(_diff(event)) is BookEvent.BUFFERED
    answer = book.on_snapshot(_snapshot(last_id))
    if _joins(last_id) or _nothing_between(last_id) or last_id > CHAIN[-1][1]:
        assert answer is BookEvent.SYNCED
        assert _marks(book) == {last for _, last, _ in CHAIN}
        assert book.quality == 0
    else:
        assert last_id < CHAIN[0][2], "older than the buffer"
        assert answer is BookEvent.TOO_OLD
        assert book.state is BookState.UNSYNCED
        assert book.on_snapshot(_snapshot(10)) is BookEvent.SYNCED
        assert _marks(book) == {last for _, last, _ in CHAIN}


@pytest.mark.parametrize("last_id", range(23))
def test_events_behind_a_snapshot_are_dropped_used_or_a_gap(last_id: int) -> None:
    book = LocalBook()
    assert book.on_snapshot(_snapshot(last_id)) is BookEvent.SYNCED
    first_used = True
    for event in CHAIN:
        _, last, previous = event
        made = book.on_diff(_diff(event))
        if last <= last_id:
            assert made is BookEvent.CONTAINED
            continue
        if first_used and previous > last_id:
            assert made is BookEvent.GAP
            assert book.missing == (last_id + 1, previous)
        else:
            assert made is BookEvent.TOP
        first_used = False
    if last_id >= CHAIN[0][2]:
        assert _marks(book) == {last for _, last, _ in CHAIN}
        assert book.quality == 0
    else:
        assert book.state is BookState.RESYNC


@pytest.mark.parametrize("lost", [1, 2])
def test_broken_chain_begins_again_with_a_snapshot_that_reaches_behind_it(lost: int) -> None:
    book = LocalBook()
    book.on_snapshot(_snapshot(4))
    events = [book.on_diff(_diff(event)) for place, event in enumerate(CHAIN) if place != lost]
    assert events.count(BookEvent.GAP) == 1
    assert events.index(BookEvent.GAP) == lost
    assert book.state is BookState.RESYNC
    first_after = CHAIN[lost + 1]
    assert book.on_snapshot(_snapshot(first_after[2] - 1)) is BookEvent.TOO_OLD
    assert book.on_snapshot(_snapshot(first_after[2])) is BookEvent.SYNCED
    assert _marks(book) == {last for _, last, _ in CHAIN}
    assert book.quality == 0


@pytest.mark.parametrize("price", [1, 500, BASE - 1, BASE + 2, 5_000])
@pytest.mark.parametrize("side", ["bids", "asks"])
def test_removal_of_a_level_that_is_not_there_is_normal(price: int, side: str) -> None:
    book = LocalBook()
    book.on_snapshot(_snapshot(10))
    before = book.top()
    levels = [(price, 0)]
    sides = (levels, []) if side == "bids" else ([], levels)
    assert book.on_diff(DepthUpdate("X", 1, 11, 11, 10, *sides)) is BookEvent.APPLIED
    assert book.top() == before
    assert book.quality == 0


def test_quantities_are_absolute() -> None:
    book = LocalBook()
    book.on_snapshot(_snapshot(10))
    for number, qty in ((11, 5), (12, 3), (13, 3), (14, 0), (15, 2)):
        book.on_diff(DepthUpdate("X", 1, number, number, number - 1, [(BASE, qty)], []))
        assert dict(zip(*book.top()[:2], strict=True)).get(BASE, 0) == qty
