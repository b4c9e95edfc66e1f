"""A GPU's memory, streams, events and graphs, on the host: what ``cuda_on_host`` puts under CuPy's names.

As on a GPU, work that is queued on a stream, the null stream too, is done when somebody waits for it and not
before: a missing wait shows as an old result, a buffer that is filled again too early as a wrong one. What a
library has queued on a default stream of its own is done before what the null stream does next, and no other
stream waits for it. A capture records launches and runs none; a graph knows addresses and scalars, and keeps
no memory alive.

``ShimError`` is raised by what a capture does not permit (to allocate, to copy from or to the host, to wait),
and by what NumPy takes and CuPy does not: an array of the host given to a function of the device or to a
kernel (one element would be passed by its value), a copy of an array that is not contiguous.
"""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tests.host_shim.build import ShimError

# Direction -> bytes of each copy: what gpuscalp's own ledger is compared with.
Copied = Counter[tuple[str, int]]


class DeviceArray(np.ndarray):
    """An array of CuPy: NumPy's, with CuPy's ``set`` and ``get``; belongs to the device that made it."""

    gpu: HostDevice

    def __array_finalize__(self, parent: Any) -> None:
        if isinstance(parent, DeviceArray) and hasattr(parent, "gpu"):
            self.gpu = parent.gpu

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **options: Any) -> Any:
        self.gpu.settle("compute with an array")
        if "out" in options:
            options["out"] = tuple(map(_plain, options["out"]))
        made = getattr(ufunc, method)(*map(_plain, inputs), **options)
        if type(made) is not np.ndarray:
            return made
        made = made.view(DeviceArray)
        made.gpu = self.gpu
        return made

    def __setitem__(self, key: Any, value: Any) -> None:
        if isinstance(value, np.ndarray) and not isinstance(value, DeviceArray) and value.ndim:
            raise ShimError("an array of the host is assigned to one of the device")
        part = self[key]
        if isinstance(part, np.ndarray) and np.shares_memory(part, self):
            self.gpu.submit(_Baked(_fill, [part, value]))
        else:  # one element, or a list of them
            self.gpu.settle("assign elements")
            super().__setitem__(key, value)

    def __getitem__(self, key: Any) -> Any:
        found = super().__getitem__(key)
        if isinstance(found, np.ndarray) and not np.may_share_memory(found, self):
            self.gpu.settle("gather elements")  # what the key is, other than slices, makes a copy
            found = super().__getitem__(key)
        return found

    def set(self, array: np.ndarray, stream: Any = None) -> None:
        """Copy from the host, on the current stream: memory is read when the stream comes to it."""
        assert stream is None
        if type(array) is not np.ndarray or array.dtype != self.dtype or array.shape != self.shape:
            raise ShimError(f"set: {array.dtype}{array.shape} into {self.dtype}{self.shape}")
        self._require_contiguous()
        self.gpu.copy("host_to_device", self.nbytes)
        self.gpu.submit(lambda: _fill(self, array))

    def get(self, *, out: np.ndarray, blocking: bool = True) -> np.ndarray:
        """Copy to the host, on the current stream: memory is written when the stream comes to it."""
        if type(out) is not np.ndarray or out.dtype != self.dtype or out.shape != self.shape:
            raise ShimError(f"get: {self.dtype}{self.shape} into {out.dtype}{out.shape}")
        self._require_contiguous()  # CuPy would copy from a copy of its own, which it frees too early
        self.gpu.copy("device_to_host", self.nbytes)
        self.gpu.submit(lambda: _fill(out, self))
        if blocking:
            self.gpu.current.synchronize()
        return out

    def _require_contiguous(self) -> None:
        if not self.flags.c_contiguous:
            raise ShimError("an array that is not contiguous is copied between host and device")


def _plain(value: Any) -> Any:
    return value.view(np.ndarray) if isinstance(value, np.ndarray) else value


def _fill(target: np.ndarray, value: Any) -> None:
    """Write every element, also of an array without an axis."""
    _plain(target)[...] = _plain(value)


class HostDevice:
    """One GPU: its streams, what is being captured, and the copies it has made."""

    def __init__(self) -> None:
        self.streams: list[Stream] = []
        self.null, self.library = Stream(self), Stream(self)
        self.current = self.null
        self.capturing: Stream | None = None
        self.recorded: list[_Baked] = []
        self.copied: Copied = Counter()
        self.graph_launches = 0
        self.free_bytes, self.total_bytes = 30 << 30, 32 << 30
        self.allocation_count = 0
        self.pool = Pool()

    def array(self, values: np.ndarray) -> DeviceArray:
        """Return new memory of the device with these values."""
        self.settle("allocate")
        self.allocation_count += 1
        memory = np.array(values, order="C", subok=False)
        self.pool.hold(memory)
        made = memory.view(DeviceArray)
        made.gpu = self
        return made

    def submit(self, work: Callable[[], None]) -> None:
        """Queue work on the current stream, or record it."""
        if self.capturing is not None:
            if self.capturing is not self.current:
                raise ShimError("work on another stream during a capture")
            if not isinstance(work, _Baked):
                raise ShimError("a copy between host and device during a capture")
            self.recorded.append(work)
        else:
            self.current.put(work)

    def synchronize(self) -> None:
        """Finish the work of every stream."""
        for stream in self.streams:
            stream.synchronize()

    def launch(self, kernel: Callable[..., None], args: Sequence[Any]) -> None:
        """Queue or record a kernel with its arguments; CuPy passes one element of the host by its value."""
        for each in args:
            if isinstance(each, np.ndarray) and not isinstance(each, DeviceArray):
                raise ShimError(f"a kernel is given an array of the host, {each.dtype}{each.shape}")
        self.submit(_Baked(lambda *given: kernel(given), args))

    def copy(self, direction: str, byte_count: int) -> None:
        if self.capturing is not None:
            raise ShimError("a copy between host and device during a capture")
        self.copied[direction, byte_count] += 1

    def settle(self, what: str) -> None:
        """Run what the current stream holds: NumPy works at once, and must find what comes before it done."""
        if self.capturing is not None:
            raise ShimError(f"cannot {what} during a capture")
        self.current.run()


class Stream:
    """``cupy.cuda.Stream``: work in order, run when somebody waits for it."""

    def __init__(self, device: HostDevice) -> None:
        self._device = device
        self.queue: list[Callable[[], None]] = []
        self._outer: list[Stream] = []
        device.streams.append(self)

    def __enter__(self) -> Stream:
        self._outer.append(self._device.current)
        self._device.current = self
        return self

    def __exit__(self, *_: object) -> None:
        self._device.current = self._outer.pop()

    def put(self, work: Callable[[], None]) -> None:
        """Take work."""
        self.queue.append(work)

    def wait_event(self, event: Event) -> None:
        at = event.at  # as it stands now: recorded anew, the event is another for those who come later
        self.put(lambda: _finish(at))

    def run(self, count: int | None = None) -> None:
        """Run the first pieces of work, or all."""
        if self is self._device.null:
            self._device.library.run()
        todo = self.queue[:count]
        del self.queue[: len(todo)]
        for work in todo:
            work()

    def synchronize(self) -> None:
        if self._device.capturing is not None:
            raise ShimError("cannot wait during a capture")
        self.run()

    def begin_capture(self) -> None:
        if self._device.capturing is not None or self is self._device.null:
            raise ShimError("cannot capture twice at a time, nor on the null stream")
        self._device.capturing = self
        self._device.recorded = []

    def end_capture(self) -> Graph:
        if self._device.capturing is not self:
            raise ShimError("this stream captures nothing")
        recorded, self._device.recorded = self._device.recorded, []
        self._device.capturing = None
        return Graph(self._device, recorded)


class Event:
    """``cupy.cuda.Event``: a place in a stream's queue; one that was never recorded is over."""

    def __init__(self, device: HostDevice, *, timed: bool = False) -> None:
        self._device, self.timed = device, timed
        self.at: tuple[Stream, _Mark] | None = None

    def record(self, stream: Stream | None = None) -> None:
        stream = stream or self._device.current
        self.at = (stream, _Mark())
        stream.put(self.at[1])

    def synchronize(self) -> None:
        if self._device.capturing is not None:
            raise ShimError("cannot wait during a capture")
        _finish(self.at)


def elapsed_ms(begin: Event, end: Event) -> float:
    """``cupy.cuda.get_elapsed_time``: of events with times that the stream has come to; none passes here."""
    if not all(event.timed and event.at is not None and event.at[1].passed for event in (begin, end)):
        raise ShimError("the time between events that have none, or not yet")
    return 0.0


class _Mark:
    """What an event leaves in a queue; passed when the stream has come to it."""

    def __init__(self) -> None:
        self.passed = False

    def __call__(self) -> None:
        self.passed = True


def _finish(at: tuple[Stream, _Mark] | None) -> None:
    """Run a stream up to a mark."""
    if at is not None and not at[1].passed:
        at[0].run(at[0].queue.index(at[1]) + 1)


class Pool:
    """``cupy.get_default_memory_pool()``: what lives of its memory never exceeds its limit (0: none).

    What is freed is kept for what comes next, and is used by nobody else, until it is given back. Blocks that
    are kept join and split as they are needed.
    """

    def __init__(self) -> None:
        self._limit = self._live_bytes = self._kept_bytes = self.peak_bytes = 0

    def hold(self, array: np.ndarray) -> None:
        """Count new memory until it is gone; ``MemoryError`` is what CuPy's ``OutOfMemoryError`` is here."""
        if self._limit and self._live_bytes + array.nbytes > self._limit:
            raise MemoryError(f"out of memory allocating {array.nbytes} bytes, {self._live_bytes} are in use")
        self._live_bytes += array.nbytes
        self._kept_bytes -= min(self._kept_bytes, array.nbytes)
        self.peak_bytes = max(self.peak_bytes, self._live_bytes)
        weakref.finalize(array, self._drop, array.nbytes)

    def _drop(self, byte_count: int) -> None:
        self._live_bytes -= byte_count
        self._kept_bytes += byte_count

    def total_bytes(self) -> int:
        return self._live_bytes + self._kept_bytes

    def free_bytes(self) -> int:
        return self._kept_bytes

    def get_limit(self) -> int:
        return self._limit

    def set_limit(self, *, size: int) -> None:
        self._limit = size

    def free_all_blocks(self) -> None:
        """Give back what is kept for later."""
        self._kept_bytes = 0


class Graph:
    """``cupy.cuda.Graph``: recorded work, by address."""

    def __init__(self, device: HostDevice, recorded: Sequence[_Baked]) -> None:
        self._device = device
        self._nodes = tuple(work.without_arrays() for work in recorded)

    def upload(self, stream: Stream) -> None:
        assert self._device.capturing is None

    def launch(self, stream: Stream) -> None:
        self._device.graph_launches += 1
        for node in self._nodes:
            with stream:
                self._device.submit(node)


class _Baked:
    """A function and its arguments."""

    def __init__(self, function: Callable[..., None], args: Sequence[Any]) -> None:
        self._function = function
        self._args = tuple(args)

    def __call__(self) -> None:
        self._function(*self._args)

    def without_arrays(self) -> Callable[[], None]:
        """Return the same by addresses: arrays are looked up when it runs, and may be gone by then."""
        places = [_Place(each) if isinstance(each, np.ndarray) else each for each in self._args]
        function = self._function

        def run() -> None:
            function(*(each.array() if isinstance(each, _Place) else each for each in places))

        return run


class _Place:
    """Where an array lies, without keeping its memory."""

    def __init__(self, array: np.ndarray) -> None:
        owner = array
        while isinstance(owner.base, np.ndarray):
            owner = owner.base
        self._owner = weakref.ref(owner)
        self._form = array.shape, array.dtype, array.strides
        self._offset = array.ctypes.data - owner.ctypes.data

    def array(self) -> np.ndarray:
        owner = self._owner()
        if owner is None:
            raise ShimError("a graph uses memory that has been freed")
        shape, dtype, strides = self._form
        memory = owner.view(np.ndarray).reshape(-1).view(np.uint8)
        return np.ndarray(shape, dtype, memory.data, self._offset, strides)
