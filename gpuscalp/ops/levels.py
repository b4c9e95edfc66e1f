"""The levels of an order book: sorted arrays, changed and summed up in one call.

Integer logic on the host only, so it has no CUDA twin; the four sums are the ones of a book tick. It knows no
update ids and no states: those are ``gpuscalp.feeds.book``'s.

A side is two rows of ``cells``: keys and quantities from place 1 on, their count in place 0 of the keys. A
key is the price times the sign that makes the best level the largest, and the best level lies *last*: most
changes are near the best, and only what lies behind a level has to move when it comes or goes.

Place 0 of the quantities is the edge: the key from which on, up to the best level, every level is known;
``NO_EDGE`` where all are. It goes outwards with the other side: where an ask lies there can be no bid at its
price or above, so that whatever bid comes there later comes by an update, and is known.
"""

from __future__ import annotations

import numpy as np

from gpuscalp.ops._numba import jit
from gpuscalp.schema import BOOK_LEVELS, I64

# Rows of ``cells``; the quantities follow the keys.
BIDS, ASKS = 0, 2
ROWS = 4

# Bits of the first number that ``update`` returns. ROOM: there is no room for the levels, nothing was done.
# CHANGED: one of the best 20 levels did, or was set and taken back. MOVED: what ``top`` holds is another.
# CROSSED: the best bid lies at or above the best ask. NEAR: fewer than 40 levels of a side lie within its
# edge. BEYOND: fewer than 20, so that levels may be missing among the best. Both are told where MOVED.
ROOM, CHANGED, MOVED, CROSSED, NEAR, BEYOND = 1, 2, 4, 8, 16, 32

_FEW = 5
_E8 = 1e8  # a float: an integer above 2^53 is rounded before it is divided, as NumPy does it in the archive
# Within the range of a negated key; no price reaches it.
_FAR = 2**63 - 1
NO_EDGE = -_FAR
_NEAR_LEVELS = 2 * BOOK_LEVELS

# (bits, best bid, best ask, quantities of 5 bids, of 5 asks, of 20 bids, of 20 asks)
Summary = tuple[int, int, int, float, float, float, float]


def new_cells(level_count: int) -> I64:
    """Return empty cells without edges, int64[ROWS, level_count + 1]."""
    cells = np.zeros((ROWS, level_count + 1), np.int64)
    clear(cells)
    return cells


def clear(cells: I64) -> None:
    """Remove all levels, and the edges."""
    cells[BIDS::2, 0] = 0
    cells[BIDS + 1 :: 2, 0] = NO_EDGE


def with_room(cells: I64, level_count: int) -> I64:
    """Return the same levels with room for more."""
    larger = new_cells(level_count)
    larger[:, : cells.shape[1]] = cells
    return larger


@jit
def _behind(cells, row, key):  # type: ignore[no-untyped-def]
    """Return the place of the first key that is not smaller than a key."""
    low, high = 1, cells[row, 0] + 1
    while low < high:
        middle = (low + high) >> 1
        if cells[row, middle] < key:
            low = middle + 1
        else:
            high = middle
    return low


@jit
def _close_up(cells, place, count):  # type: ignore[no-untyped-def]
    """Move what lies behind a place down by one. Unsigned places: signed ones may be negative, which costs a
    check that keeps LLVM from moving many at once, and ten times the time."""
    for at in range(np.uint64(place), np.uint64(count)):
        cells[at] = cells[at + np.uint64(1)]


@jit
def _make_way(cells, place, count):  # type: ignore[no-untyped-def]
    """Move what lies at a place and behind it up by one; unsigned as in ``_close_up``."""
    one, first = np.uint64(1), np.uint64(place)
    at = np.uint64(count) + one
    while at > first:
        cells[at] = cells[at - one]
        at -= one


@jit
def _set(cells, row, sign, levels, start, stop):  # type: ignore[no-untyped-def]
    """Set levels of one side; return whether one of the best 20 changed."""
    count = cells[row, 0]
    # The edge of the top before the update: a change inside it moves later levels in, one outside cannot.
    edge = cells[row, count - BOOK_LEVELS + 1] if count >= BOOK_LEVELS else -_FAR
    changed = False
    for index in range(start, stop):
        key = sign * levels[index, 0]
        quantity = levels[index, 1]
        place = _behind(cells, row, key)
        count = cells[row, 0]
        if place <= count and cells[row, place] == key:
            if quantity == cells[row + 1, place]:
                continue
            if quantity != 0:
                cells[row + 1, place] = quantity
            else:
                _close_up(cells[row], place, count)
                _close_up(cells[row + 1], place, count)
                cells[row, 0] = count - 1
        elif quantity == 0:
            continue
        else:
            _make_way(cells[row], place, count)
            _make_way(cells[row + 1], place, count)
            cells[row, place] = key
            cells[row + 1, place] = quantity
            cells[row, 0] = count + 1
        if key >= edge:
            changed = True
    return changed


@jit
def _keep(cells, row, most):  # type: ignore[no-untyped-def]
    """Let the farthest levels go where there are more than ``most``."""
    excess = cells[row, 0] - most
    if excess > 0:
        for at in range(1, most + 1):
            cells[row, at] = cells[row, at + excess]
            cells[row + 1, at] = cells[row + 1, at + excess]
        cells[row, 0] = most


@jit
def _is_crossed(cells):  # type: ignore[no-untyped-def]
    bids, asks = cells[BIDS, 0], cells[ASKS, 0]
    return bids > 0 and asks > 0 and cells[BIDS, bids] >= -cells[ASKS, asks]


@jit
def _repair(cells, levels, start, middle, stop):  # type: ignore[no-untyped-def]
    """Remove what an update has crossed: what it names is alive, so the other side's level is dead."""
    bid, ask = np.int64(0), np.int64(_FAR)
    for index in range(start, middle):
        if levels[index, 1] != 0:
            bid = max(bid, levels[index, 0])
    for index in range(middle, stop):
        if levels[index, 1] != 0:
            ask = min(ask, levels[index, 0])
    cells[ASKS, 0] = _behind(cells, ASKS, -bid) - 1
    cells[BIDS, 0] = _behind(cells, BIDS, ask) - 1


@jit
def _knows(cells, row, level_count):  # type: ignore[no-untyped-def]
    """Whether so many levels of a side, from the best one on, lie within its edge."""
    count = cells[row, 0]
    edge = cells[row + 1, 0]
    return edge == NO_EDGE or (count >= level_count and cells[row, count - level_count + 1] >= edge)


@jit
def _summary(cells, bits, top):  # type: ignore[no-untyped-def]
    """Write the best levels, and add their quantities from the best one outwards, in float64."""
    top[:] = 0
    sums = np.zeros(4)
    for side in range(2):
        row = BIDS if side == 0 else ASKS
        sign = 1 if side == 0 else -1
        count = cells[row, 0]
        if count > 0 and bits & CROSSED == 0:
            other = (ASKS if side == 0 else BIDS) + 1
            cells[other, 0] = min(cells[other, 0], -cells[row, count])
        total = 0.0
        for index in range(min(count, BOOK_LEVELS)):
            quantity = cells[row + 1, count - index]
            top[row, index] = sign * cells[row, count - index]
            top[row + 1, index] = quantity
            total += quantity / _E8
            if index < _FEW:
                sums[side] = total
        sums[2 + side] = total
    for row in (BIDS, ASKS):
        if not _knows(cells, row, _NEAR_LEVELS):
            bits |= NEAR if _knows(cells, row, BOOK_LEVELS) else NEAR | BEYOND
    return bits, top[BIDS, 0], top[ASKS, 0], sums[0], sums[1], sums[2], sums[3]


@jit
def read(cells: I64, top: I64) -> Summary:
    """Write the best levels of cells that were filled by hand; returns what ``update`` returns."""
    return _summary(cells, MOVED | (CROSSED if _is_crossed(cells) else 0), top)  # type: ignore[no-any-return]


@jit
def update(
    cells: I64,
    top: I64,
    levels: I64,
    start: int,
    bid_count: int,
    ask_count: int,
    most: int,
    doubtful: bool,  # Numba knows no keyword-only arguments
) -> Summary:
    """Set levels.

    Parameters
    ----------
    cells : int64[ROWS, 1 + room]     changed
    top : int64[4, 20]                bid prices, bid quantities, ask prices, ask quantities, best first, 0 =
                                      no level; written where MOVED
    levels : int64[L, 2]              price and quantity, 0 removes; bids from ``start`` on, then asks
    most : levels a side may keep; the farthest are let go
    doubtful : levels may have died unseen: where the book is crossed, those that the update crosses go

    Returns
    -------
    Summary                           prices and sums are those of ``top``, and 0 unless MOVED
    """
    room = cells.shape[1] - 1
    if cells[BIDS, 0] + bid_count > room or cells[ASKS, 0] + ask_count > room:
        return ROOM, 0, 0, 0.0, 0.0, 0.0, 0.0
    middle = start + bid_count
    stop = middle + ask_count
    changed = _set(cells, BIDS, 1, levels, start, middle)
    if _set(cells, ASKS, -1, levels, middle, stop):
        changed = True
    _keep(cells, BIDS, most)
    _keep(cells, ASKS, most)
    moved = changed
    if doubtful and _is_crossed(cells):
        _repair(cells, levels, start, middle, stop)
        moved = True
    bits = CROSSED if _is_crossed(cells) else 0
    if changed:
        bits |= CHANGED
    if not moved:
        return bits, 0, 0, 0.0, 0.0, 0.0, 0.0
    return _summary(cells, bits | MOVED, top)  # type: ignore[no-any-return]
