"""One search from archive and configuration to a directory with trials, a report and the best one's bundle.

    frozen configuration ─► trials.jsonl, line by line ─► best ─► trained on all ─► bundle, report, result

Owns: the order, the directory, and going on where an earlier call was ended.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Final, cast

import msgspec
from msgspec import structs

from gpuscalp.archive import Archive
from gpuscalp.bundle import read_contract
from gpuscalp.config import StrategyConfig, TrainConfig, TuneConfig, to_dict
from gpuscalp.device import RequestedDevice, core_count, resolve
from gpuscalp.distributed.job import Job, versions
from gpuscalp.errors import GpuscalpError
from gpuscalp.files import pretty, replace_file
from gpuscalp.progress import Progress, silent
from gpuscalp.report import write_report
from gpuscalp.run_folder import require_begun, require_same, taken
from gpuscalp.train.run import train
from gpuscalp.train.source import ArchiveSource
from gpuscalp.tuning.cluster import RayPool, TrialSpec, require
from gpuscalp.tuning.report import sections, trial_rows, warnings_of
from gpuscalp.tuning.search import Trial, best_of, search
from gpuscalp.tuning.space import Space
from gpuscalp.tuning.trials import TrialLog

CONFIG_FILE: Final = "config.json"
RESULT_FILE: Final = "result.json"
REPORT_FILE: Final = "report.html"
BUNDLE: Final = "bundle"
TRAIN_FILE: Final = "train.toml"
BACKTEST_FILE: Final = "backtest.toml"


@dataclass(frozen=True, slots=True)
class TuneResult:
    """A finished search: its directory, the bundle of the best trial, and what ``--json`` prints."""

    out: Path
    bundle: Path
    report: Path
    summary: dict[str, Any]


def tune_archive(
    archive: Path,
    *,
    config: TuneConfig,
    trials: int,
    out: Path | None = None,
    resume: bool = False,
    start_ns: int | None = None,
    end_ns: int | None = None,
    device: RequestedDevice = "auto",
    address: str | None = None,
    concurrent: int | None = None,
    on_progress: Progress = silent,
) -> TuneResult:
    """Try configurations on an archive; train the best one on all of it.

    Parameters
    ----------
    archive : directory; every machine of a cluster sees it under the same path
    config : what is tuned, how it is scored, how the search goes
    trials : configurations to try, in all
    out : directory; new or empty unless ``resume``; default ``runs/tune-<hash>``
    resume : go on in a directory that an earlier call with the same data and configuration has left; what is
        finished is kept
    start_ns, end_ns : half-open, exchange time; None is open
    device : where trials and the bundle are trained
    address : of a Ray cluster, or "auto"; None starts one on this machine for the time of the call
    concurrent : trials at the same time, at most; does not change the result
    on_progress : told after every trial and rung

    Raises
    ------
    ConfigError
        Ray or Optuna is not installed, or the space makes no sense
    UsageError
        ``out`` is taken, or is of another search
    GpuscalpError
        whatever training raises; what was finished stays
    """
    began = time.perf_counter()
    require()
    chosen = resolve(device)
    source = ArchiveSource.open(
        Archive.open(archive),
        config.train,
        start_ns=start_ns,
        end_ns=end_ns,
        device=chosen.name,
    )
    config = structs.replace(config, train=structs.replace(config.train, symbols=source.symbols))
    space = Space(config)
    frozen = _frozen(config, source, chosen.name)
    out = Path("runs") / f"tune-{frozen['hash'][:12]}" if out is None else out
    _open(out, frozen, resume=resume)
    spec = TrialSpec(
        Job(
            archive=archive.resolve(),
            config=config.train,
            start_ns=source.start_ns,
            end_ns=source.end_ns,
            digest=source.digest(),
            versions=versions(),
            device=chosen.name,
            threads=config.trial.cpus,
        ),
        gpus=config.trial.gpus if chosen.name == "cuda" else 0.0,
        cost=config.cost,
        kept=config.trial.kept,
    )
    with TrialLog(out) as log:
        kept = len(log.rungs)
        with RayPool(spec, out, address, concurrent) as pool:
            found = search(
                log,
                space,
                search=config.search,
                score=config.score,
                rounds=config.train.booster.rounds,
                trials=trials,
                pool=pool,
                told=on_progress,
            )
        best = best_of(found)
        best_train, best_strategy = space.decode(best.params)
        bundle = _bundle(out, source, best_train, chosen.name, trials, on_progress)
        _write_configs(out, config, best_train, best_strategy, trials)
        summary = _summary(out, config, frozen, source, found, best, trials)
        summary |= {"kept_lines": kept, "seconds": time.perf_counter() - began}
        _write(out, config, space, found, best, summary)
    return TuneResult(out, bundle, out / REPORT_FILE, summary)


def _frozen(config: TuneConfig, source: ArchiveSource, device: str) -> dict[str, Any]:
    """Return everything that decides the trials, with its sha256.

    Their number does not: a search for more trials begins with the same ones.
    """
    tune = to_dict(config)
    threads = tune.pop("trial")["cpus"]
    body: dict[str, Any] = {
        "tune": tune,
        "threads": threads,
        "start_ns": source.start_ns,
        "end_ns": source.end_ns,
        "device": device,
        "data_digest": source.digest(),
        "graph_hash": source.graph.hash,
        "versions": {**dict(versions()), "optuna": metadata.version("optuna")},
    }
    # Not sorted: values are drawn in the order in which the space names them.
    return {**body, "hash": hashlib.sha256(msgspec.json.encode(body)).hexdigest()}


def _open(out: Path, frozen: Mapping[str, Any], *, resume: bool) -> None:
    file = out / CONFIG_FILE
    if not resume:
        # A killed call may have left no more than the beginning of its first file.
        if out.exists() and (not out.is_dir() or any(path.suffix != ".partial" for path in out.iterdir())):
            raise taken(out)
        out.mkdir(parents=True, exist_ok=True)
        replace_file(file, pretty(frozen))
        return
    require_begun(file, "search")
    require_same(file, frozen["hash"], "search", "configuration, data, device, seed or a version")


def _bundle(
    out: Path, source: ArchiveSource, config: TrainConfig, device: str, trials: int, told: Progress
) -> Path:
    """Train the best configuration on all rows, unless a call that was ended later has done so."""
    bundle = out / BUNDLE
    try:
        training = read_contract(bundle).training
        if (training.config, training.trials) == (config, trials):
            return bundle
    except GpuscalpError:
        pass  # there is none, or none that can be used: it is made anew
    threads = core_count()
    best = ArchiveSource.open(
        source.archive,
        config,
        start_ns=source.start_ns,
        end_ns=source.end_ns,
        threads=threads,
        device=device,
    )
    train(
        best,
        config,
        bundle,
        device=cast(RequestedDevice, device),
        threads=threads,
        overwrite=bundle.exists(),
        trials=trials,
        on_progress=lambda done, total=None, note="": told(done, total, f"best trial: {note}"),
    )
    return bundle


def _write_configs(
    out: Path, config: TuneConfig, train: TrainConfig, strategy: StrategyConfig, trials: int
) -> None:
    """Write what the best trial was made with, as ``gpuscalp train`` and ``gpuscalp backtest`` read it."""
    head = f"# The best of {trials} trials (gpuscalp tune).\n"
    replace_file(out / TRAIN_FILE, (head + _toml(to_dict(train))).encode())
    trade = {"trials": trials, "strategy": to_dict(strategy), "cost": to_dict(config.cost)}
    replace_file(out / BACKTEST_FILE, (head + _toml(trade)).encode())


def _toml(data: Mapping[str, Any], path: tuple[str, ...] = ()) -> str:
    """Return plain data as TOML; keys without a value are left out, and so take their default."""
    plain = {key: value for key, value in data.items() if not isinstance(value, dict) and value is not None}
    # Numbers, strings and lists of them are written alike in JSON and in TOML.
    lines = [f"{key} = {msgspec.json.encode(value).decode()}" for key, value in plain.items()]
    if path and lines:
        lines.insert(0, f"\n[{'.'.join(path)}]")
    text = "".join(f"{line}\n" for line in lines)
    for key, value in data.items():
        if isinstance(value, dict):
            text += _toml(value, (*path, key))
    return text


def _summary(
    out: Path,
    config: TuneConfig,
    frozen: Mapping[str, Any],
    source: ArchiveSource,
    found: Sequence[Trial],
    best: Trial,
    trials: int,
) -> dict[str, Any]:
    states = [trial.state for trial in found]
    rows = trial_rows(found, config.score, config.search.generation)
    return {
        "out": str(out),
        "bundle": str(out / BUNDLE),
        "report": str(out / REPORT_FILE),
        "train_config": str(out / TRAIN_FILE),
        "backtest_config": str(out / BACKTEST_FILE),
        "venue": source.venue,
        "symbols": list(source.symbols),
        "device": frozen["device"],
        "metric": config.score.metric,
        "penalty": config.score.penalty,
        "seed": config.search.seed,
        "trials": trials,
        **{state: states.count(state) for state in ("finished", "stopped", "failed")},
        "best": rows[best.number],
        "configured": rows[0] if found[0].yardstick else None,
        "warnings": warnings_of(found, best, config, source.venue),
        "table": rows,
        "config_hash": frozen["hash"],
    }


def _write(
    out: Path,
    config: TuneConfig,
    space: Space,
    found: Sequence[Trial],
    best: Trial,
    summary: Mapping[str, Any],
) -> None:
    write_report(
        out / REPORT_FILE,
        "Tuning",
        sections(found, best, config, space, summary),
        subtitle=f"{len(found)} trials on {', '.join(summary['symbols'])}, {summary['venue']}",
    )
    # The result comes last: where it is, everything is.
    replace_file(out / RESULT_FILE, pretty(summary))
