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
# Of fewer blocks nothing is said about how sure a correlation is. Chosen by simulation (2026-11, 20,000
# worlds each): two symbols whose returns correlate by 0.7, blocks of two horizons, edges that last for one
# horizon or for ten and know nothing of the returns, and ones that correlate with them by 0.2. How often the
# interval held the truth, from the kindest case to the least kind; beneath it 1.96 errors by the variance of
# the block bootstrap (Künsch 1989), which misses what blocks share with their neighbours, and how little is
# known of a variance from a few of them:
#     blocks           10            20            30            60           150
#     holds       93 … 92 %     94 … 93 %     94 … 93 %     95 … 93 %     95 … 94 %
#     bootstrap   85 … 82 %     89 … 87 %     90 … 89 %     92 … 91 %     93 … 92 %
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
    block_ns : twice the label horizon

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
        ic=block_correlation(_ranks(edge_bps, group), _ranks(return_bps, group), end_ns, block_ns=block_ns),
        pearson=block_correlation(edge_bps, return_bps, end_ns, block_ns=block_ns),
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


def block_correlation(x: F64, y: F64, end_ns: I64, *, block_ns: int) -> Correlation:
    """Correlate two series of rows that depend on each other within a block of time, with an interval.

    Labels overlap and symbols move together, so rows are not independent. What each instant adds to the
    correlation, all symbols together, is projected on the slowest cosines, half as many as there are blocks;
    their mean square is the variance of the whole, and as many degrees of freedom are Student's. Ranks given
    as ``x`` and ``y`` count as they are.

    Parameters
    ----------
    x, y : float64[R]
    end_ns : int64[R]    instants; any order
    block_ns : block length, twice the horizon over which rows are dependent

    Returns
    -------
    Correlation
        All NaN where a side is constant. The interval is [-1, 1] where fewer than ``BLOCKS_MIN`` blocks fit.

    Notes
    -----
    Equal-weighted cosines: Lazarus, Lewis, Stock and Watson (2018), "HAR inference: recommendations for
    practice", Journal of Business & Economic Statistics 36. Ends by Fisher's z, which keeps them within ±1.
    """
    if len(x) < 2 or np.ptp(x) == 0.0 or np.ptp(y) == 0.0:
        return Correlation(math.nan, math.nan, math.nan)
    from scipy.fft import dct
    from scipy.special import stdtrit

    x = (x - x.mean()) / x.std()
    y = (y - y.mean()) / y.std()
    value = float(np.clip((x * y).mean(), -1.0, 1.0))
    instants, group = np.unique(end_ns, return_inverse=True)
    step_ns = int(np.diff(instants).min()) if len(instants) > 1 else 1
    length = max(-(-block_ns // step_ns), 1)
    if len(instants) < BLOCKS_MIN * length:
        return Correlation(value, -1.0, 1.0)
    if 1.0 - value * value < 1e-12:  # nothing is left that could vary
        return Correlation(value, value, value)
    # The first order of what the correlation changes by with a row's weight.
    added = x * y - 0.5 * value * (x * x + y * y)
    cosines = len(instants) // (2 * length)
    waves = dct(np.bincount(group, weights=added), norm="ortho")[1 : cosines + 1]
    error = math.sqrt(len(instants) * float(np.square(waves).mean())) / len(x)
    half = float(stdtrit(cosines, 0.5 + 0.5 * CONFIDENCE)) * error / (1.0 - value * value)
    at = math.atanh(value)
    return Correlation(value, math.tanh(at - half), math.tanh(at + half))


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
