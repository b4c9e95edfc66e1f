"""Sums over the last piece of a time that only goes forward, in bounded memory.

Owns: the buckets. Never: reads a clock, or forgets a single value: a whole bucket leaves at once.
"""

from __future__ import annotations

from typing import final

import numpy as np
import numpy.typing as npt

from gpuscalp.schema import F64


@final
class RollingSum:
    """A sum of arrays of one shape over the last buckets of time.

    The sum spans the bucket of the newest time and the ``buckets - 1`` before it: between that many whole
    buckets and one more.

    Parameters
    ----------
    shape : of each array
    bucket_ns : length of a bucket
    buckets : how many are kept
    """

    def __init__(self, shape: tuple[int, ...], *, bucket_ns: int, buckets: int) -> None:
        self.span_ns = bucket_ns * buckets
        self._bucket_ns, self._newest = bucket_ns, -1
        self._sums: F64 = np.zeros((buckets, *shape))
        self._numbers = np.full(buckets, -1, np.int64)

    def add(self, at_ns: int, values: npt.ArrayLike) -> None:
        """Add an array at a time; one that lies before the newest counts as if it were that."""
        self._newest = max(self._newest, at_ns // self._bucket_ns)
        slot = self._newest % len(self._sums)
        if self._numbers[slot] != self._newest:
            self._numbers[slot] = self._newest
            self._sums[slot] = 0.0
        self._sums[slot] += values

    def total(self, now_ns: int | None = None) -> F64:
        """Return float64[shape], the sum as of now; as of the newest time where None.

        Time that passes without values empties the sum as well.
        """
        newest = self._newest
        if now_ns is not None:
            newest = max(newest, now_ns // self._bucket_ns)
        return np.asarray(self._sums[self._numbers > newest - len(self._sums)].sum(axis=0))
