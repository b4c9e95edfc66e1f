"""What a process in the background may take of the machine.

Owns: the limits, how each is set, and the words for what does not fit. The limits hold for the whole process
and can not be taken back, so only a process that does nothing else calls this, before it loads or starts
anything that has threads.
"""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from gpuscalp.errors import GpuscalpError, is_out_of_memory

_NICEST: Final = 19
# The first that the kernel ends where memory runs out.
_OOM_SCORE: Final = "1000"
# Of one thread of OpenBLAS.
_BLAS_BUFFER_BYTES: Final = 32 << 20


@dataclass(frozen=True, slots=True)
class Caps:
    """What was set.

    Attributes
    ----------
    cores : processors that it may run on
    memory_mb : of data, MiB
    idle : it runs only while nobody else wants its processors; its disk traffic waits in the same way
    """

    cores: tuple[int, ...]
    memory_mb: int
    idle: bool


def confine(cores: int, memory_mb: int) -> Caps:
    """Confine this process.

    Parameters
    ----------
    cores : at most so many processors, the last ones of those that it may use
    memory_mb : of data, MiB; a larger allocation fails. Address space that is only reserved does not count,
        nor do files: NumPy and XGBoost allocate what counts, a CUDA driver and a thread's stack what does not

    Notes
    -----
    ``RLIMIT_DATA`` counts private writable memory (Linux 4.7 and later). ``RLIMIT_AS`` was rejected because
    threads and CUDA reserve far more than they use. ``SCHED_IDLE`` gives the processor up within a scheduler
    tick when anything else wants it; a nice value of 19 alone would keep 1.5 % of it, and its wake-ups. Where
    Linux shares out between sessions of processes first (sched(7), autogroup) both count within one only: a
    process that leads a session makes the whole of it nice. In a terminal it would be the shell's as well.
    """
    kept = os.sched_getaffinity(0)
    chosen = tuple(sorted(kept)[-cores:])
    os.sched_setaffinity(0, chosen)
    os.setpriority(os.PRIO_PROCESS, 0, _NICEST)
    idle = False
    with suppress(OSError):  # a container may forbid it
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
        idle = True
    if os.getsid(0) == os.getpid():
        with suppress(OSError):
            Path("/proc/self/autogroup").write_text(str(_NICEST))
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(_OOM_SCORE)
    size = memory_mb << 20
    hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
    size = size if hard == resource.RLIM_INFINITY else min(size, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (size, size))
    return Caps(chosen, size >> 20, idle)


@contextmanager
def fitting(caps: Caps) -> Iterator[None]:
    """Tell what does not fit into the memory of this process as what it is.

    Raises
    ------
    GpuscalpError    it does not
    """
    try:
        yield
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        raise GpuscalpError(
            "the training does not fit into the memory that it may use",
            where="--memory-mb",
            value=f"{caps.memory_mb:,} MiB",
            fix="raise it (of a session: memory_mb in [retraining]), or take fewer hours (--train-hours)",
        ) from None


def take_blas_buffers(caps: Caps) -> None:
    """Let NumPy's and SciPy's BLAS take their buffers while there is room: to be called before data are read.

    OpenBLAS takes them at its first use and asks again for ever where it gets none: under a limit the process
    would compute until somebody ends it.

    Raises
    ------
    MemoryError    there is no room
    """
    import numpy as np
    from scipy.linalg import blas

    # Large enough: on newer processors products of small matrices have kernels that need no buffer.
    square = np.ones((256, 256))
    for multiply in (np.matmul, lambda a, b: blas.dgemm(1.0, a, b)):  # each has a library of its own
        np.empty((len(caps.cores) + 1) * _BLAS_BUFFER_BYTES, np.uint8)  # raises
        multiply(square, square)
