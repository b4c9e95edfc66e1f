"""One training run: folds, calibration, final members, bundle.

    count rows ─► folds ─► per fold: fit, stop early ─► held-out predictions of all folds in one walk
                                                           ├─► calibration (held-out rows only) and metrics
    all rows ─► final members, rounds from the folds ──────┴─► bundle with report and canary

Owns: the order of these steps. Every statement about the model's quality comes from rows that its fold's
members were not trained on, through the forest that will trade.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
from msgspec import UNSET

from gpuscalp import __version__
from gpuscalp.bundle import MemberFile, check_free, write_bundle
from gpuscalp.config import TrainConfig
from gpuscalp.contract import CANARY_ROWS, FoldSpec, Interval, TrainingSpec
from gpuscalp.device import DeviceChoice, RequestedDevice, core_count, resolve
from gpuscalp.drift.reference import ROWS_MAX as REFERENCE_ROWS_MAX
from gpuscalp.drift.reference import Reference
from gpuscalp.ensemble import Ensemble
from gpuscalp.labels import label_horizon_ns
from gpuscalp.monitoring.resources import peak_resident_bytes
from gpuscalp.progress import Progress, silent
from gpuscalp.schema import F32, F64
from gpuscalp.splits import Fold
from gpuscalp.train.device import training_device
from gpuscalp.train.distribution import KeptRows
from gpuscalp.train.fit import forest_of
from gpuscalp.train.guard import fit_guard
from gpuscalp.train.held_out import Sample
from gpuscalp.train.importance import gain_shares, importances
from gpuscalp.train.iterator import Tally
from gpuscalp.train.judge import calibration_of, judge
from gpuscalp.train.metrics import Score
from gpuscalp.train.passes import FittedFinal, Passes, Steps
from gpuscalp.train.report import report_html
from gpuscalp.train.result import FoldResult, TrainResult
from gpuscalp.train.source import FeatureSource
from gpuscalp.train.warm_start import WarmStart
from gpuscalp.xgb import import_xgboost


def train(
    source: FeatureSource,
    config: TrainConfig,
    out: Path,
    *,
    device: RequestedDevice = "auto",
    threads: int | None = None,
    gpu_memory_mb: int | None = None,
    overwrite: bool = False,
    trials: int | None = None,
    on_progress: Progress = silent,
    warm_start: Path | None = None,
) -> TrainResult:
    """Train an ensemble and write its bundle.

    Parameters
    ----------
    source : FeatureSource   walked several times
    config : TrainConfig
    out : directory of the bundle
    device : where rows lie and XGBoost trains; ``auto`` falls back to the CPU and says why
    threads : OpenMP threads; None takes the cores this process may use
    gpu_memory_mb : of a GPU (``training_device``)
    overwrite : replace a bundle at ``out``
    trials : configurations that this one was chosen from, for the bundle; None where it was not chosen
    on_progress : told after every boosting round
    warm_start : bundle whose members go on, for ``booster.rounds`` more at most; its training must have ended
        before ``source`` begins

    Returns
    -------
    TrainResult

    Raises
    ------
    UsageError, ConfigError, DataError, DeviceError, ParityError
        nothing has been written then
    """
    check_free(out, overwrite=overwrite)
    choice = resolve(device)
    warm = None if warm_start is None else WarmStart.of(warm_start, source, config)
    passes = Passes(
        source,
        config,
        device=training_device(choice.name, gpu_memory_mb=gpu_memory_mb),
        threads=threads or core_count(),
        progress=on_progress,
        warm=warm,
    )
    return train_by(
        passes,
        source,
        config,
        out,
        choice=choice,
        overwrite=overwrite,
        trials=trials,
        warm=warm,
    )


def train_by(
    steps: Steps,
    source: FeatureSource,
    config: TrainConfig,
    out: Path,
    *,
    choice: DeviceChoice,
    overwrite: bool,
    trials: int | None = None,
    warm: WarmStart | None = None,
    versions: Mapping[str, str] | None = None,
) -> TrainResult:
    """Train with steps that are done here or elsewhere, judge what comes of them, and write the bundle.

    Parameters
    ----------
    steps : walk the recording
    source, config, out, overwrite, trials : see ``train``
    choice : where ``steps`` run, and why
    warm : members that the steps go on from
    versions : of what else has had a hand in it, for the contract
    """
    started = time.perf_counter()
    with steps.session():
        counts, folds = steps.split()
        fitted, final = steps.fit(folds, counts)
        held_out, sample, devices = steps.held_out(fitted, counts)
    judged = judge(
        held_out,
        [item.trained for item in fitted],
        kind=config.ensemble.calibration,
        horizon_ns=label_horizon_ns(config.label, config.grid),
    )
    calibration = calibration_of(held_out, config.ensemble.calibration)
    ensemble = Ensemble(forest_of(final.members), calibration, final.trained.class_return_bps)
    names = [column.name for column in source.graph.columns]
    gain = gain_shares([member.booster for member in final.members], names)
    importance = importances(
        replace(fitted[-1].ensemble, calibration=judged.calibrations[-1]),
        sample,
        gain,
        names,
        rng=np.random.default_rng(config.ensemble.seed),
    )
    training = _training_spec(
        source, config, folds, final.trained, judged.overall, choice, trials, warm, versions or {}
    )
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
        unlabelled_rows=counts.unlabelled,
        seconds=time.perf_counter() - started,
        peak_rss_mb=peak_resident_bytes() / 1e6,
        trade_delays_ms=source.trade_delays_ms,
    )
    reference = (
        None if final.kept is None else reference_of(final.kept, gain, names, seed=config.ensemble.seed)
    )
    _write(result, source, ensemble, final, canary_rows(sample), reference, overwrite=overwrite)
    return replace(result, seconds=time.perf_counter() - started, peak_rss_mb=peak_resident_bytes() / 1e6)


def _write(
    result: TrainResult,
    source: FeatureSource,
    ensemble: Ensemble,
    final: FittedFinal,
    canary_x: F32,
    reference: Reference | None,
    *,
    overwrite: bool,
) -> None:
    write_bundle(
        result.bundle,
        graph=source.graph,
        training=result.training,
        ensemble=ensemble,
        members=[
            MemberFile(bytes(member.booster.save_raw("ubj")), member.seed, member.rounds)
            for member in final.members
        ],
        canary_x=canary_x,
        reference=reference,
        extra_files={
            "report.html": report_html(result).encode(),
            "result.json": msgspec.json.format(
                msgspec.json.encode(result.to_dict(), enc_hook=lambda value: value.tolist()), indent=2
            ),
        },
        overwrite=overwrite,
    )


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


def reference_of(kept: KeptRows, gain: F64, names: Sequence[str], *, seed: int) -> Reference:
    """Return what a bundle keeps of its training rows.

    Parameters
    ----------
    kept : of the rows that the members were trained on
    gain : float64[F]   share of each column in what the splits have won
    names : of the columns, F
    """
    # By lot: every n-th row of four symbols in turn would be rows of one symbol.
    at = np.sort(np.random.default_rng(seed).permutation(len(kept.x))[:REFERENCE_ROWS_MAX])
    guard = fit_guard(kept.x, gain, names, seed=seed)
    return Reference(kept.distribution, kept.x[at], kept.end_ns[at], kept.floor, guard)


def _training_spec(
    source: FeatureSource,
    config: TrainConfig,
    folds: Sequence[Fold],
    trained: Tally,
    overall: Score,
    choice: DeviceChoice,
    trials: int | None,
    warm: WarmStart | None,
    versions: Mapping[str, str],
) -> TrainingSpec:
    xgboost = import_xgboost()

    return TrainingSpec(
        venue=source.venue,
        symbols=source.symbols,
        leader=config.features.leader,
        config=config,
        # What its members began with belongs to it: a backtest inside that is in-sample as well.
        trained_on=Interval(trained.start_ns if warm is None else warm.start_ns, trained.end_ns),
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
            **versions,
        },
        metrics=overall.figures(),
        trials=trials if trials is not None else UNSET if warm is None else warm.trials,
        continues=UNSET if warm is None else warm.digest,
    )
