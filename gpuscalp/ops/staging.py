"""The way of a batch between host and device: ticks there, frames and features back, beside the computing.

Owns: pinned buffers, the streams that copy through them, and the events that keep their order. Never: waits
for the device longer than a buffer is in use, or computes.

On a GPU reading, copying and computing overlap: while the device computes one block of frames the next one is
copied, and the one after that is read and packed (gpuscalp.ops.ahead).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol, final

import numpy as np

from gpuscalp.device import import_cupy
from gpuscalp.ops.copies import pinned, receive, send
from gpuscalp.ops.packed import Field, carve, packed_bytes
from gpuscalp.ops.tick_upload import frames_layout, pack
from gpuscalp.schema import I64, Ticks

_SLOTS: Final = 2  # one is copied while the kernels read the other

# Returns the arrays on the host; call it once, when they are needed.
Fetched = Callable[[], list[Any]]


class Staging(Protocol):
    """Both ways. ``in_flight`` is how many chunks to keep under way before the oldest is asked for."""

    in_flight: int

    def upload(self, ticks: Ticks, offsets: I64, end_ns: I64) -> tuple[Any, Any, Any]:
        """Return the arrays of whole frames as ``frames.fold`` takes them.

        They hold until the next call but one; what reads them must be queued before the next one.
        """
        ...

    def fetch(self, arrays: Sequence[Any]) -> Fetched:
        """Begin to copy contiguous arrays to the host."""
        ...

    def close(self) -> None:
        """Wait for the copies under way: their memory is given to others afterwards."""
        ...


@final
class HostStaging:
    """Where host and device are the same: nothing moves."""

    in_flight = 0

    def upload(self, ticks: Ticks, offsets: I64, end_ns: I64) -> tuple[Any, Any, Any]:
        return ticks, offsets, end_ns

    def fetch(self, arrays: Sequence[Any]) -> Fetched:
        return lambda: list(arrays)

    def close(self) -> None:
        pass


@final
class PinnedStaging:
    """Between the host and the current GPU; kernels run on the stream that is current when it is called."""

    in_flight = 1

    def __init__(self) -> None:
        cuda = import_cupy().cuda
        # Not blocking: else they and the default stream, where kernels mostly run, would wait for each other.
        self._in = cuda.Stream(non_blocking=True)
        self._out = cuda.Stream(non_blocking=True)
        self._slots = [_Slot() for _ in range(_SLOTS)]
        self._count = 0

    def upload(self, ticks: Ticks, offsets: I64, end_ns: I64) -> tuple[Any, Any, Any]:
        current = import_cupy().cuda.get_current_stream()
        slot = self._slots[self._count % _SLOTS]
        # Whatever reads the slot that was filled last has been queued by now.
        self._slots[(self._count - 1) % _SLOTS].used.record(current)
        self._count += 1
        layout = frames_layout(len(end_ns), len(offsets) - 1, int(offsets[-1] - offsets[0]))
        size = packed_bytes(layout)
        slot.copied.synchronize()
        if size > len(slot.host):
            slot.grow(size)
            # The pool may have given memory that a queued kernel still uses.
            slot.used.record(current)
        pack(slot.host, ticks, offsets, end_ns)
        self._in.wait_event(slot.used)
        with self._in:
            send(slot.host[:size], slot.device[:size])
        slot.copied.record(self._in)
        current.wait_event(slot.copied)
        end_there, offsets_there, ticks_there = carve(slot.device, layout)
        return ticks_there, offsets_there, end_there

    def fetch(self, arrays: Sequence[Any]) -> Fetched:
        cuda = import_cupy().cuda
        layout = [Field(array.shape, array.dtype) for array in arrays]
        # New pinned memory from CuPy's pool, which takes it back when the caller has dropped the arrays.
        views = carve(pinned(packed_bytes(layout)), layout)
        ready, done = _event(), _event()
        ready.record(cuda.get_current_stream())
        self._out.wait_event(ready)
        with self._out:
            for view, array in zip(views, arrays, strict=True):
                receive(array, view)
        done.record(self._out)
        # Held until then: freed, their memory could be given to a kernel that runs before the copy.
        held = list(arrays)

        def wait() -> list[Any]:
            done.synchronize()
            held.clear()
            return views

        return wait

    def close(self) -> None:
        # A batch that is left early: CuPy's pool hands pinned memory out again at once, and whoever gets it
        # would write over ticks that a queued kernel still waits for, or have frames written into it.
        self._in.synchronize()
        self._out.synchronize()


class _Slot:
    """A pinned buffer with its twin on the device.

    ``copied``: the host may write again; ``used``: the device may be written again.
    """

    def __init__(self) -> None:
        self.host = np.empty(0, np.uint8)
        self.device: Any = None
        self.copied, self.used = _event(), _event()

    def grow(self, size: int) -> None:
        room = 1 << (size - 1).bit_length()
        self.host, self.device = pinned(room), import_cupy().empty(room, np.uint8)


def _event() -> Any:
    return import_cupy().cuda.Event(disable_timing=True)
