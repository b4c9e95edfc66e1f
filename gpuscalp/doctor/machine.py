"""What this machine leaves a session: cores, memory, open files.

Owns: the checks ``cpu``, ``memory`` and ``open_files``. Never: looks at a disk (``gpuscalp.doctor.disk``).

A container may use less of the processors than the machine has; that stands in the control groups (version 2,
or 1), as its limit of memory does (``gpuscalp.monitoring.resources``).
"""

from __future__ import annotations

import resource
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from gpuscalp.device import core_count
from gpuscalp.doctor.check import Check, fail, ok, skip, warn
from gpuscalp.monitoring.resources import read_memory, words_in

# One core for the sockets, the journal and the frames, one for everything else on the machine.
CORES_MIN: Final = 2
LOAD_MAX: Final = 0.8  # of the cores: above it batches wait for a core
# The imports of a session alone take 100 MiB; rings, model and buffers come on top.
MEMORY_FAIL_BYTES: Final = 256 << 20
MEMORY_WARN_BYTES: Final = 1 << 30
# Interpreter, libraries, journal, event loop, database, with room.
FILES_OWN: Final = 64
_NO_LIMIT: Final = 1 << 60


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
    load = words_in(proc / "loadavg")
    memory = read_memory(proc, cgroup)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return Machine(
        core_count=core_count(),
        quota_cores=_quota_cores(cgroup),
        load_1min=float(load[0]) if load else None,
        memory_bytes=None if memory is None else memory.available_bytes,
        files_soft=soft if soft >= 0 else _NO_LIMIT,
        files_hard=hard if hard >= 0 else _NO_LIMIT,
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
    words = words_in(cgroup / "cpu.max")
    if not words:
        words = [
            *words_in(cgroup / "cpu" / "cpu.cfs_quota_us"),
            *words_in(cgroup / "cpu" / "cpu.cfs_period_us"),
        ]
    if len(words) != 2 or words[0] in ("max", "-1"):
        return None
    return int(words[0]) / int(words[1])
