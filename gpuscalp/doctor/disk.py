"""The disk under a session: room, and how long it takes to make a write durable.

Owns: the checks ``disk_space`` and ``disk_latency``. Never: leaves a file behind.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Final

from gpuscalp.config import JournalConfig
from gpuscalp.doctor.check import Check, fail, ok, warn
from gpuscalp.schema import NS_PER_MS, NS_PER_S

# Segments (256 MiB) that must fit. Two: the one being written and the next. Forty, 10 GiB, are hours of a
# few busy symbols.
SEGMENTS_FAIL: Final = 2
SEGMENTS_WARN: Final = 40
# A session makes some hundreds: segments, checkpoints, logs, models.
FILES_MIN: Final = 1_000
SYNC_COUNT: Final = 20
SYNC_BYTES: Final = 64 << 10  # about what 200 ms of a busy market take in the journal
_SYNC_LIMIT_NS: Final = NS_PER_S
_FORGETFUL: Final = frozenset({"tmpfs", "ramfs"})
# Their locks hold between processes of one machine, or not at all; the journal relies on its lock.
_DISTANT: Final = frozenset({"nfs", "nfs4", "cifs", "smb3", "9p", "fuse.sshfs", "afs"})


@dataclass(frozen=True, slots=True)
class Disk:
    """``folder``: where it was measured: the session's, or the nearest one above that is there.

    ``free_files``: that may be made; None: the file system does not count them.
    ``refusal``: why it could not be written to; ``sync_ns``: durations of write and fsync, in order.
    """

    folder: Path
    file_system: str | None
    free_bytes: int
    sync_ns: tuple[int, ...] = ()
    refusal: str | None = None
    free_files: int | None = None


def read_disk(
    folder: Path, *, clock: Callable[[], int] = time.monotonic_ns, mounts: Path = Path("/proc/self/mountinfo")
) -> Disk:
    """Write and sync a nameless file a few times, for a second at the most.

    Parameters
    ----------
    folder : of the session; need not be there yet
    clock : ns
    mounts : the kernel's list of file systems
    """
    place = folder.absolute()
    while not place.is_dir() and place != place.parent:
        place = place.parent
    file_system = _file_system(place, mounts)
    figures = os.statvfs(place)
    found = Disk(
        place,
        file_system,
        figures.f_bavail * figures.f_frsize,
        free_files=figures.f_favail if figures.f_files else None,
    )
    try:
        return replace(found, sync_ns=_sync_times(place, clock))
    except OSError as error:
        return replace(found, refusal=error.strerror or str(error))


def check_space(disk: Disk, journal: JournalConfig) -> Check:
    """Compare the room with segments of the journal."""
    value = {
        "folder": str(disk.folder),
        "file_system": disk.file_system,
        "free_bytes": disk.free_bytes,
        "free_files": disk.free_files,
    }
    title = f"{disk.free_bytes / 2**30:.1f} GiB free in {disk.folder}"
    if disk.file_system in _FORGETFUL:
        fix = "choose a folder on a disk: a restart of the machine would lose the journal"
        return warn("disk_space", f"{disk.folder} lies in memory ({disk.file_system})", fix, value)
    if disk.free_bytes < SEGMENTS_FAIL * journal.segment_bytes:
        fix = "make room, choose another folder, or lower journal.segment_bytes"
        return fail(
            "disk_space", f"{title}: not enough for {SEGMENTS_FAIL} segments of the journal", fix, value
        )
    if disk.free_files is not None and disk.free_files < FILES_MIN:
        fix = "remove files (df -i counts them), or choose another folder"
        return fail("disk_space", f"only {disk.free_files} files more fit into {disk.folder}", fix, value)
    if disk.free_bytes < SEGMENTS_WARN * journal.segment_bytes:
        return warn("disk_space", f"{title}: enough for hours only", "make room", value)
    if disk.file_system in _DISTANT:
        fix = "choose a folder on a disk of this machine: locks and fsync are not reliable over a network"
        return warn("disk_space", f"{disk.folder} lies on a network ({disk.file_system})", fix, value)
    return ok("disk_space", title, value)


def check_latency(disk: Disk, journal: JournalConfig) -> Check:
    """Compare the time of an fsync with the promise of the journal."""
    if disk.refusal is not None:
        fix = "correct the permissions, or choose another folder"
        return fail("disk_latency", f"nothing can be written in {disk.folder}: {disk.refusal}", fix)
    middle_ms = median(disk.sync_ns) / NS_PER_MS
    worst_ms = max(disk.sync_ns) / NS_PER_MS
    value = {"median_ms": middle_ms, "worst_ms": worst_ms, "count": len(disk.sync_ns)}
    title = f"fsync takes {middle_ms:.1f} ms, at worst {worst_ms:.1f} ms"
    if worst_ms > journal.sync_ms:
        fix = "choose a faster disk, or raise journal.sync_ms and accept that a power cut loses more"
        return warn(
            "disk_latency", f"{title}, longer than journal.sync_ms ({journal.sync_ms} ms)", fix, value
        )
    return ok("disk_latency", title, value)


def _sync_times(folder: Path, clock: Callable[[], int]) -> tuple[int, ...]:
    data = os.urandom(SYNC_BYTES)
    taken: list[int] = []
    with tempfile.TemporaryFile(dir=folder, buffering=0) as file:
        begin_ns = clock()
        while len(taken) < SYNC_COUNT and (not taken or clock() - begin_ns < _SYNC_LIMIT_NS):
            before_ns = clock()
            file.write(data)
            os.fsync(file.fileno())
            taken.append(clock() - before_ns)
    return tuple(taken)


def _file_system(folder: Path, mounts: Path) -> str | None:
    """Return the type of the file system that a folder lies on: that of the longest mount point above it."""
    try:
        lines = mounts.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return None
    best, kind = Path("/"), None
    for line in lines:
        fields, _, rest = line.partition(" - ")
        words = fields.split()
        if len(words) < 5 or not rest:
            continue
        point = Path(words[4].replace("\\040", " "))
        # Of two on the same point the later one covers the earlier.
        if folder.is_relative_to(point) and len(point.parts) >= len(best.parts):
            best, kind = point, rest.split()[0]
    return kind
