"""What one symbol's book displays, and what of it our own orders have taken, in arrays.

Integer logic on the host only, so it has no CUDA twin. It knows no orders; those that rest are
``gpuscalp.ops.queues``'s.

``head``, int64[4, HEAD], holds by side (BIDS, ASKS) counts, then what belongs to no side, then scratch;
``book``, int64[2, BOOK_ROWS, W], by side the levels, then what was taken of them. A *key* is the negated
price of a bid, and the price of an ask: the best level has the smallest one, and both sides are worked on
alike. Keys grow along a row.

Taken units: what an order takes from a level stays taken for as long as the book shows it. When a level
shrinks, the units that left are counted against the taken ones first; when it grows, or comes back after the
book has shown that it was gone, the new units are there to be taken. So what is ever taken at a price is at
most what the book showed there first plus all that it added.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from gpuscalp.ops._numba import bare
from gpuscalp.schema import I64

BIDS: Final = 0
ASKS: Final = 1
# Further rows of ``head``: numbers that belong to no side; scratch, nothing that lasts.
WHOLE: Final = 2
SCRATCH: Final = 3

# Columns of a side. FIRST, END: where the levels begin and end in their rows, so that a better one can be put
# before them without moving them. The others are counts.
FIRST: Final = 0
END: Final = 1
TAKEN: Final = 2
QUEUES: Final = 3
PLACES: Final = 4
# Columns of WHOLE. Exchange time of the newest state, of the newest levels (-1 before the first); whether the
# newest is sound; the last traded price, 0 before the first.
STATE_NS: Final = 0
BOOK_NS: Final = 1
SOUND: Final = 2
LAST: Final = 3
# Width of a row: room for the long numbers of ``gpuscalp.ops.queues``.
LIMBS: Final = 12
HEAD: Final = 4 * LIMBS

# Rows of a side: levels, then prices where units were taken (TOOK) that the book last showed (SHOWED).
KEY: Final = 0
QTY: Final = 1
TAKEN_KEY: Final = 2
TOOK: Final = 3
SHOWED: Final = 4
BOOK_ROWS: Final = 5

MOST_LEVELS: Final = 64  # a quote that improves on the book adds a level; the far end is cut off here
_WIDTH: Final = 4 * MOST_LEVELS
_MIDDLE: Final = _WIDTH // 2
UNTOLD: Final = -1  # the book does not say what a price shows
_FAR: Final = 1 << 62  # farther than any key


def new_head() -> I64:
    """Return int64[4, HEAD] of a book without a state."""
    head = np.zeros((4, HEAD), np.int64)
    head[WHOLE, [STATE_NS, BOOK_NS]] = -1
    head[:WHOLE, [FIRST, END]] = _MIDDLE
    return head


def new_book() -> I64:
    """Return empty levels with room for as many taken prices, int64[2, BOOK_ROWS, W]."""
    return np.zeros((2, BOOK_ROWS, _WIDTH), np.int64)


@bare
def set_quote(
    head: I64, book: I64, at_ns: int, bid: int, bid_qty: int, ask: int, ask_qty: int, sound: bool
) -> bool:
    """Take a best bid and ask; return whether it changed what can be believed. Older ones are ignored."""
    if at_ns < head[WHOLE, STATE_NS]:
        return False
    head[WHOLE, STATE_NS] = at_ns
    usable = sound and 0 < bid < ask and bid_qty > 0 and ask_qty > 0
    head[WHOLE, SOUND] = usable
    if usable:
        for side in range(2):  # a loop: each call is compiled here
            key, qty = (-bid, bid_qty) if side == BIDS else (ask, ask_qty)
            _set_best(head, book, side, key, qty)
    return usable


@bare
def set_book(head: I64, book: I64, at_ns: int, tops: I64, place: int, sound: bool) -> bool:
    """Take the best levels of both sides; return whether it changed what can be believed.

    A book that is older than the last state tells only what lies behind the best levels.

    Parameters
    ----------
    tops : int64[B, 4, L]    bid prices, bid quantities, ask prices, ask quantities, best first, 0 = no level
    place : which of them
    """
    if at_ns < head[WHOLE, BOOK_NS] or not sound:
        if not sound and at_ns >= head[WHOLE, STATE_NS]:
            head[WHOLE, SOUND] = 0
        return False
    usable = 0 < tops[place, 0, 0] < tops[place, 2, 0] and tops[place, 1, 0] > 0 and tops[place, 3, 0] > 0
    newest = at_ns >= head[WHOLE, STATE_NS]
    if newest:
        head[WHOLE, STATE_NS] = at_ns
        head[WHOLE, SOUND] = usable
    if not usable or not head[WHOLE, SOUND]:
        return False
    head[WHOLE, BOOK_NS] = at_ns
    for side in range(2):  # a loop: each call is compiled here
        _replace(head, book, side, tops, place, newest)
    return newest  # type: ignore[no-any-return]


@bare
def take(head: I64, book: I64, side: int, index: int, qty: int) -> None:
    """Use up units of a level. The caller leaves room for one more price."""
    key, count = book[side, KEY, index], head[side, TAKEN]
    at = 0
    while at < count and book[side, TAKEN_KEY, at] < key:
        at += 1
    if at == count or book[side, TAKEN_KEY, at] != key:
        for row in range(TAKEN_KEY, BOOK_ROWS):
            for to in range(count, at, -1):
                book[side, row, to] = book[side, row, to - 1]
        book[side, TAKEN_KEY, at] = key
        book[side, TOOK, at] = 0
        book[side, SHOWED, at] = book[side, QTY, index]
        head[side, TAKEN] = count + 1
    book[side, TOOK, at] += qty


@bare
def available(head: I64, book: I64, side: int, index: int) -> int:
    """Return what may still be taken of a level."""
    key, qty = book[side, KEY, index], book[side, QTY, index]
    for at in range(head[side, TAKEN]):
        if book[side, TAKEN_KEY, at] >= key:
            return max(0, qty - book[side, TOOK, at]) if book[side, TAKEN_KEY, at] == key else qty  # type: ignore[no-any-return]
    return qty  # type: ignore[no-any-return]


@bare
def _replace(head, book, side, tops, place, whole):  # type: ignore[no-untyped-def]
    """Set the levels of a side, all or those behind the best one; those without a quantity are left out."""
    first = end = _MIDDLE
    best = -_FAR
    if not whole and head[side, FIRST] < head[side, END]:
        best = book[side, KEY, head[side, FIRST]]
        book[side, KEY, first] = best
        book[side, QTY, first] = book[side, QTY, head[side, FIRST]]
        end += 1
    for index in range(min(tops.shape[2], MOST_LEVELS - 1)):
        price, qty = tops[place, 2 * side, index], tops[place, 2 * side + 1, index]
        key = price if side == ASKS else -price
        if price > 0 and qty > 0 and key > best:
            book[side, KEY, end] = key
            book[side, QTY, end] = qty
            end += 1
    head[side, FIRST] = first
    head[side, END] = end
    if head[side, TAKEN]:
        _recount(head, book, side)


@bare
def _set_best(head, book, side, key, qty):  # type: ignore[no-untyped-def]
    """Set the best level; what was better than it is gone."""
    first, end = head[side, FIRST], head[side, END]
    while first < end and book[side, KEY, first] < key:
        first += 1
    if first == end or book[side, KEY, first] != key:
        if first == 0:
            count = min(end, MOST_LEVELS - 1)
            for at in range(count):
                book[side, KEY, _MIDDLE + at] = book[side, KEY, at]
                book[side, QTY, _MIDDLE + at] = book[side, QTY, at]
            first = _MIDDLE
            end = _MIDDLE + count
        first -= 1
        book[side, KEY, first] = key
        head[side, END] = min(end, first + MOST_LEVELS)
    head[side, FIRST] = first
    book[side, QTY, first] = qty
    if head[side, TAKEN]:
        _recount(head, book, side)


@bare
def _recount(head, book, side):  # type: ignore[no-untyped-def]
    """Count what the levels show against what was taken of them.

    A market that has moved on leaves takes behind its last level: nothing is known of those.
    """
    at, end, count = head[side, FIRST], head[side, END], head[side, TAKEN]
    if at == end:
        return
    far = book[side, KEY, end - 1]
    kept = 0
    for index in range(count):
        key, took = book[side, TAKEN_KEY, index], book[side, TOOK, index]
        shown = book[side, SHOWED, index]
        if key <= far:
            while book[side, KEY, at] < key:
                at += 1
            now = book[side, QTY, at] if book[side, KEY, at] == key else 0
            took = max(0, took - max(0, shown - now))
            shown = now
        elif kept == index:
            return
        if shown and took:
            book[side, TAKEN_KEY, kept] = key
            book[side, TOOK, kept] = took
            book[side, SHOWED, kept] = shown
            kept += 1
    head[side, TAKEN] = kept
