"""Makes one trial up to one rung: folds as training makes them, scored on rows that the fold has not seen.

Owns: the rows of a few data configurations, binned and kept in memory, so that trials which differ in booster
or thresholds only do not walk the archive again. Never: keeps anything that a result could depend on: a trial
gives the same bits in any worker, whatever that made before.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, final

import msgspec
import numpy as np

from gpuscalp.config import BoosterConfig, CostConfig, EnsembleConfig, GridConfig, TrainConfig
from gpuscalp.ensemble import Calibration, Ensemble, Signals
from gpuscalp.errors import ArchiveError, ConfigError, DataError
from gpuscalp.ops.forest import Forest
from gpuscalp.progress import silent
from gpuscalp.schema import NS_PER_MS
from gpuscalp.splits import Fold
from gpuscalp.train.dataset import LabelledChunk, labelled_chunks
from gpuscalp.train.device import TrainingDevice, training_device
from gpuscalp.train.fit import fit_members, forest_of, member_seeds
from gpuscalp.train.held_out import HeldOut
from gpuscalp.train.iterator import Tally
from gpuscalp.train.judge import calibration_of
from gpuscalp.train.passes import BinnedFold, Passes, no_held_out
from gpuscalp.train.source import FeatureSource
from gpuscalp.tuning.score import HeldRows, fold_figures
from gpuscalp.tuning.search import Task
from gpuscalp.tuning.trials import FoldFigures, Rung

# Of all folds together; they are kept with their features: 86 MB where there are 215 columns.
HELD_OUT_ROWS_MAX: Final = 100_000
# Beyond that they are taken in stretches of so many frames, a minute of the default grid: longer ones would
# be too few to lie all over a fold.
STRETCH_FRAMES: Final = 600


@dataclass(frozen=True, slots=True)
class _Part:
    """One fold, ready to be trained and predicted again and again."""

    rows: BinnedFold
    test: HeldRows


def data_key(config: TrainConfig) -> bytes:
    """Return what decides the rows: two configurations with the same key share them."""
    booster = BoosterConfig(max_bin=config.booster.max_bin)
    return msgspec.json.encode(msgspec.structs.replace(config, booster=booster, ensemble=EnsembleConfig()))


@final
class Evaluator:
    """Makes trials on one recording.

    Parameters
    ----------
    open_source : returns the recording for a configuration
    device : "cpu" or "cuda"
    threads : of a trial
    cost : what an act costs
    kept : data configurations that stay in memory
    """

    def __init__(
        self,
        open_source: Callable[[TrainConfig], FeatureSource],
        *,
        device: str,
        threads: int,
        cost: CostConfig,
        kept: int,
    ) -> None:
        self._open = open_source
        self._device = training_device(device)
        self._threads = threads
        self._cost = cost
        self._kept = kept
        self._data: OrderedDict[bytes, tuple[_Part, ...]] = OrderedDict()

    def make(self, task: Task) -> Rung:
        """Train and score; data that do not allow the trial's values are its failure and no error.

        Raises
        ------
        GpuscalpError
            what lies in the machine and not in the values, such as an archive that cannot be read here
        """
        began = time.perf_counter()
        try:
            with self._device.session():
                folds = self._folds(task)
        except ArchiveError:
            raise
        except (ConfigError, DataError) as error:
            return Rung(
                task.trial, task.rung, task.rounds, (), time.perf_counter() - began, failure=str(error)
            )
        return Rung(task.trial, task.rung, task.rounds, folds, time.perf_counter() - began)

    def _folds(self, task: Task) -> tuple[FoldFigures, ...]:
        train, device = task.train, self._device
        seeds = member_seeds(train.ensemble.seed, train.ensemble.members)
        found, judged = [], list[HeldOut]()
        for part in self._parts(train):
            members = fit_members(
                part.rows.matrix,
                config=train.booster,
                seeds=seeds,
                rounds=[task.rounds] * len(seeds),
                device=device.name,
                threads=self._threads,
                stopping=part.rows.stopping,
            )
            # As training judges a fold: calibrated by the held-out rows of the folds before it.
            calibration = calibration_of(judged, train.ensemble.calibration)
            trained = part.rows.trained
            signals = _predict(device, forest_of(members), part.test.x, calibration, trained)
            found.append(
                fold_figures(
                    part.test,
                    signals,
                    trained,
                    strategy=task.strategy,
                    cost=self._cost,
                    horizon_ms=train.label.horizon_ms,
                    rounds=tuple(member.rounds for member in members),
                )
            )
            judged.append(_judged(part.test, signals))
        return tuple(found)

    def _parts(self, config: TrainConfig) -> tuple[_Part, ...]:
        key = data_key(config)
        if key not in self._data:
            while len(self._data) >= self._kept:
                self._data.popitem(last=False)
            self._data[key] = self._make_parts(config)
        self._data.move_to_end(key)
        return self._data[key]

    def _make_parts(self, config: TrainConfig) -> tuple[_Part, ...]:
        source = self._open(config)
        passes = Passes(source, config, device=self._device, threads=self._threads, progress=silent)
        counts, folds = passes.split()
        # With the rows that have no label: a longer horizon has more of them, and at a border of ``every``
        # trials of two horizons would be scored on nearly disjoint stretches.
        sound = counts.total + counts.unlabelled
        held_out = sound * config.stride_frames * (1.0 - config.split.min_train_fraction)
        every = max(-(-round(held_out) // HELD_OUT_ROWS_MAX), 1)
        tests = held_rows(labelled_chunks(source.chunks(), config), folds, self._device, config.grid, every)
        return tuple(
            _Part(passes.bin_fold(fold, counts), test) for fold, test in zip(folds, tests, strict=True)
        )


def _predict(
    device: TrainingDevice, forest: Forest, x: Any, calibration: Calibration, trained: Tally
) -> Signals:
    margins = device.predictor(forest)(x)
    return Ensemble(forest, calibration, trained.class_return_bps).combine(margins)


def _judged(rows: HeldRows, signals: Signals) -> HeldOut:
    at = rows.judged
    return HeldOut(
        raw=signals.raw[at],
        direction=rows.direction[at],
        return_bps=rows.return_bps[at],
        weight=rows.weight[at],
        end_ns=rows.end_ns[at],
    )


def held_rows(
    chunks: Iterable[LabelledChunk],
    folds: Sequence[Fold],
    device: TrainingDevice,
    grid: GridConfig,
    every: int,
) -> list[HeldRows]:
    """Collect the test rows of all folds in one walk: of each symbol all frames of every n-th stretch.

    Frames that the stride leaves out are among them, because a session decides at every frame. Symbols take
    turns, so that few stretches still lie all over a fold.

    Raises
    ------
    DataError    a fold has none
    """
    found: list[list[HeldRows]] = [[] for _ in folds]
    frame_ns = grid.frame_ms * NS_PER_MS
    for chunk in chunks:
        frames, labels = chunk.chunk.frames, chunk.labels
        symbols = labels.direction.shape[1]
        turn = chunk.end_ns[:, None] // (STRETCH_FRAMES * frame_ns) + np.arange(symbols) * every // symbols
        kept = labels.valid & (turn % every == 0)
        for fold, parts in zip(folds, found, strict=True):
            chosen = kept & chunk.inside(fold.test_rows)
            for rows in chunk.rows(chosen, device):
                symbol = rows.symbol[0]
                at = np.flatnonzero(chosen[:, symbol])
                parts.append(
                    HeldRows(
                        x=rows.x,
                        direction=rows.direction,
                        return_bps=rows.return_bps,
                        weight=rows.weight,
                        end_ns=rows.end_ns,
                        symbol=rows.symbol,
                        bid_px=frames.bid_px[at, symbol],
                        ask_px=frames.ask_px[at, symbol],
                        frame_ns=frame_ns,
                    )
                )
    for fold, parts in zip(folds, found, strict=True):
        if not any(part.judged.any() for part in parts):
            raise no_held_out(fold)
    return [_joined(parts, device) for parts in found]


def _joined(parts: Sequence[HeldRows], device: TrainingDevice) -> HeldRows:
    def of(name: str) -> Any:
        return np.concatenate([getattr(part, name) for part in parts])

    return HeldRows(
        x=device.join([part.x for part in parts]),
        **{
            name: of(name)
            for name in ("direction", "return_bps", "weight", "end_ns", "symbol", "bid_px", "ask_px")
        },
        frame_ns=parts[0].frame_ns,
    )
