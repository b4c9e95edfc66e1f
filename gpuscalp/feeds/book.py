"""The local order book of one symbol, kept by the exchange's procedure.

Owns: the buffered snapshot, the chain of update ids, the sorted levels. Pure: no sockets, files or clock.

States and what moves between them::

    UNSYNCED  --snapshot that joins the buffered updates-->  SYNCED
    SYNCED    --update whose previous id is not ours------>  RESYNC
    RESYNC    --snapshot that joins the buffered updates-->  SYNCED

In UNSYNCED there is no book to show. In RESYNC updates go on being applied to the levels at hand, because a
recording may hold no further snapshot, but the book is doubtful until one comes, and everything read from it
carries ``Quality.GAP | Quality.RESYNC``. A level that an update crosses is known to be dead then, and is
removed; in SYNCED nothing is ever removed but by the venue, so that a crossed book shows.

Source: Binance developer documentation, "How to manage a local order book correctly", USD-M futures and spot.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import deque
from enum import Enum
from itertools import pairwise
from typing import Final

from gpuscalp.feeds.chain import Ascent, Link
from gpuscalp.feeds.messages import DepthSnapshot, DepthUpdate, Levels
from gpuscalp.schema import BOOK_LEVELS, Quality

# A snapshot is asked for when the stream starts and comes within seconds; ten minutes of updates at 100 ms.
BUFFER_MAX: Final = 6_000
# Far more levels than the venue keeps; a feed that sends more is broken, and the farthest are let go.
LEVELS_MAX: Final = 50_000

_FAR: Final = 2**63


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
    UNNEEDED: the book is whole and ahead of the snapshot.
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


class LocalBook:
    """The book of one symbol.

    Feed every depth update to ``on_diff`` and every snapshot to ``on_snapshot``, in arrival order; read
    ``quality`` and ``top`` after TOP, GAP or SYNCED. After TOO_OLD (or GAP) a live caller must fetch a new
    snapshot.

    Attributes
    ----------
    state : BookState
    missing : ids (first, last), both included, that the newest GAP missed
    unused : buffered updates let go without ever being applied
    """

    def __init__(self) -> None:
        self.state = BookState.UNSYNCED
        self._ids = Ascent()
        self.missing = (0, 0)
        self.unused = 0
        self._bids = _Side(-1)
        self._asks = _Side(1)
        self._buffer: deque[DepthUpdate] = deque(maxlen=BUFFER_MAX)
        self._first_id = 0  # of the newest update, to tell a duplicate from a late one
        self._join_id: int | None = None  # id of a snapshot that no update has reached yet

    @property
    def last_id(self) -> int | None:
        """Id of the newest update seen, whether or not there is a book; None before the first."""
        return self._ids.newest

    @property
    def quality(self) -> int:
        """Quality bits of what ``top`` returns."""
        bits = 0
        if self.state is BookState.RESYNC:
            bits = Quality.GAP | Quality.RESYNC
        elif self.state is BookState.UNSYNCED:
            bits = Quality.RESYNC
        return int(bits | Quality.CROSSED) if self.crossed else int(bits)

    @property
    def crossed(self) -> bool:
        """Whether the best bid is at or above the best ask."""
        bids, asks = self._bids.keys, self._asks.keys
        return bool(bids) and bool(asks) and -bids[0] >= asks[0]

    @property
    def waiting(self) -> int:
        """Updates that wait for a snapshot."""
        return len(self._buffer) if self.state is BookState.UNSYNCED else 0

    def on_diff(self, diff: DepthUpdate) -> BookEvent:
        """Take one depth update."""
        last_id = self._ids.newest
        link = self._ids.on_id(diff.last_id)
        if link is not Link.NEXT:
            repeated = link is Link.DUPLICATE and diff.first_id == self._first_id
            return BookEvent.DUPLICATE if repeated else BookEvent.LATE
        if self._ids.outvoted:
            last_id = self._ids.before
        gap = last_id is not None and diff.previous_id != last_id
        if last_id is not None and gap:
            self.missing = (last_id + 1, diff.previous_id)
        self._first_id = diff.first_id
        if self.state is BookState.SYNCED and not gap and self._join_id is None:
            return self._apply(diff)
        return self._on_unsettled(diff, gap=gap)

    def on_snapshot(self, snapshot: DepthSnapshot) -> BookEvent:
        """Take one REST snapshot: load it and apply the buffered updates that follow it."""
        if self.state is BookState.SYNCED and (self._join_id or self.last_id or 0) >= snapshot.last_id:
            return BookEvent.UNNEEDED
        waiting = [diff for diff in self._buffer if diff.last_id > snapshot.last_id]
        if waiting and waiting[0].previous_id > snapshot.last_id:
            return BookEvent.TOO_OLD
        if any(later.previous_id != sooner.last_id for sooner, later in pairwise(waiting)):
            return BookEvent.TOO_OLD  # the last gap lies behind the snapshot
        self._bids.load(snapshot.bids)
        self._asks.load(snapshot.asks)
        for diff in waiting:
            self._apply(diff)
        self._buffer.clear()
        self.state = BookState.SYNCED
        self._join_id = None if waiting else snapshot.last_id
        return BookEvent.SYNCED

    def top(self) -> tuple[list[int], list[int], list[int], list[int]]:
        """Return bid prices, bid quantities, ask prices, ask quantities of the 20 best levels, best first,
        as multiples of 1e-8; 0 = no level."""
        bid_price, bid_qty = self._bids.top()
        ask_price, ask_qty = self._asks.top()
        return bid_price, bid_qty, ask_price, ask_qty

    def best(self) -> tuple[int, int, int, int]:
        """Return best bid price and quantity, best ask price and quantity; 0 = no level."""
        bid_price, bid_qty = self._bids.best()
        ask_price, ask_qty = self._asks.best()
        return bid_price, bid_qty, ask_price, ask_qty

    def _on_unsettled(self, diff: DepthUpdate, *, gap: bool) -> BookEvent:
        """Take an update that is not simply the next one of a whole book."""
        if self.state is BookState.SYNCED and self._join_id is not None:
            # The first updates after a snapshot that had nothing to join: older ones are in it already, and
            # the first newer one must begin at or before it. A gap before that moment is covered by it.
            if diff.last_id <= self._join_id:
                return BookEvent.CONTAINED
            gap = diff.previous_id > self._join_id
            if gap:
                self.missing = (self._join_id + 1, diff.previous_id)
            self._join_id = None
            if not gap:
                return self._apply(diff)
        if self.state is BookState.SYNCED:
            self.state = BookState.RESYNC
        if len(self._buffer) == BUFFER_MAX and self.state is BookState.UNSYNCED:
            self.unused += 1
        self._buffer.append(diff)
        if self.state is BookState.UNSYNCED:
            return BookEvent.GAP if gap else BookEvent.BUFFERED
        event = self._apply(diff)
        return BookEvent.GAP if gap else event

    def _apply(self, diff: DepthUpdate) -> BookEvent:
        bids = self._bids.apply(diff.bids)
        asks = self._asks.apply(diff.asks)
        if self.state is BookState.RESYNC and self.crossed:
            # Some level here died in the gap. What this update has just named is alive.
            self._asks.remove_through(max((price for price, qty in diff.bids if qty), default=0))
            self._bids.remove_through(-min((price for price, qty in diff.asks if qty), default=_FAR))
        if bids or asks:
            return BookEvent.TOP
        return BookEvent.APPLIED


class _Side:
    """Levels of one side. Keys are prices times the sign that makes the best one the smallest."""

    __slots__ = ("keys", "qty", "sign")

    def __init__(self, sign: int) -> None:
        self.sign = sign
        self.keys: list[int] = []
        self.qty: dict[int, int] = {}

    def load(self, levels: Levels) -> None:
        self.qty = {self.sign * price: qty for price, qty in levels if qty}
        self.keys = sorted(self.qty)

    def apply(self, levels: Levels) -> bool:
        """Set levels; return whether one of the best 20 changed.

        A sorted list and a dict: inserting near the front moves a few KB, which is faster at the 1,000 to
        5,000 levels of these books than any tree in Python.
        """
        sign, keys, quantities = self.sign, self.keys, self.qty
        # The edge of the top before the update: a change inside it moves later levels in, one outside cannot.
        edge = keys[BOOK_LEVELS - 1] if len(keys) >= BOOK_LEVELS else _FAR
        changed = False
        for price, qty in levels:
            key = sign * price
            old = quantities.get(key)
            if qty:
                if old is None:
                    insort(keys, key)
                elif old == qty:
                    continue
                quantities[key] = qty
            elif old is None:
                continue
            else:
                del quantities[key], keys[bisect_left(keys, key)]
            if key <= edge:
                changed = True
        if len(keys) > LEVELS_MAX:
            for key in keys[LEVELS_MAX:]:
                del quantities[key]
            del keys[LEVELS_MAX:]
        return changed

    def remove_through(self, key: int) -> None:
        """Remove levels at or better than a key, which is a price of the other side times our sign."""
        count = bisect_left(self.keys, key + 1)
        for dead in self.keys[:count]:
            del self.qty[dead]
        del self.keys[:count]

    def best(self) -> tuple[int, int]:
        if not self.keys:
            return 0, 0
        key = self.keys[0]
        return self.sign * key, self.qty[key]

    def top(self) -> tuple[list[int], list[int]]:
        quantities, sign = self.qty, self.sign
        keys = self.keys[:BOOK_LEVELS]
        none = [0] * (BOOK_LEVELS - len(keys))
        return [sign * key for key in keys] + none, [quantities[key] for key in keys] + none
