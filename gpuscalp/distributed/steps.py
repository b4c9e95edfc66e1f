"""The steps of a training run, done by the workers of a Ray cluster.

    count parts ─► walks agree? ─► fit: XGBoost on all workers at once ─► held-out rows, share by share

Owns: sending the work, waiting for it, and doing again what a lost worker has left. Never: walks a row here.
"""

from __future__ import annotations

import tempfile
import threading
import warnings
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, final

from gpuscalp.config import TrainConfig
from gpuscalp.distributed import work
from gpuscalp.distributed.job import Job
from gpuscalp.distributed.ledger import start_ledger
from gpuscalp.distributed.parts import Part, Seen, agree, cut
from gpuscalp.errors import DeviceError, GpuscalpError
from gpuscalp.progress import Progress
from gpuscalp.ray_cluster import import_ray
from gpuscalp.splits import Fold, RowCounts
from gpuscalp.train.compare import total
from gpuscalp.train.held_out import HeldOut, Sample
from gpuscalp.train.passes import (
    FittedFinal,
    FittedFold,
    Predicted,
    check_held_out,
    folds_of,
)
from gpuscalp.train.source import ArchiveSource

# How often a lost worker is replaced in each piece of the work.
RETRIES: Final = 5
_LOOK_EVERY_S: Final = 0.25


@final
class RaySteps:
    """Done by the workers of the cluster that this process is connected to.

    Parameters
    ----------
    job : what is trained
    source : the same recording here, for its names
    workers : processes that train together
    progress : told how far it is
    """

    def __init__(self, job: Job, source: ArchiveSource, *, workers: int, progress: Progress) -> None:
        self._ray = import_ray()
        self._job, self._source, self._workers, self._progress = job, source, workers, progress
        self._rows: work.Rows | None = None
        gpus = 1 if job.device == "cuda" else 0
        self._resources = {"CPU": float(job.threads), **({"GPU": 1.0} if gpus else {})}
        self._task = self._ray.remote(num_cpus=job.threads, num_gpus=gpus, max_retries=RETRIES)
        config = job.config
        self._total = float((config.split.folds + 1) * config.ensemble.members * config.booster.rounds)

    @property
    def config(self) -> TrainConfig:
        return self._job.config

    def session(self) -> AbstractContextManager[None]:
        return nullcontext()

    def split(self) -> tuple[RowCounts, tuple[Fold, ...]]:
        """Count the rows of all parts, and lengthen the leads of those whose walks do not agree.

        Raises
        ------
        ParityError    two walks from the same tick do not agree
        """
        source = self._source
        first_ns, last_ns = source.archive.time_range(source.venue, source.symbols)
        first_ns = max(first_ns, source.start_ns or first_ns)
        last_ns = min(last_ns, source.end_ns or last_ns)
        cuts = cut(first_ns, last_ns, self.config, warm_up_frames=source.pipeline.graph.warm_up_frames)
        parts, counts = agree(cuts, self._look, first_ns=first_ns)
        self._rows = work.Rows(parts, counts)
        return counts, folds_of(counts, self.config, self._source)

    def fit(self, folds: Sequence[Fold], _: RowCounts) -> tuple[tuple[FittedFold, ...], FittedFinal]:
        """Train on all workers at once; see ``Passes.fit``.

        Raises
        ------
        GpuscalpError    whatever a worker raises
        DeviceError      workers were lost again and again
        """
        assert self._rows is not None, "split comes first"
        self._progress(0.0, self._total, "starting workers")
        ledger = start_ledger()
        config = {"job": self._job, "rows": self._rows, "folds": tuple(folds), "ledger": ledger}
        fitted: tuple[tuple[FittedFold, ...], FittedFinal]
        with tempfile.TemporaryDirectory(prefix="gpuscalp-ray-") as folder:
            try:
                fitted = self._wait(self._trainer(config, Path(folder)), ledger)
            finally:
                self._ray.kill(ledger)
        return fitted

    def held_out(self, fitted: Sequence[FittedFold], _: RowCounts) -> Predicted:
        """Predict each fold's test rows, share by share; see ``Passes.held_out``."""
        rows = self._ray.put(self._rows)
        task = self._task(work.predict)
        # XGBoost's boosters are a second opinion on a GPU; without them a task need not load XGBoost.
        kept = fitted if self._job.device == "cuda" else [replace(item, members=()) for item in fitted]
        models = [self._ray.put(item) for item in kept]
        refs = [
            task.remote(self._job, rows, model, rank, self._workers)
            for model in models
            for rank in range(self._workers)
        ]
        found = self._get(refs, self._total, "predicting held-out rows")
        per_fold = [found[at : at + self._workers] for at in range(0, len(found), self._workers)]
        held_out = tuple(HeldOut.joined([part[0][0] for part in parts]) for parts in per_fold)
        check_held_out([item.fold for item in fitted], held_out)
        sample = Sample.joined([part[1] for part in per_fold[-1]])
        devices = [part[2] for part in found]
        return held_out, sample, total(devices, devices[0].reason)

    def _look(self, tasks: Sequence[tuple[Part, Sequence[int]]]) -> list[Seen]:
        task = self._task(work.look)
        return self._get(
            [task.remote(self._job, part, frames) for part, frames in tasks], 0.0, "counting rows"
        )

    def _get(self, refs: Sequence[Any], done: float, what: str) -> list[Any]:
        """Wait for tasks; return their results in order."""
        left = list(refs)
        while left:
            self._progress(done, self._total, f"{what}, {len(refs) - len(left)} of {len(refs)} parts")
            _, left = self._ray.wait(left, num_returns=1)
        try:
            return list(self._ray.get(list(refs)))
        except self._ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, GpuscalpError):
                raise error.cause from None
            raise

    def _trainer(self, config: dict[str, Any], folder: Path) -> Any:
        from ray.train import FailureConfig, RunConfig, ScalingConfig
        from ray.train.xgboost import XGBoostTrainer

        with warnings.catch_warnings():
            # Ray Train makes a context of Ray Data, which warns of a default of its own.
            warnings.simplefilter("ignore", DeprecationWarning)
            self._ray.data.DataContext.get_current()
        return XGBoostTrainer(
            work.fit,
            train_loop_config=config,
            scaling_config=ScalingConfig(
                num_workers=self._workers,
                use_gpu=self._job.device == "cuda",
                resources_per_worker=self._resources,
            ),
            # Nothing is stored there but Ray's own notes: what is finished lies in the ledger.
            run_config=RunConfig(
                name="train", storage_path=str(folder), failure_config=FailureConfig(max_failures=RETRIES)
            ),
        )

    def _wait(self, trainer: Any, ledger: Any) -> Any:
        """Let Ray Train do it on a thread, where it leaves Ctrl-C alone, and tell how far it is."""
        from ray.train import TrainingFailedError

        result: list[Any] = []

        def run() -> None:
            try:
                result.append(trainer.fit().return_value)
            except Exception as error:
                result.append(error)

        thread = threading.Thread(target=run, name="ray-train", daemon=True)
        thread.start()
        while thread.is_alive():
            thread.join(_LOOK_EVERY_S)
            (done, total, note), _, groups = self._ray.get(ledger.look.remote())
            again = f", workers started {groups} times" if groups > 1 else ""
            self._progress(done, total, note + again)
        fault = self._ray.get(ledger.look.remote())[1]
        if fault is not None:
            raise fault
        if isinstance(result[0], TrainingFailedError):
            raise DeviceError(
                "the workers were lost, or failed, more often than they are replaced",
                where=f"{self._workers} workers on Ray",
                value=str(result[0]).strip().splitlines()[-1],
                fix="look for the reason (memory?) in Ray's logs; fewer workers on a machine need less of it",
            ) from result[0]
        if isinstance(result[0], Exception):
            raise result[0]
        return result[0]
