"""Ticks to frames on a GPU. Twin: frames, whose docstrings say what they are; kernel: kernels/frames.cu."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpuscalp.device import import_cupy
from gpuscalp.ops import frames as cpu
from gpuscalp.ops.cuda_module import load_module
from gpuscalp.ops.device_arrays import require
from gpuscalp.schema import TICK

THREADS = 128  # of a block; one thread per symbol


class FrameState(cpu.FrameState):
    """``frames.FrameState`` of CuPy arrays."""

    @staticmethod
    def empty(symbol_count: int) -> FrameState:
        cupy = import_cupy()
        return FrameState(*(cupy.asarray(array) for array in cpu.FrameState.empty(symbol_count)))


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
    load_module("frames").get_function("fold")(
        (-(-symbol_count // THREADS),),
        (THREADS,),
        (
            ticks,
            offsets,
            end_ns,
            tick_size,
            np.int64(stale_ns),
            np.int64(warm_up_frames),
            state.integers,
            state.reals,
            channels,
            quality,
            bid_px,
            ask_px,
            mark,
            np.int64(frame_count),
            np.int64(symbol_count),
        ),
    )
