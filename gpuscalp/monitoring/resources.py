"""What the process and its machine use, as the system counts it.

Owns: the reading. What a system does not tell is None.
"""

from __future__ import annotations

import os
import resource
import shutil
import sys
import time
from pathlib import Path
from typing import Any, Final

from gpuscalp.device import core_count

_MEMORY: Final = Path("/proc/meminfo")
_OWN: Final = Path("/proc/self/statm")
_OWN_PEAK: Final = Path("/proc/self/status")


def read_resources(path: Path) -> dict[str, Any]:
    """Return what is used now.

    Parameters
    ----------
    path : on the disk that matters

    Returns
    -------
    dict with ``cpu_s`` (of the process, all threads, since its start), ``memory_bytes`` (resident), ``cpus``
    (that the process may use), ``machine_memory_bytes``, ``machine_memory_available_bytes``, ``disk_bytes``
    and ``disk_free_bytes``
    """
    disk = shutil.disk_usage(path)
    machine = _kibibytes(_MEMORY, "MemTotal", "MemAvailable")
    return {
        "cpu_s": round(time.process_time(), 3),
        "memory_bytes": resident_bytes(),
        "cpus": core_count(),
        "machine_memory_bytes": machine.get("MemTotal"),
        "machine_memory_available_bytes": machine.get("MemAvailable"),
        "disk_bytes": disk.total,
        "disk_free_bytes": disk.free,
    }


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
