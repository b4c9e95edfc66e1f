"""Training: from an archive to a bundle.

``train_archive`` opens the archive and the configuration; ``train`` takes any source of features. XGBoost,
SciPy and matplotlib are imported when they are needed, not with this package.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from gpuscalp.config import TrainConfig, load_given
from gpuscalp.device import RequestedDevice, core_count, resolve
from gpuscalp.progress import Progress, silent
from gpuscalp.train.device import training_device
from gpuscalp.train.result import FoldResult, TrainResult
from gpuscalp.train.run import train
from gpuscalp.train.source import ArchiveSource, FeatureSource

if TYPE_CHECKING:
    from gpuscalp.archive import Archive

__all__ = ["ArchiveSource", "FeatureSource", "FoldResult", "TrainResult", "train", "train_archive"]


def train_archive(
    archive: Path | str | Archive,
    out: Path | str,
    *,
    config: Path | str | TrainConfig | None = None,
    overrides: Mapping[str, object] | None = None,
    start_ns: int | None = None,
    end_ns: int | None = None,
    device: RequestedDevice = "auto",
    threads: int | None = None,
    gpu_memory_mb: int | None = None,
    overwrite: bool = False,
    on_progress: Progress = silent,
    warm_start: Path | str | None = None,
) -> TrainResult:
    """Train on an archive and write the bundle.

    Parameters
    ----------
    archive : directory, or an open Archive
    out : directory of the bundle
    config : TOML file, TrainConfig, or None for the defaults
    overrides : dotted key → value, before the configuration is checked; only with a file or None
    start_ns, end_ns : half-open, exchange time; None is open
    device, threads, gpu_memory_mb, overwrite, on_progress, warm_start : see ``train``

    Returns
    -------
    TrainResult

    Raises
    ------
    GpuscalpError
        of the kind that says what is wrong; nothing has been written then
    """
    from gpuscalp.archive import Archive

    config = load_given(TrainConfig, config, env=os.environ, overrides=overrides)
    opened = archive if isinstance(archive, Archive) else Archive.open(archive)
    name = resolve(device).name
    source = ArchiveSource.open(
        opened,
        config,
        start_ns=start_ns,
        end_ns=end_ns,
        threads=threads or core_count(),
        device=name,
        chunk_bytes=training_device(name, gpu_memory_mb=gpu_memory_mb).chunk_bytes,
    )
    return train(
        source,
        config,
        Path(out),
        device=device,
        threads=threads,
        gpu_memory_mb=gpu_memory_mb,
        overwrite=overwrite,
        on_progress=on_progress,
        warm_start=None if warm_start is None else Path(warm_start),
    )
