"""The walks over the recording that a training run makes, and what each may see.

Owns: which rows reach which matrix. A fold's members see their own train interval only; the rows that stop
their training are the end of it, purged; the test interval is predicted after all folds are trained.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Protocol, final

from gpuscalp.config import TrainConfig
from gpuscalp.ensemble import Calibration, Ensemble
from gpuscalp.errors import DataError
from gpuscalp.labels import CLASSES, label_horizon_ns
from gpuscalp.progress import Progress
from gpuscalp.splits import Fold, RowCounts, walk_forward
from gpuscalp.train.compare import Comparer, DeviceComparison, total
from gpuscalp.train.dataset import RowFilter, Rows, count_rows
from gpuscalp.train.device import TrainingDevice
from gpuscalp.train.distribution import KeptRows, RowSample
from gpuscalp.train.fit import (
    Member,
    Once,
    directly,
    final_rounds,
    fit_members,
    forest_of,
    member_seeds,
)
from gpuscalp.train.held_out import HeldOut, Sample, predict_held_out
from gpuscalp.train.iterator import Tally, binned_matrix
from gpuscalp.train.source import FeatureSource
from gpuscalp.train.walk import BEGINNING, END, Recording, WholeRecording
from gpuscalp.train.warm_start import WarmStart

# The share of a train interval's rows, the last of them, that tell when to stop.
STOPPING_FRACTION: Final = 0.15
# What the members of the bundle are called while they are trained.
FINAL: Final = "final members"


@dataclass(frozen=True, slots=True)
class BinnedFold:
    """A fold's rows as XGBoost takes them: to fit on, to stop the fitting, and the tally of the former."""

    matrix: Any
    stopping: Any
    trained: Tally


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
    """The members of the bundle, and what was kept of the rows that they were trained on."""

    members: tuple[Member, ...]
    trained: Tally
    kept: KeptRows | None


Predicted = tuple[tuple[HeldOut, ...], Sample, DeviceComparison]


class Steps(Protocol):
    """The steps of a training run that walk the recording, in their order."""

    def session(self) -> AbstractContextManager[None]:
        """Return what is to surround them."""
        ...

    def split(self) -> tuple[RowCounts, tuple[Fold, ...]]: ...

    def fit(
        self, folds: Sequence[Fold], counts: RowCounts, /
    ) -> tuple[tuple[FittedFold, ...], FittedFinal]: ...

    def held_out(self, fitted: Sequence[FittedFold], counts: RowCounts, /) -> Predicted: ...


@final
class Passes:
    """The walks of one training run over one source; of several workers each has its own.

    Parameters
    ----------
    source, config : what to walk, and how to label it
    device : where rows lie, XGBoost trains and held-out rows are predicted
    threads : OpenMP threads
    progress : told after every round
    warm : members to go on from; None: they begin anew
    recording : the rows to walk; None takes all of the source
    once : recalls what was fitted before a worker was lost
    """

    def __init__(
        self,
        source: FeatureSource,
        config: TrainConfig,
        *,
        device: TrainingDevice,
        threads: int,
        progress: Progress,
        warm: WarmStart | None = None,
        recording: Recording | None = None,
        once: Once = directly,
    ) -> None:
        self._warm = warm
        self._begun = () if warm is None else warm.boosters
        self._begun_rounds = [0] * config.ensemble.members if warm is None else list(warm.rounds)
        self._source = source
        self._recording: Recording = recording or WholeRecording(source, config)
        self._once = once
        self._config = config
        self._device = device
        self._threads = threads
        self._progress = progress
        self._seeds = member_seeds(config.ensemble.seed, config.ensemble.members)
        # Rounds of all members of all folds and of the final ones: the unit of progress.
        self._total = float((config.split.folds + 1) * config.ensemble.members * config.booster.rounds)
        self._done = 0.0

    def session(self) -> AbstractContextManager[None]:
        return self._device.session()

    def split(self) -> tuple[RowCounts, tuple[Fold, ...]]:
        """Count the rows and cut their time into folds."""
        self._progress(0.0, self._total, "counting rows")
        counts = count_rows(self._recording.labelled(BEGINNING, END))
        if self._warm is not None and len(counts.start_ns):
            self._warm.check_newer(int(counts.start_ns[0]))
        return counts, folds_of(counts, self._config, self._source)

    def fit(self, folds: Sequence[Fold], counts: RowCounts) -> tuple[tuple[FittedFold, ...], FittedFinal]:
        """Train the members of every fold, and those of the bundle."""
        fitted = tuple(self._once(self._name(fold), partial(self.fit_fold, fold, counts)) for fold in folds)
        rounds = final_rounds([item.rounds for item in fitted])
        return fitted, self._once(FINAL, partial(self.fit_final, rounds, counts))

    def bin_fold(self, fold: Fold, counts: RowCounts) -> BinnedFold:
        """Bin a fold's rows: its train interval, and the purged end of it that stops the training."""
        config = self._config
        inner = fold.early_stopping(STOPPING_FRACTION, counts)
        name = self._name(fold)
        matrix, trained = binned_matrix(
            lambda: self._rows(inner.train_rows, inner.train_start_ns, inner.train_end_ns),
            device=self._device,
            expected_rows=self._own(counts.between(inner.train_start_ns, inner.train_end_ns)),
            max_bin=config.booster.max_bin,
            threads=self._threads,
            level_classes=lengths_differ(config),
            what=f"{name}, training rows",
        )
        stopping, _ = binned_matrix(
            lambda: self._rows(inner.test_rows, inner.test_start_ns, inner.test_end_ns),
            device=self._device,
            max_bin=config.booster.max_bin,
            threads=self._threads,
            level_classes=lengths_differ(config),
            what=f"{name}, stopping rows",
            reference=matrix,
        )
        return BinnedFold(matrix, stopping, trained)

    def fit_fold(self, fold: Fold, counts: RowCounts) -> FittedFold:
        """Train a fold's members with early stopping on the purged end of its train interval."""
        config, name = self._config, self._name(fold)
        self._done = float(fold.index * len(self._seeds) * config.booster.rounds)
        rows = self.bin_fold(fold, counts)
        members = fit_members(
            rows.matrix,
            config=config.booster,
            seeds=self._seeds,
            rounds=[config.booster.rounds] * len(self._seeds),
            device=self._device.name,
            threads=self._threads,
            stopping=rows.stopping,
            on_round=self._on_round(name),
            begun=self._begun,
            once=self._once,
            what=name,
        )
        ensemble = Ensemble(
            forest_of(members), Calibration.identity(len(CLASSES)), rows.trained.class_return_bps
        )
        return FittedFold(fold, ensemble, members, rows.trained)

    def held_out(self, fitted: Sequence[FittedFold], counts: RowCounts) -> Predicted:
        """Predict the test rows of all folds in one walk, and compare the devices where there are two.

        Raises
        ------
        DataError
            a fold has none
        ParityError
            the forest gives other bits on the other device
        """
        self._progress(self._total, self._total, "predicting held-out rows")
        found = self.predict(fitted, counts)
        check_held_out([item.fold for item in fitted], found[0])
        return found

    def predict(self, fitted: Sequence[FittedFold], counts: RowCounts) -> Predicted:
        """Predict the test rows of some folds; every n-th frame where ``counts`` has too many."""
        config = self._config
        folds = [item.fold for item in fitted]
        comparers = [comparer for item in fitted if (comparer := self._comparer(item)) is not None]
        held_out, sample = predict_held_out(
            self._recording.labelled(folds[0].test_start_ns, folds[-1].test_end_ns),
            folds,
            [item.ensemble for item in fitted],
            device=self._device,
            comparers=comparers,
            grid=config.grid,
            stride=config.stride_frames,
            expected_rows=round(counts.total * (1.0 - config.split.min_train_fraction)),
        )
        return held_out, sample, total(comparers, self._device.comparison_reason)

    def fit_final(self, rounds: Sequence[int], counts: RowCounts) -> FittedFinal:
        """Train the bundle's members on all rows, each for as many rounds as the folds found best.

        Parameters
        ----------
        rounds : of each member, those that it began with among them
        counts : of ``split``
        """
        config = self._config
        self._done = float(config.split.folds * len(self._seeds) * config.booster.rounds)
        columns = self._source.graph.columns
        sample = RowSample(
            self._device,
            config.grid,
            stride=config.stride_frames,
            counts=counts,
            names=[column.name for column in columns],
            window=max(column.window for column in columns),
        )
        matrix, trained = binned_matrix(
            lambda: sample.watch(self._rows(lambda end_ns, _: end_ns >= 0, BEGINNING, END)),
            device=self._device,
            expected_rows=self._own(counts.total),
            max_bin=config.booster.max_bin,
            threads=self._threads,
            level_classes=lengths_differ(config),
            what="all rows",
        )
        members = fit_members(
            matrix,
            config=config.booster,
            seeds=self._seeds,
            rounds=[kept - begun for kept, begun in zip(rounds, self._begun_rounds, strict=True)],
            device=self._device.name,
            threads=self._threads,
            on_round=self._on_round(FINAL),
            begun=self._begun,
            once=self._once,
            what=FINAL,
        )
        return FittedFinal(members, trained, sample.kept())

    def _rows(self, wanted: RowFilter, start_ns: int, end_ns: int) -> Iterator[Rows]:
        """Yield the rows that ``wanted`` wants, all of which enter between two instants."""
        for chunk in self._recording.labelled(start_ns, end_ns):
            yield from chunk.rows(chunk.select(wanted), self._device)

    def _own(self, rows: int) -> int:
        """Return about how many of some rows this worker has, rather too many than too few."""
        return -(-rows // self._recording.workers)

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

    def _name(self, fold: Fold) -> str:
        return f"fold {fold.index + 1} of {self._config.split.folds}"


def lengths_differ(config: TrainConfig) -> bool:
    """Tell whether a label's length, and so its uniqueness, goes with its class.

    Forward labels all last for the horizon: what their weights differ by, at holes and ends, says nothing of
    the class, and to scale it away would be to follow chance.
    """
    return config.label.kind == "barrier"


def folds_of(counts: RowCounts, config: TrainConfig, source: FeatureSource) -> tuple[Fold, ...]:
    """Cut the time of the rows into folds.

    Raises
    ------
    DataError    there are no rows, or too few
    """
    if counts.total == 0:
        raise DataError(
            "no row can be used for training",
            where=f"{source.venue}, {', '.join(source.symbols)}",
            fix="a row needs a warm, unblocked frame and quotes over the whole label horizon: see "
            "`gpuscalp data info` for length and gaps",
        )
    return walk_forward(counts, config.split, horizon_ns=label_horizon_ns(config.label, config.grid))


def check_held_out(folds: Sequence[Fold], held_out: Sequence[HeldOut]) -> None:
    """Refuse a fold without held-out rows.

    Raises
    ------
    DataError
    """
    for fold, rows in zip(folds, held_out, strict=True):
        if len(rows) == 0:
            raise no_held_out(fold)


def no_held_out(fold: Fold) -> DataError:
    """Return the refusal of a fold without held-out rows."""
    return DataError(
        "a fold has no held-out rows",
        where=f"fold {fold.index + 1}",
        fix="fewer folds (split.folds), or a smaller stride_frames",
    )
