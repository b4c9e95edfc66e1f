"""One training on a Ray cluster, from an archive to a bundle.

Owns: the cluster, what each worker gets of it, and the device. The steps are those of gpuscalp.train.run.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gpuscalp.archive import Archive
from gpuscalp.bundle import check_free
from gpuscalp.config import TrainConfig, load_given
from gpuscalp.device import DeviceChoice, DeviceName, RequestedDevice, core_count
from gpuscalp.distributed.job import Job, versions
from gpuscalp.distributed.steps import RaySteps
from gpuscalp.errors import DeviceError, UsageError
from gpuscalp.progress import Progress, silent
from gpuscalp.ray_cluster import connected
from gpuscalp.train.result import TrainResult
from gpuscalp.train.run import train_by
from gpuscalp.train.source import ArchiveSource


def train_on_ray(
    archive: Path,
    out: Path,
    *,
    workers: int,
    address: str | None = None,
    config: Path | TrainConfig | None = None,
    overrides: Mapping[str, object] | None = None,
    start_ns: int | None = None,
    end_ns: int | None = None,
    device: RequestedDevice = "auto",
    threads: int | None = None,
    overwrite: bool = False,
    on_progress: Progress = silent,
) -> TrainResult:
    """Train on an archive with several workers, and write the bundle here.

    Parameters
    ----------
    archive : directory that every machine of the cluster sees
    workers : processes that train together, each with a share of the rows
    address : of a Ray cluster, or ``auto``; None starts one on this machine and ends it afterwards
    device : ``cuda`` gives every worker a GPU of its own; ``auto`` does so where there are enough
    threads : cores of each worker; None shares the cluster's out
    out, config, overrides, start_ns, end_ns, overwrite, on_progress : see ``gpuscalp.train.train_archive``

    Returns
    -------
    TrainResult

    Raises
    ------
    GpuscalpError
        of the kind that says what is wrong; nothing has been written then
    """
    config = load_given(TrainConfig, config, env=os.environ, overrides=overrides)
    source = ArchiveSource.open(
        Archive.open(archive),
        config,
        start_ns=start_ns,
        end_ns=end_ns,
    )
    check_free(out, overwrite=overwrite)
    on_progress(0.0, None, "connecting to Ray")
    with connected(address, cpus=core_count()) as ray:
        choice, cores = _place(ray, workers, device, threads)
        job = Job(
            archive=archive.resolve(),
            config=config,
            start_ns=source.start_ns,
            end_ns=source.end_ns,
            digest=source.digest(),
            versions=versions(),
            device=choice.name,
            threads=cores,
        )
        steps = RaySteps(job, source, workers=workers, progress=on_progress)
        return train_by(
            steps,
            source,
            config,
            out,
            choice=choice,
            overwrite=overwrite,
            versions={"ray": str(ray.__version__)},
        )


def _place(ray: Any, workers: int, device: RequestedDevice, threads: int | None) -> tuple[DeviceChoice, int]:
    """Choose the device, and the cores of each worker.

    Raises
    ------
    UsageError     the cluster has too few cores
    DeviceError    it has too few GPUs
    """
    resources = ray.cluster_resources()
    machines = len([node for node in ray.nodes() if node["Alive"]])
    cores, gpus = int(resources.get("CPU", 0)), int(resources.get("GPU", 0))
    each = threads or max(cores // workers, 1)
    if cores < workers * each:
        raise UsageError(
            "the Ray cluster has too few cores",
            where="--workers",
            value=f"{workers} workers with {each} cores each, of {cores}",
            fix="fewer workers, fewer --threads for each, or more machines",
        )
    if device == "cuda" and gpus < workers:
        raise DeviceError(
            "the Ray cluster has too few GPUs",
            where="--device",
            value=f"{gpus} for {workers} workers",
            fix="fewer workers, more machines with a GPU, or --device cpu",
        )
    name: DeviceName = "cpu" if device == "cpu" or gpus < workers else "cuda"
    why = "asked for" if device != "auto" else f"the cluster has {gpus} GPUs for {workers} workers"
    reason = f"{why}; on Ray, workers: {workers}, cores of each: {each}, machines: {machines}"
    return DeviceChoice(name, reason), each
