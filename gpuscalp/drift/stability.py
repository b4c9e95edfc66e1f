"""How far the features of now are from those that the model was trained on.

Owns: the bins of a training's columns, the population stability index, and a rolling hour of live rows.
Never: keeps a row.

PSI of a column: Σ (live − trained) · ln(live / trained) over the shares of eleven bins, the tenths of the
training rows and one for missing values. By a rule of thumb less than 0.1 is no drift and more than 0.25 is
one. Without drift it is not zero, but about ten times the sum of one over either number of independent rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, final

import numpy as np

from gpuscalp.rolling import RollingSum
from gpuscalp.schema import F32, F64, I64, NS_PER_S

TENTHS: Final = 10
BINS: Final = TENTHS + 1  # the last one holds what is missing
# A smaller share counts as this: one row in a bin that training never met must not make it infinite.
LEAST_SHARE: Final = 1e-4
# Below this nothing is said. Neighbouring rows resemble each other: until it means much takes far longer.
ROWS_MIN: Final = 1_000
BUCKET_NS: Final = 300 * NS_PER_S
BUCKETS: Final = 12
# Columns of the clock go round by themselves: an hour is never like the weeks of a training.
CLOCK_GROUP: Final = "time"
_CHUNK: Final = 512


@dataclass(frozen=True, slots=True)
class Distribution:
    """How the columns of some rows were distributed.

    Attributes
    ----------
    edges : float32[F, TENTHS - 1]   inner edges of the tenths, ascending; NaN where a column has no values
    shares : float64[F, BINS]        of the rows; equal edges leave bins empty
    """

    edges: F32
    shares: F64

    @classmethod
    def of(cls, x: F32) -> Distribution:
        """Return that of float32[R, F], R at least 1; NaN is missing."""
        edges = np.full((x.shape[1], TENTHS - 1), np.nan, np.float32)
        for index, column in enumerate(x.T):
            values = np.sort(column[~np.isnan(column)])
            if len(values):
                edges[index] = values[np.arange(1, TENTHS) * len(values) // TENTHS]
        return cls(edges, bin_counts(edges, x) / len(x))


@dataclass(frozen=True, slots=True)
class GroupDrift:
    """PSI of the columns of one group: their mean, and the largest with the column that has it."""

    group: str
    mean: float
    largest: float
    column: str


def bin_counts(edges: F32, x: F32) -> I64:
    """Return int64[F, BINS]: rows of float32[R, F] in each bin; a value at an edge lies above it."""
    columns = len(edges)
    counts = np.zeros(columns * BINS, np.int64)
    base = np.arange(columns) * BINS
    for start in range(0, len(x), _CHUNK):
        part = x[start : start + _CHUNK]
        place = (part[:, :, None] >= edges).sum(axis=2)
        place[np.isnan(part)] = TENTHS
        counts += np.bincount((place + base).reshape(-1), minlength=len(counts))
    return counts.reshape(columns, BINS)


def psi(expected: F64, found: F64) -> F64:
    """Return float64[F]: the population stability index between shares float64[F, BINS]."""
    expected, found = np.maximum(expected, LEAST_SHARE), np.maximum(found, LEAST_SHARE)
    return np.asarray(((found - expected) * np.log(found / expected)).sum(axis=1))


def groups_of(names: Sequence[str]) -> tuple[str, ...]:
    """Return the group of each column: the first part of its name."""
    return tuple(name.partition(".")[0] for name in names)


def group_columns(names: Sequence[str]) -> dict[str, I64]:
    """Return the indices of the columns of each group, in the order of columns; the clock's are left out."""
    groups = np.array(groups_of(names))
    return {
        group: np.flatnonzero(groups == group)
        for group in dict.fromkeys(groups.tolist())
        if group != CLOCK_GROUP
    }


@final
class Drift:
    """Live rows against those of the training, over a rolling hour.

    Parameters
    ----------
    trained : of the training rows
    names : of the columns, F
    """

    def __init__(self, trained: Distribution, names: Sequence[str]) -> None:
        self._trained, self._names = trained, tuple(names)
        self._counts = RollingSum((len(names), BINS), bucket_ns=BUCKET_NS, buckets=BUCKETS)
        self._columns = group_columns(names)

    def take(self, x: F32, at_ns: int) -> None:
        """Take float32[R, F], rows that training could have used."""
        if len(x):
            self._counts.add(at_ns, bin_counts(self._trained.edges, x))

    def rows(self, now_ns: int | None = None) -> int:
        """Return how many rows the window holds."""
        return int(self._counts.total(now_ns)[0].sum())

    def figures(self, now_ns: int | None = None) -> tuple[GroupDrift, ...]:
        """Return the drift of each group, in the order of columns; nothing below ROWS_MIN rows."""
        counts = self._counts.total(now_ns)
        rows = counts[0].sum()
        if rows < ROWS_MIN:
            return ()
        found = psi(self._trained.shares, counts / rows)
        return tuple(
            GroupDrift(
                group,
                float(found[columns].mean()),
                float(found[columns].max()),
                self._names[columns[found[columns].argmax()]],
            )
            for group, columns in self._columns.items()
        )
