"""Runs the launchers in ``gpuscalp/ops/cuda_*.py`` without a GPU, as they are.

``cupy`` is NumPy for the duration and the kernels come from the host shim; so grids, blocks, the order and
types of arguments and the shared memory that a launcher computes are executed and checked too. Streams,
events, pinned memory and graphs are those of ``host_device``.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import wraps
from types import ModuleType, SimpleNamespace
from typing import Any
from unittest import mock

import numpy as np

from gpuscalp.ops import cuda_module
from gpuscalp.ops.cuda_module import DEFAULT_DYNAMIC_SHARED_BYTES, Kernel
from tests.host_shim.build import Defines, ShimError, Watch
from tests.host_shim.host_device import DeviceArray, Event, HostDevice, Stream, elapsed_ms
from tests.host_shim.host_kernel import Argument, HostKernel

# Preprocessor constants of sources that are not to be built as they are shipped, by stem.
DEFINES: dict[str, Defines] = {}


@contextmanager
def cuda_on_host(*, seed: int | None = None, watch: Watch | None = None) -> Iterator[HostDevice]:
    """Let ``cuda_module.load_module`` give host kernels and ``import cupy`` give NumPy.

    Parameters
    ----------
    seed : int, optional
        Order of threads and blocks; see ``HostKernel.launch``.
    watch : {"memory", "races"}, optional
        See ``HostKernel``.

    Yields
    ------
    HostDevice
        What the launchers take for a GPU.
    """
    device = HostDevice()

    def build(_cupy: Any, stem: str) -> _HostModule:
        return _HostModule(HostKernel(stem, defines=DEFINES.get(stem), watch=watch), seed, device)

    with (
        _numpy_as_cupy(device),
        mock.patch.object(cuda_module, "_build", build),
        mock.patch.object(cuda_module, "_MODULES", {}),
    ):
        yield device


@contextmanager
def _numpy_as_cupy(device: HostDevice) -> Iterator[None]:
    """Replace one entry of ``sys.modules``; ``patch.dict`` would forget whatever was imported meanwhile."""
    before = sys.modules.get("cupy")
    sys.modules["cupy"] = _NumpyAsCupy(device)
    try:
        yield
    finally:
        if before is None:
            del sys.modules["cupy"]
        else:
            sys.modules["cupy"] = before


class _HostModule:
    """``cuda_module.KernelModule`` on the host."""

    def __init__(self, kernel: HostKernel, seed: int | None, device: HostDevice) -> None:
        self._kernel = kernel
        self._seed = seed
        self._device = device

    def get_function(
        self, name: str, *, max_dynamic_shared_bytes: int = DEFAULT_DYNAMIC_SHARED_BYTES
    ) -> Kernel:
        self._kernel.signature(name)  # an unknown name is refused here, as on a GPU

        def run(
            grid: Sequence[int], block: Sequence[int], args: Sequence[Argument], *, shared_mem: int = 0
        ) -> None:
            def launch(given: Sequence[Argument]) -> None:
                self._kernel.launch(
                    name,
                    grid,
                    block,
                    given,
                    shared_bytes=shared_mem,
                    seed=self._seed,
                    max_shared_bytes=max_dynamic_shared_bytes,
                )

            self._device.launch(launch, args)

        return run


class _NumpyAsCupy(ModuleType):
    """NumPy under CuPy's name, with the few names of ``cupy.cuda`` that a launcher may ask."""

    def __init__(self, device: HostDevice) -> None:
        super().__init__("cupy")
        self._device = device
        self.ndarray = DeviceArray
        self.get_default_memory_pool = lambda: device.pool
        self.cuda = SimpleNamespace(
            runtime=SimpleNamespace(
                getDevice=lambda: 0,
                deviceSynchronize=device.synchronize,
                memGetInfo=lambda: (device.free_bytes, device.total_bytes),
            ),
            Device=lambda index=0: SimpleNamespace(id=index, compute_capability="90"),
            get_current_stream=lambda: device.current,
            Stream=_Streams(device),
            Event=lambda disable_timing: Event(device, timed=not disable_timing),
            get_elapsed_time=elapsed_ms,
            # Garbage, so that nobody relies on zeros.
            alloc_pinned_memory=lambda size: np.full(size, 0xAB, np.uint8).data,
            memory=SimpleNamespace(OutOfMemoryError=MemoryError),
        )
        self.fft = SimpleNamespace(rfft=_on_device(device, np.fft.rfft))

    def __getattr__(self, name: str) -> Any:
        return _on_device(self._device, getattr(np, name))

    def array(self, values: Any) -> DeviceArray:
        """Return a copy; one from the host is counted."""
        if not isinstance(values, DeviceArray):
            self._device.copy("host_to_device", np.asarray(values).nbytes)
        return self._device.array(values)

    def asarray(self, values: Any) -> DeviceArray:
        return values if isinstance(values, DeviceArray) else self.array(values)

    def asnumpy(self, array: Any) -> np.ndarray:
        self._device.copy("device_to_host", array.nbytes)
        self._device.current.synchronize()
        return np.array(array, subok=False)


class _Streams:
    """``cupy.cuda.Stream``, the class: ``null`` is the stream that always is."""

    def __init__(self, device: HostDevice) -> None:
        self._device = device
        self.null = device.null

    def __call__(self, *, non_blocking: bool) -> Stream:
        assert non_blocking, "it would wait for the null stream, and that for it"
        return Stream(self._device)


def _on_device(device: HostDevice, found: Any) -> Any:
    """Return a function of NumPy on arrays of the device, whose new ones lie there; other names as is."""
    if isinstance(found, type) or not callable(found):
        return found

    @wraps(found)
    def call(*args: Any, **options: Any) -> Any:
        for each in (item for arg in args for item in (arg if isinstance(arg, list | tuple) else (arg,))):
            if isinstance(each, np.ndarray) and not isinstance(each, DeviceArray):
                raise ShimError(f"{found.__name__} is given an array of the host")
        device.settle(f"call {found.__name__}, which may allocate,")
        made = found(*args, **options)
        return device.array(made) if type(made) is np.ndarray else made

    return call
