"""How much of its span a label has to itself, on the CPU: sums over the labels that are open at once.

Owns: the walk. Never: decides which labels count (``gpuscalp.labels``). Integers up to the one division at
the end: a weight has the same bits however a recording is cut.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from gpuscalp.ops._numba import jit
from gpuscalp.schema import F64, I64


@jit
def mean_share(used: npt.NDArray[np.bool_], span: npt.NDArray[np.int32], shares: I64, unit: float) -> F64:
    """Return float64[T, S]: the mean share of each used label over the frames it spans; 0 where none is used.

    Parameters
    ----------
    used : bool[T, S]
    span : int32[T, S]    a label entered at the close of frame t lives in frames t+1 … t+span
    shares : int64[T + 1]  what a label gets of a frame where so many are open, in fixed point
    unit : what it gets where it is alone

    Raises
    ------
    IndexError    a label ends before its entry, or behind the frames given
    """
    frame_count, symbol_count = used.shape
    # Row by row, and all symbols of a row: that is how they lie in memory.
    change = np.zeros((frame_count + 1, symbol_count), np.int32)
    for frame in range(frame_count):
        for symbol in range(symbol_count):
            if used[frame, symbol]:
                end = frame + span[frame, symbol]
                if end < frame or end >= frame_count:
                    raise IndexError("a label ends outside the frames")
                change[frame + 1, symbol] += 1
                change[end + 1, symbol] -= 1
    total = np.empty((frame_count, symbol_count), np.int64)
    open_count = np.zeros(symbol_count, np.int32)
    reached = np.zeros(symbol_count, np.int64)
    for frame in range(frame_count):
        for symbol in range(symbol_count):
            open_count[symbol] += change[frame, symbol]
            reached[symbol] += shares[open_count[symbol]]
            total[frame, symbol] = reached[symbol]
    weight = np.zeros((frame_count, symbol_count), np.float64)
    for frame in range(frame_count):
        for symbol in range(symbol_count):
            if used[frame, symbol]:
                length = span[frame, symbol]
                spanned = total[frame + length, symbol] - total[frame, symbol]
                weight[frame, symbol] = np.float64(spanned) / (unit * np.float64(length))
    return weight
