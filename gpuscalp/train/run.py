"""One training run: folds, calibration, final members, bundle.

    count rows ─► folds ─► per fold: fit, stop early ─► held-out predictions of all folds in one walk
                                                           ├─► calibration (held-out rows only) and metrics
    all rows ─► final members, rounds from the folds ──────┴─► bundle with report and canary

Owns: the order of these steps. Every statement about the model's quality comes from rows that its fold's
members were not trained on, through the forest that will trade.
"""

from __future__ import annotations

import os
import platform
import resource
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np

from gpuscalp import __version__
from gpuscalp.bundle import MemberFile, check_free, write_bundle
from gpuscalp.config import TrainConfig
from gpuscalp.contract import CANARY_ROWS, FoldSpec, Interval, TrainingSpec
from gpuscalp.device import DeviceChoice, RequestedDevice, resolve
from gpuscalp.ensemble import Ensemble
from gpuscalp.schema import F32
from gpuscalp.splits import Fold
from gpuscalp.train.device import training_device
from gpuscalp.train.fit import forest_of
from gpuscalp.train.held_out import Sample
from gpuscalp.train.importance import gain_shares, importances
from gpuscalp.train.iterator import Tally
from gpuscalp.train.judge import calibration_of, judge
from gpuscalp.train.metrics import Score
from gpuscalp.train.passes import Passes, Progress
from gpuscalp.train.report import report_html
from gpuscalp.train.result import FoldResult, TrainResult
from gpuscalp.train.source import FeatureSource
from gpuscalp.xgb import import_xgboost


def train(
    source: FeatureSource,
    config: TrainConfig,
    out: Path,
    *,
    device: RequestedDevice = "auto",
    threads: int | None = None,
    overwrite: bool = False,
    on_progress: Progress | None = None,
) -> TrainResult:
    """Train an ensemble and write its bundle.

    Parameters
    ----------
    source : FeatureSource   walked several times
    config : TrainConfig
    out : directory of the bundle
    device : where rows lie and XGBoost trains; ``auto`` falls back to the CPU and says why
    threads : OpenMP threads; None takes the cores this process may use
    overwrite : replace a bundle at ``out``
    on_progress : told after every boosting round

    Returns
    -------
    TrainResult

    Raises
    ------
    UsageError, ConfigError, DataError, DeviceError, ParityError
        nothing has been written then
    """
    started = time.perf_counter()
    check_free(out, overwrite=overwrite)
    choice = resolve(device)
    place = training_device(choice.name)
    passes = Passes(
        source, config, device=place, threads=threads or core_count(), progress=on_progress or _silent
    )
    with place.session():
        counts, folds = passes.split()
        fitted = [passes.fit_fold(fold, counts) for fold in folds]
        held_out, sample, devices = passes.held_out(fitted, counts)
        final = passes.fit_final(final_rounds([item.rounds for item in fitted]), counts)
    judged = judge(
        held_out,
        [item.trained for item in fitted],
        kind=config.ensemble.calibration,
        horizon_ns=passes.horizon_ns,
        seed=config.ensemble.seed,
    )
    calibration = calibration_of(held_out, config.ensemble.calibration)
    ensemble = Ensemble(forest_of(final.members), calibration, final.trained.class_return_bps)
    names = [column.name for column in source.graph.columns]
    importance = importances(
        replace(fitted[-1].ensemble, calibration=judged.calibrations[-1]),
        sample,
        gain_shares([member.booster for member in final.members], names),
        names,
        rng=np.random.default_rng(config.ensemble.seed),
    )
    training = _training_spec(source, config, folds, final.trained, judged.overall, choice)
    result = TrainResult(
        bundle=out,
        training=training,
        calibration=calibration,
        class_return_bps=final.trained.class_return_bps,
        class_share=final.trained.share,
        device_reason=choice.reason,
        folds=tuple(
            FoldResult(fold, item.trained, item.rounds, score)
            for fold, item, score in zip(folds, fitted, judged.scores, strict=True)
        ),
        overall=judged.overall,
        devices=devices,
        importance=importance,
        rounds=tuple(member.rounds for member in final.members),
        seconds=time.perf_counter() - started,
        peak_rss_mb=peak_rss_mb(),
    )
    write_bundle(
        out,
        graph=source.graph,
        training=training,
        ensemble=ensemble,
        members=[
            MemberFile(bytes(member.booster.save_raw("ubj")), member.seed, member.rounds)
            for member in final.members
        ],
        canary_x=canary_rows(sample),
        distribution=final.distribution,
        extra_files={
            "report.html": report_html(result).encode(),
            "result.json": msgspec.json.format(
                msgspec.json.encode(result.to_dict(), enc_hook=lambda value: value.tolist()), indent=2
            ),
        },
        overwrite=overwrite,
    )
    return replace(result, seconds=time.perf_counter() - started, peak_rss_mb=peak_rss_mb())


def final_rounds(rounds: Sequence[Sequence[int]]) -> tuple[int, ...]:
    """Return for each member the median of the rounds that its folds kept, at least 1.

    Parameters
    ----------
    rounds : fold by fold, member by member
    """
    return tuple(max(round(statistics.median(kept)), 1) for kept in zip(*rounds, strict=True))


def canary_rows(sample: Sample) -> F32:
    """Return rows whose answers a bundle must reproduce: real ones, and hard ones made from them.

    Parameters
    ----------
    sample : Sample, at least one row

    Returns
    -------
    float32[CANARY_ROWS, F]
        three quarters as recorded; the rest with every second, every third … value missing, with nothing but
        missing values, and with infinities and negative zeros
    """
    at = np.linspace(0, len(sample.x) - 1, CANARY_ROWS).astype(np.int64)
    x = sample.x[at].copy()
    for step, row in enumerate(range(CANARY_ROWS - CANARY_ROWS // 4, CANARY_ROWS - 3), start=2):
        x[row, ::step] = np.nan
    x[-3] = np.nan
    x[-2, ::2], x[-2, 1::2] = np.inf, -np.inf
    x[-1] = -0.0
    return np.ascontiguousarray(x)


def core_count() -> int:
    """Return the cores that this process may use; ``os.cpu_count`` ignores the limit of a container."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def peak_rss_mb() -> float:
    """Return the largest resident memory of this process so far, in MB of 1e6 bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6


def _training_spec(
    source: FeatureSource,
    config: TrainConfig,
    folds: Sequence[Fold],
    trained: Tally,
    overall: Score,
    choice: DeviceChoice,
) -> TrainingSpec:
    xgboost = import_xgboost()

    return TrainingSpec(
        venue=source.venue,
        symbols=source.symbols,
        leader=config.features.leader,
        config=config,
        trained_on=Interval(trained.start_ns, trained.end_ns),
        rows=trained.rows,
        folds=tuple(
            FoldSpec(
                train=Interval(fold.train_start_ns, fold.train_end_ns),
                test=Interval(fold.test_start_ns, fold.test_end_ns),
                embargo_ns=fold.embargo_ns,
            )
            for fold in folds
        ),
        data_digest=source.digest(),
        device=choice.name,
        versions={
            "gpuscalp": __version__,
            "numpy": np.__version__,
            "python": platform.python_version(),
            "xgboost": xgboost.__version__,
        },
        metrics=overall.figures(),
    )


def _silent(done: float, total: float | None = None, note: str = "") -> None:
    """Show nothing."""
