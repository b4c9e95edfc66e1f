"""A digest of each row's bits: what a journal keeps of features and margins instead of the numbers.
Twin: cuda_row_digest; kernel: kernels/row_digest.cu.

Owns: the function. Equal rows have equal digests, any two NaN being equal; rows that differ in one bit have
different ones but for a chance of about 2⁻⁶⁴. No secret is in it: it shows errors, not malice.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from gpuscalp.ops._numba import jit
from gpuscalp.schema import F32

U64 = npt.NDArray[np.uint64]

_NAN = np.uint64(0x7FC00000)
_LOW = np.uint64(0xFFFFFFFF)
_SEED = np.uint64(0x9E3779B97F4A7C15)
_MULTIPLY = np.uint64(0xD6E8FEB86659FD93)
_FOLD = np.uint64(32)


def digest_rows(rows: F32, *more: npt.NDArray[np.generic], out: U64 | None = None) -> U64:
    """Return the digest of each row.

    Parameters
    ----------
    rows : float32[S, ...], C-contiguous; NaN may be anywhere
    more : further arrays [S] of four bytes an item, taken in by their bits
    out : uint64[S], C-contiguous; written and returned; None = a new one
    """
    out = np.empty(len(rows), np.uint64) if out is None else out
    _digest(rows.reshape(len(rows), -1).view(np.uint32), out)
    for column in more:
        _extend(np.ascontiguousarray(column).view(np.uint32), out)
    return out


@jit
def _mix(state: np.uint64, word: np.uint64) -> np.uint64:
    """Take one word in: a multiplication by an odd constant loses nothing, the shift spreads it."""
    mixed = (state ^ word) * _MULTIPLY
    return mixed ^ (mixed >> _FOLD)


@jit
def _plain(bits: np.uint32) -> np.uint64:
    """Return the bits of a float, those of all NaN being the same."""
    word = np.uint64(bits) & _LOW
    return _NAN if word & np.uint64(0x7FFFFFFF) > np.uint64(0x7F800000) else word


@jit
def _digest(words: npt.NDArray[np.uint32], out: U64) -> None:
    # Four chains side by side: one alone would wait for each multiplication.
    columns = words.shape[1]
    whole = columns - columns % 4
    for row in range(words.shape[0]):
        a = _SEED
        b = _mix(_SEED, np.uint64(1))
        c = _mix(_SEED, np.uint64(2))
        d = _mix(_SEED, np.uint64(3))
        for column in range(0, whole, 4):
            a = _mix(a, _plain(words[row, column]))
            b = _mix(b, _plain(words[row, column + 1]))
            c = _mix(c, _plain(words[row, column + 2]))
            d = _mix(d, _plain(words[row, column + 3]))
        for column in range(whole, columns):
            a = _mix(a, _plain(words[row, column]))
        out[row] = _mix(_mix(_mix(a, b), c), d)


@jit
def _extend(words: npt.NDArray[np.uint32], out: U64) -> None:
    for row in range(out.shape[0]):
        out[row] = _mix(out[row], np.uint64(words[row]))
