"""Taking times fairly: warm, interleaved, and reported as medians."""

from __future__ import annotations

import gc
import itertools
import os
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from gpuscalp.progress import Progress


def step_by_step(told: Progress, total: int) -> Callable[[str], None]:
    """Return what is called before each of ``total`` steps, with its name."""
    done = itertools.count()
    return lambda name: told(next(done), total, name)


def interleaved(
    tasks: Mapping[str, Callable[[], object]], *, repeats: int, begin: Callable[[str], None] | None = None
) -> dict[str, float]:
    """Run every task once per round, ``repeats`` rounds after one that is not counted.

    ``begin`` is told the name of each task before it is run, outside of its time.

    Returns
    -------
    dict of name → median wall time, s. Rounds interleave the tasks, so that a slow spell of the machine
    falls on all of them.
    """
    taken: dict[str, list[float]] = {name: [] for name in tasks}
    for turn in range(repeats + 1):
        for name, task in tasks.items():
            if begin is not None:
                begin(name)
            gc.collect()
            start = time.perf_counter()
            task()
            if turn:
                taken[name].append(time.perf_counter() - start)
    return {name: statistics.median(times) for name, times in taken.items()}


@contextmanager
def on_one_core() -> Iterator[None]:
    """Keep this thread on one core while the block runs, where the system can."""
    affinity = os.sched_getaffinity(0) if hasattr(os, "sched_setaffinity") else None
    if affinity:
        os.sched_setaffinity(0, {min(affinity)})
    try:
        yield
    finally:
        if affinity:
            os.sched_setaffinity(0, affinity)
