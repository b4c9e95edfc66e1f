"""Memory that two processes share and that no name leads to: it is gone when both are, however they ended.

Owns: how it is got, and what lies where in it: frames on their way to the workers, a state to begin from, a
worker's answers. Never: says when something may be read; a message does (gpuscalp.worker.link).
"""

from __future__ import annotations

import mmap
import os
from collections import deque
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Final, final

import numpy as np
import numpy.typing as npt

from gpuscalp.frames import ClosedFrames
from gpuscalp.ops.packed import Field, carve, packed_bytes
from gpuscalp.ops.row_digest import U64
from gpuscalp.schema import F32, I64, TICK

U8 = npt.NDArray[np.uint8]
# (key, dtype, shape) of each array of a state
StateLayout = tuple[tuple[str, str, tuple[int, ...]], ...]

# Frames that may wait for one worker's answer. Their messages have to fit into the buffer of a socket, which
# holds about 270 small ones by default (Linux, net.core.wmem_default).
SLOTS: Final = 128
# 2,000 ticks take 128 KiB: room for as many frames as there are slots, and for a burst.
RING_BYTES: Final = 1 << 25
_TICK: Final = "tick"


def anonymous(size: int) -> int:
    """Return the descriptor of new memory of zeros.

    Not in /dev/shm: a container often has 64 MiB of it, less than the state of 512 symbols.
    """
    descriptor = os.memfd_create("gpuscalp", os.MFD_CLOEXEC)
    try:
        os.ftruncate(descriptor, size)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def mapped(descriptor: int) -> U8:
    """Return all bytes of a memory; it stays as long as an array of it does, the descriptor may be closed.

    Every page is there from the beginning: the first touch of 32 of them, one frame, takes 1 ms (EPYC).
    """
    size = os.fstat(descriptor).st_size
    # Writable also where it is only read: Numba compiles its kernels again for arrays that are not.
    return np.frombuffer(mmap.mmap(descriptor, size, flags=mmap.MAP_SHARED | mmap.MAP_POPULATE), np.uint8)


@final
class Ring:
    """Where the bytes of frames lie that somebody may still read, oldest first. Only reckons.

    Parameters
    ----------
    size : bytes
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._live: deque[tuple[int, int, int]] = deque()  # index, start, past

    def place(self, index: int, size: int) -> int | None:
        """Return where the next frame lies, in one piece; None: there is no room."""
        start = 0  # in an empty ring always here: these bytes are in the cache
        if self._live:
            head, tail = self._live[-1][2], self._live[0][1]
            if head > tail:
                start, past = (head, self._size) if head + size <= self._size else (0, tail)
            else:
                start, past = head, tail
        else:
            past = self._size
        if start + size > past:
            return None
        self._live.append((index, start, start + size))
        return start

    def release(self, before: int) -> None:
        """Forget the frames before this index."""
        while self._live and self._live[0][0] < before:
            self._live.popleft()


def _frame_layout(tick_count: int, symbol_count: int) -> tuple[Field, ...]:
    return (Field((1,), np.int64), Field((symbol_count + 1,), np.int64), Field((tick_count, 8), np.int64))


def frame_bytes(closed: ClosedFrames) -> int:
    """Return the room that one closed frame takes."""
    tick_count = int(closed.offsets[-1] - closed.offsets[0])
    return packed_bytes(_frame_layout(tick_count, len(closed.offsets) - 1))


def pack_frame(closed: ClosedFrames, into: U8) -> int:
    """Write one closed frame, of ``ticks`` only those that are its own; return how many these are."""
    first, past = int(closed.offsets[0]), int(closed.offsets[-1])
    end_ns, offsets, words = carve(into, _frame_layout(past - first, len(closed.offsets) - 1))
    end_ns[:] = closed.end_ns
    np.subtract(closed.offsets, first, out=offsets)
    # As words: NumPy copies a structure field by field.
    words[:] = np.ascontiguousarray(closed.ticks[first:past]).view(np.int64).reshape(-1, 8)
    return past - first


def unpack_frame(ring: U8, at: int, tick_count: int, symbol_count: int, *, restart: bool) -> ClosedFrames:
    """Return what ``pack_frame`` has written, as views."""
    layout = _frame_layout(tick_count, symbol_count)
    end_ns, offsets, words = carve(ring[at : at + packed_bytes(layout)], layout)
    return ClosedFrames(end_ns, words.reshape(-1).view(TICK), offsets, restart)


def write_state(saved: Mapping[str, npt.NDArray[np.generic]]) -> tuple[int, StateLayout]:
    """Return new memory that holds ``FeatureStream.checkpoint``, and what lies in it.

    Written, not mapped: 70 MB take 25 ms instead of 50 (EPYC), and other threads may run.

    Raises
    ------
    OSError    there is no such memory
    """
    layout = tuple(
        (key, _TICK if array.dtype == TICK else array.dtype.str, array.shape) for key, array in saved.items()
    )
    fields = _state_fields(layout)
    with ExitStack() as undo:
        descriptor = anonymous(packed_bytes(fields))
        undo.callback(os.close, descriptor)
        at = 0
        for field, array in zip(fields, saved.values(), strict=True):
            left = memoryview(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
            done = 0
            while done < len(left):
                done += os.pwrite(descriptor, left[done:], at + done)
            at += packed_bytes([field])
        undo.pop_all()
    return descriptor, layout


def read_state(descriptor: int, layout: StateLayout) -> dict[str, npt.NDArray[np.generic]]:
    """Return the arrays that ``write_state`` was given, as views."""
    views = carve(mapped(descriptor), _state_fields(layout))
    return {key: view for (key, _, _), view in zip(layout, views, strict=True)}


def _state_fields(layout: StateLayout) -> list[Field]:
    return [Field(tuple(shape), TICK if kind == _TICK else np.dtype(kind)) for _, kind, shape in layout]


@dataclass(frozen=True, slots=True)
class Board:
    """What one process writes and its parent reads.

    Attributes
    ----------
    beat : int64[1]                       counts up as long as the process lives
    digests : uint64[SLOTS, S]            of the answer to frame i in slot i mod SLOTS
    margins : float32[SLOTS, M, R, K]
    """

    beat: I64
    digests: U64
    margins: F32

    @staticmethod
    def fields(symbol_count: int, margins: tuple[int, int, int]) -> tuple[Field, ...]:
        """Return the layout; ``margins`` is the shape of one frame's."""
        return (
            Field((1,), np.int64),
            Field((SLOTS, symbol_count), np.uint64),
            Field((SLOTS, *margins), np.float32),
        )

    @classmethod
    def of(cls, memory: U8, symbol_count: int, margins: tuple[int, int, int]) -> Board:
        return cls(*carve(memory, cls.fields(symbol_count, margins)))
