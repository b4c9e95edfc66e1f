"""How well live rows can be told from training rows: adversarial validation, group by group.

Owns: the classifier, its folds, and the floor that the training itself gives. Never: keeps a row.

A classifier is trained to tell the two kinds apart from the columns of one group and judged on rows that it
has not seen; the area under its ROC curve is the probability that it finds a live row "more live" than a
training row. 0.5 is no difference that it can see. Unlike PSI it looks at all columns of a group together.

The classifier is a ridge regression on what each column's value is in tenths of the training rows: that, its
square, and whether it is missing. It has one answer, costs milliseconds, and sees changes of level, of spread
and of what is missing, but not a change of how columns go together if each alone stays as it was.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from gpuscalp.drift.stability import TENTHS, group_columns
from gpuscalp.schema import F32, F64, I64

FOLDS: Final = 5
# The training is cut into so many pieces, each of which is once taken for live rows.
PIECES: Final = 8
ROWS_MIN: Final = 200
# Added to the variance of each thing that the classifier sees, which is a third where it is spread evenly.
_RIDGE: Final = 0.02
_PRODUCT_ROWS: Final = 16
# Student's t for 95 % and FOLDS - 1 degrees of freedom.
_T: Final = 2.776


@dataclass(frozen=True, slots=True)
class GroupAuc:
    """One group: mean over the folds, 95 % interval over them, and what the training itself gives.

    Attributes
    ----------
    auc, low, high : 0 … 1
    floor, floor_max : mean and largest AUC of one piece of the training against the rest
    """

    group: str
    auc: float
    low: float
    high: float
    floor: float
    floor_max: float

    @property
    def stands_out(self) -> bool:
        """The whole interval lies above all that the training itself gives."""
        return self.low > self.floor_max


def compare(
    trained: F32, live: F32, edges: F32, names: Sequence[str], floors: dict[str, tuple[float, float]]
) -> tuple[GroupAuc, ...]:
    """Tell live rows from training rows.

    Parameters
    ----------
    trained, live : float32[R, F], float32[N, F]   each in the order of time, at least ``ROWS_MIN``
    edges : float32[F, TENTHS - 1]                 of the training rows
    names : of the columns
    floors : of ``training_floors``

    Returns
    -------
    tuple of GroupAuc, in the order of columns
    """
    found = []
    for group, columns in group_columns(names).items():
        folds = _fold_aucs(_seen(trained, edges, columns), _seen(live, edges, columns))
        mean = float(folds.mean())
        half = _T * float(folds.std(ddof=1)) / FOLDS**0.5
        floor, floor_max = floors[group]
        found.append(GroupAuc(group, mean, max(mean - half, 0.0), min(mean + half, 1.0), floor, floor_max))
    return tuple(found)


def training_floors(trained: F32, edges: F32, names: Sequence[str]) -> dict[str, tuple[float, float]]:
    """Return, for each group, mean and largest AUC of one eighth of the training against the rest of it.

    No part of a market is quite like the rest of it: what is no more than this is no drift.
    """
    found = {}
    for group, columns in group_columns(names).items():
        pieces = np.array_split(_seen(trained, edges, columns), PIECES)
        aucs = [
            float(_fold_aucs(np.concatenate([*pieces[:at], *pieces[at + 1 :]]), piece).mean())
            for at, piece in enumerate(pieces)
        ]
        found[group] = (float(np.mean(aucs)), max(aucs))
    return found


def _seen(x: F32, edges: F32, columns: I64) -> F64:
    """Return float64[R, 3·D]: what the classifier sees of some columns."""
    part = x[:, columns]
    missing = np.isnan(part)
    rank = np.empty(part.shape)
    for at, column in enumerate(columns):
        rank[:, at] = np.searchsorted(edges[column], part[:, at], side="right")
    level = np.where(missing, 0.0, 2.0 * rank / (TENTHS - 1) - 1.0)
    return np.concatenate([level, level * level, missing], axis=1)


def _fold_aucs(trained: F64, live: F64) -> F64:
    """Return float64[FOLDS]: pieces of time of both kinds, told apart by what the other pieces teach."""
    parts = list(zip(np.array_split(trained, FOLDS), np.array_split(live, FOLDS), strict=True))
    sums = [_sums(old, new) for old, new in parts]
    found = []
    for (old, new), own in zip(parts, sums, strict=True):
        others = [each for each in sums if each is not own]
        weights = _weights(*(np.sum([each[at] for each in others], axis=0) for at in range(3)))
        found.append(_auc(*(np.einsum("nd,d->n", rows, weights) for rows in (old, new))))
    return np.array(found)


def _sums(old: F64, new: F64) -> tuple[F64, F64, F64]:
    """Return what a regression needs of some rows: Σ w·x·xᵀ, Σ w·y·x and Σ w·x; both kinds weigh one."""
    gram = _gram(old) / len(old) + _gram(new) / len(new)
    means = old.mean(axis=0), new.mean(axis=0)
    return gram, means[1] - means[0], means[1] + means[0]


def _gram(rows: F64) -> F64:
    """Return Σ x·xᵀ, in products so small that no library spreads them over threads.

    Beside a session that runs, threads that wait for one another take four times the processor time.
    """
    whole = len(rows) // _PRODUCT_ROWS * _PRODUCT_ROWS
    parts = rows[:whole].reshape(-1, _PRODUCT_ROWS, rows.shape[1])
    rest = rows[whole:]
    return np.asarray((parts.transpose(0, 2, 1) @ parts).sum(axis=0) + rest.T @ rest)


def _weights(gram: F64, towards: F64, total: F64) -> F64:
    """Return the direction that tells the kinds apart: ridge regression on −1 and +1, centred."""
    count = 2.0 * (FOLDS - 1)
    covariance = gram / count - np.outer(total, total) / count**2
    covariance[np.diag_indices_from(covariance)] += _RIDGE
    return np.asarray(np.linalg.solve(covariance, towards))


def _auc(old: F64, new: F64) -> float:
    """Return the share of pairs in which the new row has the larger score; half of the equal ones."""
    old = np.sort(old)
    below = np.searchsorted(old, new, side="left") + np.searchsorted(old, new, side="right")
    return float(below.mean() / (2 * len(old)))
