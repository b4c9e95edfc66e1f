"""How far ahead of our resting orders of one symbol the queues still are, in arrays.

Integer logic on the host only, so it has no CUDA twin. It never fills: ``pass_trade`` says what of a trade
reaches an order. What the models mean is told in ``gpuscalp.execution.queueing``; ``power`` is 0 for the
pessimistic one, 1 for the proportional one, else the exponent of the probabilistic one.

``queue``, int64[2, QUEUE_ROWS, W], holds by side the prices where orders of ours rest, then the places of
the orders; both best price first, orders of one price by arrival. ``gpuscalp.ops.display`` has ``head`` and
keys.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from gpuscalp.ops._numba import aside, bare
from gpuscalp.ops.display import END, FIRST, KEY, LIMBS, PLACES, QTY, QUEUES, SCRATCH, UNTOLD
from gpuscalp.schema import I64

# Rows of a price. SHOWN: what the book last showed here, UNTOLD while out of view. TRADED, TRADED_NS: traded
# here since the display last changed, which explains the next drop. DROPPED, DROPPED_NS: left the display
# without a known trade at that exchange time.
QUEUE_KEY: Final = 0
SHOWN: Final = 1
TRADED: Final = 2
TRADED_NS: Final = 3
DROPPED: Final = 4
DROPPED_NS: Final = 5
# Rows of a place. AHEAD: quantity before us; SINCE_NS: a trade counts only if it happened later. ADVANCED,
# ADVANCED_NS: how much the display last brought us forward, and its time: a trade of that time or an earlier
# one, which is told late, does not do it again.
PLACE_KEY: Final = 6
AHEAD: Final = 7
SINCE_NS: Final = 8
ADVANCED: Final = 9
ADVANCED_NS: Final = 10
QUEUE_ROWS: Final = 11

UNSEEN: Final = 1 << 62  # ahead of us: the book did not show the price
_LIMB: Final = 32
_MASK: Final = (1 << _LIMB) - 1
_EXACT: Final = 9e18  # below it an int64 holds a product


def new_queue(room: int) -> I64:
    """Return an empty queue with room for so many orders a side."""
    return np.zeros((2, QUEUE_ROWS, room), np.int64)


@bare
def enter(head: I64, book: I64, queue: I64, side: int, key: int, at_ns: int) -> int:
    """Put an order at the end of the queue at its price; return its place among those of its side."""
    shown = _shown(head, book, side, key)
    level = 0
    while level < head[side, QUEUES] and queue[side, QUEUE_KEY, level] < key:
        level += 1
    if level == head[side, QUEUES] or queue[side, QUEUE_KEY, level] != key:
        _open(queue[side, :PLACE_KEY], level, head[side, QUEUES])
        head[side, QUEUES] += 1
        queue[side, QUEUE_KEY, level], queue[side, SHOWN, level] = key, shown
        queue[side, TRADED, level], queue[side, TRADED_NS, level] = 0, -1
        queue[side, DROPPED, level], queue[side, DROPPED_NS, level] = 0, -1
    place = head[side, PLACES]
    while place > 0 and queue[side, PLACE_KEY, place - 1] > key:
        place -= 1
    _open(queue[side, PLACE_KEY:], place, head[side, PLACES])
    head[side, PLACES] += 1
    queue[side, PLACE_KEY, place] = key
    queue[side, AHEAD, place] = UNSEEN if shown == UNTOLD else shown
    queue[side, SINCE_NS, place] = at_ns
    queue[side, ADVANCED, place], queue[side, ADVANCED_NS, place] = 0, -1
    return place  # type: ignore[no-any-return]


@bare
def leave(head: I64, queue: I64, side: int, place: int) -> None:
    """Take an order out of its queue."""
    key, count = queue[side, PLACE_KEY, place], head[side, PLACES]
    _close(queue[side, PLACE_KEY:], place, count)
    head[side, PLACES] = count - 1
    for other in range(count - 1):
        if queue[side, PLACE_KEY, other] == key:
            return
    level = 0
    while queue[side, QUEUE_KEY, level] != key:
        level += 1
    _close(queue[side, :PLACE_KEY], level, head[side, QUEUES])
    head[side, QUEUES] -= 1


@bare
def crosses(head: I64, queue: I64, side: int, opposite_key: int) -> bool:
    """Whether the best resting order of a side meets a key of the other side."""
    return head[side, PLACES] > 0 and queue[side, PLACE_KEY, 0] + opposite_key <= 0  # type: ignore[no-any-return]


@bare
def follow(head: I64, book: I64, queue: I64, at_ns: int, power: int) -> None:
    """Bring all places forward as a new state of the display says."""
    for side in range(2):
        at, end, places = head[side, FIRST], head[side, END], head[side, PLACES]
        first = 0
        for row in range(head[side, QUEUES]):
            key = queue[side, QUEUE_KEY, row]
            while at < end and book[side, KEY, at] < key:
                at += 1
            last = first
            while last < places and queue[side, PLACE_KEY, last] == key:
                last += 1
            if at == end:
                queue[side, SHOWN, row] = UNTOLD
            else:
                shown = book[side, QTY, at] if book[side, KEY, at] == key else 0
                _on_shown(head, queue, side, row, shown, first, last, at_ns, power)
            first = last


@bare
def trade_fills(head: I64, queue: I64, side: int, key: int, qty: int, at_ns: int) -> bool:
    """Whether a trade may fill an order; False is certain."""
    for place in range(head[side, PLACES]):
        if queue[side, PLACE_KEY, place] > key:
            return False
        if at_ns > queue[side, SINCE_NS, place] and (
            queue[side, PLACE_KEY, place] < key or queue[side, AHEAD, place] < qty
        ):
            return True
    return False


@bare
def note_trade(head: I64, queue: I64, side: int, key: int, qty: int, at_ns: int) -> None:
    """Note a trade at a price; the places are moved by ``pass_trade``."""
    for row in range(head[side, QUEUES]):
        if queue[side, QUEUE_KEY, row] == key:
            if at_ns == queue[side, DROPPED_NS, row]:
                known = min(qty, queue[side, DROPPED, row])
                queue[side, DROPPED, row] -= known
                qty -= known
            queue[side, TRADED, row] += qty
            queue[side, TRADED_NS, row] = at_ns
            return


@bare
def pass_trade(queue: I64, side: int, place: int, key: int, qty: int, at_ns: int) -> int:
    """Let a trade take from the front; return what of it is left for the order and those behind it."""
    beyond = key - queue[side, PLACE_KEY, place]
    if beyond < 0 or at_ns <= queue[side, SINCE_NS, place]:
        return 0
    if beyond > 0:
        # The trade was at a worse price: everybody before us at ours has been served.
        queue[side, AHEAD, place] = 0
        return qty
    if at_ns <= queue[side, ADVANCED_NS, place]:
        known = min(qty, queue[side, ADVANCED, place])
        queue[side, ADVANCED, place] -= known
        qty -= known
    passed = min(qty, queue[side, AHEAD, place])
    queue[side, AHEAD, place] -= passed
    return qty - passed  # type: ignore[no-any-return]


@bare
def pass_by(head: I64, queue: I64, side: int, key: int, qty: int, at_ns: int) -> None:
    """Let a trade that fills none of our orders take from the front of their queues."""
    note_trade(head, queue, side, key, qty, at_ns)
    for place in range(head[side, PLACES]):
        pass_trade(queue, side, place, key, qty, at_ns)


@bare
def share(drop: int, ahead: int, shown: int, power: int, scratch: I64) -> int:
    """Return how much of a drop was ahead: drop · Aⁿ / (Aⁿ + Bⁿ), rounded down, exactly; at most A.

    Parameters
    ----------
    drop, ahead, shown : 0 ≤ drop, 0 ≤ ahead = A ≤ shown = A + B
    power : n, from 1 to 6
    scratch : int64[4 * LIMBS], overwritten
    """
    behind = shown - ahead
    if not ahead or not behind:
        return min(ahead, drop)
    front = back = 1.0
    for _ in range(power):
        front *= ahead
        back *= behind
    if front + back < _EXACT and drop * front < _EXACT:
        a = b = 1
        for _ in range(power):
            a *= ahead
            b *= behind
        return min(ahead, drop * a // (a + b))
    return min(ahead, _divide(drop, ahead, behind, power, scratch))  # type: ignore[no-any-return]


@bare
def _on_shown(head, queue, side, row, shown, first, last, at_ns, power):  # type: ignore[no-untyped-def]
    """Take what the book shows at one price now, and move the places there."""
    before = queue[side, SHOWN, row]
    queue[side, SHOWN, row] = shown
    left = 0
    if shown < before:
        drop = before - shown
        explained = min(queue[side, TRADED, row], drop)
        left = drop - explained
        queue[side, TRADED, row] -= explained
        if queue[side, DROPPED_NS, row] != at_ns:
            queue[side, DROPPED, row], queue[side, DROPPED_NS, row] = 0, at_ns
        queue[side, DROPPED, row] += left
    if at_ns > queue[side, TRADED_NS, row]:
        queue[side, TRADED, row] = 0
    for place in range(first, last):
        was = queue[side, AHEAD, place]
        ahead = was
        if left and power and was < UNSEEN:
            ahead -= share(left, was, max(was, before), power, head[SCRATCH])
        # Nobody can be behind more than is displayed.
        ahead = min(ahead, shown)
        if ahead != was:
            if queue[side, ADVANCED_NS, place] != at_ns:
                queue[side, ADVANCED, place], queue[side, ADVANCED_NS, place] = 0, at_ns
            # From an unseen place too: what now comes into view is what trades have left of it.
            queue[side, ADVANCED, place] += was - ahead
            queue[side, AHEAD, place] = ahead


@bare
def _shown(head, book, side, key):  # type: ignore[no-untyped-def]
    """Return what the book shows at a price: 0 where it shows that there is nothing."""
    for index in range(head[side, FIRST], head[side, END]):
        if book[side, KEY, index] >= key:
            return book[side, QTY, index] if book[side, KEY, index] == key else 0
    return UNTOLD


@bare
def _open(rows, at, count):  # type: ignore[no-untyped-def]
    for row in range(len(rows)):
        for to in range(count, at, -1):
            rows[row, to] = rows[row, to - 1]


@bare
def _close(rows, at, count):  # type: ignore[no-untyped-def]
    for row in range(len(rows)):
        for to in range(at, count - 1):
            rows[row, to] = rows[row, to + 1]


@aside
def _divide(drop, ahead, behind, power, scratch):  # type: ignore[no-untyped-def]
    """Return drop · Aⁿ / (Aⁿ + Bⁿ), rounded down, by numbers of any length."""
    limbs = 2 * power  # the base is below 2^62: what is left, at most three times the whole, fits
    part, whole = scratch[:limbs], scratch[LIMBS : LIMBS + limbs]
    rest, spare = scratch[2 * LIMBS : 2 * LIMBS + limbs], scratch[3 * LIMBS : 3 * LIMBS + limbs]
    _raise(part, spare, ahead, power)
    _raise(whole, spare, behind, power)
    _add(whole, part)
    for limb in range(limbs):
        rest[limb] = 0
    # Long division bit by bit: the part is less than the whole, so two subtractions are always enough.
    found = 0
    for bit in range(62, -1, -1):
        _add(rest, rest)
        found *= 2
        if (drop >> bit) & 1:
            _add(rest, part)
        while _reaches(rest, whole):
            _subtract(rest, whole)
            found += 1
    return found


# Numbers of any length: limbs of 32 bits, the lowest first, each in an int64 that cannot overflow.


@bare
def _raise(number, spare, base, power):  # type: ignore[no-untyped-def]
    """Set a number to a power of a base below 2^62."""
    low, high = base & _MASK, base >> _LIMB
    for index in range(len(number)):
        number[index] = index == 0
    for _ in range(power):
        for index in range(len(number)):
            spare[index], number[index] = number[index], 0
        for index in range(len(number) - 1):
            _add_at(number, index, spare[index], low)
            _add_at(number, index + 1, spare[index], high)


@bare
def _add_at(number, at, left, right):  # type: ignore[no-untyped-def]
    """Add left · right, both below 2^32, at a limb."""
    product = np.uint64(left) * np.uint64(right)
    carry = np.int64(product & np.uint64(_MASK))
    above = np.int64(product >> np.uint64(_LIMB))
    while (carry or above) and at < len(number):
        total = number[at] + carry
        number[at] = total & _MASK
        carry = (total >> _LIMB) + above
        above = np.int64(0)
        at += 1


@bare
def _add(number, other):  # type: ignore[no-untyped-def]
    carry = 0
    for index in range(len(number)):
        total = number[index] + other[index] + carry
        number[index] = total & _MASK
        carry = total >> _LIMB


@bare
def _subtract(number, other):  # type: ignore[no-untyped-def]
    borrow = 0
    for index in range(len(number)):
        total = number[index] - other[index] - borrow
        borrow = 1 if total < 0 else 0
        number[index] = total + (borrow << _LIMB)


@bare
def _reaches(number, other):  # type: ignore[no-untyped-def]
    for index in range(len(number) - 1, -1, -1):
        if number[index] != other[index]:
            return number[index] > other[index]
    return True
