"""Correct a calibration by what came of the predictions, within bounds.

Owns: the correction, its fit on matured rows, and how far one step may go. Never: decides that it is made
(gpuscalp.live.adaptation), or keeps more than ``ROWS_MAX`` rows.

A correction is one factor for the logarithms of all probabilities and a shift for each class:
``softmax(exp(log_scale) · log p + bias)``, p the model's own. It is the one kind that can be put into the
model's own vector scaling from probabilities alone. Its fit is the most probable one under a normal prior
around "none", where overlapping labels count as what they are worth: a thousand rows that share a second say
as much as one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final, final

import numpy as np

from gpuscalp.config import AdaptationConfig
from gpuscalp.ensemble import Calibration
from gpuscalp.rolling import RollingSum
from gpuscalp.schema import F64, I64, NS_PER_S

ROWS_MAX: Final = 4_096
# How far a correction is expected to lie from none, before any row is seen.
LOG_SCALE_SD: Final = 0.1
BIAS_SD: Final = 0.1
# A smaller step is not worth a record in the journal.
STEP_MIN: Final = 0.005
_ROUNDS: Final = 25
_LEAST: Final = 1e-300
_BUCKETS: Final = 12


@dataclass(frozen=True, slots=True)
class Correction:
    """``softmax(exp(log_scale) · log p + bias)``; the bias of the classes adds up to 0."""

    log_scale: float
    bias: tuple[float, ...]

    @classmethod
    def none(cls, class_count: int) -> Correction:
        return cls(0.0, (0.0,) * class_count)

    def applied(self, own: Calibration) -> Calibration:
        """Return the model's own calibration with the correction in it."""
        factor = math.exp(self.log_scale)
        return Calibration("vector", own.scale * factor, own.bias * factor + np.array(self.bias))

    def probability(self, logs: F64) -> F64:
        """Return float64[R, K] of float64[R, K], logarithms of the model's own probabilities."""
        z = logs * math.exp(self.log_scale) + np.array(self.bias)
        p = np.exp(z - z.max(axis=1, keepdims=True))
        return np.asarray(p / p.sum(axis=1, keepdims=True))


def correction_in(own: Calibration, now: Calibration) -> Correction | None:
    """Return the correction that made ``now`` of ``own``; None where somebody else made it."""
    if (own.scale <= 0).any() or (now.scale <= 0).any():
        return None
    factors = now.scale / own.scale
    if not np.allclose(factors, factors[0], rtol=1e-9, atol=0.0):
        return None
    bias = now.bias - own.bias * factors[0]
    return Correction(math.log(factors[0]), tuple((bias - bias.mean()).tolist()))


@dataclass(frozen=True, slots=True)
class Window:
    """Matured rows: logarithms of the model's own probabilities float64[R, K], the class that came int64[R].

    ``independent``: how many labels they are worth that do not overlap.
    """

    logs: F64
    came: I64
    independent: float


@dataclass(frozen=True, slots=True)
class Proposal:
    """A step, and what speaks for it.

    Attributes
    ----------
    correction : after the step
    rows, independent : matured rows that it was fitted on, and what they are worth
    log_loss, corrected_log_loss : of these rows under the correction before and after, nats; in-sample
    """

    correction: Correction
    rows: int
    independent: float
    log_loss: float
    corrected_log_loss: float


@final
class Recalibrator:
    """Collects matured rows, by lot if they are many.

    Parameters
    ----------
    config : the window, and how much it has to hold
    labels_per_row : what a row of one symbol is worth: 1 over the frames that its label lasts

    Attributes
    ----------
    correction : in force; ``restart`` sets it
    """

    def __init__(self, config: AdaptationConfig, *, class_count: int, labels_per_row: float) -> None:
        self._config, self._worth = config, labels_per_row
        self._logs: F64 = np.zeros((ROWS_MAX, class_count))
        self._came: I64 = np.zeros(ROWS_MAX, np.int64)
        self._at_ns: I64 = np.zeros(ROWS_MAX, np.int64)
        self._worths: F64 = np.zeros(ROWS_MAX)
        self._rng = np.random.default_rng(0)
        self._taken, self._last_ns = 0, 0
        self._spacing_ns = round(config.window_s * NS_PER_S) // ROWS_MAX
        self._owed, self._passed = 0.0, 0
        self._together = _Together(class_count, config.window_s)
        self.correction = Correction.none(class_count)

    def restart(self, correction: Correction, *, forget: bool) -> None:
        """Go on from a correction that is in force now; ``forget``: of another model."""
        self.correction = correction
        if forget:
            self._taken, self._owed, self._passed = 0, 0.0, 0
            self._together = _Together(len(correction.bias), self._config.window_s)

    def take(self, probability: F64, came: I64, end_ns: I64, at_ns: int) -> None:
        """Take float64[R, K], int64[R] and the ends of their frames int64[R], ascending: rows that were
        predicted under ``correction`` and have matured."""
        self._together.take(probability, came, end_ns, at_ns)
        # So many rows are kept that the window holds them; each of them stands for those that were not.
        self._owed += max(at_ns - self._last_ns, 0) / self._spacing_ns if self._last_ns else 1.0
        self._last_ns, self._passed = at_ns, self._passed + len(came)
        count = min(int(self._owed), len(came))
        if not count:
            return
        self._owed = min(self._owed - count, 1.0)
        worth, self._passed = self._worth * self._passed / count, 0
        chosen = self._rng.permutation(len(came))[:count]
        own = np.log(np.maximum(probability[chosen], _LEAST)) - np.array(self.correction.bias)
        slots = (self._taken + np.arange(count)) % ROWS_MAX
        self._logs[slots] = own / math.exp(self.correction.log_scale)
        self._came[slots], self._at_ns[slots], self._worths[slots] = came[chosen], at_ns, worth
        self._taken += count

    def window(self, now_ns: int) -> Window | None:
        """Return a copy of the rows that count now; None where they are worth too little."""
        held = self._at_ns > now_ns - self._config.window_s * NS_PER_S
        held[self._taken :] = False
        independent = float(self._worths[held].sum()) / self._together.counted_for(now_ns)
        if independent < self._config.min_independent:
            return None
        return Window(self._logs[held], self._came[held], independent)


@final
class _Together:
    """How much the symbols of a frame say the same: sums of what came less what was said, and of squares.

    Of the same window as the rows: symbols that went their own ways all day may fall together within minutes.
    """

    def __init__(self, class_count: int, window_s: float) -> None:
        # rows, Σ (a frame's rows)², Σ error², Σ (a frame's Σ error)²; by class Σ error, Σ error · its rows
        bucket_ns = round(window_s * NS_PER_S) // _BUCKETS
        self._sums = RollingSum((4 + 2 * class_count,), bucket_ns=bucket_ns, buckets=_BUCKETS)

    def take(self, probability: F64, came: I64, end_ns: I64, at_ns: int) -> None:
        if not len(came):
            return
        error = -probability
        error[np.arange(len(came)), came] += 1.0
        begins = np.flatnonzero(np.diff(end_ns, prepend=end_ns[0] - 1))
        sizes, sums = np.diff(begins, append=len(came)), np.add.reduceat(error, begins)
        totals = len(came), np.square(sizes).sum(), np.square(error).sum(), np.square(sums).sum()
        self._sums.add(at_ns, np.concatenate([totals, error.sum(axis=0), sizes @ sums]))

    def counted_for(self, now_ns: int) -> float:
        """Return how many labels of a frame tell as much as an independent one.

        That is the design effect (Kish 1965): how much more the sums over frames vary about their mean than
        sums of as many independent rows.
        """
        found = self._sums.total(now_ns)
        rows, rows_squared, squares, frames = found[:4].tolist()
        errors, by_size = found[4:].reshape(2, -1)
        mean = errors / max(rows, 1.0)
        own = squares - rows * float(mean @ mean)
        frames += rows_squared * float(mean @ mean) - 2.0 * float(mean @ by_size)
        # What is left of errors that are all the same is rounding.
        return max(frames / own, 1.0) if own > 1e-9 * squares else 1.0


def propose(window: Window, now: Correction, config: AdaptationConfig) -> Proposal | None:
    """Return the step that a window speaks for; None where there is none worth making.

    Parameters
    ----------
    now : in force
    config : bounds, and how often there is a step
    """
    wanted = fit(window.logs, window.came, window.independent)
    after = _towards(now, wanted, config, config.every_s / 3_600.0)
    if max(abs(a - b) for a, b in zip(_flat(after), _flat(now), strict=True)) < STEP_MIN:
        return None
    losses = [_log_loss(each.probability(window.logs), window.came) for each in (now, after)]
    return Proposal(after, len(window.came), window.independent, *losses)


def fit(logs: F64, came: I64, independent: float) -> Correction:
    """Return the most probable correction.

    Parameters
    ----------
    logs : float64[R, K]   logarithms of the model's own probabilities
    came : int64[R]        class that came
    independent : how many independent labels the rows are worth

    Notes
    -----
    Newton's method on 1 + K numbers; the loss is convex in the factor itself and the biases.
    """
    rows, count = logs.shape
    logs = logs - logs.mean(axis=1, keepdims=True)
    hit = np.zeros_like(logs)
    hit[np.arange(rows), came] = 1.0
    theta, start = np.concatenate([[1.0], np.zeros(count)]), np.concatenate([[1.0], np.zeros(count)])
    precision = np.concatenate([[LOG_SCALE_SD**-2], np.full(count, BIAS_SD**-2)]) / independent
    for _ in range(_ROUNDS):
        z = logs * theta[0] + theta[1:]
        p = np.exp(z - z.max(axis=1, keepdims=True))
        p /= p.sum(axis=1, keepdims=True)
        off = p - hit
        gradient = np.concatenate([[(off * logs).sum()], off.sum(axis=0)]) / rows
        gradient += precision * (theta - start)
        mean = (p * logs).sum(axis=1, keepdims=True)
        cross = (p * (logs - mean)).sum(axis=0) / rows
        hessian = np.diag(precision)
        hessian[0, 0] += (p * np.square(logs - mean)).sum() / rows
        hessian[0, 1:] += cross
        hessian[1:, 0] += cross
        hessian[1:, 1:] += np.diag(p.mean(axis=0)) - p.T @ p / rows
        step = np.linalg.solve(hessian, gradient)
        # Far from the answer a whole step may overshoot; a factor below nothing would turn opinions round.
        theta -= step * min(1.0, 0.5 / max(float(np.abs(step).max()), 1e-12))
        theta[0] = max(theta[0], 0.05)
        if np.abs(step).max() < 1e-9:
            break
    return Correction(math.log(theta[0]), tuple((theta[1:] - theta[1:].mean()).tolist()))


def _towards(now: Correction, wanted: Correction, config: AdaptationConfig, share: float) -> Correction:
    """Return where one step leads: within its own bound, and within the bounds of all steps together.

    What is too far is shortened as a whole: cut number by number it would point elsewhere, and could do harm.
    """
    at, to = np.array(_flat(now)), np.array(_flat(wanted))
    most = np.array([config.max_log_scale, *[config.max_bias] * len(now.bias)])
    step = share * np.array([config.max_log_scale_per_hour, *[config.max_bias_per_hour] * len(now.bias)])
    way = _shortened(to, most) - at
    scale, *bias = (at + _shortened(way, step)).tolist()
    return Correction(scale, tuple(bias))


def _shortened(way: F64, most: F64) -> F64:
    """Return a vector in the same direction, no number of which is larger than the one in ``most``."""
    return np.asarray(way / max(1.0, float((np.abs(way) / np.maximum(most, 1e-12)).max())))


def _flat(correction: Correction) -> tuple[float, ...]:
    return (correction.log_scale, *correction.bias)


def _log_loss(probability: F64, came: I64) -> float:
    return float(-np.log(np.maximum(probability[np.arange(len(came)), came], _LEAST)).mean())
