"""What the tests of the CUDA twins share: the same body runs on the host's kernels and on a GPU.

A body takes its device from ``cupy``: NumPy under that name inside ``cuda_on_host``, the real one on a GPU.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from tests.host_shim.same_bits import assert_same_bits


def up(arrays: Iterable[Any]) -> list[Any]:
    """Return copies on the device: a twin that writes into an argument writes into its own."""
    import cupy

    return [cupy.array(array) for array in arrays]


def down(arrays: Iterable[Any]) -> list[Any]:
    """Return what lies on the device as arrays of the host; waits for it."""
    import cupy

    return [cupy.asnumpy(array) for array in arrays]


def up_tuple(named: Any) -> Any:
    """Return a named tuple with its arrays on the device."""
    return type(named)(*up(named))


def up_bytes(ticks: Any) -> Any:
    """Return TICK[N] as uint8[N, 64] on the device."""
    return up([np.ascontiguousarray(ticks).view(np.uint8).reshape(-1, 64)])[0]


def garbage(shape: tuple[int, ...], dtype: Any) -> Any:
    """Return an array that shows every element which is not written."""
    return np.full(shape, 77, dtype)


def assert_twins(cuda: Iterable[Any], cpu: Iterable[Any], names: Iterable[str]) -> None:
    """Assert that arrays on the device hold the bits of arrays on the host."""
    import cupy

    for got, wanted, name in zip(cuda, cpu, names, strict=True):
        assert_same_bits(cupy.asnumpy(got), np.asarray(wanted), name)
