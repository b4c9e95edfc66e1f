"""The walks over the recording that a training run makes, and what each may see.

Owns: which rows reach which matrix. A fold's members see their own train interval only; the rows that stop
their training are the end of it, purged; the test interval is predicted after all folds are trained.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from gpuscalp.config import TrainConfig
from gpuscalp.drift import Distribution
from gpuscalp.ensemble import Calibration, Ensemble
from gpuscalp.errors import DataError
from gpuscalp.labels import CLASSES, horizon_frames
from gpuscalp.schema import NS_PER_MS
from gpuscalp.splits import Fold, RowCounts, walk_forward
from gpuscalp.train.compare import Comparer, DeviceComparison, total
from gpuscalp.train.dataset import LabelledChunk, RowFilter, Rows, count_rows, labelled_chunks
from gpuscalp.train.device import TrainingDevice
from gpuscalp.train.distribution import RowSample
from gpuscalp.train.fit import Member, fit_members, forest_of, member_seeds
from gpuscalp.train.held_out import HeldOut, Sample, predict_held_out
from gpuscalp.train.iterator import Tally, binned_matrix
from gpuscalp.train.source import FeatureSource

# The part at the end of a train interval that tells when to stop.
STOPPING_FRACTION: Final = 0.15


class Progress(Protocol):
    """Told how far a run is; the form of ``gpuscalp.cli.output.progress``."""

    def __call__(self, done: float, total: float | None = None, note: str = "") -> None: ...


@dataclass(frozen=True, slots=True)
class FittedFold:
    """A fold's members, without calibration, and what they were fitted on."""

    fold: Fold
    ensemble: Ensemble
    members: tuple[Member, ...]
    trained: Tally

    @property
    def rounds(self) -> tuple[int, ...]:
        return tuple(member.rounds for member in self.members)


@dataclass(frozen=True, slots=True)
class FittedFinal:
    """The members of the bundle, and how the columns of their rows are distributed."""

    members: tuple[Member, ...]
    trained: Tally
    distribution: Distribution | None


class Passes:
    """The walks of one training run over one source.

    Parameters
    ----------
    source, config : what to walk, and how to label it
    device : where rows lie, XGBoost trains and held-out rows are predicted
    threads : OpenMP threads
    progress : told after every round
    """

    def __init__(
        self,
        source: FeatureSource,
        config: TrainConfig,
        *,
        device: TrainingDevice,
        threads: int,
        progress: Progress,
    ) -> None:
        self._source = source
        self._config = config
        self._device = device
        self._threads = threads
        self._progress = progress
        self._seeds = member_seeds(config.ensemble.seed, config.ensemble.members)
        # Rounds of all members of all folds and of the final ones: the unit of progress.
        self._total = float((config.split.folds + 1) * config.ensemble.members * config.booster.rounds)
        self._done = 0.0

    @property
    def horizon_ns(self) -> int:
        config = self._config
        return horizon_frames(config.label, config.grid) * config.grid.frame_ms * NS_PER_MS

    def split(self) -> tuple[RowCounts, tuple[Fold, ...]]:
        """Count the rows and cut their time into folds."""
        self._progress(0.0, self._total, "counting rows")
        counts = count_rows(self._labelled())
        if counts.total == 0:
            raise DataError(
                "no row can be used for training",
                where=f"{self._source.venue}, {', '.join(self._source.symbols)}",
                fix="a row needs a warm, unblocked frame and quotes over the whole label horizon: see "
                "`gpuscalp data info` for length and gaps",
            )
        return counts, walk_forward(counts, self._config.split, horizon_ns=self.horizon_ns)

    def fit_fold(self, fold: Fold, counts: RowCounts) -> FittedFold:
        """Train a fold's members with early stopping on the purged end of its train interval."""
        config = self._config
        inner = fold.early_stopping(STOPPING_FRACTION)
        name = f"fold {fold.index + 1} of {config.split.folds}"
        matrix, trained = binned_matrix(
            lambda: self._rows(inner.train_rows, inner.train_end_ns),
            device=self._device,
            expected_rows=counts.between(inner.train_start_ns, inner.train_end_ns),
            max_bin=config.booster.max_bin,
            threads=self._threads,
            what=f"{name}, training rows",
        )
        stopping, _ = binned_matrix(
            lambda: self._rows(inner.test_rows, inner.test_end_ns),
            device=self._device,
            max_bin=config.booster.max_bin,
            threads=self._threads,
            what=f"{name}, stopping rows",
            reference=matrix,
        )
        rounds = [config.booster.rounds] * len(self._seeds)
        members = fit_members(
            matrix,
            config=config.booster,
            seeds=self._seeds,
            rounds=rounds,
            device=self._device.name,
            threads=self._threads,
            stopping=stopping,
            on_round=self._on_round(name),
        )
        self._step(len(self._seeds) * config.booster.rounds)
        ensemble = Ensemble(forest_of(members), Calibration.identity(len(CLASSES)), trained.class_return_bps)
        return FittedFold(fold, ensemble, members, trained)

    def held_out(
        self, fitted: Sequence[FittedFold], counts: RowCounts
    ) -> tuple[tuple[HeldOut, ...], Sample, DeviceComparison]:
        """Predict the test rows of all folds in one walk, and compare the devices where there are two.

        Raises
        ------
        DataError
            a fold has none
        ParityError
            the forest gives other bits on the other device
        """
        folds = [item.fold for item in fitted]
        comparers = [comparer for item in fitted if (comparer := self._comparer(item)) is not None]
        config = self._config
        self._progress(self._done, self._total, "predicting held-out rows")
        held_out, sample = predict_held_out(
            self._labelled(),
            folds,
            [item.ensemble for item in fitted],
            device=self._device,
            comparers=comparers,
            grid=config.grid,
            stride=config.stride_frames,
            expected_rows=round(counts.total * (1.0 - config.split.min_train_fraction)),
        )
        for fold, rows in zip(folds, held_out, strict=True):
            if len(rows) == 0:
                raise DataError(
                    "a fold has no held-out rows",
                    where=f"fold {fold.index + 1}",
                    fix="fewer folds (split.folds), or a smaller stride_frames",
                )
        return held_out, sample, total(comparers, self._device.comparison_reason)

    def fit_final(self, rounds: Sequence[int], counts: RowCounts) -> FittedFinal:
        """Train the bundle's members on all rows, each for as many rounds as the folds found best."""
        config = self._config
        sample = RowSample(self._device, config.grid, stride=config.stride_frames, expected_rows=counts.total)
        matrix, trained = binned_matrix(
            lambda: sample.watch(self._rows(lambda end_ns, _: end_ns >= 0, None)),
            device=self._device,
            expected_rows=counts.total,
            max_bin=config.booster.max_bin,
            threads=self._threads,
            what="all rows",
        )
        members = fit_members(
            matrix,
            config=config.booster,
            seeds=self._seeds,
            rounds=rounds,
            device=self._device.name,
            threads=self._threads,
            on_round=self._on_round("final members"),
        )
        self._progress(self._total, self._total, "writing")
        return FittedFinal(members, trained, sample.distribution())

    def _labelled(self) -> Iterator[LabelledChunk]:
        return labelled_chunks(self._source.chunks(), self._config)

    def _rows(self, wanted: RowFilter, end_ns: int | None) -> Iterator[Rows]:
        """Yield the rows that ``wanted`` wants, up to the first chunk that begins after ``end_ns``."""
        for chunk in self._labelled():
            if end_ns is not None and chunk.end_ns[0] > end_ns:
                return
            yield from chunk.rows(chunk.select(wanted), self._device)

    def _comparer(self, item: FittedFold) -> Comparer | None:
        boosters = [member.booster for member in item.members]
        others = self._device.opinions(item.ensemble.forest, boosters)
        return None if others is None else Comparer(item.ensemble, *others)

    def _on_round(self, stage: str):  # type: ignore[no-untyped-def]
        start = self._done
        count = len(self._seeds)

        def told(member: int, round_: int, loss: float | None) -> None:
            at = start + member * self._config.booster.rounds + round_
            text = f"{stage}, member {member + 1} of {count}, round {round_}"
            self._progress(at, None, text if loss is None else f"{text}, log loss {loss:.4f}")

        return told

    def _step(self, rounds: int) -> None:
        self._done += rounds
