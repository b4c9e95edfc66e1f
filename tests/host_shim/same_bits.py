"""Compares two results bit for bit."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt


def assert_same_bits(got: npt.NDArray[Any], wanted: npt.NDArray[Any], what: str = "result") -> None:
    """Assert equal dtype, shape and bits; the sign of zero counts, the bits inside a NaN do not.

    Which NaN an invalid operation makes is the machine's choice: x86 sets its sign, a GPU clears it. NaN at
    the same places is what the contract asks for.
    """
    assert got.dtype == wanted.dtype, f"{what}: {got.dtype} instead of {wanted.dtype}"
    assert got.shape == wanted.shape, f"{what}: {got.shape} instead of {wanted.shape}"
    different = _bits(got) != _bits(wanted)
    if got.dtype.kind == "f":
        different &= ~(np.isnan(got) & np.isnan(wanted))
    if different.any():
        first = tuple(int(i) for i in np.argwhere(different)[0])
        raise AssertionError(
            f"{what}: {int(different.sum())} of {different.size} values differ, the first at {first}: "
            f"{got[first]!r} instead of {wanted[first]!r}"
        )


def _bits(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return np.ascontiguousarray(array).view(f"u{array.dtype.itemsize}")
