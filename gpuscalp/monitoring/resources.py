"""What the process and its machine use, as the system counts it.

Owns: the reading. What a system does not tell is None. A container may use less memory than the machine has;
its limit stands in the control groups (version 2, or 1).
"""

from __future__ import annotations

import os
import resource
import sys
import time
from pathlib import Path
from typing import Any, Final, NamedTuple

from gpuscalp.device import core_count

_PROC: Final = Path("/proc")
_CGROUP: Final = Path("/sys/fs/cgroup")
_NO_LIMIT_BYTES: Final = 1 << 60  # control groups of version 1 say "none" by a huge number
_OWN: Final = Path("/proc/self/statm")
_OWN_PEAK: Final = Path("/proc/self/status")


class Memory(NamedTuple):
    """What can be had without swapping, and of how much."""

    available_bytes: int
    bytes: int


def read_resources(path: Path) -> dict[str, Any]:
    """Return what is used now.

    Parameters
    ----------
    path : on the disk that matters

    Returns
    -------
    dict with ``cpu_s`` (of the process, all threads, since its start), ``memory_bytes`` (resident), ``cpus``
    (that the process may use), ``machine_memory_bytes``, ``machine_memory_available_bytes`` (of the
    container where that leaves less), ``disk_bytes``, ``disk_free_bytes`` and ``disk_free_ratio`` (of the
    bytes or of the files that fit onto it, whichever is the less)
    """
    disk = os.statvfs(path)
    # Some file systems (btrfs, many over a network) count no files.
    shares = [free / of for free, of in ((disk.f_bavail, disk.f_blocks), (disk.f_favail, disk.f_files)) if of]
    memory = read_memory()
    return {
        "cpu_s": round(time.process_time(), 3),
        "memory_bytes": resident_bytes(),
        "cpus": core_count(),
        "machine_memory_bytes": None if memory is None else memory.bytes,
        "machine_memory_available_bytes": None if memory is None else memory.available_bytes,
        "disk_bytes": disk.f_blocks * disk.f_frsize,
        "disk_free_bytes": disk.f_bavail * disk.f_frsize,
        "disk_free_ratio": min(shares, default=None),
    }


def read_memory(proc: Path = _PROC, cgroup: Path = _CGROUP) -> Memory | None:
    """Return the memory of the machine or of the container, whichever leaves less; None: nobody tells."""
    machine = _kibibytes(proc / "meminfo", "MemTotal", "MemAvailable")
    found = [_cgroup_memory(cgroup)]
    if len(machine) == 2:
        found.append(Memory(machine["MemAvailable"], machine["MemTotal"]))
    return min((each for each in found if each is not None), default=None)


def _cgroup_memory(cgroup: Path) -> Memory | None:
    """Return what a container has; what is only cached files can be dropped and counts as available."""
    for limit, used, stat, cached in (
        ("memory.max", "memory.current", "memory.stat", "inactive_file"),
        (
            "memory/memory.limit_in_bytes",
            "memory/memory.usage_in_bytes",
            "memory/memory.stat",
            "total_inactive_file",
        ),
    ):
        most, taken = words_in(cgroup / limit), words_in(cgroup / used)
        if not most or not taken or most[0] == "max" or int(most[0]) >= _NO_LIMIT_BYTES:
            continue
        words = words_in(cgroup / stat)
        freeable = int(words[words.index(cached) + 1]) if cached in words else 0
        return Memory(max(0, int(most[0]) - int(taken[0]) + freeable), int(most[0]))
    return None


def words_in(path: Path) -> list[str]:
    """Return the words of a file of the kernel; none where it is not there."""
    try:
        return path.read_text(encoding="ascii", errors="replace").split()
    except OSError:
        return []


def resident_bytes() -> int | None:
    """Return the resident memory of this process; None where the system does not tell."""
    try:
        return int(_OWN.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return None


def peak_resident_bytes() -> int:
    """Return the largest resident memory of this process so far."""
    own = _kibibytes(_OWN_PEAK, "VmHWM").get("VmHWM")
    if own is not None:
        return own
    # Where /proc does not tell. It counts what the program held that started this one by fork and exec, too.
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak << 10


def _kibibytes(path: Path, *names: str) -> dict[str, int]:
    """Return bytes by name from lines such as ``VmHWM:   123 kB``; empty where there is no such file."""
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return {}
    parted = (line.partition(":") for line in lines)
    return {name: int(rest.split()[0]) << 10 for name, _, rest in parted if name in names}
