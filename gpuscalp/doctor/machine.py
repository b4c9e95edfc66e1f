"""What this machine leaves a session: cores, memory, open files.

Owns: the checks ``cpu``, ``memory`` and ``open_files``. Never: looks at a disk (``gpuscalp.doctor.disk``).

A container may use less than the machine has; its limits stand in the control groups (version 2, or 1).
"""

from __future__ import annotations

import resource
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from gpuscalp.device import core_count
from gpuscalp.doctor.check import Check, fail, ok, skip, warn

# One core for the sockets, the journal and the frames, one for everything else on the machine.
CORES_MIN: Final = 2
LOAD_MAX: Final = 0.8  # of the cores: above it batches wait for a core
# The imports of a session alone take 100 MiB (docs/doctor.md); rings, model and buffers come on top.
MEMORY_FAIL_BYTES: Final = 256 << 20
MEMORY_WARN_BYTES: Final = 1 << 30
# Interpreter, libraries, journal, event loop, database, with room.
FILES_OWN: Final = 64
_NO_LIMIT_BYTES: Final = 1 << 60  # control groups of version 1 say "none" by a huge number


@dataclass(frozen=True, slots=True)
class Machine:
    """None: there is no limit, or the system does not tell.

    ``quota_cores``: what a container may use; ``load_1min``: runnable threads, mean of a minute.
    """

    core_count: int
    quota_cores: float | None
    load_1min: float | None
    memory_bytes: int | None  # that can be had without swapping
    files_soft: int
    files_hard: int


def read_machine(proc: Path = Path("/proc"), cgroup: Path = Path("/sys/fs/cgroup")) -> Machine:
    """Read the facts from the kernel's own files."""
    load = _words(proc / "loadavg")
    available = _meminfo_bytes(proc / "meminfo", "MemAvailable:")
    room = _cgroup_room_bytes(cgroup)
    known = [each for each in (available, room) if each is not None]
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return Machine(
        core_count=core_count(),
        quota_cores=_quota_cores(cgroup),
        load_1min=float(load[0]) if load else None,
        memory_bytes=min(known) if known else None,
        files_soft=soft if soft >= 0 else _NO_LIMIT_BYTES,
        files_hard=hard if hard >= 0 else _NO_LIMIT_BYTES,
    )


def check_cpu(machine: Machine) -> Check:
    """Compare cores with what a session keeps busy, and with what others use of them."""
    cores = float(machine.core_count)
    if machine.quota_cores is not None:
        cores = min(cores, machine.quota_cores)
    value = {
        "core_count": machine.core_count,
        "quota_cores": machine.quota_cores,
        "load_1min": machine.load_1min,
    }
    title = f"{cores:g} cores"
    if cores < CORES_MIN:
        fix = (
            f"give it {CORES_MIN} cores (taskset, docker --cpus): frames are late while another program runs"
        )
        return warn("cpu", title, fix, value)
    if machine.load_1min is None:
        return ok("cpu", title, value)
    title += f", load {machine.load_1min:.2f}"
    if machine.load_1min > LOAD_MAX * cores:
        return warn("cpu", f"{title}: the machine is busy", "end what else runs here (top shows it)", value)
    return ok("cpu", title, value)


def check_memory(machine: Machine) -> Check:
    """Compare the memory that can be had with what a session takes."""
    if machine.memory_bytes is None:
        return skip("memory", "the system does not tell how much memory is available")
    title = f"{machine.memory_bytes / 2**30:.1f} GiB available"
    value = {"available_bytes": machine.memory_bytes}
    fix = "end other programs, or raise the limit of the container (docker --memory)"
    if machine.memory_bytes < MEMORY_FAIL_BYTES:
        return fail("memory", f"{title}, less than a session takes", fix, value)
    if machine.memory_bytes < MEMORY_WARN_BYTES:
        return warn("memory", f"{title}: little", fix, value)
    return ok("memory", title, value)


def check_open_files(machine: Machine, *, socket_count: int) -> Check:
    """Compare the limit with what a session opens.

    Parameters
    ----------
    socket_count : connections of the feed; twice as many are open while they are rotated
    """
    needed = FILES_OWN + 2 * socket_count
    value = {"soft": machine.files_soft, "hard": machine.files_hard, "needed": needed}
    if machine.files_soft >= needed:
        return ok("open_files", f"{machine.files_soft} may be open, {needed} are needed", value)
    fix = f"ulimit -n {needed}"
    if machine.files_hard < needed:
        fix += ", after raising the hard limit (limits.conf, LimitNOFILE, docker --ulimit nofile)"
    what = f"only {machine.files_soft} files may be open, {needed} are needed"
    return fail("open_files", what, fix, value)


def _quota_cores(cgroup: Path) -> float | None:
    words = _words(cgroup / "cpu.max")
    if not words:
        words = [
            *_words(cgroup / "cpu" / "cpu.cfs_quota_us"),
            *_words(cgroup / "cpu" / "cpu.cfs_period_us"),
        ]
    if len(words) != 2 or words[0] in ("max", "-1"):
        return None
    return int(words[0]) / int(words[1])


def _cgroup_room_bytes(cgroup: Path) -> int | None:
    """Return what a container may still take; what is only cached files can be dropped and counts as room."""
    for limit, used, stat, cached in (
        ("memory.max", "memory.current", "memory.stat", "inactive_file"),
        (
            "memory/memory.limit_in_bytes",
            "memory/memory.usage_in_bytes",
            "memory/memory.stat",
            "total_inactive_file",
        ),
    ):
        most, taken = _words(cgroup / limit), _words(cgroup / used)
        if not most or not taken or most[0] == "max" or int(most[0]) >= _NO_LIMIT_BYTES:
            continue
        words = _words(cgroup / stat)
        freeable = int(words[words.index(cached) + 1]) if cached in words else 0
        return max(0, int(most[0]) - int(taken[0]) + freeable)
    return None


def _meminfo_bytes(path: Path, name: str) -> int | None:
    words = _words(path)
    return int(words[words.index(name) + 1]) << 10 if name in words else None


def _words(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="ascii", errors="replace").split()
    except OSError:
        return []
