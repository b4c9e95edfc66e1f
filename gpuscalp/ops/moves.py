"""One frame of the moves of mids: jumps, and averages of their squares. See ``gpuscalp.risk.volatility``.

Some additions and divisions a symbol, on the host only: it has no CUDA twin. As array operations of NumPy
they took many times as long, at every frame.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from gpuscalp.ops._numba import jit
from gpuscalp.schema import F64, I32, I64, NS_PER_S

_NS_PER_S: Final = float(NS_PER_S)


@jit
def take_moves(
    end_ns: int,
    bid_px: I32,
    ask_px: I32,
    mid2: F64,
    at_ns: I64,
    memory_s: F64,
    squares: F64,
    seconds: F64,
    jump_bps: F64,
    first_bps: F64,
) -> None:
    """Take in the quotes of one frame.

    Parameters
    ----------
    bid_px, ask_px : int32[S]   ticks; 0 where there is no quote
    mid2, at_ns : [S]           changed; twice the last mid, 0 before the first, and the end of its frame
    memory_s : float64[A]       of the averages
    squares, seconds : float64[A, S]  changed; weighted sums of bps² and of time
    jump_bps : float64[S]       written; NaN where no move is known
    first_bps : float64[S]      written; standard deviation over its memory by the first average
    """
    for s in range(len(bid_px)):
        quoted = bid_px[s] > 0 and ask_px[s] > 0
        # As float64: the sum of two int32 prices may not fit.
        now = np.float64(bid_px[s]) + np.float64(ask_px[s])
        before = mid2[s]
        move, square, passed = np.nan, 0.0, 0.0
        # A frame that does not come later, from a source that repeats itself, moves nothing.
        if quoted and before > 0 and at_ns[s] < end_ns:
            move = 1e4 * (now - before) / before
            square = move * move
            passed = (end_ns - at_ns[s]) / _NS_PER_S
        jump_bps[s] = abs(move)
        for a in range(len(memory_s)):
            keep = memory_s[a] / (memory_s[a] + passed)
            squares[a, s] = squares[a, s] * keep + square
            seconds[a, s] = seconds[a, s] * keep + passed
        first_bps[s] = np.sqrt(squares[0, s] / seconds[0, s] * memory_s[0])
        if quoted:
            mid2[s], at_ns[s] = now, end_ns
