"""One book out of two streams, and the events that tell it: 20-level books, refined by best quotes.

Owns: what a level that is no longer among the 20 means, which of a book and a quote is newer, and the order
of events under two clocks. Never: reads files, or knows where a file of events ends.

The book that the events build is known at every moment and has at most 20 levels a side.

- A recorded book replaces it. What differs is told level by level: first the levels that are gone, on both
  sides and from the worst one up, then those that are new or changed. So no reader ever sees a crossed book
  between two events, and nothing stays that the record does not show.
- A quote trims it: levels better than the quoted one are gone, the quoted one has the quoted quantity, those
  behind it stay as they were last seen.
- Both carry the venue's update id. A book that is older than the last quote is laid under it; a quote
  that is older than the last book says nothing new.
- A row of a broken chain (``GAP`` or ``RESYNC``) empties the book once. Then only the best levels of sound
  quotes are known, until the next sound book comes as a snapshot.

Two clocks. A simulator needs every event twice: when it happened at the exchange, and when it was seen here.
If some rows overtake others on the way the two orders differ, and so do the differences between successive
books. So there are two books, one for each clock; while they agree only one of them is kept, and one event
serves both clocks.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from gpuscalp.ops._numba import jit
from gpuscalp.schema import BOOK_LEVELS, E8, I64, Quality, TickKind

# One event, in the layout that hftbacktest reads (py-hftbacktest 2.4, hftbacktest/types.py).
EVENT: Final = np.dtype(
    [
        ("ev", np.uint64),
        ("exch_ts", np.int64),
        ("local_ts", np.int64),
        ("px", np.float64),
        ("qty", np.float64),
        ("order_id", np.uint64),
        ("ival", np.int64),
        ("fval", np.float64),
    ],
    align=True,
)
Events = npt.NDArray[np.void]  # EVENT[N]

# The lowest byte of ``ev``, and its flags.
DEPTH: Final = 1
TRADE: Final = 2
DEPTH_CLEAR: Final = 3
DEPTH_SNAPSHOT: Final = 4
KIND_MASK: Final = 0xFF
AT_EXCHANGE: Final = 1 << 31
AT_LOCAL: Final = 1 << 30
BUY: Final = 1 << 29
SELL: Final = 1 << 28

# ``ival`` of a removal: the level may still be there, it only left the 20 that are recorded.
LEFT_WINDOW: Final = 1

# Columns of a row, all int64. A book has the index of its levels in FIRST; a quote has bid price, bid
# quantity, ask price, ask quantity there and behind; a trade price, quantity and side.
KIND, EXCH, LOCAL, SEQ, QUALITY, UPDATE_ID, FIRST, SECOND, THIRD, FOURTH = range(10)
COLUMNS: Final = 10

_TRADE: Final = int(TickKind.TRADE)
_BOOK: Final = int(TickKind.BOOK)
_LOST: Final = int(Quality.GAP | Quality.RESYNC)
_UNSOUND: Final = int(Quality.GAP | Quality.RESYNC | Quality.CROSSED)
_LEVELS: Final = BOOK_LEVELS
_NO_EDGE: Final = np.iinfo(np.int64).max

# Most events of one step: for each clock a clear, 20 removals and 20 levels a side.
STEP_EVENTS: Final = 2 * (1 + 4 * BOOK_LEVELS)

# Words of a clock's book: has an event been told; does a sound book lie under it; its update id; has a quote
# been seen; its update id.
_STARTED, _KNOWN, _BOOK_ID, _QUOTED, _QUOTE_ID = range(5)
_WORDS: Final = 5
# Words of both: does book 0 stand for both clocks; then counts by the local clock.
_AGREED, CLEARED, SUPERSEDED = range(3)


class FusedBook(NamedTuple):
    """The books of both clocks. Changed in place; make one for each file with ``new_fused_book``.

    Axes: clock (0 exchange, 1 local), side (0 bid, 1 ask), level (best first). A key is a price × 1e8,
    negative for bids, so that a smaller key is a better price on both sides.

    Attributes
    ----------
    keys, quantities : int64[2, 2, 20]
    counts : int64[2, 2]       levels of each side
    words : int64[2, 5]
    quotes : int64[2, 4]       bid price, bid quantity, ask price, ask quantity of the last sound quote
    new_keys, new_quantities : int64[2, 20]   the book being made
    new_counts, edges : int64[2]   its levels; the worst recorded key where all 20 are recorded
    shared : int64[3]          SUPERSEDED quotes, CLEARED books
    """

    keys: I64
    quantities: I64
    counts: I64
    words: I64
    quotes: I64
    new_keys: I64
    new_quantities: I64
    new_counts: I64
    edges: I64
    shared: I64


def new_fused_book() -> FusedBook:
    """Return a book of which nothing is known."""
    book = FusedBook(
        keys=np.zeros((2, 2, _LEVELS), np.int64),
        quantities=np.zeros((2, 2, _LEVELS), np.int64),
        counts=np.zeros((2, 2), np.int64),
        words=np.zeros((2, _WORDS), np.int64),
        quotes=np.zeros((2, 4), np.int64),
        new_keys=np.zeros((2, _LEVELS), np.int64),
        new_quantities=np.zeros((2, _LEVELS), np.int64),
        new_counts=np.zeros(2, np.int64),
        edges=np.zeros(2, np.int64),
        shared=np.zeros(3, np.int64),
    )
    book.shared[_AGREED] = 1
    return book


@jit
def tell(
    book: FusedBook,
    rows: I64,
    levels: I64,
    exch_order: I64,
    exch_rank: I64,
    local_start: int,
    places: I64,
    out: Events,
) -> int:
    """Write the events of rows under both clocks; call again while ``places[0] < len(exch_order)``.

    Parameters
    ----------
    book : FusedBook           changed
    rows : int64[N, 10]        in order of arrival
    levels : int64[M, 4, 20]   of the books: bid prices, bid quantities, ask prices, ask quantities, × 1e8
    exch_order : int64[X]      rows whose turn at the exchange has come, in that order
    exch_rank : int64[N]       place of every row in the order of the exchange; rows whose turn is over: -1
    local_start : int          rows from here on have not been told locally
    places : int64[2]          changed: entries of ``exch_order`` and rows from ``local_start`` on that are
                               done. Rows wait for their turn at the exchange; when all have had theirs,
                               an empty ``exch_order`` tells the rest
    out : EVENT[E]             written; E >= STEP_EVENTS

    Returns
    -------
    int                        events written

    Notes
    -----
    A row whose turn comes at the same point of both orders gives events for both clocks. Otherwise it is told
    twice: for the exchange where its exchange time puts it, and locally where it arrived. Cost: O(20) a row.
    """
    at, here, n = places[0], places[1], 0
    exch_count, local_count = len(exch_order), len(rows) - local_start
    while n + STEP_EVENTS <= len(out):
        other = local_start + here
        if at < exch_count:
            row = exch_order[at]
            first = last = 0
            if here < local_count and other == row:
                last = 1
            elif here < local_count and exch_rank[other] < exch_rank[row]:
                row = other
                first = last = 1
        elif exch_count == 0 and here < local_count:
            row = other
            first = last = 1
        else:
            break
        at += 1 if first == 0 else 0
        here += 1 if last == 1 else 0
        n = _step(book, rows[row], levels, out, n, first, last)
    places[0], places[1] = at, here
    return n


@jit
def _step(book: Any, row: Any, levels: Any, out: Any, n: Any, first: Any, last: Any) -> Any:
    """Tell one row to the clocks from ``first`` to ``last``."""
    if row[KIND] == _TRADE:
        flags = (0 if first else AT_EXCHANGE) | (AT_LOCAL if last else 0)
        code = TRADE | flags | (BUY if row[THIRD] > 0 else SELL)
        return _write(out, n, code, row, row[FIRST], row[SECOND], 0)
    together = book.shared[_AGREED] != 0 and first < last
    if book.shared[_AGREED] and first == last:
        _separate(book)
    begin = middle = n
    for clock in range(first, 1 if together else last + 1):
        middle = n
        flags = AT_LOCAL if clock else AT_EXCHANGE
        n = _apply(book, clock, row, levels, out, n, flags | AT_LOCAL if together else flags)
    if not together:
        _compare(book)
        if first < last and _are_same(out, begin, middle, n):
            for k in range(begin, middle):
                out[k].ev |= AT_LOCAL
            n = middle
    return n


@jit
def _separate(book: Any) -> None:
    """Give the local clock a book of its own."""
    for side in range(2):
        book.counts[1, side] = book.counts[0, side]
        for k in range(_LEVELS):
            book.keys[1, side, k] = book.keys[0, side, k]
            book.quantities[1, side, k] = book.quantities[0, side, k]
    for k in range(_WORDS):
        book.words[1, k] = book.words[0, k]
    for k in range(4):
        book.quotes[1, k] = book.quotes[0, k]
    book.shared[_AGREED] = 0


@jit
def _compare(book: Any) -> None:
    """Note whether the books of both clocks have become the same."""
    for side in range(2):
        if book.counts[0, side] != book.counts[1, side]:
            return
        for k in range(book.counts[0, side]):
            if book.keys[0, side, k] != book.keys[1, side, k]:
                return
            if book.quantities[0, side, k] != book.quantities[1, side, k]:
                return
    for k in range(_WORDS):
        if book.words[0, k] != book.words[1, k]:
            return
    for k in range(4):
        if book.quotes[0, k] != book.quotes[1, k]:
            return
    book.shared[_AGREED] = 1


@jit
def _are_same(out: Any, begin: Any, middle: Any, end: Any) -> Any:
    """Whether two runs of events differ in nothing but their clock."""
    if end - middle != middle - begin:
        return False
    for k in range(middle - begin):
        one, two = out[begin + k], out[middle + k]
        if one.ev ^ two.ev != AT_EXCHANGE | AT_LOCAL or one.px != two.px:
            return False
        if one.qty != two.qty or one.ival != two.ival:
            return False
    return True


@jit
def _apply(book: Any, clock: Any, row: Any, levels: Any, out: Any, n: Any, flags: Any) -> Any:
    """Let a book or a quote change the book of one clock, or of both where they agree."""
    is_book = row[KIND] == _BOOK
    known = book.words[clock, _KNOWN] != 0
    lost = is_book and known and row[QUALITY] & _LOST != 0
    if row[QUALITY] & _UNSOUND and not lost:
        return n
    if not is_book and known and row[UPDATE_ID] < book.words[clock, _BOOK_ID]:
        book.shared[SUPERSEDED] += 1 if flags & AT_LOCAL else 0
        return n
    fresh = is_book and not known and not lost
    if lost or fresh or not book.words[clock, _STARTED]:
        n = _write(out, n, DEPTH_CLEAR | flags, row, 0, 0, 0)
        book.counts[clock, 0] = book.counts[clock, 1] = 0
        book.words[clock, _STARTED] = 1
    if lost:
        book.words[clock, _KNOWN] = book.words[clock, _QUOTED] = 0
        book.shared[CLEARED] += 1 if flags & AT_LOCAL else 0
        return n
    lay_quote = True
    if is_book:
        _lay_levels(book, levels, row[FIRST])
        lay_quote = book.words[clock, _QUOTED] and book.words[clock, _QUOTE_ID] > row[UPDATE_ID]
        book.words[clock, _BOOK_ID], book.words[clock, _KNOWN] = row[UPDATE_ID], 1
    else:
        _lay_present(book, clock, known)
        for k in range(4):
            book.quotes[clock, k] = row[FIRST + k]
        book.words[clock, _QUOTE_ID], book.words[clock, _QUOTED] = row[UPDATE_ID], 1
    if lay_quote:
        _lay_quote(book, clock)
    return _change(book, clock, row, out, n, flags, DEPTH_SNAPSHOT if fresh else DEPTH)


@jit
def _lay_levels(book: Any, levels: Any, index: Any) -> None:
    """Make the new book of a recorded one."""
    for side in range(2):
        count = 0
        for k in range(_LEVELS):
            price, quantity = levels[index, 2 * side, k], levels[index, 2 * side + 1, k]
            if price > 0 and quantity > 0:
                book.new_keys[side, count] = price if side else -price
                book.new_quantities[side, count] = quantity
                count += 1
        book.new_counts[side] = count
        book.edges[side] = book.new_keys[side, _LEVELS - 1] if count == _LEVELS else _NO_EDGE


@jit
def _lay_present(book: Any, clock: Any, known: Any) -> None:
    """Make the new book of the present one; of nothing while no sound book lies under the quotes."""
    for side in range(2):
        count = book.counts[clock, side] if known else 0
        for k in range(count):
            book.new_keys[side, k] = book.keys[clock, side, k]
            book.new_quantities[side, k] = book.quantities[clock, side, k]
        book.new_counts[side] = count
        book.edges[side] = _NO_EDGE


@jit
def _lay_quote(book: Any, clock: Any) -> None:
    """Trim the new book to the quote, and put the quoted levels at its head."""
    for side in range(2):
        price, quantity = book.quotes[clock, 2 * side], book.quotes[clock, 2 * side + 1]
        count, skip = book.new_counts[side], 0
        if price <= 0 or quantity <= 0:  # nothing is offered on this side
            book.new_counts[side] = 0
            continue
        key = price if side else -price
        while skip < count and book.new_keys[side, skip] <= key:
            skip += 1
        kept = min(count - skip, _LEVELS - 1)
        if count - skip > kept:
            book.edges[side] = book.new_keys[side, skip + kept - 1]
        # The levels behind the quoted one move by 1 - skip places: backwards only if nothing is trimmed.
        for step in range(kept):
            k = step if skip else kept - 1 - step
            book.new_keys[side, k + 1] = book.new_keys[side, skip + k]
            book.new_quantities[side, k + 1] = book.new_quantities[side, skip + k]
        book.new_keys[side, 0], book.new_quantities[side, 0] = key, quantity
        book.new_counts[side] = kept + 1


@jit
def _change(book: Any, clock: Any, row: Any, out: Any, n: Any, flags: Any, kind: Any) -> Any:
    """Tell the difference to the new book, which takes the place of the old one."""
    for side in range(2):
        k = book.new_counts[side] - 1
        for old in range(book.counts[clock, side] - 1, -1, -1):
            key = book.keys[clock, side, old]
            while k >= 0 and book.new_keys[side, k] > key:
                k -= 1
            if k < 0 or book.new_keys[side, k] != key:
                left = LEFT_WINDOW if key > book.edges[side] else 0
                code = DEPTH | flags | (SELL if side else BUY)
                n = _write(out, n, code, row, key if side else -key, 0, left)
    for side in range(2):
        old, count = 0, book.counts[clock, side]
        for k in range(book.new_counts[side]):
            key, quantity = book.new_keys[side, k], book.new_quantities[side, k]
            while old < count and book.keys[clock, side, old] < key:
                old += 1
            same = old < count and book.keys[clock, side, old] == key
            if not same or book.quantities[clock, side, old] != quantity:
                code = kind | flags | (SELL if side else BUY)
                n = _write(out, n, code, row, key if side else -key, quantity, 0)
        book.counts[clock, side] = book.new_counts[side]
        for k in range(book.new_counts[side]):
            book.keys[clock, side, k] = book.new_keys[side, k]
            book.quantities[clock, side, k] = book.new_quantities[side, k]
    return n


@jit
def _write(out: Any, n: Any, code: Any, row: Any, price_e8: Any, quantity_e8: Any, ival: Any) -> Any:
    event = out[n]
    event.ev = code
    event.exch_ts, event.local_ts = row[EXCH], row[LOCAL]
    event.px, event.qty = price_e8 / E8, quantity_e8 / E8
    event.order_id, event.ival, event.fval = 0, ival, 0.0
    return n + 1
