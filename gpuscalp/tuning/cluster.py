"""Trials on Ray: a cluster of our own on this machine, or one that is there; workers that make trials.

Owns: which worker makes which trial. Never: decides which trials are made, or how Ray is started
(gpuscalp.ray_cluster).
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, redirect_stdout
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Any, Final, final

from gpuscalp.config import CostConfig, TrainConfig
from gpuscalp.device import core_count
from gpuscalp.distributed.job import Job
from gpuscalp.errors import ConfigError, GpuscalpError, UsageError
from gpuscalp.ray_cluster import connected
from gpuscalp.train.device import training_device
from gpuscalp.train.source import FeatureSource
from gpuscalp.tuning.evaluate import Evaluator, data_key
from gpuscalp.tuning.search import Task
from gpuscalp.tuning.trials import Rung

_INSTALL: Final = "make setup EXTRAS=ray in the checkout (docs/install.md)"
# A worker that dies takes its trial with it; the trial is made again elsewhere, so often.
_RETRIES: Final = 3
# Names the folder of the cluster that a killed driver has left behind.
_FOLDER_FILE: Final = "ray.folder"


@dataclass(frozen=True, slots=True)
class TrialSpec:
    """What every worker is told.

    Attributes
    ----------
    job : the data, the device and the threads of a trial; each trial has a configuration of its own
    gpus : of one trial
    """

    job: Job
    gpus: float
    cost: CostConfig
    kept: int

    def evaluator(self) -> Evaluator:
        job = self.job
        # Once, before any rows lie on a GPU: what a worker keeps must not change its next trial's chunks.
        chunk_bytes = training_device(job.device).chunk_bytes

        def source(config: TrainConfig) -> FeatureSource:
            return replace(job, config=config).open(chunk_bytes)

        return Evaluator(source, device=job.device, threads=job.threads, cost=self.cost, kept=self.kept)


def require() -> None:
    """Refuse to begin where the extra is not installed.

    Raises
    ------
    ConfigError
    """
    for name in ("ray", "optuna"):
        try:
            metadata.version(name)
        except metadata.PackageNotFoundError:
            raise ConfigError(f"{name} is not installed", where="extra ray", fix=_INSTALL) from None


@final
class RayPool:
    """Workers on a cluster, from the first task to the end of the context.

    Parameters
    ----------
    spec : what they are told
    folder : of the search, where it is noted what a killed driver leaves behind
    address : of a cluster, or ``auto``; None starts one on this machine (gpuscalp.ray_cluster)
    concurrent : how many, at most; None takes as many as the cluster has room for
    """

    def __init__(self, spec: TrialSpec, folder: Path, address: str | None, concurrent: int | None) -> None:
        self._spec, self._folder, self._address, self._asked = spec, folder, address, concurrent
        self._stack = ExitStack()
        self._ray: Any = None
        self._count = 0
        self._workers: list[Any] = []
        # What each worker has in memory, the oldest first.
        self._keys: dict[int, list[bytes]] = {}

    def __enter__(self) -> RayPool:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _connect(self) -> None:
        # Ray prints what it has to say of dead workers to stdout, which is for the answer.
        self._stack.enter_context(redirect_stdout(sys.stderr))
        spec, note = self._spec, self._folder / _FOLDER_FILE
        cpus = spec.job.threads
        ray = self._ray = self._stack.enter_context(connected(self._address, cpus=core_count(), note=note))
        found = ray.cluster_resources()
        room = int(found.get("CPU", 0.0) // cpus)
        if spec.gpus:
            room = min(room, int(found.get("GPU", 0.0) / spec.gpus + 1e-9))
        if room < 1:
            raise UsageError(
                "the cluster has no room for a trial",
                where="Ray",
                value=f"{found.get('CPU', 0.0):g} CPUs, {found.get('GPU', 0.0):g} GPUs",
                fix=f"a trial takes {cpus} CPUs and {spec.gpus:g} GPUs: --cpus, --gpus",
            )
        self._count = min(room, self._asked or room)

    def __call__(self, tasks: Sequence[Task]) -> Iterator[Rung]:
        """Do the tasks, and yield each line as soon as it is there.

        Raises
        ------
        UsageError
            there is no such cluster, or it has no room for one trial
        GpuscalpError
            a worker raised it, or workers die again and again
        """
        if self._ray is None:
            self._connect()
        waiting = list(tasks)
        idle = list(range(min(self._count, len(waiting))))
        busy: dict[Any, int] = {}
        while waiting or busy:
            while waiting and idle:
                worker, task = self._match(idle, waiting)
                idle.remove(worker)
                waiting.remove(task)
                self._remember(worker, data_key(task.train))
                busy[self._worker(worker).make.remote(task)] = worker
            (done, *_), _ = self._ray.wait(list(busy), num_returns=1)
            idle.append(busy.pop(done))
            yield self._result(done)

    def _match(self, idle: Sequence[int], waiting: Sequence[Task]) -> tuple[int, Task]:
        """Return a worker and a task whose rows it has; the first of both where there is no such pair."""
        for worker in idle:
            for task in waiting:
                if data_key(task.train) in self._keys.get(worker, ()):
                    return worker, task
        return idle[0], waiting[0]

    def _remember(self, worker: int, key: bytes) -> None:
        keys = self._keys.setdefault(worker, [])
        if key in keys:
            keys.remove(key)
        keys.append(key)
        del keys[: -self._spec.kept]

    def _worker(self, index: int) -> Any:
        while len(self._workers) <= index:
            kind = self._ray.remote(
                num_cpus=self._spec.job.threads,
                num_gpus=self._spec.gpus,
                max_restarts=_RETRIES,
                max_task_retries=_RETRIES,
            )(_Worker)
            self._workers.append(kind.remote(self._spec))
        return self._workers[index]

    def _result(self, reference: Any) -> Rung:
        exceptions = self._ray.exceptions
        try:
            line: Rung = self._ray.get(reference)
        except exceptions.RayTaskError as error:
            if isinstance(error.cause, GpuscalpError):
                raise error.cause from None
            raise
        except (exceptions.RayActorError, exceptions.OutOfMemoryError) as error:
            raise GpuscalpError(
                "the workers die again and again",
                where="Ray",
                value=str(error).splitlines()[0],
                fix="what is finished is kept: go on with --resume, with fewer trials at the same time "
                "(--concurrent) or fewer sets of rows in memory (trial.kept)",
            ) from None
        return line


@final
class _Worker:
    """The process of a worker."""

    def __init__(self, spec: TrialSpec) -> None:
        self._evaluator = spec.evaluator()

    def make(self, task: Task) -> Rung:
        return self._evaluator.make(task)
