"""What was predicted against what came: counted over all frames of the backtest, traded or not.

Owns: the bins and the look-ahead over chunk borders. Never: feeds anything back into a decision.

The outcome is the model's own label (:func:`gpuscalp.labels.label_frames`), with the mids of the backtest.
Labels of neighbouring frames overlap and symbols move together, so the counts overstate how much is known:
error bars count frames, over the horizon in frames.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final, final

import numpy as np

from gpuscalp.config import GridConfig, LabelConfig
from gpuscalp.ensemble import Signals
from gpuscalp.labels import Direction, horizon_frames, label_frames
from gpuscalp.schema import F64, I64, FrameBlock, joined

EDGE_BINS_BPS: Final = np.array([-20.0, -10, -5, -2, -1, -0.5, -0.2, 0, 0.2, 0.5, 1, 2, 5, 10, 20])
PROBABILITY_BINS: Final = np.linspace(0.1, 0.9, 9)


@dataclass(frozen=True, slots=True)
class CalibrationRow:
    """One bin: ``count`` rows in ``frame_count`` frames, mean prediction, mean outcome, its deviation."""

    low: float
    high: float
    count: int
    frame_count: int
    predicted: float
    observed: float
    deviation: float

    def error(self, horizon_frames: int) -> float:
        """Return the standard error of the mean outcome: one independent outcome per horizon."""
        return self.deviation / math.sqrt(max(1.0, self.frame_count / horizon_frames))


class _Bins:
    """Count, Σ prediction, Σ outcome, Σ outcome², frames with a row in it, by bin of the prediction."""

    def __init__(self, edges: F64) -> None:
        self.edges = edges
        self.sums = np.zeros((len(edges) + 1, 5))

    def add(self, predicted: F64, observed: F64, frame: I64) -> None:
        """Take in rows; ``frame`` int64[R] says which belong together, all rows of a frame in one call."""
        index = np.digitize(predicted, self.edges)
        for column, weights in enumerate((None, predicted, observed, observed * observed)):
            self.sums[:, column] += np.bincount(index, weights=weights, minlength=len(self.sums))
        seen = np.zeros((len(self.sums), int(frame.max(initial=-1)) + 1), np.bool_)
        seen[index, frame] = True
        self.sums[:, 4] += seen.sum(axis=1)

    def rows(self) -> tuple[CalibrationRow, ...]:
        edges = [-np.inf, *self.edges.tolist(), np.inf]
        found = []
        for index, (count, predicted, observed, squares, frames) in enumerate(self.sums.tolist()):
            if count:
                mean = observed / count
                spread = float(np.sqrt(max(0.0, squares / count - mean * mean)))
                found.append(
                    CalibrationRow(
                        edges[index],
                        edges[index + 1],
                        int(count),
                        int(frames),
                        predicted / count,
                        mean,
                        spread,
                    )
                )
        return tuple(found)


@final
class PredictionCheck:
    """Collects predictions chunk by chunk and meets them with their labels when these are known.

    Parameters
    ----------
    label, grid : those of the model
    """

    def __init__(self, label: LabelConfig, grid: GridConfig) -> None:
        self._label, self._grid = label, grid
        self.horizon_frames = horizon_frames(label, grid)
        self._tail: tuple[FrameBlock, F64, F64] | None = None
        self._edge = _Bins(EDGE_BINS_BPS)
        self._probability = _Bins(PROBABILITY_BINS)
        self._moments = np.zeros(6)  # n, Σx, Σy, Σx², Σy², Σxy of edge and outcome

    def add(self, frames: FrameBlock, probability: F64, edge_bps: F64) -> None:
        """Take in consecutive frames.

        Parameters
        ----------
        probability : float64[T, S, 3]
        edge_bps : float64[T, S]
        """
        if self._tail is not None:
            before = self._tail
            frames = joined([before[0], frames])
            probability = np.concatenate([before[1], probability])
            edge_bps = np.concatenate([before[2], edge_bps])
        # The last frames wait for their label; the earlier ones are complete, or will never be.
        ready = max(0, len(frames) - self.horizon_frames)
        labels = label_frames(frames, self._label, self._grid)
        valid = labels.valid[:ready] & np.isfinite(edge_bps[:ready])
        edge, outcome = edge_bps[:ready][valid], labels.return_bps[:ready][valid]
        direction = labels.direction[:ready][valid]
        frame = np.nonzero(valid)[0]
        self._edge.add(edge, outcome, frame)
        for wanted in (Direction.DOWN, Direction.UP):
            self._probability.add(
                probability[:ready][valid][:, wanted], (direction == wanted).astype(np.float64), frame
            )
        self._moments += [
            len(edge), edge.sum(), outcome.sum(), (edge**2).sum(), (outcome**2).sum(), (edge * outcome).sum(),
        ]  # fmt: skip
        self._tail = (frames.part(ready).copied(), probability[ready:].copy(), edge_bps[ready:].copy())

    @property
    def row_count(self) -> int:
        return int(self._moments[0])

    def edge_rows(self) -> tuple[CalibrationRow, ...]:
        """Return expected edge against the label's return, both in bps."""
        return self._edge.rows()

    def probability_rows(self) -> tuple[CalibrationRow, ...]:
        """Return the probability of DOWN and of UP (pooled) against how often it was so."""
        return self._probability.rows()

    def correlation(self) -> float:
        """Return Pearson's correlation of expected edge and outcome; NaN where one of them is constant."""
        n, x, y, xx, yy, xy = self._moments.tolist()
        if n < 2:
            return float("nan")
        spread = (n * xx - x * x) * (n * yy - y * y)
        return float((n * xy - x * y) / np.sqrt(spread)) if spread > 0 else float("nan")


def chunk_signals(signals: list[Signals]) -> tuple[F64, F64, F64, F64]:
    """Turn one Signals per symbol (rows = frames) into what ``Prediction`` holds, symbols on axis 1.

    Returns
    -------
    probability float64[T, S, 3]; agreement, edge_bps and spread_bps float64[T, S]
    """
    return (
        np.stack([signal.probability for signal in signals], axis=1),
        np.stack([signal.agreement for signal in signals], axis=1),
        np.stack([signal.edge_bps for signal in signals], axis=1),
        np.stack([signal.spread for signal in signals], axis=1),
    )
