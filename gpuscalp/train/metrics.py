"""How good held-out predictions are, and how sure one can be of it.

Owns: log loss against the base rate, the confusion of classes, the calibration curve, and the information
coefficient with its interval.
Never: fits anything, or sees a row that was trained on.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from gpuscalp.labels import Direction
from gpuscalp.schema import F64, I64

I8 = npt.NDArray[np.int8]

CONFIDENCE: Final = 0.95
RESAMPLES: Final = 1_000
# Of fewer blocks nothing is said about how sure a correlation is. Chosen by simulation (2026-11, 300 worlds
# each): edges that know nothing of the returns and last for one horizon or for ten, blocks of two horizons,
# two symbols that correlate by 0.7. How often the interval held 0, and how often it lay above it:
#     blocks       3            5            10           30           60
#     holds    77, 72 %     82, 83 %     90, 87 %     90, 88 %     91, 91 %
#     above    10, 16 %      6,  8 %      7,  7 %      4,  6 %      5,  5 %
BLOCKS_MIN: Final = 10
CALIBRATION_BINS: Final = 10


@dataclass(frozen=True, slots=True)
class ClassScore:
    """Precision, recall and F1 of one class; NaN where a ratio has no denominator."""

    name: str
    precision: float
    recall: float
    f1: float
    count: int


@dataclass(frozen=True, slots=True)
class CalibrationBin:
    """Rows whose probability of a class lies in one tenth of [0, 1]."""

    name: str
    predicted: float
    observed: float
    count: int


@dataclass(frozen=True, slots=True)
class Correlation:
    """A correlation and the 95 % interval of the true one; NaN where none is known."""

    value: float
    low: float
    high: float

    @property
    def known(self) -> bool:
        """Whether there is one: rows that all have the same edge, or the same return, have none."""
        return not math.isnan(self.value)


@dataclass(frozen=True, slots=True)
class Score:
    """Held-out metrics of one fold or of all folds.

    Attributes
    ----------
    rows : number of held-out rows
    log_loss : mean −log p of the class that came, calibrated probabilities
    raw_log_loss : the same before the calibration
    base_log_loss : of the constant prediction of the training rows' class shares
    accuracy : share of rows whose likeliest class came
    base_accuracy : of always naming the training rows' most frequent class
    classes, calibration : per class
    ic : Spearman correlation between edge and realised return, the figure called "information coefficient"
    pearson : Pearson correlation of the same
    """

    rows: int
    log_loss: float
    raw_log_loss: float
    base_log_loss: float
    accuracy: float
    base_accuracy: float
    classes: tuple[ClassScore, ...]
    calibration: tuple[CalibrationBin, ...]
    ic: Correlation
    pearson: Correlation

    def figures(self) -> dict[str, float | None]:
        """Return the single figures by name; None where one is not a number."""
        return {
            name: value if math.isfinite(value) else None
            for name, value in (
                ("log_loss", self.log_loss),
                ("raw_log_loss", self.raw_log_loss),
                ("base_log_loss", self.base_log_loss),
                ("accuracy", self.accuracy),
                ("base_accuracy", self.base_accuracy),
                ("ic", self.ic.value),
                ("ic_low", self.ic.low),
                ("ic_high", self.ic.high),
                ("pearson", self.pearson.value),
                ("pearson_low", self.pearson.low),
                ("pearson_high", self.pearson.high),
            )
        }

    def to_dict(self) -> dict[str, Any]:
        """Return plain data; the interval of the IC stands flat, as ``train --json`` promises."""
        return {
            "rows": self.rows,
            **self.figures(),
            "classes": [asdict(score) for score in self.classes],
            "calibration": [
                {
                    "class": bin_.name,
                    "predicted": bin_.predicted,
                    "observed": bin_.observed,
                    "count": bin_.count,
                }
                for bin_ in self.calibration
            ],
        }


def log_loss(probability: F64, direction: I8) -> float:
    """Return the mean −log of the probability given to the class that came.

    Parameters
    ----------
    probability : float64[R, K]
    direction : int8[R]

    Returns
    -------
    float, nats; a probability of 0 counts as the smallest positive float64, so the answer is finite
    """
    given = probability[np.arange(len(direction)), direction]
    return float(-np.log(np.maximum(given, np.finfo(np.float64).tiny)).mean())


def score(
    *,
    probability: F64,
    raw: F64,
    edge_bps: F64,
    direction: I8,
    return_bps: F64,
    end_ns: I64,
    base_share: F64,
    group: I64,
    block_ns: int,
    rng: np.random.Generator,
) -> Score:
    """Measure held-out predictions.

    Parameters
    ----------
    probability, raw : float64[R, K]   calibrated, and before the calibration
    edge_bps : float64[R]              expected mid return
    direction : int8[R]                class that came
    return_bps : float64[R]            realised mid return over the label
    end_ns : int64[R]                  entries; rows of one instant belong together
    base_share : float64[R, K]         class shares of the rows that the row's fold was trained on
    group : int64[R]                   fold of the row; edges are ranked within a fold, because each fold's
        model has its own scale
    block_ns : length of the bootstrap's blocks, at least the label horizon
    rng : resamples are drawn from it

    Returns
    -------
    Score
    """
    chosen = probability.argmax(axis=1)
    return Score(
        rows=len(direction),
        log_loss=log_loss(probability, direction),
        raw_log_loss=log_loss(raw, direction),
        base_log_loss=log_loss(base_share, direction),
        accuracy=float((chosen == direction).mean()),
        base_accuracy=float((base_share.argmax(axis=1) == direction).mean()),
        classes=class_scores(chosen, direction),
        calibration=calibration_curve(probability, direction),
        ic=block_correlation(
            _ranks(edge_bps, group), _ranks(return_bps, group), end_ns, block_ns=block_ns, rng=rng
        ),
        pearson=block_correlation(edge_bps, return_bps, end_ns, block_ns=block_ns, rng=rng),
    )


def class_scores(chosen: npt.NDArray[np.int64], direction: I8) -> tuple[ClassScore, ...]:
    """Return precision, recall and F1 of every class.

    Parameters
    ----------
    chosen : int[R]       class that was named
    direction : int8[R]   class that came
    """
    scores = []
    for k in Direction:
        hits = int(((chosen == k) & (direction == k)).sum())
        named, came = int((chosen == k).sum()), int((direction == k).sum())
        scores.append(
            ClassScore(
                name=k.name,
                precision=_ratio(hits, named),
                recall=_ratio(hits, came),
                f1=_ratio(2 * hits, named + came),
                count=came,
            )
        )
    return tuple(scores)


def calibration_curve(probability: F64, direction: I8) -> tuple[CalibrationBin, ...]:
    """Return mean predicted probability and observed share per class and tenth; empty tenths are left out.

    Parameters
    ----------
    probability : float64[R, K]
    direction : int8[R]
    """
    curve = []
    for k in Direction:
        predicted = probability[:, k]
        tenth = np.minimum((predicted * CALIBRATION_BINS).astype(np.int64), CALIBRATION_BINS - 1)
        count = np.bincount(tenth, minlength=CALIBRATION_BINS)
        mass = np.bincount(tenth, weights=predicted, minlength=CALIBRATION_BINS)
        came = np.bincount(tenth, weights=(direction == k), minlength=CALIBRATION_BINS)
        curve += [
            CalibrationBin(k.name, float(mass[b] / count[b]), float(came[b] / count[b]), int(count[b]))
            for b in range(CALIBRATION_BINS)
            if count[b]
        ]
    return tuple(curve)


def block_correlation(
    x: F64,
    y: F64,
    end_ns: I64,
    *,
    block_ns: int,
    rng: np.random.Generator,
    resamples: int = RESAMPLES,
) -> Correlation:
    """Correlate two series of rows, with an interval by the moving-block bootstrap over time.

    Labels overlap and symbols move together, so rows are not independent. Blocks of time are drawn with
    replacement, each with all rows of all symbols in it, until as many instants are drawn as there were.
    Ranks given as ``x`` and ``y`` are not ranked again in a resample (the usual shortcut).

    Parameters
    ----------
    x, y : float64[R]
    end_ns : int64[R]    instants; any order
    block_ns : block length, at least the horizon over which rows are dependent
    rng : draws the blocks
    resamples : their number

    Returns
    -------
    Correlation
        All NaN where a side is constant. The interval is [-1, 1] where fewer than ``BLOCKS_MIN`` blocks fit.

    Notes
    -----
    Künsch (1989), "The jackknife and the bootstrap for general stationary observations", Annals of Statistics
    17; percentile interval.
    """
    if len(x) < 2 or np.ptp(x) == 0.0 or np.ptp(y) == 0.0:
        return Correlation(math.nan, math.nan, math.nan)
    # Standardised first: the sums below are then of order one, and their differences lose nothing.
    x = (x - x.mean()) / x.std()
    y = (y - y.mean()) / y.std()
    instants, group = np.unique(end_ns, return_inverse=True)
    sums = np.stack(
        [
            np.bincount(group, weights=w, minlength=len(instants))
            for w in (np.ones_like(x), x, y, x * x, y * y, x * y)
        ]
    )
    value = float(_correlation(sums.sum(axis=1)))
    step_ns = int(np.diff(instants).min()) if len(instants) > 1 else 1
    length = max(-(-block_ns // step_ns), 1)
    if len(instants) < BLOCKS_MIN * length:
        return Correlation(value, -1.0, 1.0)
    running = np.concatenate([np.zeros((len(sums), 1)), np.cumsum(sums, axis=1)], axis=1)
    block = running[:, length:] - running[:, :-length]
    draws = math.ceil(len(instants) / length)
    totals = np.empty((resamples, len(sums)))
    for index in range(resamples):
        totals[index] = block[:, rng.integers(0, block.shape[1], draws)].sum(axis=1)
    drawn = _correlation(totals.T)
    tail = (1.0 - CONFIDENCE) / 2.0
    low, high = np.quantile(drawn, [tail, 1.0 - tail])
    return Correlation(value, float(low), float(high))


def _correlation(sums: F64) -> F64:
    """Return the correlation from (n, Σx, Σy, Σx², Σy², Σxy) on axis 0; 0 where a variance vanishes."""
    n, x, y, xx, yy, xy = sums
    product = (n * xx - x * x) * (n * yy - y * y)
    safe = np.where(product > 0.0, product, 1.0)
    return np.where(product > 0.0, (n * xy - x * y) / np.sqrt(safe), 0.0)


def _ranks(values: F64, group: I64) -> F64:
    """Return ranks within each group as fractions of its size, ties sharing their mean rank; mean 0.5.

    They begin at one half, so that groups of different sizes have the same mean: else groups whose rows are
    all tied would still differ from each other.
    """
    ranks = np.zeros(len(values))
    for member in np.unique(group):
        inside = group == member
        _, inverse, count = np.unique(values[inside], return_inverse=True, return_counts=True)
        mean_rank = np.cumsum(count) - count / 2.0
        ranks[inside] = mean_rank[inverse] / inside.sum()
    return ranks


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else math.nan
