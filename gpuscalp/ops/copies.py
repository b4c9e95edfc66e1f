"""The ways of an array between the host and a GPU; each copy is in the ledger.

Owns: every copy that gpuscalp.ops makes, and pinned memory. Never: launches a kernel.

``to_device`` and ``to_host`` are for set-up: they allocate. A stream copies between buffers made at the
start: ``send`` and a mirror's ``fetch``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gpuscalp.device import import_cupy
from gpuscalp.ops.ledger import LEDGER
from gpuscalp.ops.packed import Field, carve, packed_bytes

Bytes = npt.NDArray[np.uint8]


def to_device(array: npt.NDArray[Any]) -> Any:
    """Return a new CuPy array of the same values."""
    LEDGER.record("host_to_device", array.nbytes)
    return import_cupy().array(array)


def to_host(array: Any) -> Any:
    """Return a new NumPy array of the same values; waits for the device."""
    LEDGER.record("device_to_host", array.nbytes)
    return import_cupy().asnumpy(array)


def on_gpu(array: Any) -> bool:
    """Return whether an array lies on a GPU, whoever made it."""
    return hasattr(array, "__cuda_array_interface__")


@contextmanager
def library_calls() -> Iterator[None]:
    """Surround calls to a library that works on the thread's default stream, whichever stream is current.

    Everything on the GPU is waited for before and after. In between the null stream is current, the only one
    that waits for what the library has queued: XGBoost returns before its margins are there, and its Python
    half copies them on the current stream.
    """
    cuda = import_cupy().cuda
    cuda.runtime.deviceSynchronize()
    with cuda.Stream.null:
        yield
    cuda.runtime.deviceSynchronize()


def pinned(byte_count: int) -> Bytes:
    """Return memory that the device copies from and into while the host goes on; not initialised."""
    memory = import_cupy().cuda.alloc_pinned_memory(max(byte_count, 1))
    return np.frombuffer(memory, np.uint8, byte_count)


def send(source: Bytes, target: Any) -> None:
    """Copy pinned memory to the device, on the current stream; does not wait."""
    LEDGER.record("host_to_device", source.nbytes)
    target.set(source)


def receive(source: Any, target: npt.NDArray[Any]) -> None:
    """Copy an array of the device into pinned memory, on the current stream; does not wait."""
    LEDGER.record("device_to_host", source.nbytes)
    if source.nbytes:
        source.get(out=target, blocking=False)


@dataclass(frozen=True, slots=True)
class Mirror:
    """Arrays side by side on a device, and the same arrays on the host.

    Attributes
    ----------
    device : arrays where kernels write them; zero at first
    host : arrays that ``fetch`` brings up to date, in one copy; those that it leaves out are missing
    fetch : waits for everything queued on the current stream, the copy included
    """

    device: list[Any]
    host: list[Any]
    fetch: Callable[[], None]


def host_mirror(layout: Sequence[Field], fetched: int | None = None) -> Mirror:
    """Return the mirror of a CPU: host and device are the same memory."""
    views = carve(np.zeros(packed_bytes(layout), np.uint8), layout)
    return Mirror(views, views[:fetched], lambda: None)


def pinned_mirror(layout: Sequence[Field], fetched: int | None = None) -> Mirror:
    """Return arrays on the GPU with a copy in pinned memory.

    Parameters
    ----------
    layout : the arrays
    fetched : how many of them, from the first on, come to the host; None = all
    """
    cupy = import_cupy()
    buffer = cupy.zeros(packed_bytes(layout), np.uint8)
    part = buffer[: packed_bytes(layout[:fetched])]
    host = pinned(part.nbytes)
    done = cupy.cuda.Event(disable_timing=True)

    def fetch() -> None:
        receive(part, host)
        done.record()
        done.synchronize()

    return Mirror(carve(buffer, layout), carve(host, layout[:fetched]), fetch)
