"""What every worker of a distributed training needs, and how it opens the recording.

Owns: the check that a worker has the same data and the same programs as the one who sent it. Never: sends
data: workers read the archive where they are, under the same path.
"""

from __future__ import annotations

import functools
import platform
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import numpy as np

from gpuscalp import __version__
from gpuscalp.archive import Archive
from gpuscalp.config import TrainConfig
from gpuscalp.errors import GpuscalpError, UsageError
from gpuscalp.train.source import ArchiveSource


@dataclass(frozen=True, slots=True)
class Job:
    """One training, as it is sent to workers.

    Attributes
    ----------
    archive : directory, on every machine
    digest : of the data, as the bundle will name them
    versions : of what decides the numbers
    device : "cpu" or "cuda"
    threads : of each worker
    """

    archive: Path
    config: TrainConfig
    start_ns: int | None
    end_ns: int | None
    digest: str
    versions: tuple[tuple[str, str], ...]
    device: str
    threads: int

    def open(self, chunk_bytes: int | None = None) -> ArchiveSource:
        """Return the whole recording, on this machine (``ArchiveSource.open``).

        Raises
        ------
        UsageError    data or programs are not those of the one who sent the job
        """
        if self.versions != versions():
            raise UsageError(
                "a machine of the cluster has other versions",
                where=platform.node(),
                value=_differing(versions(), self.versions),
                fix="install the same versions on all machines (constraints.txt)",
            )
        source = ArchiveSource.open(
            _archive(self.archive),
            self.config,
            start_ns=self.start_ns,
            end_ns=self.end_ns,
            threads=self.threads,
            device=self.device,
            chunk_bytes=chunk_bytes,
        )
        if source.digest() != self.digest:
            raise UsageError(
                "a machine of the cluster has another archive under this path",
                where=f"{self.archive} on {platform.node()}",
                fix="let all machines see the same archive (a shared file system, or copies of it)",
            )
        return source


def versions() -> tuple[tuple[str, str], ...]:
    """Return the versions of what decides the numbers."""
    return (
        ("gpuscalp", __version__),
        ("numpy", np.__version__),
        ("python", platform.python_version()),
        ("xgboost", _xgboost_version()),
    )


def _xgboost_version() -> str:
    """Return the version without importing it: that takes seconds, and most tasks have no use for it."""
    for build in ("xgboost", "xgboost-cpu", "xgboost-cu12"):
        try:
            return metadata.version(build)
        except metadata.PackageNotFoundError:
            continue
    return "none"


@functools.lru_cache(maxsize=1)
def _archive(path: Path) -> Archive:
    """Open an archive once for all tasks of a worker: that looks at every file of it."""
    try:
        return Archive.open(path)
    except GpuscalpError as error:
        raise UsageError(
            "a machine of the cluster cannot open the archive",
            where=f"{path} on {platform.node()}",
            value=str(error),
            fix="let all machines see the same archive (a shared file system, or copies of it)",
        ) from None


def _differing(ours: tuple[tuple[str, str], ...], theirs: tuple[tuple[str, str], ...]) -> str:
    return ", ".join(
        f"{name} {here} instead of {there}"
        for (name, here), (_, there) in zip(ours, theirs, strict=True)
        if here != there
    )
