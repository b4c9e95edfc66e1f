"""Fits the outlier guard: prototypes of the training rows, and how far from them is too far.

Owns: which columns count, and the limit. A row's index is taken from prototypes of other pieces of time, as a
live row's will be: with its own piece among them every row would seem familiar.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Final

import numpy as np

from gpuscalp.drift.guard import Guard
from gpuscalp.drift.stability import group_columns
from gpuscalp.schema import F32, F64

COLUMNS_MAX: Final = 16
PROTOTYPES_MAX: Final = 128
ROWS_MIN: Final = 512
# Share of the training rows that are outliers for a guard that was fitted without their piece of time.
OUTLIERS: Final = 0.001
FOLDS: Final = 5
# k-means looks at so many rows; every row counts for the limit.
_CLUSTERED_MAX: Final = 4_096
_ROUNDS: Final = 10


def fit_guard(x: F32, gain: F64, names: Sequence[str], *, seed: int) -> Guard | None:
    """Fit the guard of a model. Columns of the clock do not count: what comes later is not unlike for that.

    Parameters
    ----------
    x : float32[R, F]   rows of the training, in the order of time; NaN is missing
    gain : float64[F]   share of each column in what the splits have won (``train.importance.gain_shares``)
    names : of the columns, F
    seed : of the prototypes

    Returns
    -------
    Guard; None where there are fewer than ``ROWS_MIN`` rows, or no column counts
    """
    if len(x) < ROWS_MIN:
        return None
    timeless = np.zeros_like(gain)
    for at in group_columns(names).values():
        timeless[at] = gain[at]
    gain = timeless
    order = np.argsort(-gain, kind="stable")[:COLUMNS_MAX]
    values = np.where(np.isfinite(x[:, order]), x[:, order], np.nan).astype(np.float64)
    counted = (np.isfinite(values).sum(axis=0) > 1) & (gain[order] > 0)
    order, values = order[counted], values[:, counted]
    spread = np.nanstd(values, axis=0) if len(order) else np.empty(0)
    order, values, spread = order[spread > 0], values[:, spread > 0], spread[spread > 0]
    if not len(order):
        return None
    centre = np.nanmean(values, axis=0)
    factor = np.sqrt(gain[order] / gain[order].sum()) / spread
    factor /= _mean_distance(np.nan_to_num((values - centre) * factor))
    columns, centre, factor = order.astype(np.int32), centre.astype(np.float32), factor.astype(np.float32)
    # As the kernel has them: in float32, a missing value at the centre.
    rows = np.nan_to_num((x[:, order] - centre) * factor, nan=0.0, posinf=0.0, neginf=0.0)

    def made(own: F32, limit: float) -> Guard:
        return Guard(columns, centre, factor, _prototypes(own, seed), limit)

    pieces = np.array_split(np.arange(len(x)), FOLDS)
    away = np.concatenate([made(np.delete(rows, piece, axis=0), 0.0).index(x[piece]) for piece in pieces])
    return made(rows, float(np.quantile(away[np.isfinite(away)], 1.0 - OUTLIERS, method="higher")))


def _mean_distance(rows: F64) -> float:
    """Return the mean distance of two rows, over pairs that lie far apart in time."""
    shifts = [len(rows) * part // 8 for part in (2, 3, 4)]
    found = [np.sqrt(np.square(rows - np.roll(rows, shift, axis=0)).sum(axis=1)).mean() for shift in shifts]
    return float(np.mean(found))


def _prototypes(rows: F32, seed: int) -> F32:
    """Return float32[D, P]: centres of clusters of the rows."""
    from scipy.cluster.vq import kmeans2

    rng = np.random.default_rng(seed)
    few = rows[np.sort(rng.permutation(len(rows))[:_CLUSTERED_MAX])].astype(np.float64)
    begun = _spread_rows(few, min(PROTOTYPES_MAX, len(few) // 4), rng)
    with (
        warnings.catch_warnings()
    ):  # of clusters that have lost their rows: their centres stay where they were
        warnings.simplefilter("ignore", UserWarning)
        centres, _ = kmeans2(few, begun, iter=_ROUNDS, minit="matrix", check_finite=False)
    return np.ascontiguousarray(centres.T, dtype=np.float32)


def _spread_rows(rows: F64, count: int, rng: np.random.Generator) -> F64:
    """Draw rows for k-means to begin with, each the likelier the farther it is from those drawn before.

    Fewer than ``count`` where fewer differ.

    Notes
    -----
    Source: Arthur and Vassilvitskii (2007), k-means++. Draws what ``kmeans2(minit="++")`` of SciPy draws, to
    the bit; that one measures the distances to all rows drawn before anew at every draw, which took a quarter
    of a small training. Cost: O(count·R·D).
    """
    from scipy.spatial.distance import cdist

    drawn = [int(rng.integers(len(rows)))]
    nearest = np.full(len(rows), np.inf)
    while len(drawn) < count:
        np.minimum(nearest, cdist(rows[drawn[-1:]], rows, metric="sqeuclidean")[0], out=nearest)
        if not nearest.any():  # there are no others
            break
        drawn.append(int(np.searchsorted((nearest / nearest.sum()).cumsum(), rng.uniform())))
    return rows[drawn]
