"""Runs the launchers in ``gpuscalp/ops/cuda_*.py`` without a GPU, as they are.

``cupy`` is NumPy for the duration and the kernels come from the host shim; so grids, blocks, the order and
types of arguments and the shared memory that a launcher computes are executed and checked too.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import ModuleType, SimpleNamespace
from typing import Any
from unittest import mock

import numpy as np

from gpuscalp.ops import cuda_module
from gpuscalp.ops.cuda_module import DEFAULT_DYNAMIC_SHARED_BYTES, Defines, Kernel
from tests.host_shim.host_kernel import Argument, HostKernel


@contextmanager
def cuda_on_host(*, seed: int | None = None, sanitize: bool = False) -> Iterator[None]:
    """Let ``cuda_module.load_module`` give host kernels and ``import cupy`` give NumPy.

    Parameters
    ----------
    seed : int, optional
        Order of threads and blocks; see ``HostKernel.launch``.
    sanitize : bool
        See ``HostKernel``.
    """

    def build(_cupy: Any, stem: str, defines: Defines | None) -> _HostModule:
        return _HostModule(HostKernel(stem, defines=defines, sanitize=sanitize), seed)

    with (
        _numpy_as_cupy(),
        mock.patch.object(cuda_module, "_build", build),
        mock.patch.object(cuda_module, "_MODULES", {}),
    ):
        yield


@contextmanager
def _numpy_as_cupy() -> Iterator[None]:
    """Replace one entry of ``sys.modules``; ``patch.dict`` would forget whatever was imported meanwhile."""
    before = sys.modules.get("cupy")
    sys.modules["cupy"] = _NumpyAsCupy()
    try:
        yield
    finally:
        if before is None:
            del sys.modules["cupy"]
        else:
            sys.modules["cupy"] = before


class _HostModule:
    """``cuda_module.KernelModule`` on the host."""

    def __init__(self, kernel: HostKernel, seed: int | None) -> None:
        self._kernel = kernel
        self._seed = seed

    def get_function(
        self, name: str, *, max_dynamic_shared_bytes: int = DEFAULT_DYNAMIC_SHARED_BYTES
    ) -> Kernel:
        self._kernel.signature(name)  # an unknown name is refused here, as on a GPU

        def run(
            grid: Sequence[int], block: Sequence[int], args: Sequence[Argument], *, shared_mem: int = 0
        ) -> None:
            self._kernel.launch(
                name,
                grid,
                block,
                args,
                shared_bytes=shared_mem,
                seed=self._seed,
                max_shared_bytes=max_dynamic_shared_bytes,
            )

        return run


class _NumpyAsCupy(ModuleType):
    """NumPy under CuPy's name, with the few names of ``cupy.cuda`` that a launcher may ask."""

    def __init__(self) -> None:
        super().__init__("cupy")
        stream = SimpleNamespace(ptr=0, synchronize=lambda: None)
        self.cuda = SimpleNamespace(
            runtime=SimpleNamespace(getDevice=lambda: 0),
            Device=lambda index=0: SimpleNamespace(id=index, compute_capability="90"),
            get_current_stream=lambda: stream,
        )

    def __getattr__(self, name: str) -> Any:
        return getattr(np, name)

    @staticmethod
    def asnumpy(array: Any) -> Any:
        return np.array(array)
