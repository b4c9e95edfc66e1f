"""One walk-forward from archive and configuration to a directory with models, runs and a report.

    rows ─► steps ─► per step and seed: train on the past only ─► look-ahead examined
                         └─► per configuration: one account over all steps ─► judgement and report

Owns: the order, the directory, and going on where an earlier call was ended.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np

from gpuscalp.archive import Archive
from gpuscalp.backtest.run import CONFIG_FILE, REPORT_FILE, RESULT_FILE
from gpuscalp.bundle import read_contract
from gpuscalp.config import WalkForwardConfig
from gpuscalp.device import RequestedDevice, core_count, resolve
from gpuscalp.errors import UNREADABLE
from gpuscalp.files import make_writable, pretty, replace_file
from gpuscalp.progress import Progress, silent, stretch
from gpuscalp.report import write_report
from gpuscalp.run_folder import require_alone, require_begun, require_same, taken
from gpuscalp.schema import NS_PER_MS
from gpuscalp.times import utc
from gpuscalp.walkforward.judge import Judged, judge, to_dict, warnings_of
from gpuscalp.walkforward.look_ahead import examine_step
from gpuscalp.walkforward.parts import PARTS_FILE, Parts
from gpuscalp.walkforward.plan import Plan, make_plan
from gpuscalp.walkforward.random_entries import RandomEntries, random_entries, read_quotes
from gpuscalp.walkforward.recorded import Recorded, read_run
from gpuscalp.walkforward.report import sections
from gpuscalp.walkforward.work import Task, TradeTask, TrainTask, workers

# Shares of the bar: a model takes so many times as long as a run.
_TRAIN_WEIGHT: Final = 5.0


@dataclass(frozen=True, slots=True)
class WalkForwardResult:
    """A finished walk-forward: its directory, its report, and what ``--json`` prints."""

    run_dir: Path
    report: Path
    summary: dict[str, Any]


def walk_forward_archive(
    archive: Path,
    *,
    config: WalkForwardConfig,
    out: Path,
    resume: bool = False,
    device: RequestedDevice = "auto",
    processes: int | None = None,
    on_progress: Progress = silent,
) -> WalkForwardResult:
    """Train on the past, trade what follows, step by step; judge what comes of it.

    Parameters
    ----------
    archive : directory
    config : steps, training, trading, what else is tried
    out : directory; new or empty unless ``resume``
    resume : go on in a directory that an earlier call with the same data and configuration has left; finished
        models and runs are checked by their digests and kept, the rest is trained with that call's number of
        threads
    device : where models are trained
    processes : that work at the same time; None takes the cores (one on a GPU). More than one are started by
        spawning: a script that calls this needs ``if __name__ == "__main__"``
    on_progress : told how far it is

    Raises
    ------
    UsageError
        ``out`` is taken, or is of another walk-forward
    GpuscalpError
        whatever training and backtest raise; what was finished stays
    """
    began = time.perf_counter()
    cores = core_count()
    _check_out(out, resume=resume)
    on_progress(0.0, 1.0, "counting rows")
    plan = make_plan(archive, config, device=resolve(device).name, threads=cores)
    models: list[Task] = [
        TrainTask(plan, step, seed, plan.bundle(out, seed, step))
        for seed in plan.seeds
        for step in plan.steps
    ]
    runs: list[Task] = [TradeTask(plan, run, out, out / "runs" / run.name) for run in plan.runs]
    count = processes or (1 if plan.device == "cuda" else cores)
    threads = (_threads_of(out) if resume else None) or max(1, cores // min(count, len(models)))
    frozen = plan.frozen(threads=threads)
    with _opened(out, frozen, resume=resume) as parts:
        kept = _do([*models, *runs], parts, count=count, cores=cores, threads=threads, told=on_progress)
        judged, base, summary = _judged(out, plan, cores, on_progress)
        summary |= {
            "kept": kept,
            "config_hash": frozen["hash"],
            "seconds": time.perf_counter() - began,
        }
        return _write(out, plan, judged, base, summary)


def _check_out(out: Path, *, resume: bool) -> None:
    if resume:
        require_begun(out / CONFIG_FILE, "walk-forward")
    elif out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise taken(out)
    else:
        make_writable(out.parent)


def _threads_of(out: Path) -> int | None:
    """Return the threads that a walk began to train with; None where it cannot be read."""
    try:
        found = msgspec.json.decode((out / CONFIG_FILE).read_bytes())["threads"]
    except (*UNREADABLE, KeyError, TypeError):
        return None
    return found if isinstance(found, int) else None


def _torn(out: Path) -> bool:
    """Say whether a walk was killed while it wrote its first file: then nothing else was begun."""
    try:
        msgspec.json.decode((out / CONFIG_FILE).read_bytes())
    except UNREADABLE:
        return not (out / PARTS_FILE).exists()
    return False


@contextmanager
def _opened(out: Path, frozen: dict[str, Any], *, resume: bool) -> Iterator[Parts]:
    """Be the one process that works in a directory."""
    path = out / CONFIG_FILE
    out.mkdir(parents=True, exist_ok=True)
    with path.open("r+b" if resume else "a+b") as file:
        require_alone(file.fileno(), path, "walk-forward")
        if resume and not _torn(out):
            require_same(path, frozen["hash"], "walk-forward", "configuration, data, device or a version")
            # What a killed process was writing: runs are *.partial then, bundles are not.
            for partial in [part for part in out.rglob(".*") if part.is_dir()]:
                shutil.rmtree(partial, ignore_errors=True)
        else:
            if not resume and file.seek(0, os.SEEK_END):
                raise taken(out)  # another process has begun since it was looked at
            file.truncate(0)
            file.write(pretty(frozen))
            file.flush()
            os.fsync(file.fileno())
        yield Parts(out)


def _do(tasks: Sequence[Task], parts: Parts, *, count: int, cores: int, threads: int, told: Progress) -> int:
    """Do what is not finished: models first, then runs; return how many parts were kept.

    Parameters
    ----------
    count : processes, at most
    cores : shared out among those that trade
    threads : of each training, however few are left, and those of the beginning where the walk is gone on
        with: XGBoost's last bits hang on them
    """
    weights = {task.out: _TRAIN_WEIGHT if isinstance(task, TrainTask) else 1.0 for task in tasks}
    total = sum(weights.values())
    left = []
    for task in tasks:
        if not parts.finished(task.out):
            # Written whole, but not noted any more before the end came.
            shutil.rmtree(task.out, ignore_errors=True)
            left.append(task)
    done = total - sum(weights[task.out] for task in left)

    def watch(task: Task) -> Progress:
        return stretch(told, task.title, begin=done, length=weights[task.out], of=total)

    for kind in (TrainTask, TradeTask):
        wanted = [task for task in left if isinstance(task, kind)]
        if wanted:
            at_once = min(count, len(wanted))
            each = threads if kind is TrainTask else max(1, cores // at_once)
            with workers(at_once, each) as work:
                for task in work(wanted, watch):
                    parts.add(task.out)
                    done += weights[task.out]
                    told(done, total, task.title)
    return len(tasks) - len(left)


def _judged(out: Path, plan: Plan, threads: int, told: Progress) -> tuple[Judged, Recorded, dict[str, Any]]:
    """Return the judgement of finished parts, the base run, and what ``result.json`` says of them."""
    examined = {}
    for step in plan.steps:
        told(1.0, 1.0, f"look-ahead of {step.name}")
        examined[step.name] = examine_step(plan, step, plan.bundle(out, plan.seeds[0], step), threads)
    recorded = [(run, read_run(out / "runs" / run.name)) for run in plan.runs]
    base = recorded[0][1]
    told(1.0, 1.0, "random entries")
    judged = judge(plan, recorded, _random(plan, base))
    for row, step in zip(judged.steps, plan.steps, strict=True):
        row |= _model(plan.bundle(out, plan.seeds[0], step))
    summary = {
        "run_dir": str(out),
        "report": str(out / REPORT_FILE),
        "base": str(out / "runs" / plan.runs[0].name),
        "venue": plan.config.train.venue,
        "symbols": list(plan.symbols),
        "start": utc(plan.start_ns),
        "end": utc(plan.end_ns),
        "warnings": warnings_of(judged, base, examined),
        "look_ahead": {name: found.leaks for name, found in examined.items()},
        "look_ahead_unseen": {name: list(found.unseen) for name, found in examined.items()},
        "trades": len(base.trades),
        **to_dict(judged, plan.config),
    }
    return judged, base, summary


def _random(plan: Plan, base: Recorded) -> RandomEntries | None:
    config = plan.config
    grid = config.train.grid
    quotes = read_quotes(
        Archive.open(plan.archive),
        config.train.venue,
        plan.symbols,
        grid=grid,
        start_ns=plan.start_ns,
        end_ns=plan.end_ns,
    )
    return random_entries(
        base.trades,
        quotes,
        frame_ns=grid.frame_ms * NS_PER_MS,
        fee_bps=config.backtest.cost.taker_fee_bps,
        draws=config.judge.random_draws,
        rng=np.random.default_rng(config.judge.seed),
    )


def _model(bundle: Path) -> dict[str, Any]:
    """Return what is said of the model of a step."""
    contract = read_contract(bundle)
    training = contract.training
    return {
        "bundle_digest": contract.digest,
        "trained_until": utc(training.trained_on.end_ns),
        "train_rows": training.rows,
        "held_out_ic": training.metrics.get("ic"),
    }


def _write(
    out: Path, plan: Plan, judged: Judged, base: Recorded, summary: dict[str, Any]
) -> WalkForwardResult:
    config = plan.config.train
    write_report(
        out / REPORT_FILE,
        "Walk-forward",
        sections(plan, judged, base, summary),
        subtitle=f"{', '.join(plan.symbols)} on {config.venue}, {summary['start']} to {summary['end']} UTC",
    )
    # The result comes last: where it is, everything is.
    replace_file(out / RESULT_FILE, pretty(summary))
    return WalkForwardResult(out, out / REPORT_FILE, summary)
