"""The frame grid: which frame a tick belongs to, which frames are closed, and the order to fold them in.

Integer logic on the host only: the same for both devices, so it has no CUDA twin.
"""

from __future__ import annotations

import numpy as np

from gpuscalp.ops._numba import jit
from gpuscalp.schema import I64, Quality, TickKind, Ticks

# Positions in the grid's state.
WATERMARK = 0  # largest exchange time seen, less the lateness
OPEN_FRAME = 1  # the lowest frame that has not closed; UNSET before the first tick
LATE_COUNT = 2
TRADE_COUNT = 3
LATE_TRADE_COUNT = 4  # dropped
STATE_SIZE = 5

UNSET = -1
LATE_KIND = 255  # a dropped trade: only its quality bits reach a frame

_CLOCK = int(TickKind.CLOCK)
_MARK = int(TickKind.MARK)
_TRADE = int(TickKind.TRADE)
_LATE = int(Quality.LATE)


@jit
def first_wrong_symbol(ticks: Ticks, symbol_count: int) -> int:
    """Return the index of the first tick of no known symbol, or -1. A CLOCK tick has no symbol."""
    for index in range(ticks.size):
        tick = ticks[index]
        if tick.kind != _CLOCK and (tick.symbol < 0 or tick.symbol >= symbol_count):
            return index
    return -1


@jit
def assign(
    ticks: Ticks, frame_ns: int, lateness_ns: int, max_gap_ns: int, state: I64, frames: I64, limit: int
) -> tuple[int, bool]:
    """Give each tick its frame, in arrival order, moving the watermark.

    A tick for a closed frame is late, which shows in the quality word of its symbol in the open frame. A
    trade has happened in a frame that is over: it is re-labelled as LATE_KIND, and dropped. A quote, a book
    and a mark are states that hold from when they are known: they go into the open frame. A mark is not even
    late: venues date it on whole seconds and send it later.

    Parameters
    ----------
    ticks : TICK[N]          in arrival order; late ones are re-labelled in place
    frame_ns, lateness_ns, max_gap_ns : int
    state : int64[STATE_SIZE]  updated in place
    frames : int64[N]        written: index of the frame, or UNSET for a CLOCK tick
    limit : int              stop after the tick that closes this many frames

    Returns
    -------
    (consumed, gap)          number of ticks dealt with; whether the next tick lies beyond max_gap_ns
    """
    first_open = state[OPEN_FRAME]
    for index in range(ticks.size):
        tick = ticks[index]
        time_ns = tick.exch_ns
        if state[OPEN_FRAME] == UNSET:
            state[WATERMARK] = time_ns - lateness_ns
            state[OPEN_FRAME] = state[WATERMARK] // frame_ns
            first_open = state[OPEN_FRAME]
        elif time_ns - lateness_ns > state[WATERMARK]:
            if time_ns - lateness_ns - state[WATERMARK] > max_gap_ns:
                return index, True
            state[WATERMARK] = time_ns - lateness_ns
        frame = time_ns // frame_ns
        if tick.kind == _TRADE:
            state[TRADE_COUNT] += 1
        if tick.kind == _CLOCK:
            frames[index] = UNSET
        elif tick.kind == _MARK:
            frames[index] = max(frame, state[OPEN_FRAME])
        elif frame < state[OPEN_FRAME]:
            if tick.kind == _TRADE:
                ticks[index].kind = LATE_KIND
                state[LATE_TRADE_COUNT] += 1
            ticks[index].quality = tick.quality | _LATE
            frames[index] = state[OPEN_FRAME]
            state[LATE_COUNT] += 1
        else:
            frames[index] = frame
        # A frame is closed once the watermark has reached its end.
        state[OPEN_FRAME] = max(state[OPEN_FRAME], state[WATERMARK] // frame_ns)
        if state[OPEN_FRAME] - first_open >= limit:
            return index + 1, False
    return ticks.size, False


@jit
def _copy(source, index, target, place):  # type: ignore[no-untyped-def]
    """Copy one tick, word by word: by fields it takes five times as long."""
    for word in range(8):
        target[place, word] = source[index, word]


@jit
def order(
    ticks: Ticks,
    frames: I64,
    first_frame: int,
    frame_count: int,
    symbol_count: int,
    offsets: I64,
    words: I64,
    out: I64,
) -> int:
    """Sort the ticks of closed frames by (frame, symbol), keeping arrival order within; move the rest up.

    Parameters
    ----------
    ticks : TICK[N]                              pending ticks; the ones kept are moved to the front
    frames : int64[N]                            their frames, moved along
    first_frame, frame_count, symbol_count : int the closed frames
    offsets : int64[frame_count * symbol_count + 1]  written
    words, out : int64[>= N, 8]                  the pending ticks as words (the same memory as ticks), and
                                                 where the closed ones go in order

    Returns
    -------
    int                                          number of ticks that stay pending
    """
    offsets[:] = 0
    past = first_frame + frame_count
    for index in range(ticks.size):
        if frames[index] != UNSET and frames[index] < past:
            offsets[(frames[index] - first_frame) * symbol_count + ticks[index].symbol + 1] += 1
    for key in range(1, offsets.size):
        offsets[key] += offsets[key - 1]
    kept = 0
    for index in range(ticks.size):
        if frames[index] == UNSET:
            continue
        if frames[index] < past:
            key = (frames[index] - first_frame) * symbol_count + ticks[index].symbol
            _copy(words, index, out, offsets[key])
            offsets[key] += 1
        else:
            _copy(words, index, words, kept)
            frames[kept] = frames[index]
            kept += 1
    # Each offset has moved to the start of the next key: shift them back by one place.
    for key in range(offsets.size - 1, 0, -1):
        offsets[key] = offsets[key - 1]
    offsets[0] = 0
    return kept


def new_state() -> I64:
    """Return the state of a grid that has seen no tick."""
    state = np.zeros(STATE_SIZE, np.int64)
    state[OPEN_FRAME] = UNSET
    return state
