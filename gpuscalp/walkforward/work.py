"""The work of a walk-forward, in this process or in several: one model, one run.

Owns: processes. Never: chooses what is to be done.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from gpuscalp.archive import Archive
from gpuscalp.backtest import run_backtest
from gpuscalp.device import RequestedDevice
from gpuscalp.errors import ModelError
from gpuscalp.process_pool import Submit, process_pool
from gpuscalp.progress import Progress, silent
from gpuscalp.train.run import train
from gpuscalp.train.source import ArchiveSource
from gpuscalp.walkforward.plan import Plan, Run, Step


@dataclass(frozen=True, slots=True)
class TrainTask:
    """Train the model of one step on the time before it."""

    plan: Plan
    step: Step
    seed: int
    out: Path

    @property
    def title(self) -> str:
        return f"model of {self.step.name}, seed {self.seed}"

    def __call__(self, threads: int, told: Progress = silent) -> None:
        plan, step = self.plan, self.step
        config = plan.train_config(self.seed)
        # The walks of the training end where the embargo begins: what comes later is never read.
        source = ArchiveSource.open(
            Archive.open(plan.archive),
            config,
            start_ns=step.train_start_ns,
            end_ns=step.train_end_ns,
            threads=threads,
            device=plan.device,
        )
        result = train(
            source,
            config,
            self.out,
            device=cast(RequestedDevice, plan.device),
            threads=threads,
            on_progress=told,
        )
        until_ns = result.training.trained_on.end_ns
        if until_ns > step.train_end_ns:
            shutil.rmtree(self.out)
            raise ModelError(
                "labels of the training reach into the embargo",
                where=step.name,
                value=f"{until_ns - step.train_end_ns} ns too far",
                fix="a label must not read past its declared horizon",
            )


@dataclass(frozen=True, slots=True)
class TradeTask:
    """Trade all steps with the models of each."""

    plan: Plan
    run: Run
    folder: Path
    out: Path

    @property
    def title(self) -> str:
        return f"run {self.run.name}"

    def __call__(self, threads: int, told: Progress = silent) -> None:
        plan = self.plan
        run_backtest(
            plan.archive,
            plan.schedule(self.folder, self.run.seed),
            config=self.run.config,
            out=self.out,
            start_ns=plan.start_ns,
            end_ns=plan.end_ns,
            threads=threads,
            on_progress=told,
        )


Task = TrainTask | TradeTask
# Returns what is told how far a task is.
Watch = Callable[[Task], Progress]


@contextmanager
def workers(count: int, threads: int) -> Iterator[Callable[[Sequence[Task], Watch], Iterator[Task]]]:
    """Give a function that does tasks and yields each when it is done, in the order of completion.

    Parameters
    ----------
    count : processes; 1 works in this one and tells how far a task is
    threads : of each
    """
    if count == 1:
        yield lambda tasks, watch: _here(tasks, watch, threads)
        return
    with process_pool(
        count, where="walkforward run", fix="what is finished stays: --resume, with fewer --processes"
    ) as submit:
        yield lambda tasks, _: _there(submit, tasks, threads)


def _here(tasks: Sequence[Task], watch: Watch, threads: int) -> Iterator[Task]:
    for task in tasks:
        task(threads, watch(task))
        yield task


def _there(submit: Submit, tasks: Sequence[Task], threads: int) -> Iterator[Task]:
    pending = {submit(task, threads): task for task in tasks}
    for future in as_completed(pending):
        future.result()
        yield pending[future]
