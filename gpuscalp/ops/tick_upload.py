"""Closed frames on their way to a GPU: packed into one buffer, so that one copy of exact size moves them.

Owns: the one way of packing. In front, at places that do not depend on the ticks, lie the ends of the frames
and the offsets; behind them the ticks. A captured graph reads from the same addresses in every frame, and how
many ticks there are from the offsets.
"""

from __future__ import annotations

from typing import Any, Final, final

import numpy as np

from gpuscalp.device import import_cupy
from gpuscalp.ops.copies import Bytes, pinned, send, to_device
from gpuscalp.ops.packed import Field, carve, packed_bytes
from gpuscalp.schema import I64, TICK, Ticks

# Room of a new buffer, per symbol and at least; it grows by doubling, and each growth is a new graph. In 8
# minutes of BTC and ETH on Binance's USD-M, recorded in July 2024, a frame had up to 1,362 ticks.
_FIRST_TICKS: Final = 16
_FIRST_TICKS_MIN: Final = 8_192


def frames_layout(frame_count: int, cell_count: int, tick_count: int) -> tuple[Field, ...]:
    """Return end_ns int64[T], offsets int64[T · S + 1] and ticks uint8[N, 64]."""
    return (
        Field((frame_count,), np.int64),
        Field((cell_count + 1,), np.int64),
        Field((tick_count, TICK.itemsize), np.uint8),
    )


def pack(buffer: Bytes, ticks: Ticks, offsets: I64, end_ns: I64) -> tuple[Field, ...]:
    """Write whole frames, with those of ``ticks`` that ``offsets`` names; return their layout."""
    first, last = int(offsets[0]), int(offsets[-1])
    layout = frames_layout(len(end_ns), len(offsets) - 1, last - first)
    to_end_ns, to_offsets, to_ticks = carve(buffer, layout)
    to_end_ns[:] = end_ns
    np.subtract(offsets, first, out=to_offsets)
    to_ticks[:] = np.ascontiguousarray(ticks[first:last]).view(np.uint8).reshape(to_ticks.shape)
    return layout


def upload_frames(ticks: Ticks, offsets: I64, end_ns: I64) -> tuple[Any, Any, Any]:
    """Copy frames of any number into memory of their own; return ticks, offsets and end_ns there."""
    layout = frames_layout(len(end_ns), len(offsets) - 1, int(offsets[-1] - offsets[0]))
    host = np.empty(packed_bytes(layout), np.uint8)
    pack(host, ticks, offsets, end_ns)
    # CuPy copies from pinned memory of its own, which it holds until the device is done with it.
    on_device = carve(to_device(host), layout)
    return on_device[2], on_device[1], on_device[0]


@final
class TickUpload:
    """Two pinned buffers and one on the device, for one frame at a time.

    The host may pack a frame while the one before is still on its way.

    Attributes
    ----------
    arrays : ticks uint8[capacity, 64], offsets int64[S + 1], end_ns int64[1] on the device; replaced by
        ``reserve`` where it says so
    """

    def __init__(self, symbol_count: int) -> None:
        cupy = import_cupy()
        self._symbol_count = symbol_count
        self._sent = [cupy.cuda.Event(disable_timing=True) for _ in range(2)]
        self._turn = 0
        self._allocate(1 << (max(_FIRST_TICKS * symbol_count, _FIRST_TICKS_MIN) - 1).bit_length())

    def reserve(self, tick_count: int) -> bool:
        """Make room for a frame of so many ticks; return whether the arrays on the device are others now."""
        if tick_count <= self.capacity:
            return False
        for sent in self._sent:
            sent.synchronize()
        self._allocate(1 << (tick_count - 1).bit_length())
        return True

    def __call__(self, ticks: Ticks, offsets: I64, end_ns: I64) -> tuple[Any, Any, Any]:
        """Send one frame, with one copy on the current stream; does not wait for it."""
        self.reserve(int(offsets[-1] - offsets[0]))
        turn = self._turn = 1 - self._turn
        # The copy before the last read from this buffer.
        self._sent[turn].synchronize()
        size = packed_bytes(pack(self._host[turn], ticks, offsets, end_ns))
        send(self._host[turn][:size], self._device[:size])
        self._sent[turn].record()
        return self.arrays

    def _allocate(self, capacity: int) -> None:
        layout = frames_layout(1, self._symbol_count, capacity)
        self.capacity = capacity
        self._host = [pinned(packed_bytes(layout)) for _ in range(2)]
        # Zero: offsets without ticks, which a kernel may be tried on.
        self._device = import_cupy().zeros(packed_bytes(layout), np.uint8)
        end_ns, offsets, ticks = carve(self._device, layout)
        self.arrays: tuple[Any, Any, Any] = (ticks, offsets, end_ns)
