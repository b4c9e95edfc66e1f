"""What runs on the machines of the cluster: looking at a part, fitting together, predicting a share.

Owns: nothing of its own: each is a step of gpuscalp.train on the rows of one worker.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from gpuscalp.distributed.job import Job
from gpuscalp.distributed.ledger import Remembered, Told
from gpuscalp.distributed.parts import Part, Seen, Share, look_at
from gpuscalp.errors import GpuscalpError
from gpuscalp.progress import silent
from gpuscalp.ray_cluster import import_ray
from gpuscalp.splits import Fold, RowCounts
from gpuscalp.train.device import training_device
from gpuscalp.train.passes import FittedFinal, FittedFold, Passes, Predicted
from gpuscalp.xgb import import_xgboost


@dataclass(frozen=True, slots=True)
class Rows:
    """The rows of a job, as they are shared out.

    Attributes
    ----------
    parts : with leads whose walks agree
    counts : of all rows
    """

    parts: tuple[Part, ...]
    counts: RowCounts


def look(job: Job, part: Part, compare_ns: Sequence[int]) -> Seen:
    """Walk a part; see ``parts.look_at``."""
    device = training_device(job.device)
    with device.session():
        return look_at(part, job.open(), job.config, compare_ns=compare_ns, device=device)


def predict(job: Job, rows: Rows, fitted: FittedFold, rank: int, workers: int) -> Predicted:
    """Predict one share of a fold's held-out rows."""
    passes = _passes(job, rows, rank, workers)
    with passes.session():
        return passes.predict([fitted], rows.counts)


def fit(config: dict[str, Any]) -> tuple[tuple[FittedFold, ...], FittedFinal] | None:
    """Train together with the other workers of Ray Train; the loop of each of them.

    Parameters
    ----------
    config : job, rows, folds, ledger

    Returns
    -------
    what ``Passes.fit`` does; None where a worker has refused, and the ledger knows why
    """
    from ray.train import get_context

    context = get_context()
    rank, ledger = context.get_world_rank(), config["ledger"]
    job: Job = config["job"]
    rows: Rows = config["rows"]
    folds: Sequence[Fold] = config["folds"]
    ray, xgboost = import_ray(), import_xgboost()
    if rank == 0:
        ray.get(ledger.begin.remote())
    told = Told(ledger) if rank == 0 else silent
    once = Remembered(ledger, keeps=rank == 0)
    try:
        passes = _passes(job, rows, rank, context.get_world_size(), progress=told, once=once)
        with passes.session():
            return passes.fit(folds, rows.counts)
    except GpuscalpError as fault:
        # Not raised: Ray Train would begin again, and come to the same.
        ray.get(ledger.fail.remote(fault))
    except xgboost.core.XGBoostError:
        # As when another worker is lost; but that one may have refused, and said so before it left.
        if ray.get(ledger.look.remote())[1] is None:
            raise
    return None


def _passes(job: Job, rows: Rows, rank: int, workers: int, **more: Any) -> Passes:
    source = job.open()
    share = Share(source, job.config, parts=rows.parts, counts=rows.counts, rank=rank, workers=workers)
    return Passes(
        source,
        job.config,
        device=training_device(job.device),
        threads=job.threads,
        recording=share,
        **({"progress": silent} | more),
    )
