"""Predictions and what came of them: classes, confidence, and their quality once the labels have matured.

Owns: the frames that wait for their labels, counts since the start, and a rolling hour of matured rows.
Never: labels by a rule of its own: labels are those of training (``gpuscalp.labels``), and mature when the
frames that training would have needed have closed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple, final

import numpy as np
from msgspec import structs

from gpuscalp.config import GridConfig, LabelConfig
from gpuscalp.labels import CLASSES, I8, horizon_frames, label_frames
from gpuscalp.rolling import RollingSum
from gpuscalp.schema import F64, I64, NS_PER_S, FrameBlock

BUCKET_NS: Final = 300 * NS_PER_S
BUCKETS: Final = 12
CALIBRATION_BINS: Final = 10
# Upper bounds of the histograms of the likeliest class's probability, and of the share of members that agree.
CONFIDENCE_BOUNDS: Final = (0.35, 0.4, 0.45, 0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95, 1.0)
AGREEMENT_BOUNDS: Final = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
# Frames beyond the horizon that fit before old ones are moved away: moving is rare, and memory is small.
_SPARE_FRAMES: Final = 128

_K: Final = len(CLASSES)
# The layout of a row of sums: confusion, bins of confidence (count, mass, hits), log loss, Brier.
_CONFUSION: Final = slice(0, _K * _K)
_BINS: Final = slice(_K * _K, _K * _K + 3 * CALIBRATION_BINS)
_LOSS: Final = _K * _K + 3 * CALIBRATION_BINS
_SUMS: Final = _LOSS + 2


class Predicted(NamedTuple):
    """One frame with what was said of it. The arrays are kept, and must not be changed any more.

    end_ns : of the frame
    bid_px, ask_px : int32[S] · quality : uint32[S]   as ``FrameBlock`` has them
    probability : float64[S, K]   NaN where nothing was said
    agreement : float64[S]
    """

    end_ns: int
    bid_px: np.ndarray
    ask_px: np.ndarray
    quality: np.ndarray
    probability: F64
    agreement: F64


class Matured(NamedTuple):
    """D frames whose labels are known now, with what was said of them.

    end_ns : int64[D]
    probability : float64[D, S, K]   NaN where nothing was said
    direction : int8[D, S]   the class that came; NO_CLASS where there is no label
    return_bps : float64[D, S]   the mid's, from the close of the frame to the end of the horizon, wherever a
        barrier was touched before; NaN where it is not known
    spread_bps : float64[D, S]   at the close of the frame; NaN without a quote
    """

    end_ns: I64
    probability: F64
    direction: I8
    return_bps: F64
    spread_bps: F64


@dataclass(frozen=True, slots=True)
class LiveQuality:
    """How good the predictions of the rolling window are; None where a ratio has no denominator.

    Attributes
    ----------
    rows : matured
    accuracy, base_accuracy : share whose likeliest class came; of always naming the window's most frequent
    precision, recall, f1 : by class
    predicted, matured : share of each class among predictions and labels
    log_loss, base_log_loss : mean −log p, nats; of always saying the window's class shares
    brier : mean Σ(p − y)² over the classes, 0 to 2
    calibration_error : Σ share of a bin × |its accuracy − its mean confidence|, of the likeliest class
    """

    rows: int
    accuracy: float
    base_accuracy: float
    precision: tuple[float | None, ...]
    recall: tuple[float | None, ...]
    f1: tuple[float | None, ...]
    predicted: tuple[float, ...]
    matured: tuple[float, ...]
    log_loss: float
    base_log_loss: float
    brier: float
    calibration_error: float


@final
class Histogram:
    """Counts of values up to each of some bounds, the last one of all others, and their sum."""

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = tuple(bounds)
        self.counts: I64 = np.zeros(len(bounds) + 1, np.int64)
        self.sum = 0.0
        self._bounds = np.array(bounds)

    def add(self, values: F64) -> None:
        """Take float64[N], none of them NaN."""
        self.counts += np.bincount(self._bounds.searchsorted(values), minlength=len(self.counts))
        self.sum += float(values.sum())


@final
class Outcomes:
    """Follows the predictions for S symbols.

    Parameters
    ----------
    symbol_count : S
    label, grid : the model's; without a label nothing matures

    Attributes
    ----------
    predicted_count, matured_count : int64[K]   rows by likeliest class; predicted rows by the class that came
    confidence, agreement : of all predicted rows
    told : who is told what has matured; may be set
    """

    def __init__(self, symbol_count: int, label: LabelConfig | None, grid: GridConfig) -> None:
        self._label, self._grid = label, grid
        self._steps = 0 if label is None else horizon_frames(label, grid)
        self._frames = _Frames(self._steps + _SPARE_FRAMES, symbol_count)
        self._sums = RollingSum((_SUMS,), bucket_ns=BUCKET_NS, buckets=BUCKETS)
        self.predicted_count: I64 = np.zeros(_K, np.int64)
        self.matured_count: I64 = np.zeros(_K, np.int64)
        self.confidence = Histogram(CONFIDENCE_BOUNDS)
        self.agreement = Histogram(AGREEMENT_BOUNDS)
        self.told: Sequence[Callable[[Matured], None]] = ()
        self._after_ns = 0

    @property
    def window_ns(self) -> int:
        return self._sums.span_ns

    def begin(self, after_ns: int) -> None:
        """Begin the window anew: frames that end at ``after_ns`` or before had another model."""
        self._after_ns = after_ns
        self._sums = RollingSum((_SUMS,), bucket_ns=BUCKET_NS, buckets=BUCKETS)

    def take(self, frames: Sequence[Predicted]) -> None:
        """Take consecutive frames, the oldest first."""
        for start in range(0, len(frames), _SPARE_FRAMES):
            self._take(frames[start : start + _SPARE_FRAMES])

    def quality(self, now_ns: int | None = None) -> LiveQuality | None:
        """Return the quality of the window that ends now (or with the newest frame); None without rows."""
        return _quality(self._sums.total(now_ns))

    def _take(self, frames: Sequence[Predicted]) -> None:
        probability = np.stack([each.probability for each in frames])
        said = np.isfinite(probability).all(axis=2)
        rows = probability[said]
        self.predicted_count += np.bincount(rows.argmax(axis=1), minlength=_K)
        self.confidence.add(rows.max(axis=1))
        self.agreement.add(np.stack([each.agreement for each in frames])[said])
        if self._label is None:
            return
        waiting = self._frames
        waiting.append(frames, probability)
        due = len(waiting) - self._steps
        if due > 0:
            block = waiting.block()
            labels = label_frames(block, self._label, self._grid)
            entered = waiting.probability[:due]
            good = labels.valid[:due] & np.isfinite(entered).all(axis=2)
            came = labels.direction[:due].astype(np.int64)
            self.matured_count += np.bincount(came[good], minlength=_K)
            good &= (block.end_ns[:due] > self._after_ns)[:, None]
            if good.any():
                self._mature(entered[good], came[good], frames[-1].end_ns)
            if self.told:
                bid, ask = (px[:due].astype(np.float64) for px in (block.bid_px, block.ask_px))
                with np.errstate(invalid="ignore"):
                    spread_bps = 2e4 * (ask - bid) / (ask + bid)
                returns = labels.return_bps[:due]
                if self._label.kind == "barrier":
                    # A session holds for the horizon: nobody sells at a touch.
                    held = structs.replace(self._label, kind="forward")
                    returns = label_frames(block, held, self._grid).return_bps[:due]
                matured = Matured(
                    block.end_ns[:due].copy(), entered.copy(), labels.direction[:due], returns, spread_bps
                )
                for tell in self.told:
                    tell(matured)
            waiting.drop(due)

    def _mature(self, probability: F64, came: I64, at_ns: int) -> None:
        """Count R rows: float64[R, K], int64[R]."""
        chosen, rows = probability.argmax(axis=1), np.arange(len(came))
        confidence = probability[rows, chosen]
        place = np.minimum((confidence * CALIBRATION_BINS).astype(np.int64), CALIBRATION_BINS - 1)
        given = np.maximum(probability[rows, came], np.finfo(np.float64).tiny)
        off = probability.copy()
        off[rows, came] -= 1.0
        sums = np.empty(_SUMS)
        sums[_CONFUSION] = np.bincount(chosen * _K + came, minlength=_K * _K)
        sums[_BINS] = np.concatenate(
            [
                np.bincount(place, weights=weights, minlength=CALIBRATION_BINS)
                for weights in (None, confidence, chosen == came)
            ]
        )
        sums[_LOSS], sums[_LOSS + 1] = -np.log(given).sum(), np.square(off).sum()
        self._sums.add(at_ns, sums)


@final
class _Frames:
    """The newest frames in a row; the oldest are dropped."""

    def __init__(self, room: int, symbol_count: int) -> None:
        shape = (2 * room, symbol_count)
        self._end_ns = np.zeros(2 * room, np.int64)
        self._bid, self._ask = np.zeros((2, *shape), np.int32)
        self._quality = np.zeros(shape, np.uint32)
        self._probability = np.zeros((*shape, _K))
        self._first = self._stop = 0

    def __len__(self) -> int:
        return self._stop - self._first

    @property
    def probability(self) -> F64:
        """float64[T, S, K]"""
        return self._probability[self._first : self._stop]

    def append(self, frames: Sequence[Predicted], probability: F64) -> None:
        if self._stop + len(frames) > len(self._end_ns):
            self._move()
        for index, each in enumerate(frames, self._stop):
            self._end_ns[index] = each.end_ns
            self._bid[index], self._ask[index] = each.bid_px, each.ask_px
            self._quality[index] = each.quality
        self._probability[self._stop : self._stop + len(frames)] = probability
        self._stop += len(frames)

    def drop(self, count: int) -> None:
        self._first += count

    def block(self) -> FrameBlock:
        """Return what labels read; channels and marks are left out."""
        held = slice(self._first, self._stop)
        count, symbol_count = self._bid[held].shape
        return FrameBlock(
            end_ns=self._end_ns[held],
            channels=np.empty((count, 0, symbol_count), np.float32),
            quality=self._quality[held],
            bid_px=self._bid[held],
            ask_px=self._ask[held],
            mark=np.empty((count, 0)),
        )

    def _move(self) -> None:
        count = len(self)
        for array in (self._end_ns, self._bid, self._ask, self._quality, self._probability):
            array[:count] = array[self._first : self._stop].copy()
        self._first, self._stop = 0, count


def _quality(sums: F64) -> LiveQuality | None:
    confusion = sums[_CONFUSION].reshape(_K, _K)  # [named, came]
    rows = float(confusion.sum())
    if rows == 0.0:
        return None
    named, came, hits = confusion.sum(axis=1), confusion.sum(axis=0), confusion.diagonal()
    count, mass, right = sums[_BINS].reshape(3, CALIBRATION_BINS)
    share = came / rows
    known = share[share > 0]
    return LiveQuality(
        rows=int(rows),
        accuracy=float(hits.sum() / rows),
        base_accuracy=float(share.max()),
        precision=_ratios(hits, named),
        recall=_ratios(hits, came),
        f1=_ratios(2 * hits, named + came),
        predicted=tuple((named / rows).tolist()),
        matured=tuple(share.tolist()),
        log_loss=float(sums[_LOSS] / rows),
        base_log_loss=float(-(known * np.log(known)).sum()),
        brier=float(sums[_LOSS + 1] / rows),
        calibration_error=float(np.abs(right - mass).sum() / rows) if count.any() else 0.0,
    )


def _ratios(part: F64, whole: F64) -> tuple[float | None, ...]:
    return tuple(float(p / w) if w else None for p, w in zip(part, whole, strict=True))
