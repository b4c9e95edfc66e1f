"""Ticks to frames on a GPU. Twin: frames, whose docstrings say what they are; kernel: kernels/frames.cu.

One frame is one launch without an allocation, which a captured graph may hold. Many frames are three: each
cell is told the ticks that it starts from, and then all are folded at once.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from gpuscalp.device import import_cupy
from gpuscalp.ops import frames as cpu
from gpuscalp.ops.copies import to_device
from gpuscalp.ops.cuda_module import load_module
from gpuscalp.ops.device_arrays import require
from gpuscalp.schema import TICK

FOLD_THREADS = 32  # of a block of `fold`: they stage the ticks of one symbol
CELL_THREADS = 128  # of a block of `last_ticks` and `fold_cells`; one thread per cell
CARRY_SYMBOLS, CARRY_STRETCHES = 32, 32  # of a block of `carry_ticks`
_REMEMBERED = 3  # kinds of ticks that a state remembers: quotes, books, marks


class FrameState(cpu.FrameState):
    """``frames.FrameState`` of CuPy arrays."""

    @staticmethod
    def empty(symbol_count: int) -> FrameState:
        return FrameState(*(to_device(array) for array in cpu.FrameState.empty(symbol_count)))


def fold(
    ticks: Any,
    offsets: Any,
    end_ns: Any,
    tick_size: Any,
    stale_ns: int,
    warm_up_frames: int,
    state: cpu.FrameState,
    channels: Any,
    quality: Any,
    bid_px: Any,
    ask_px: Any,
    mark: Any,
) -> None:
    """Fold the ticks of T whole frames into channels; see ``frames.fold``.

    Parameters
    ----------
    ticks : uint8[N, 64]   the rows of TICK[N] as bytes: CuPy has no records
    state : FrameState     of CuPy arrays, updated in place

    Raises
    ------
    ShapeError    an array is of another type or shape, or not contiguous
    """
    (frame_count,) = end_ns.shape
    (symbol_count,) = tick_size.shape
    row = (frame_count, symbol_count)
    require(ticks, "ticks", np.uint8, (None, TICK.itemsize))
    require(offsets, "offsets", np.int64, (frame_count * symbol_count + 1,))
    require(end_ns, "end_ns", np.int64, (None,))
    require(tick_size, "tick_size", np.float64, (None,))
    require(state.integers, "state.integers", np.int64, (6, symbol_count))
    require(state.reals, "state.reals", np.float64, (8, symbol_count))
    require(channels, "channels", np.float32, (frame_count, cpu.CHANNEL_COUNT, symbol_count))
    require(quality, "quality", np.uint32, row)
    require(bid_px, "bid_px", np.int32, row)
    require(ask_px, "ask_px", np.int32, row)
    require(mark, "mark", np.float64, row)
    if frame_count == 0 or symbol_count == 0:
        return
    given = (ticks, offsets, end_ns, tick_size, np.int64(stale_ns), np.int64(warm_up_frames))
    out = (channels, quality, bid_px, ask_px, mark)
    if frame_count == 1:
        load_module("frames").get_function("fold")(
            (symbol_count,),
            (FOLD_THREADS,),
            (*given, *state, *out, np.int64(symbol_count)),
        )
    else:
        _fold_batch(given, state, out, frame_count, symbol_count)


def _fold_batch(
    given: tuple[Any, ...], state: cpu.FrameState, out: tuple[Any, ...], frame_count: int, symbol_count: int
) -> None:
    """Launch the three kernels of many frames; their order on the stream is their order."""
    cupy = import_cupy()
    ticks, offsets, *_ = given
    cell_count = frame_count * symbol_count
    assert len(ticks) < 1 << 31, "indices of ticks are int32"
    shape = (np.int64(frame_count), np.int64(symbol_count))
    last = cupy.empty((_REMEMBERED, cell_count), np.int32)
    closed = cupy.empty(cell_count, np.int64)
    before = (cupy.empty_like(state.integers), cupy.empty_like(state.reals))
    module = load_module("frames")
    cells = (-(-cell_count // CELL_THREADS),)
    module.get_function("last_ticks")(cells, (CELL_THREADS,), (ticks, offsets, last, np.int64(cell_count)))
    module.get_function("carry_ticks")(
        (-(-symbol_count // CARRY_SYMBOLS),),
        (CARRY_SYMBOLS, CARRY_STRETCHES),
        (ticks, *state, last, closed, *before, *shape),
    )
    module.get_function("fold_cells")(
        cells, (CELL_THREADS,), (*given, *before, last, closed, *state, *out, *shape)
    )
