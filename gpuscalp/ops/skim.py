"""The inner loop of a backtest: recorded rows of one symbol, up to the first at which something happens.

Integer logic on the host only, so it has no CUDA twin. A row goes through the same functions as a live one
(``gpuscalp.ops.display``, ``gpuscalp.ops.queues``); one that may fill an order is left to the caller.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from gpuscalp.ops._numba import bare
from gpuscalp.ops.display import ASKS, BIDS, LAST, PLACES, STATE_NS, WHOLE, set_book, set_quote
from gpuscalp.ops.queues import crosses, follow, pass_by, trade_fills
from gpuscalp.schema import E8, I64, Quality, TickKind, Ticks

DOUBT: Final = int(Quality.GAP | Quality.RESYNC | Quality.CROSSED)
_TRADE: Final = int(TickKind.TRADE)
_BOOK: Final = int(TickKind.BOOK)
_E8: Final = float(E8)


@bare
def skim(
    head: I64,
    book: I64,
    queue: I64,
    ticks: Ticks,
    positions: I64,
    tops: I64,
    places: I64,
    row: int,
    stop: int,
    unit: int,
    power: int,
    waits: bool,
    below: int,
    above: int,
) -> int:
    """Take rows until one that may fill an order of ours, and return which that is.

    Parameters
    ----------
    head, book, queue : changed
    ticks : TICK[N], trades, quotes and books of one symbol
    positions : int64[N], growing; rows from the position ``stop`` on are left alone
    tops : int64[B, 4, L], levels of the books, as ``set_book`` takes them
    places : int64[N], where in ``tops`` the levels of a row are
    row : the first to take
    unit : of a price in ticks, in 1e-8
    power : of the queue model
    waits : stop at a state as well: an order has arrived, and waits for one to meet
    below, above : stop at a trade at or below, at or above these prices as well: it sets something off

    Returns
    -------
    int : the first row that was not taken
    """
    count = len(positions)
    while row < count and positions[row] < stop:
        tick = ticks[row]
        kind, at_ns = tick.kind, tick.exch_ns
        rests = head[BIDS, PLACES] + head[ASKS, PLACES] > 0
        if kind == _TRADE:
            price = tick.px0 * unit
            if price <= below or price >= above:
                return row
            if rests:
                # The taker's side is not ours.
                side, key = (BIDS, -price) if tick.side < 0 else (ASKS, price)
                qty = _units(tick.q0)
                if trade_fills(head, queue, side, key, qty, at_ns):
                    return row
                pass_by(head, queue, side, key, qty, at_ns)
            head[WHOLE, LAST] = price
            row += 1
            continue
        if waits:
            return row
        bid, ask = tick.px0 * unit, tick.px1 * unit
        if (
            rests
            and at_ns >= head[WHOLE, STATE_NS]
            and (crosses(head, queue, BIDS, ask) or crosses(head, queue, ASKS, -bid))
        ):
            return row
        sound = not tick.quality & DOUBT
        if kind == _BOOK:
            changed = set_book(head, book, at_ns, tops, places[row], sound)
        else:
            bid_qty, ask_qty = _units(tick.q0), _units(tick.q1)
            changed = set_quote(head, book, at_ns, bid, bid_qty, ask, ask_qty, sound)
        if changed and rests:
            follow(head, book, queue, head[WHOLE, STATE_NS], power)
        row += 1
    return row


@bare
def reaching(exch_ns: I64, first: int, last: int, at_ns: int) -> int:
    """Return the first row at or after a time, or ``last``."""
    for row in range(first, last):
        if exch_ns[row] >= at_ns:
            return row
    return last


@bare
def _units(qty):  # type: ignore[no-untyped-def]
    return np.int64(np.rint(qty * _E8))
