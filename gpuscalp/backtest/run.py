"""One backtest from archive and bundle to a run directory.

Owns: the wiring, the frozen configuration and the files of a run. Never: trades (session.py) or judges
(metrics.py, report.py).
"""

from __future__ import annotations

import datetime
import hashlib
import os
import shutil
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, final

import msgspec
import numpy as np

from gpuscalp import __version__
from gpuscalp.archive import Archive
from gpuscalp.backtest.band import Band, BandPlan, cells_of, run_band
from gpuscalp.backtest.calibration import PredictionCheck, chunk_signals
from gpuscalp.backtest.entries import Entries, importance_ranks
from gpuscalp.backtest.models import Model, Models, counted, cut, first_path, training_of
from gpuscalp.backtest.moments import Likeness
from gpuscalp.backtest.scene import Kept, Scene
from gpuscalp.backtest.session import Prediction, Session
from gpuscalp.backtest.summary import Outcome, Scope, summarise
from gpuscalp.backtest.tape import Tape
from gpuscalp.bundle import Bundle
from gpuscalp.config import BacktestConfig, to_dict
from gpuscalp.contract import TrainingSpec
from gpuscalp.ensemble import Ensemble, Signals
from gpuscalp.errors import UsageError
from gpuscalp.files import make_writable, pretty
from gpuscalp.progress import Progress, silent
from gpuscalp.run_folder import alone_on_out
from gpuscalp.schema import NS_PER_MS, FeatureChunk, Instrument
from gpuscalp.times import utc
from gpuscalp.train.source import chunk_frames

if TYPE_CHECKING:
    from gpuscalp.pipeline import FeaturePipeline

RESULT_FILE: Final = "result.json"
CONFIG_FILE: Final = "config.json"
REPORT_FILE: Final = "report.html"
_RUNS: Final = Path("runs")


@dataclass(frozen=True, slots=True)
class BacktestResult:
    """A finished run: its directory, its report, and what ``--json`` prints."""

    run_dir: Path
    report: Path
    summary: dict[str, Any]


@alone_on_out
def run_backtest(
    archive_path: Path,
    model: Model,
    *,
    config: BacktestConfig,
    out: Path | None = None,
    venue: str | None = None,
    start_ns: int | None = None,
    end_ns: int | None = None,
    threads: int = 2,
    band: BandPlan | None = None,
    like: Likeness | None = None,
    on_progress: Progress = silent,
) -> BacktestResult:
    """Backtest a bundle on an archive and write a run directory.

    Parameters
    ----------
    archive_path : where it lies
    model : path of a bundle, or several with the times from which each predicts, as a walk-forward has them;
        strategy, account and open positions go on from one to the next
    config : strategy, sizing, risk, cost, account, paper, trials
    out : the run directory, which must not exist or be empty; default ``runs/<time>-<hash>``
    venue : default the venue that the bundle was trained on; with ``like`` the archive's, if it has but one
    start_ns, end_ns : trade on the frames that end after the start and are closed by ticks before the end;
        default everything. Frames before the start are read as far as the longest window reaches, so that
        features are warm. Those of the last ``lateness_ms`` before the end are still open at it, as in a
        session that stops there, and so is the one that ends with it.
    threads : for features and predictions; does not change the result
    like : decide when a live session did, on its frames only (``gpuscalp.live.moments``)
    band : trade the grid of ``config.band`` as well, and say how much of the result is assumption

    Raises
    ------
    UsageError
        the archive lacks a symbol of the bundle or has no frame in the range; ``out`` is taken, or another
        process works on it
    FeatureMismatchError
        the feature graph of this version is not the one that the bundle was trained on
    ArchiveError, ModelError, ConfigError
        as their readers raise them
    """
    began_s = time.perf_counter()
    if like is not None and (band is not None or start_ns is not None or end_ns is not None):
        raise UsageError(
            "a repeated session takes no range of time and no band", where="like", fix="leave those out"
        )
    if band is not None:
        _check_band(config, model)
    archive = Archive.open(archive_path)
    training = training_of(model)
    config = counted(config, training)
    if venue is None:
        # A journal is imported under the name of the exchange that it speaks of, whoever played it.
        venue = training.venue if like is None or len(archive.venues()) != 1 else archive.venues()[0]
    instruments = archive.instruments(venue, training.symbols)
    if like is not None:
        instruments = like.instruments_over(instruments)
    pipeline = pipeline_of(training, instruments, threads)
    models = Models(model, pipeline.graph)
    grid, label = training.config.grid, training.config.label
    begin_ns, finish_ns = archive.span(venue, training.symbols, start_ns, end_ns)
    check_free(out)
    scene = Scene(
        archive_path=archive_path,
        venue=venue,
        symbols=training.symbols,
        instruments=tuple(instruments),
        grid=grid,
        horizon_ms=label.horizon_ms,
        trained_until_ns=training.trained_on.end_ns,
    )
    session = scene.session(config, keep=None if band is None else Kept(band.folder), like=like)
    entries = Entries(models.columns, importance_ranks(first_path(model)))
    session.recorder.entries = entries
    check = PredictionCheck(label, grid)
    read_from_ns = None if start_ns is None else begin_ns - lead_ns(pipeline)
    ticks = archive.tick_batches(venue, training.symbols, start_ns=read_from_ns, end_ns=end_ns)
    chunks = within(pipeline.batch(session.watch(ticks)), begin_ns, finish_ns)

    with Predictor(threads) as predict:
        for bundle, part in _parts(models, chunks, session.venue.tape, like):
            _trade_part(session, bundle, part, predict, entries, check)
            now_ns = int(part.frames.end_ns[-1])
            on_progress((now_ns - begin_ns) / 1e9, (finish_ns - begin_ns) / 1e9, utc(now_ns))
    session.finish()
    require_frames(session.recorder.frame_count, archive_path, begin_ns, finish_ns)
    # Of all that was read: the frames before the start that warm the features count as well.
    data_digest = archive.digest(venue, training.symbols, read_from_ns, finish_ns)
    scope = scope_of(training, venue, (begin_ns, finish_ns), data_digest, models.digest)
    frozen = frozen_of(config, scope, like=like)
    outcome = summarise(config, scope, session, check)
    if like is not None:
        outcome.summary["like"] = like.summary()
    found = None
    if band is not None:
        from gpuscalp.backtest.band_report import band_warnings

        found = run_band(
            scene,
            band,
            session,
            config,
            told=lambda done, of: on_progress(done, of, f"{done} of {of} combinations"),
        )
        outcome.summary["band"] = {**found.summary(), "warnings": band_warnings(found)}
    return write_run(out, frozen, outcome, found, began_s=began_s)


def _check_band(config: BacktestConfig, model: Model) -> None:
    """Refuse before the run a band that would make no sense after it."""
    cells_of(config)
    if not isinstance(model, Path):  # its cells know one age of the model
        raise UsageError("a band is that of one model", where="band", fix="leave it out of a schedule")


def require_frames(count: int, path: Path, begin_ns: int, finish_ns: int) -> None:
    """Refuse a run in which no frame has closed.

    Raises
    ------
    UsageError
    """
    if count == 0:
        raise UsageError(
            "no frame could be closed in the range asked for",
            where=str(path),
            value=f"{utc(begin_ns)} … {utc(finish_ns)} UTC, {(finish_ns - begin_ns) / NS_PER_MS:g} ms",
        )


def scope_of(
    training: TrainingSpec, venue: str, span_ns: tuple[int, int], data_digest: str, bundle_digest: str
) -> Scope:
    """Return what a run is about: the data that it read, the time that it traded, the model."""
    return Scope(
        venue=venue,
        symbols=training.symbols,
        start_ns=span_ns[0],
        end_ns=span_ns[1],
        data_digest=data_digest,
        bundle_digest=bundle_digest,
        trained_from_ns=training.trained_on.start_ns,
        trained_until_ns=training.trained_on.end_ns,
        trained_venue=training.venue,
    )


def _trade_part(
    session: Session,
    bundle: Bundle,
    part: FeatureChunk,
    predict: Predictor,
    entries: Entries,
    check: PredictionCheck,
) -> None:
    """Predict consecutive frames by one bundle, trade on them, and keep what the report tells of them."""
    session.trader.trained_until_ns = bundle.contract.training.trained_on.end_ns
    part = _guarded(bundle.ensemble, part)
    signals = predict(bundle.ensemble, part)
    prediction = Prediction(*chunk_signals(signals))
    session.trade(part.frames, prediction)
    entries.add(bundle.ensemble, part, signals)
    check.add(part.frames, prediction.probability, prediction.edge_bps)


def _guarded(ensemble: Ensemble, part: FeatureChunk) -> FeatureChunk:
    """Return the part with the bits of the model's own doubts, as a live session has them."""
    if ensemble.guard is None:
        return part
    quality = part.frames.quality.copy()
    for symbol, features in enumerate(part.features):
        own = np.ascontiguousarray(quality[:, symbol])
        ensemble.guard.mark(features.T, own)
        quality[:, symbol] = own
    return replace(part, frames=replace(part.frames, quality=quality))


def _parts(
    models: Models, chunks: Iterator[FeatureChunk], tape: Tape, like: Likeness | None
) -> Iterator[tuple[Bundle, FeatureChunk]]:
    """Yield frames by the bundle that predicts them.

    Those that a session decided on wait until the tape has all rows that it had heard of by then.
    """
    if like is None:
        for chunk in chunks:
            yield from models.parts(chunk)
        return
    waiting: deque[tuple[Bundle, FeatureChunk]] = deque()
    for chunk in chunks:
        for bundle, part in models.parts(chunk):
            like.compare(part)
            waiting.append((bundle, FeatureChunk(part.frames.copied(), part.features.copy())))
        while waiting and like.heard_ns(waiting[0][1].frames.end_ns) < tape.recv_ns[-1]:
            yield waiting.popleft()
    yield from waiting


def pipeline_of(training: TrainingSpec, instruments: Sequence[Instrument], threads: int) -> FeaturePipeline:
    """Return a fresh pipeline with the features that a bundle was trained on."""
    from gpuscalp.pipeline import FeaturePipeline

    return FeaturePipeline(
        grid=training.config.grid,
        features=training.config.features,
        instruments=instruments,
        threads=threads,
        chunk_frames=chunk_frames(len(instruments)),
    )


def lead_ns(pipeline: FeaturePipeline) -> int:
    """Return how long before the first frame that is traded a market has to be read, for warm features."""
    return (pipeline.graph.warm_up_frames + 1) * pipeline.grid.frame_ms * NS_PER_MS


def within(chunks: Iterator[FeatureChunk], begin_ns: int, finish_ns: int) -> Iterator[FeatureChunk]:
    """Cut chunks to the frames that end in (begin, finish]."""
    for chunk in chunks:
        end_ns = chunk.frames.end_ns
        first, last = (int(np.searchsorted(end_ns, at, side="right")) for at in (begin_ns, finish_ns))
        if first < last:
            yield cut(chunk, first, last)


@final
class Predictor:
    """Predicts the symbols of a chunk on several threads; the forest releases the interpreter lock."""

    def __init__(self, threads: int) -> None:
        self._pool = ThreadPoolExecutor(max(1, threads))

    def __enter__(self) -> Predictor:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown()

    def __call__(self, ensemble: Ensemble, chunk: FeatureChunk) -> list[Signals]:
        rows = (np.ascontiguousarray(features.T) for features in chunk.features)
        return list(self._pool.map(ensemble.predict, rows))


def frozen_of(
    config: BacktestConfig,
    scope: Scope,
    *,
    like: Likeness | None = None,
    executor: dict[str, Any] | None = None,
    signals: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Return everything that decides the result, with its sha256: equal hashes mean equal results.

    ``executor``: who filled the orders, where it was not the paper broker, and how it was set.
    ``signals``: what they are about, where they are of no bundle.
    """
    body: dict[str, Any] = {
        "backtest": to_dict(config),
        "scope": msgspec.to_builtins(scope),
        "version": __version__,
    }
    if executor is not None:
        body["executor"] = executor
    if signals is not None:
        body["signals"] = signals
    if like is not None:
        body["like"] = like.session_id
    text = msgspec.json.encode(body, order="sorted")
    return {**body, "hash": hashlib.sha256(text).hexdigest()}


def write_run(
    out: Path | None,
    frozen: dict[str, Any],
    outcome: Outcome,
    band: Band | None = None,
    *,
    began_s: float,
) -> BacktestResult:
    """Write the run directory, whole or not at all; ``began_s`` of ``time.perf_counter``."""
    from gpuscalp.backtest.band_report import band_section
    from gpuscalp.backtest.report import sections
    from gpuscalp.report import write_report

    seconds = time.perf_counter() - began_s
    if out is None:
        now = datetime.datetime.now(tz=datetime.UTC)
        out = _RUNS / f"{now:%Y%m%dT%H%M%S.%f}Z-{frozen['hash'][:8]}"
        check_free(out)
    partial = out.with_name(f".{out.name}.{os.getpid()}.partial")
    partial.mkdir()
    try:
        (partial / CONFIG_FILE).write_bytes(pretty(frozen))
        outcome.recorder.write(partial, outcome.scope.symbols)
        if band is not None:
            band.write(partial)
        outcome.summary.update(
            run_dir=str(out), report=str(out / REPORT_FILE), config_hash=frozen["hash"], seconds=seconds
        )
        (partial / RESULT_FILE).write_bytes(pretty(outcome.summary))
        write_report(
            partial / REPORT_FILE,
            "Backtest",
            [*([] if band is None else [band_section(band)]), *sections(outcome)],
            subtitle=outcome.subtitle,
        )
        partial.replace(out)  # nothing, or an empty directory: checked at the start
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    return BacktestResult(out, out / REPORT_FILE, outcome.summary)


def check_free(out: Path | None) -> None:
    """Refuse a run directory that is taken, and make the folder around it: no run is lost for want of it.

    Raises
    ------
    UsageError
    """
    if out is not None and out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(
            "the run directory is taken",
            where=str(out),
            fix="give another one with --out; runs are never overwritten",
        )
    make_writable(_RUNS if out is None else out.parent)
