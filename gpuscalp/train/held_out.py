"""Predictions on rows that no member has seen, kept until all folds are done.

Owns: the bound on how many are kept, and the walk that makes them: one for all folds together.
Never: predicts with XGBoost. What is measured here is the code that will trade.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from typing import Final

import numpy as np
import numpy.typing as npt

from gpuscalp.config import GridConfig
from gpuscalp.ensemble import Ensemble
from gpuscalp.labels import CLASSES
from gpuscalp.schema import F32, F64, I64
from gpuscalp.splits import Fold
from gpuscalp.train.compare import Comparer
from gpuscalp.train.dataset import LabelledChunk, Rows, on_stride
from gpuscalp.train.device import TrainingDevice
from gpuscalp.train.iterator import in_blocks

# Labels overlap, so a thinner grid loses little; without a bound the memory would grow with the archive.
ROWS_MAX: Final = 400_000
SAMPLE_ROWS_MAX: Final = 2_048
# What is kept on the way, of which the sample is then taken.
SAMPLED_ROWS_MAX: Final = 4 * SAMPLE_ROWS_MAX
# At least so much is predicted at once. Of a symbol in a chunk a thin grid leaves a few rows: alone they take
# the CPU's forest four times as long, and a call takes XGBoost on CUDA 20 ms.
TOGETHER_BYTES: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class HeldOut:
    """Held-out rows of one fold, with what the members said before any calibration.

    Attributes
    ----------
    raw : float64[R, K]
    direction : int8[R] · return_bps, weight : float64[R] · end_ns : int64[R]
        ``weight`` is the uniqueness of the label among those that are kept
    """

    raw: F64
    direction: npt.NDArray[np.int8]
    return_bps: F64
    weight: F64
    end_ns: I64

    def __len__(self) -> int:
        return len(self.direction)

    @classmethod
    def joined(cls, parts: Sequence[HeldOut]) -> HeldOut:
        """Return the rows of all parts, in their order."""
        return cls(*(np.concatenate([getattr(part, name) for part in parts]) for name in cls.__slots__))


@dataclass(slots=True)
class Sample:
    """At most ``SAMPLE_ROWS_MAX`` whole rows of the last fold, evenly spread: for importance and canaries.

    Attributes
    ----------
    x : float32[R, F] · direction : int8[R]
    """

    x: F32
    direction: npt.NDArray[np.int8]

    @classmethod
    def joined(cls, parts: Sequence[Sample]) -> Sample:
        """Return as many rows of all parts together, evenly spread."""
        parts = [part for part in parts if len(part.x)] or parts[:1]
        x = np.concatenate([part.x for part in parts])
        direction = np.concatenate([part.direction for part in parts])
        at = np.linspace(0, len(x) - 1, min(len(x), SAMPLE_ROWS_MAX)).astype(np.int64)
        return cls(np.ascontiguousarray(x[at]), direction[at])


_NO_ROWS: Final = HeldOut(
    np.empty((0, len(CLASSES))), np.empty(0, np.int8), np.empty(0), np.empty(0), np.empty(0, np.int64)
)
_NO_SAMPLE: Final = Sample(np.empty((0, 0), np.float32), np.empty(0, np.int8))


def thinning(rows: int) -> int:
    """Return the stride that leaves at most ``ROWS_MAX`` of ``rows`` held-out rows."""
    return max(-(-rows // ROWS_MAX), 1)


def predict_held_out(
    chunks: Iterable[LabelledChunk],
    folds: Sequence[Fold],
    ensembles: Sequence[Ensemble],
    *,
    device: TrainingDevice,
    grid: GridConfig,
    stride: int,
    expected_rows: int,
    comparers: Sequence[Comparer] = (),
) -> tuple[tuple[HeldOut, ...], Sample]:
    """Predict every fold's test rows with the fold's own members, in one walk.

    Parameters
    ----------
    chunks : the whole recording
    folds, ensembles : fold by fold
    device : where the rows lie and are predicted
    grid, stride : the training grid; held-out rows may be thinned further
    expected_rows : about how many held-out rows there are in all folds
    comparers : fold by fold, told every prediction; none compares nothing

    Returns
    -------
    (tuple of HeldOut, Sample)
    """
    parts = [[_NO_ROWS] for _ in folds]
    predictors = [device.predictor(ensemble.forest) for ensemble in ensembles]
    every = thinning(expected_rows)
    thin = stride * every
    last = folds[-1].index
    # By time, so that it does not matter how rows are cut into blocks. Folds have equal numbers of rows.
    last_rows = expected_rows * stride // (thin * (last + 1))
    sample_stride = thin * max(-(-last_rows // SAMPLED_ROWS_MAX), 1)
    sampled: list[Sample] = []

    def tests() -> Iterator[tuple[int, Rows]]:
        for chunk in chunks:
            kept = on_stride(chunk.end_ns, grid, thin)[:, None]
            for index, fold in enumerate(folds):
                for rows in chunk.rows(chunk.select(fold.test_rows) & kept, device):
                    yield index, rows

    for index, of_fold in groupby(tests(), itemgetter(0)):
        rows_of_fold = (each for _, each in of_fold)
        for rows in in_blocks(rows_of_fold, device, max(device.block_bytes, TOGETHER_BYTES)):
            signals = ensembles[index].combine(predictors[index](rows.x))
            if comparers:
                comparers[index].add(rows.x, signals)
            # Of the labels that overlap one in ``every`` is kept, and stands for the others; alone it is
            # worth one. The sum still is the number of labels that do not overlap; with barrier labels, whose
            # lengths differ, it was up to 7 % above that of a walk on this stride.
            weight = np.minimum(rows.weight * every, 1.0)
            parts[index].append(HeldOut(signals.raw, rows.direction, rows.return_bps, weight, rows.end_ns))
            at = np.flatnonzero(on_stride(rows.end_ns, grid, sample_stride))
            if folds[index].index == last and len(at):
                sampled.append(Sample(device.taken(rows.x, at), rows.direction[at]))
    return tuple(map(HeldOut.joined, parts)), Sample.joined(sampled or [_NO_SAMPLE])
