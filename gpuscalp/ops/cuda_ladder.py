"""The ladder on a GPU. Twin: ladder, whose docstrings say what is computed; kernel: kernels/ladder.cu.

Nothing here waits for the device: calls queue on the current stream, and their order there is their order.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from gpuscalp.device import import_cupy
from gpuscalp.ops import ladder as cpu
from gpuscalp.ops.cuda_module import load_module
from gpuscalp.ops.device_arrays import require
from gpuscalp.ops.ladder import StepState
from gpuscalp.ops.ladder_codes import FINISH_FIELDS, GROUP_FIELDS, OP, SIZE, Op, Program

STEP_THREADS = 128  # of a block of `step`; one thread per symbol
BATCH_THREADS = 256  # of a block of `batch`; they stride over the frames of a tile
# Each block of `batch` has a part of scratch. Two for each multiprocessor of the largest GPUs.
BATCH_BLOCKS = 256
# Frames at a time in `batch`: a longer tile repeats less of the halo, a shorter one keeps more blocks busy.
TILE_FRAMES = 1024

MAX_SPANS = 8  # registers that the kernel has for the elements of a DECAY


def ring_rows(program: Program) -> int:
    """Return R, the number of rows of StepState.rings."""
    return cpu.ring_rows(_on_host(program))


def halo(program: Program) -> int:
    """Return how many frames before the first one the batch needs."""
    return cpu.halo(_on_host(program))


def new_step_state(program: Program, symbol_count: int) -> StepState:
    """Return the state before the first frame, as CuPy arrays."""
    cupy = import_cupy()
    rings = cupy.full((ring_rows(program), symbol_count), np.nan, np.float32)
    return StepState(rings, cupy.zeros(1, np.int64))


def batch_scratch(program: Program, tile: int) -> Any:
    """Return float32[blocks, 2, E, halo + tile]: for each block, two buffers to go up the levels with."""
    groups = _on_host(program).groups
    _check_program(groups)
    shape = (BATCH_BLOCKS, 2, int(groups[:, SIZE].max()), halo(program) + tile)
    return import_cupy().empty(shape, np.float32)


def step_scratch(program: Program, symbol_count: int) -> Any:
    """Return an empty array: a thread keeps its element in registers."""
    _check_program(_on_host(program).groups)
    return import_cupy().empty((3, 0, symbol_count), np.float32)


def batch(program: Program, channels: Any, first: int, last: int, tile: int, scratch: Any, out: Any) -> None:
    """Compute all columns of one symbol for frames first to last; see ``ladder.batch``.

    Parameters
    ----------
    scratch : float32[blocks, 2, E, halo + tile]   from batch_scratch; calls on one stream may share it

    Raises
    ------
    ShapeError    an array is of another type or shape, or not contiguous
    """
    _check_tables(program)
    _, frame_count = out.shape
    channel_count, frames_with_halo = channels.shape
    group_count = len(program.groups)
    require(channels, "channels", np.float32, (channel_count, None))
    require(scratch, "scratch", np.float32, (None, 2, None, None))
    require(out, "out", np.float32, (None, frame_count))
    blocks, _, element_rows, width = scratch.shape
    assert 0 <= first <= last <= frame_count, (first, last, frame_count)
    assert 0 < tile <= width - (frames_with_halo - frame_count), (tile, scratch.shape)
    if first == last or group_count == 0:
        return
    pieces = group_count * -(-(last - first) // tile)
    load_module("ladder").get_function("batch")(
        (min(blocks, pieces),),
        (BATCH_THREADS,),
        (
            program.groups,
            np.int64(group_count),
            program.finishes,
            program.constants,
            channels,
            np.int64(frames_with_halo - frame_count),
            np.int64(first),
            np.int64(last),
            np.int64(tile),
            scratch,
            np.int64(element_rows),
            np.int64(width),
            out,
            np.int64(frame_count),
        ),
    )


def step(program: Program, channels: Any, state: StepState, scratch: Any, out: Any) -> None:
    """Compute all columns of all symbols for the newest frame; see ``ladder.step``.

    Parameters
    ----------
    scratch : float32[3, 0, S]   from step_scratch

    Raises
    ------
    ShapeError    an array is of another type or shape, or not contiguous
    """
    _check_tables(program)
    _, symbol_count = channels.shape
    group_count = len(program.groups)
    require(channels, "channels", np.float32, (None, symbol_count))
    require(state.rings, "state.rings", np.float32, (None, symbol_count))
    require(state.clock, "state.clock", np.int64, (1,))
    require(scratch, "scratch", np.float32, (3, 0, symbol_count))
    require(out, "out", np.float32, (None, symbol_count))
    module = load_module("ladder")
    if symbol_count > 0 and group_count > 0:
        module.get_function("step")(
            (-(-symbol_count // STEP_THREADS), group_count),
            (STEP_THREADS,),
            (
                program.groups,
                program.finishes,
                program.constants,
                channels,
                state.rings,
                state.clock,
                out,
                np.int64(symbol_count),
            ),
        )
    module.get_function("advance_clock")((1,), (1,), (state.clock,))


def _on_host(program: Program) -> Program:
    """Return the tables as NumPy arrays. It waits for the device: for set-up, never for a step."""
    cupy = import_cupy()
    return Program(*(cupy.asnumpy(table) for table in program))


def _check_tables(program: Program) -> None:
    require(program.groups, "program.groups", np.int64, (None, GROUP_FIELDS))
    require(program.finishes, "program.finishes", np.int64, (None, FINISH_FIELDS))
    require(program.constants, "program.constants", np.float32, (None,))


def _check_program(groups: Any) -> None:
    spans = groups[groups[:, OP] == Op.DECAY, SIZE]
    assert not spans.size or spans.max() <= MAX_SPANS, f"a DECAY has at most {MAX_SPANS} spans"
