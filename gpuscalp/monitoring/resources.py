"""What the process and its machine use, as the system counts it.

Owns: the reading. What a system does not tell is None.
"""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path
from typing import Any, Final

_MEMORY: Final = Path("/proc/meminfo")
_OWN: Final = Path("/proc/self/statm")


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
    machine = _memory()
    return {
        "cpu_s": round(time.process_time(), 3),
        "memory_bytes": _resident_bytes(),
        "cpus": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "machine_memory_bytes": machine.get("MemTotal"),
        "machine_memory_available_bytes": machine.get("MemAvailable"),
        "disk_bytes": disk.total,
        "disk_free_bytes": disk.free,
    }


def _resident_bytes() -> int | None:
    try:
        return int(_OWN.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return None


def _memory() -> dict[str, int]:
    try:
        lines = _MEMORY.read_text().splitlines()[:3]
    except OSError:
        return {}
    return {name: int(rest.split()[0]) << 10 for name, _, rest in (line.partition(":") for line in lines)}
