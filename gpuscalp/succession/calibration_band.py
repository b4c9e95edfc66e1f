"""Whether the live calibration of a model has left the band in which chance alone would keep it.

Owns: the rolling window and the band. Never: decides what follows.

Four gaps are watched: the mean probability of each class less its share among the labels, and the mean
probability of the likeliest class less the share of rows on which it came; and the mean log loss less that of
always naming the window's own class shares. The standard error of each comes from the window's parts, forty
long ones, so that labels that overlap, symbols that move together and moods that last for less than a part
are in it; those that last longer are not, and the tolerance is for them. A figure is outside beyond the
tolerance and so many standard errors; of the log loss only the worse side.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from typing import Final, final

import numpy as np

from gpuscalp.labels import CLASSES
from gpuscalp.schema import F64, NS_PER_S
from gpuscalp.succession.outcomes import Matured

PARTS: Final = 40
# Fewer say too little of their own spread.
PARTS_MIN: Final = 20

_K: Final = len(CLASSES)
# The layout of a part: rows, labels and probability by class; of the likeliest class; its hits; log loss.
_CAME: Final = slice(1, 1 + _K)
_SAID: Final = slice(1 + _K, 1 + 2 * _K)
_CONFIDENCE: Final = 1 + 2 * _K
_HITS: Final = _CONFIDENCE + 1
_LOSS: Final = _CONFIDENCE + 2
_SUMS: Final = _CONFIDENCE + 3
NAMES: Final = (*(f"share_{name.lower()}" for name in CLASSES), "confidence", "log_loss")


@dataclass(frozen=True, slots=True)
class Gap:
    """One figure of the window, and how far it may lie from 0.

    Attributes
    ----------
    name : of NAMES
    value, error : the gap, and its standard error
    limit : of the absolute value; of the value itself for the log loss
    """

    name: str
    value: float
    error: float
    limit: float

    @property
    def outside(self) -> bool:
        return (self.value if self.name == "log_loss" else abs(self.value)) > self.limit


@final
class CalibrationBand:
    """Watches one model.

    Parameters
    ----------
    window_s : of the rolling window
    tolerance : of each figure beyond what chance explains, in probability and in nats
    errors : standard errors that chance is granted
    after_ns : frames that end then or before were predicted by another

    Attributes
    ----------
    rows : matured, in the window
    """

    def __init__(self, *, window_s: float, tolerance: float, errors: float, after_ns: int) -> None:
        self._part_ns = max(round(window_s * NS_PER_S / PARTS), 1)
        self._tolerance, self._errors, self._after_ns = tolerance, errors, after_ns
        self._parts: deque[tuple[int, F64]] = deque()

    @property
    def rows(self) -> int:
        return int(sum(part[0] for _, part in self._parts))

    def mature(self, matured: Matured) -> None:
        """Take what came of frames, the oldest first."""
        good = np.isfinite(matured.probability).all(axis=2) & (matured.direction >= 0)
        good &= (matured.end_ns > self._after_ns)[:, None]
        numbers = matured.end_ns // self._part_ns
        for number in np.unique(numbers[good.any(axis=1)]).tolist():
            rows = good & (numbers == number)[:, None]
            self._add(number, matured.probability[rows], matured.direction[rows].astype(np.int64))

    def gaps(self) -> tuple[Gap, ...]:
        """Return the figures of the window but for its newest part, which grows still; none at first."""
        parts = np.array([part for _, part in self._parts][:-1])
        if len(parts) < PARTS_MIN:
            return ()
        rows = parts[:, 0]
        share = parts[:, _CAME].sum(axis=0) / rows.sum()
        base = -(parts[:, _CAME] @ np.log(np.where(share > 0, share, 1.0)))
        sums = np.column_stack(
            [
                parts[:, _SAID] - parts[:, _CAME],
                parts[:, _CONFIDENCE] - parts[:, _HITS],
                parts[:, _LOSS] - base,
            ]
        )
        values = sums.sum(axis=0) / rows.sum()
        # A ratio of sums over parts of unequal size: its linear part (Cochran 1977, ch. 6).
        off = sums - values * rows[:, None]
        count = len(parts)
        errors = np.sqrt(np.square(off).sum(axis=0) * count / (count - 1)) / rows.sum()
        return tuple(
            Gap(name, value, error, self._tolerance + self._errors * error)
            for name, value, error in zip(NAMES, values.tolist(), errors.tolist(), strict=True)
        )

    def _add(self, number: int, probability: F64, came: np.ndarray) -> None:
        if not self._parts or self._parts[-1][0] < number:
            self._parts.append((number, np.zeros(_SUMS)))
            while self._parts[0][0] <= number - PARTS:
                self._parts.popleft()
        part, chosen, at = self._parts[-1][1], probability.argmax(axis=1), np.arange(len(came))
        part[0] += len(came)
        part[_CAME] += np.bincount(came, minlength=_K)
        part[_SAID] += probability.sum(axis=0)
        part[_CONFIDENCE] += probability[at, chosen].sum()
        part[_HITS] += np.count_nonzero(chosen == came)
        part[_LOSS] -= np.log(np.maximum(probability[at, came], math.ulp(0.0))).sum()
