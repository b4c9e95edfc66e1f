"""Several arrays in one buffer of bytes, so that one copy moves them between the host and a device."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

ALIGNMENT: Final = 64  # of each array within the buffer: the size of a tick


class Field(NamedTuple):
    """Shape and type of one array."""

    shape: tuple[int, ...]
    dtype: npt.DTypeLike


def packed_bytes(layout: Sequence[Field]) -> int:
    """Return the size of a buffer for these arrays."""
    return sum(_aligned(_byte_count(field)) for field in layout)


def carve(buffer: Any, layout: Sequence[Field]) -> list[Any]:
    """Return the arrays of a buffer, as views.

    Parameters
    ----------
    buffer : uint8[packed_bytes(layout)]   NumPy or CuPy
    layout : the arrays, in the order in which they lie
    """
    views = []
    at = 0
    for field in layout:
        size = _byte_count(field)
        views.append(buffer[at : at + size].view(np.dtype(field.dtype)).reshape(field.shape))
        at += _aligned(size)
    return views


def _byte_count(field: Field) -> int:
    return math.prod(field.shape) * np.dtype(field.dtype).itemsize


def _aligned(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT
