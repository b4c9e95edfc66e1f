"""The local order book of one symbol, kept by the exchange's procedure.

Owns: the buffered updates, the chain of update ids, the states. The levels themselves are arrays of
``gpuscalp.ops.levels``, where one compiled call applies an update and adds up what a book tick says. Pure: no
sockets, files or clock.

States and what moves between them::

    UNSYNCED  --snapshot that joins the buffered updates-->  SYNCED
    SYNCED    --update whose previous id is not ours------>  RESYNC
    RESYNC    --snapshot that joins the buffered updates-->  SYNCED
    SYNCED    --20 best levels that reach past the edge--->  RESYNC
    RESYNC    --20 best levels within it, chain unbroken-->  SYNCED

In UNSYNCED there is no book to show. In RESYNC updates go on being applied to the levels at hand, because a
recording may hold no further snapshot, but the book is doubtful until one comes, and everything read from it
carries ``Quality.GAP | Quality.RESYNC``. A level that an update crosses is known to be dead then, and is
removed; in SYNCED nothing is ever removed but by the venue, so that a crossed book shows.

A snapshot of as many levels as were asked for says nothing of what lies beyond its outermost ones, and no
update tells of a level there that does not change. That is the edge of a side; it goes outwards with the
market where that tells something (``gpuscalp.ops.levels``). Past it nothing that is shown is wrong, but
levels may be missing. Near it updates are kept a while, so that a snapshot that was asked for in time renews
the book although it is older than the newest of them.

A partial book (``on_partial``) says all there is at once: no snapshot, always SYNCED, and a hole in its chain
is over when it shows. A book takes either updates or partial books; who mixes them begins a new one.

Source: Binance developer documentation, "How to manage a local order book correctly", USD-M futures and spot.
"""

from __future__ import annotations

from collections import deque
from enum import Enum
from itertools import chain, pairwise
from typing import Final, final

import numpy as np
from msgspec import Struct

from gpuscalp.feeds.chain import Ascent, Link
from gpuscalp.feeds.messages import DepthSnapshot, DepthUpdate, Levels
from gpuscalp.ops import levels as ops
from gpuscalp.schema import BOOK_LEVELS, I64, Quality

# A snapshot is asked for when the stream starts and comes within seconds; ten minutes of updates at 100 ms.
BUFFER_MAX: Final = 6_000
# While a whole book is near its edge: longer than a snapshot is on its way, 10 s of updates at 100 ms.
RENEWAL_MAX: Final = 100
# Levels that can be asked for, on USD-M and spot, and more than the best 20: a side of just so many is cut.
SNAPSHOT_LIMITS: Final = frozenset((50, 100, 500, 1_000, 5_000))
# Far more levels than the venue keeps; a feed that sends more is broken, and the farthest are let go.
LEVELS_MAX: Final = 50_000

_CROSSED: Final = int(Quality.CROSSED)
_NO_BOOK: Final = int(Quality.RESYNC)
_DOUBTFUL: Final = int(Quality.GAP | Quality.RESYNC)
_EDGES: Final = ops.NEAR | ops.BEYOND
_BEYOND: Final = ops.BEYOND
_EMPTY: Final = (0, 0, 0.0, 0.0, 0.0, 0.0)


class BookState(Enum):
    UNSYNCED = "unsynced"
    SYNCED = "synced"
    RESYNC = "resync"


class BookEvent(Enum):
    """What an update or a snapshot did.

    TOP: the best 20 levels changed; APPLIED: at most others did; CONTAINED: the snapshot has it already.
    BUFFERED: kept until a snapshot comes. DUPLICATE: the newest update once more. LATE: older than what is
    already known. GAP: updates before this one are missing; it was applied (or, without a book, buffered).
    SYNCED: a snapshot made the book whole. TOO_OLD: the snapshot does not reach the buffered updates.
    UNNEEDED: the book is whole, not near its edge, and ahead of the snapshot.
    """

    APPLIED = "applied"
    TOP = "top"
    CONTAINED = "contained"
    BUFFERED = "buffered"
    DUPLICATE = "duplicate"
    LATE = "late"
    GAP = "gap"
    SYNCED = "synced"
    TOO_OLD = "too_old"
    UNNEEDED = "unneeded"


class _Kept(Struct, frozen=True):
    """An update that waits for a snapshot: levels as ``level_array`` gives them, the first ones bids."""

    last_id: int
    previous_id: int
    levels: I64
    bid_count: int


# An enum's member costs five times as much to look up as a name.
_SYNCED, _RESYNC = BookState.SYNCED, BookState.RESYNC
_TOP, _APPLIED = BookEvent.TOP, BookEvent.APPLIED
_NEXT: Final = Link.NEXT


@final
class LocalBook:
    """The book of one symbol.

    Feed every depth update to ``on_update`` (or ``on_diff``) and every snapshot to ``on_snapshot``, in
    arrival order; read ``quality``, ``top`` and ``summary`` after TOP, GAP or SYNCED. After TOO_OLD (or GAP)
    a live caller must fetch a new snapshot.

    Attributes
    ----------
    missing : ids (first, last), both included, that the newest GAP missed
    unused : buffered updates let go without ever being applied
    resync_count : how often a whole book has become doubtful
    crossed : the best bid is at or above the best ask
    summary : best bid and ask × 1e8 (0 = no level), then the quantities of 5 bids, 5 asks, 20 bids and 20
        asks, each added from the best level outwards in float64
    """

    def __init__(self) -> None:
        self._state = BookState.UNSYNCED  # by the chain of updates alone
        self._edge = 0  # bits NEAR and BEYOND
        self._ids = Ascent()
        self.missing = (0, 0)
        self.unused = self.resync_count = 0
        self.crossed = False
        self.summary = _EMPTY
        self._cells = ops.new_cells(0)
        self._top = np.zeros((4, BOOK_LEVELS), np.int64)
        self._buffer: deque[_Kept] = deque(maxlen=BUFFER_MAX)
        self._first_id = 0  # of the newest update, to tell a duplicate from a late one
        self._join_id: int | None = None  # id of a snapshot that no update has reached yet

    @property
    def state(self) -> BookState:
        return _RESYNC if self._edge & _BEYOND and self._state is _SYNCED else self._state

    @property
    def near_edge(self) -> bool:
        """Whether a whole book should be renewed by a snapshot before levels can be missing."""
        return self._edge == ops.NEAR and self._state is _SYNCED

    @property
    def last_id(self) -> int | None:
        """Id of the newest update seen, whether or not there is a book; None before the first."""
        return self._ids.newest

    @property
    def quality(self) -> int:
        """Quality bits of what ``top`` returns."""
        bits = _CROSSED if self.crossed else 0
        if self._state is _SYNCED and not self._edge & _BEYOND:
            return bits
        return bits | (_NO_BOOK if self._state is BookState.UNSYNCED else _DOUBTFUL)

    @property
    def waiting(self) -> int:
        """Updates that wait for a snapshot."""
        return len(self._buffer) if self._state is BookState.UNSYNCED else 0

    def on_diff(self, diff: DepthUpdate) -> BookEvent:
        """Take one depth update."""
        levels = level_array(diff.bids, diff.asks)
        return self.on_update(
            diff.first_id, diff.last_id, diff.previous_id, levels, 0, len(diff.bids), len(diff.asks)
        )

    def on_update(
        self,
        first_id: int,
        last_id: int,
        previous_id: int,
        levels: I64,
        start: int,
        bid_count: int,
        ask_count: int,
    ) -> BookEvent:
        """Take one depth update.

        Parameters
        ----------
        first_id, last_id, previous_id : as in ``DepthUpdate``
        levels : int64[L, 2]             price and quantity × 1e8; from ``start`` on the bids, then the asks.
                                         What has to wait is copied: the array is the caller's again
        """
        link = self._ids.on_id(last_id)
        if link is not _NEXT:
            repeated = link is Link.DUPLICATE and first_id == self._first_id
            return BookEvent.DUPLICATE if repeated else BookEvent.LATE
        newest = self._ids.before
        gap = newest is not None and previous_id != newest
        if newest is not None and gap:
            self.missing = (newest + 1, previous_id)
        self._first_id = first_id
        if gap or self._join_id is not None or self._edge or self._state is not _SYNCED:
            if self._is_contained(last_id):
                return BookEvent.CONTAINED
            kept = levels[start : start + bid_count + ask_count].copy()
            return self._on_unsettled(_Kept(last_id, previous_id, kept, bid_count), gap=gap)
        return self._apply(levels, start, bid_count, ask_count)

    def on_partial(
        self,
        first_id: int,
        last_id: int,
        previous_id: int,
        levels: I64,
        start: int,
        bid_count: int,
        ask_count: int,
    ) -> BookEvent:
        """Take the best levels as they are now, in the form of ``on_update``.

        Returns TOP or APPLIED (nothing among the levels is another), GAP (messages before this one are
        missing: what happened between is unknown), DUPLICATE or LATE.
        """
        link = self._ids.on_id(last_id)
        if link is not _NEXT:
            repeated = link is Link.DUPLICATE and first_id == self._first_id
            return BookEvent.DUPLICATE if repeated else BookEvent.LATE
        newest = self._ids.before
        self._first_id = first_id
        self._state, self._join_id = BookState.SYNCED, None
        before = self._top.tobytes()
        ops.clear(self._cells)
        self._top[:], self.summary = 0, _EMPTY
        self._apply(levels, start, bid_count, ask_count)
        if newest is not None and previous_id > newest:
            self.missing = (newest + 1, previous_id)
            return BookEvent.GAP
        return _APPLIED if self._top.tobytes() == before else _TOP

    def on_snapshot(self, snapshot: DepthSnapshot) -> BookEvent:
        """Take one REST snapshot: load it and apply the buffered updates that follow it."""
        newest = self._join_id or self.last_id or 0
        if self._state is _SYNCED and not self._edge and newest >= snapshot.last_id:
            return BookEvent.UNNEEDED
        waiting = [kept for kept in self._buffer if kept.last_id > snapshot.last_id]
        if (waiting[0].previous_id if waiting else newest) > snapshot.last_id:
            return BookEvent.TOO_OLD
        if any(later.previous_id != sooner.last_id for sooner, later in pairwise(waiting)):
            return BookEvent.TOO_OLD  # the last gap lies behind the snapshot
        self._load(snapshot.bids, snapshot.asks)
        for kept in waiting:
            self._apply_kept(kept)
        self._buffer.clear()
        self._state = BookState.SYNCED
        self._join_id = None if waiting else snapshot.last_id
        return BookEvent.SYNCED

    def top(self) -> tuple[list[int], list[int], list[int], list[int]]:
        """Return bid prices, bid quantities, ask prices, ask quantities of the 20 best levels, best first,
        as multiples of 1e-8; 0 = no level."""
        bid_price, bid_qty, ask_price, ask_qty = self._top.tolist()
        return bid_price, bid_qty, ask_price, ask_qty

    def top_bytes(self) -> bytes:
        """Return ``top`` as the bytes of an int64[4, 20]."""
        return self._top.tobytes()

    def best(self) -> tuple[int, int, int, int]:
        """Return best bid price and quantity, best ask price and quantity; 0 = no level."""
        bid_price, bid_qty, ask_price, ask_qty = self._top[:, 0].tolist()
        return bid_price, bid_qty, ask_price, ask_qty

    def _is_contained(self, last_id: int) -> bool:
        """Whether the snapshot, which had nothing to join, has an update already."""
        return self._state is BookState.SYNCED and self._join_id is not None and last_id <= self._join_id

    def _on_unsettled(self, kept: _Kept, *, gap: bool) -> BookEvent:
        """Take an update that is not simply the next one of a whole book."""
        if self._state is BookState.SYNCED and self._join_id is not None:
            # The first update behind a snapshot that had nothing to join must begin at or before it. A gap
            # before that moment is covered by it.
            gap = kept.previous_id > self._join_id
            if gap:
                self.missing = (self._join_id + 1, kept.previous_id)
            self._join_id = None
        if self._state is BookState.SYNCED and not gap:
            if self._edge:
                self._buffer.append(kept)
                if len(self._buffer) > RENEWAL_MAX:
                    self._buffer.popleft()
            return self._apply_kept(kept)
        if self._state is BookState.SYNCED:
            self.resync_count += self.state is BookState.SYNCED
            self._state = BookState.RESYNC
        if len(self._buffer) == BUFFER_MAX and self._state is BookState.UNSYNCED:
            self.unused += 1
        self._buffer.append(kept)
        if self._state is BookState.UNSYNCED:
            return BookEvent.GAP if gap else BookEvent.BUFFERED
        event = self._apply_kept(kept)
        return BookEvent.GAP if gap else event

    def _apply_kept(self, kept: _Kept) -> BookEvent:
        return self._apply(kept.levels, 0, kept.bid_count, len(kept.levels) - kept.bid_count)

    def _apply(self, levels: I64, start: int, bid_count: int, ask_count: int) -> BookEvent:
        doubtful = self._state is _RESYNC
        made = ops.update(self._cells, self._top, levels, start, bid_count, ask_count, LEVELS_MAX, doubtful)
        if made[0] & ops.ROOM:
            self._make_room(max(bid_count, ask_count))
            return self._apply(levels, start, bid_count, ask_count)
        return self._note(made)

    def _note(self, made: ops.Summary) -> BookEvent:
        bits = made[0]
        self.crossed = bits & ops.CROSSED != 0
        if bits & ops.MOVED:
            self.summary = made[1:]
            if bits & _EDGES != self._edge:
                self._note_edge(bits & _EDGES)
        return _TOP if bits & ops.CHANGED else _APPLIED

    def _note_edge(self, edge: int) -> None:
        if self._state is BookState.SYNCED:
            self.resync_count += edge & ~self._edge & _BEYOND != 0
            if not edge:
                self._buffer.clear()
        self._edge = edge

    def _load(self, bids: Levels, asks: Levels) -> None:
        ops.clear(self._cells)
        self._make_room(max(len(bids), len(asks)))
        for row, sign, levels in ((ops.BIDS, 1, bids), (ops.ASKS, -1, asks)):
            # Where a price is named twice the last one counts, as in an update.
            found = {sign * price: quantity for price, quantity in levels if quantity}
            count = len(found)
            keys = sorted(found)
            self._cells[row, 0] = count
            self._cells[row, 1 : count + 1] = keys
            self._cells[row + 1, 1 : count + 1] = [found[key] for key in keys]
            if len(levels) in SNAPSHOT_LIMITS and keys:
                self._cells[row + 1, 0] = keys[0]
        self._note(ops.read(self._cells, self._top))

    def _make_room(self, more: int) -> None:
        """Let the cells hold so many levels more, a side."""
        needed = int(max(self._cells[ops.BIDS, 0], self._cells[ops.ASKS, 0])) + more + 1
        if needed > self._cells.shape[1]:
            self._cells = ops.with_room(self._cells, (1 << needed.bit_length()) - 1)


def level_array(bids: Levels, asks: Levels) -> I64:
    """Return levels as int64[L, 2], bids first."""
    count = len(bids) + len(asks)
    flat = chain.from_iterable(chain(bids, asks))
    return np.fromiter(flat, np.int64, 2 * count).reshape(count, 2)
