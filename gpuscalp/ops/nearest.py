"""How far a row lies from the nearest of a few prototypes, and the bit that says it is too far.

Squares are added column by column in float32, in the order of the columns, for all prototypes side by side: a
row has the same bits in a batch of any size. CPU only: a GPU's features are compared with the CPU's own, bit
for bit, so the CPU has every row.
"""

from __future__ import annotations

import numpy as np

from gpuscalp.ops._numba import jit
from gpuscalp.schema import F32, I32, U32


@jit
def squared_distances(
    x: F32, columns: I32, centre: F32, factor: F32, prototypes: F32, work: F32, out: F32
) -> None:
    """Write the squared distance of each row to its nearest prototype.

    Parameters
    ----------
    x : float32[R, F]         rows; any strides
    columns : int32[D]        of F, those that count
    centre, factor : float32[D]   a value counts as ``(value - centre) * factor``, a missing one as 0
    prototypes : float32[D, P]    in the same units; finite
    work : float32[P]         overwritten
    out : float32[R]          written; infinite where a value is, or its square

    Notes
    -----
    Cost: O(R·D·P). 128 prototypes of 16 columns: about a quarter of a microsecond for a row.
    """
    count = prototypes.shape[1]
    for row in range(x.shape[0]):
        for p in range(count):
            work[p] = np.float32(0.0)
        for d in range(len(columns)):
            value = x[row, columns[d]]
            z = np.float32(0.0)
            if value == value:
                z = (value - centre[d]) * factor[d]
            for p in range(count):
                away = z - prototypes[d, p]
                work[p] += away * away
        best = work[0]
        for p in range(1, count):
            best = work[p] if work[p] < best else best
        out[row] = best


@jit
def mark_far(
    x: F32,
    columns: I32,
    centre: F32,
    factor: F32,
    prototypes: F32,
    limit: np.float32,
    bit: np.uint32,
    work: F32,
    out: F32,
    quality: U32,
) -> None:
    """Set ``bit`` in the quality of every row whose squared distance is above ``limit``.

    Parameters
    ----------
    x … out : as ``squared_distances`` has them
    limit : a squared distance
    quality : uint32[R]   changed in place
    """
    squared_distances(x, columns, centre, factor, prototypes, work, out)
    for row in range(x.shape[0]):
        if not out[row] <= limit:
            quality[row] |= bit
