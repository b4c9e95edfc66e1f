"""A book of a snapshot that was cut: what it says of levels that the snapshot did not hold."""

from __future__ import annotations

import gzip
import json
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from gpuscalp.archive import Archive
from gpuscalp.archive.ingest import import_sources
from gpuscalp.config import FeedConfig
from gpuscalp.feeds.binance import Decoder
from gpuscalp.feeds.book import RENEWAL_MAX, BookEvent, BookState, LocalBook
from gpuscalp.feeds.ingest import Ingest
from gpuscalp.feeds.messages import DepthSnapshot, DepthUpdate, Levels
from gpuscalp.schema import Instrument, Quality, TickKind, Ticks

FLAGGED = int(Quality.GAP | Quality.RESYNC)


class _Venue:
    """Knows all levels, one at each price, and tells what changes."""

    def __init__(self, mid: int = 10_000) -> None:
        self.bids = {price: price for price in range(mid - 300, mid)}
        self.asks = {price: price for price in range(mid + 1, mid + 300)}
        self.last_id, self._mid, self._qty = 10, mid, 0

    def snapshot(self, limit: int) -> DepthSnapshot:
        bids, asks = sorted(self.bids.items(), reverse=True), sorted(self.asks.items())
        return DepthSnapshot("X", 1, self.last_id, bids[:limit], asks[:limit])

    def move(self, mid: int) -> DepthUpdate:
        """Let the price go somewhere: levels on the way are taken, and come again on the other side."""
        self._qty += 1
        bids: Levels = [(price, 0) for price in self.bids if price >= mid]
        asks: Levels = [(price, 0) for price in self.asks if price <= mid]
        bids += [(price, self._qty) for price in range(self._mid, mid)]
        asks += [(price, self._qty) for price in range(mid + 1, self._mid + 1)]
        self._mid = mid
        for side, changes in ((self.bids, bids), (self.asks, asks)):
            side.update(changes)
            for price in [price for price, qty in side.items() if not qty]:
                del side[price]
        return self.tell(bids, asks)

    def tell(self, bids: Levels, asks: Levels) -> DepthUpdate:
        """Send an update that says nothing of the price."""
        self.last_id += 1
        return DepthUpdate("X", 1, self.last_id, self.last_id, self.last_id - 1, bids, asks)

    def is_shown_by(self, book: LocalBook) -> bool:
        bid_price, bid_qty, ask_price, ask_qty = book.top()
        shown = list(zip(bid_price, bid_qty, strict=True)), list(zip(ask_price, ask_qty, strict=True))
        return shown == (
            sorted(self.bids.items(), reverse=True)[:20],
            sorted(self.asks.items())[:20],
        )


def _begun(limit: int) -> tuple[LocalBook, _Venue]:
    book, venue = LocalBook(), _Venue()
    assert book.on_snapshot(venue.snapshot(limit)) is BookEvent.SYNCED
    return book, venue


@pytest.mark.parametrize("limit", [50, 100, 1_000])
def test_book_is_whole_only_where_its_twenty_levels_are_the_venues(
    limit: int, rng: np.random.Generator
) -> None:
    """Of a random walk 15 % of the states of 50-level books were wrong, and counted as whole."""
    book, venue = _begun(limit)
    mid, whole, wrong = 10_000, 0, 0
    for step in rng.integers(-8, 9, 2_000).tolist():
        mid = min(max(mid + step, 9_750), 10_250)
        book.on_diff(venue.move(mid))
        shown = venue.is_shown_by(book)
        wrong += not shown
        if book.state is BookState.SYNCED:
            assert book.quality == 0
            assert shown
            whole += 1
        else:
            assert book.quality == FLAGGED
    assert whole > 500
    # The 299 levels of the venue's book are all that there are: of a thousand none can be missing.
    assert (wrong > 20) == (limit < 1_000)
    assert (book.resync_count > 0) == (limit < 1_000)


def test_book_beyond_its_edge_is_whole_again_by_a_snapshot() -> None:
    """Best ask 0, and synced, where the true one was a level that the snapshot had not held."""
    book, venue = _begun(50)
    book.on_diff(venue.move(10_050))
    assert book.best()[2] == 0
    assert (book.state, book.quality, book.resync_count) == (BookState.RESYNC, FLAGGED, 1)
    assert not book.near_edge
    too_old, *later = venue.snapshot(50), venue.move(10_051), venue.move(10_049)
    for update in later:
        book.on_diff(update)
    assert book.state is BookState.RESYNC
    assert book.on_snapshot(DepthSnapshot("X", 1, too_old.last_id - 1, [], [])) is BookEvent.TOO_OLD
    assert book.on_snapshot(too_old) is BookEvent.SYNCED
    assert (book.state, book.quality, book.resync_count) == (BookState.SYNCED, 0, 1)
    assert venue.is_shown_by(book)


def test_book_beyond_its_edge_is_whole_again_where_the_market_shows_all_levels() -> None:
    # No bid can lie at or above an ask: all bids from the lowest ask on have come by updates.
    book, venue = _begun(50)
    book.on_diff(venue.move(9_900))
    assert book.state is BookState.RESYNC
    book.on_diff(venue.move(9_920))
    assert book.state is BookState.RESYNC
    book.on_diff(venue.move(9_921))
    assert (book.state, book.quality) == (BookState.SYNCED, 0)
    assert venue.is_shown_by(book)


@pytest.mark.parametrize("meanwhile", ["nothing", "no asks", "crossed"])
def test_levels_beyond_the_edge_do_not_fill_what_lies_between(meanwhile: str) -> None:
    """Twenty bids are told far below the snapshot's last: between them there are more that nobody has told.

    A side without levels, or one that crosses the other, says nothing of where that one is known.
    """
    book, venue = _begun(50)
    book.on_diff(venue.tell([(price, price) for price in range(9_700, 9_720)], []))
    if meanwhile == "no asks":
        book.on_diff(venue.move(10_050))
        assert book.best()[2] == 0
    elif meanwhile == "crossed":
        book.on_diff(venue.tell([], [(9_710, 1)]))
        assert book.quality & Quality.CROSSED
        book.on_diff(venue.tell([], [(9_710, 0)]))
    book.on_diff(venue.move(9_980))
    assert (book.state, venue.is_shown_by(book)) == (BookState.SYNCED, True)
    book.on_diff(venue.move(9_960))
    assert (book.state, venue.is_shown_by(book)) == (BookState.RESYNC, False)


def test_book_near_its_edge_is_renewed_by_a_snapshot_older_than_its_updates() -> None:
    book, venue = _begun(50)
    book.on_diff(venue.move(10_010))
    assert not book.near_edge
    assert book.on_snapshot(venue.snapshot(1_000)) is BookEvent.UNNEEDED
    book.on_diff(venue.move(10_011))
    assert book.near_edge
    snapshot = venue.snapshot(1_000)
    for mid in (10_012, 10_011):
        book.on_diff(venue.move(mid))
    assert book.near_edge
    assert book.quality == 0
    assert book.on_snapshot(snapshot) is BookEvent.SYNCED
    assert not book.near_edge
    book.on_diff(venue.move(10_200))
    assert (book.state, book.resync_count) == (BookState.SYNCED, 0)
    assert venue.is_shown_by(book)


def test_updates_near_the_edge_are_kept_for_a_while_only() -> None:
    book, venue = _begun(50)
    snapshots = []
    for number in range(RENEWAL_MAX + 2):
        book.on_diff(venue.move(10_012 + number % 2))
        snapshots.append(venue.snapshot(1_000))
    assert book.on_snapshot(snapshots[0]) is BookEvent.TOO_OLD
    assert book.on_snapshot(snapshots[1]) is BookEvent.SYNCED
    assert venue.is_shown_by(book)


def test_updates_are_kept_no_longer_than_the_edge_is_near() -> None:
    book, venue = _begun(50)
    for mid in (10_012, 10_013, 10_000):
        book.on_diff(venue.move(mid))
    assert not book.near_edge
    assert not book._buffer
    assert book.waiting == 0


def test_missing_update_near_the_edge_is_a_gap_like_any_other() -> None:
    book, venue = _begun(50)
    book.on_diff(venue.move(10_012))
    before = venue.snapshot(1_000)
    venue.move(10_013)
    assert book.on_diff(venue.move(10_014)) is BookEvent.GAP
    assert book.on_snapshot(before) is BookEvent.TOO_OLD
    assert (book.state, book.resync_count) == (BookState.RESYNC, 1)
    assert book.on_snapshot(venue.snapshot(1_000)) is BookEvent.SYNCED
    assert venue.is_shown_by(book)


@pytest.mark.parametrize("level_count", [49, 20, 5])
def test_snapshot_shorter_than_any_limit_holds_all_levels(level_count: int) -> None:
    book, venue = LocalBook(), _Venue()
    book.on_snapshot(venue.snapshot(level_count))
    book.on_diff(venue.move(10_000 + level_count))
    assert (book.state, book.quality, book.near_edge) == (BookState.SYNCED, 0, False)


def test_books_of_a_recording_with_a_shallow_snapshot_are_right_or_doubtful(
    recordings: Path, tmp_path: Path
) -> None:
    """Books of a snapshot of 50 levels counted as whole wherever the market went."""
    with gzip.open(recordings / "usdm" / "btcusdt_20240718.gz") as file:
        lines = list(islice(file, 4_000))
    cut = [_cut(line, 50) for line in lines]
    path = tmp_path / "btcusdt.dat"
    path.write_bytes(b"".join(cut))
    import_sources([path], tmp_path / "archive")
    archive = Archive.open(tmp_path / "archive")
    (instrument,) = archive.instruments("binance_usdm")
    stored = np.concatenate(list(archive.tick_batches("binance_usdm", ["BTCUSDT"])))
    shallow, deep = _live(cut, instrument), _live(lines, instrument)
    assert shallow.tobytes() == stored.tobytes()
    shallow, deep = (each[each["kind"] == TickKind.BOOK] for each in (shallow, deep))
    assert shallow["recv_ns"].tolist() == deep["recv_ns"].tolist()
    whole = shallow["quality"] == 0
    assert 100 < whole.sum() < len(shallow)
    assert shallow[whole].tobytes() == deep[whole].tobytes()


def _cut(line: bytes, limit: int) -> bytes:
    stamp, _, body = line.partition(b" ")
    if not body.startswith(b'{"lastUpdateId"'):
        return line
    found = json.loads(body)
    sides = {name: found[name][:limit] for name in ("bids", "asks")}
    return stamp + b" " + json.dumps(found | sides, separators=(",", ":")).encode() + b"\n"


def _live(lines: Sequence[bytes], instrument: Instrument) -> Ticks:
    ingest, decoder = Ingest([instrument], FeedConfig()), Decoder()
    for line in lines:
        stamp, _, body = line.rstrip().partition(b" ")
        if body.startswith(b'{"lastUpdateId"'):
            found = decoder.decode(body)
            assert isinstance(found, DepthSnapshot)
            snapshot = DepthSnapshot("BTCUSDT", found.exch_ns, found.last_id, found.bids, found.asks)
            ingest.on_snapshot(int(stamp), snapshot)
        else:
            ingest.on_messages(0, int(stamp), [body])
    return ingest.take()
