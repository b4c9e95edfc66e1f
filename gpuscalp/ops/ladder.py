"""The ladder: rolling features over windows of 2^k frames, without drift, on the CPU.

``W_k(t) = merge(W_{k-1}(t - 2^(k-1)), W_{k-1}(t))``: one merge per level gives every window, nothing is ever
subtracted, and each window has one fixed order of operations. Batch and stream run the same row functions:
a row runs over time in the batch (older = the row shifted) and over symbols in the stream (older = the slot
of a ring written 2^(k-1) frames ago), so both give the same bits by construction.

What to compute is data: a Program (made by gpuscalp.features). The families are in ladder_families.
Twin: cuda_ladder; kernel: kernels/ladder.cu.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from gpuscalp.ops._numba import jit
from gpuscalp.ops.ladder_codes import COLUMN, FINISH, FINISH_COUNT, LEVEL, RING, SIZE, TOP, WORK_ROWS, Program
from gpuscalp.ops.ladder_families import lift, merge
from gpuscalp.ops.ladder_finish import finish, prepare
from gpuscalp.schema import F32, I64


class StepState(NamedTuple):
    """The stream's memory. A checkpoint is a copy of the arrays.

    rings : float32[R, S]   for each group and level k < top: 2^k slots of its elements
    clock : int64[1]        frames seen
    """

    rings: F32
    clock: I64


def ring_rows(program: Program) -> int:
    """Return R, the number of rows of StepState.rings."""
    groups = program.groups
    return int(np.sum(groups[:, SIZE] * ((1 << groups[:, TOP]) - 1)))


def halo(program: Program) -> int:
    """Return how many frames before the first one the batch needs."""
    return int((1 << program.groups[:, TOP].max()) - 1)


def new_step_state(program: Program, symbol_count: int) -> StepState:
    """Return the state before the first frame: NaN everywhere, so that no window is warm."""
    return StepState(np.full((ring_rows(program), symbol_count), np.nan, np.float32), np.zeros(1, np.int64))


def batch_scratch(program: Program, tile: int) -> F32:
    """Return float32[3, E, halo + tile]: two buffers to go up the levels with, one for work rows."""
    size = max(int(program.groups[:, SIZE].max()), WORK_ROWS)
    return np.empty((3, size, halo(program) + tile), np.float32)


def step_scratch(program: Program, symbol_count: int) -> F32:
    """Return float32[3, E, S], as batch_scratch does for the batch."""
    size = max(int(program.groups[:, SIZE].max()), WORK_ROWS)
    return np.empty((3, size, symbol_count), np.float32)


def batch(program: Program, channels: F32, first: int, last: int, tile: int, scratch: F32, out: F32) -> None:
    """Compute all columns of all symbols for frames first to last.

    Parameters
    ----------
    program : Program
    channels : float32[S, C, H + T]   oldest first, preceded by H = halo(program) frames (NaN where there are
                                      none)
    first, last : int              frames to compute, 0 <= first <= last <= T; the rest of out is untouched
    tile : int                     frames at a time; does not change the bits
    scratch : float32[3, E, >= H + tile]   from batch_scratch; one per thread
    out : float32[S, F, T]         written; NaN where a window is not full of observed frames

    Notes
    -----
    Cost: O(S · (last - first) · levels · elements); each level is one pass over rows in the cache.
    """
    for symbol in range(len(channels)):
        _run(program, channels[symbol], _NO_RINGS, 0, first, last, tile, scratch, out[symbol])


def step(program: Program, channels: F32, state: StepState, scratch: F32, out: F32) -> None:
    """Compute all columns of all symbols for the newest frame.

    Parameters
    ----------
    program : Program
    channels : float32[C, S]   the newest frame
    state : StepState          updated in place
    scratch : float32[3, E, S] from step_scratch
    out : float32[F, S]        written; NaN where a window is not full of observed frames
    """
    symbol_count = channels.shape[1]
    _run(program, channels, state.rings, state.clock[0], 0, symbol_count, symbol_count, scratch, out)
    state.clock[0] += 1


_NO_RINGS = np.empty((0, 0), np.float32)


@jit
def _run(  # type: ignore[no-untyped-def]
    program, channels, rings, now, first, last, tile, scratch, out
):
    """Both modes in one function, so that LLVM compiles the families once."""
    stepping = rings.size > 0
    halo_frames = channels.shape[1] - out.shape[1]
    for index in range(program.groups.shape[0]):
        group = program.groups[index]
        reach = 0 if stepping else (1 << group[TOP]) - 1
        for start in range(first, last, tile):
            count = min(tile, last - start)
            origin = halo_frames + start
            _climb(program, group, channels, origin, reach, rings, now, scratch, out, start, count)


@jit
def _climb(  # type: ignore[no-untyped-def]
    program, group, channels, origin, reach, rings, now, scratch, out, start, count
):
    """One group over one row of positions: lift, merge level by level, finish what each level offers.

    In the batch a row holds ``reach`` earlier frames before the ``count`` wanted ones, of which level k can
    use all but the first 2^k - 1. In the stream it holds symbols, and reach is 0.
    """
    lower = scratch[0]
    upper = scratch[1]
    work = scratch[2]
    ring = group[RING]
    at_finish = group[FINISH]
    past_finish = at_finish + group[FINISH_COUNT]
    size = group[SIZE]
    stepping = rings.size > 0
    lift(group, channels, origin - reach, reach + count, lower)
    for level in range(group[TOP] + 1):
        if level > 0:
            half = 1 << (level - 1)
            # One call of merge for both modes: LLVM compiles what it is given once per call.
            older = lower
            row = 0
            at = (1 << level) - 1
            at_older = at - half
            if stepping:
                older = rings
                row = ring + (now & (half - 1)) * size
                at = 0
                at_older = 0
                ring += half * size
            past = reach + count - at
            merge(program.constants, group, level, older, row, at_older, lower, at, upper, at, past)
            if stepping:
                for element in range(size):
                    for position in range(count):
                        rings[row + element, position] = lower[element, position]
            lower, upper = upper, lower
        if at_finish < past_finish and program.finishes[at_finish, LEVEL] == level:
            prepare(group, lower, reach, work, count)
        while at_finish < past_finish and program.finishes[at_finish, LEVEL] == level:
            row = program.finishes[at_finish]
            finish(
                program.constants, group, row, lower, reach, channels, origin, work,
                out[row[COLUMN]], start, count,
            )  # fmt: skip
            at_finish += 1
