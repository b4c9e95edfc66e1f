"""Processes that work for this one, and end when it does, however it ends.

Owns: how they begin, that no signal of the terminal or of a service's stop reaches them, their end, and the
words for one that has died. Never: chooses what they do, or how many there are.
"""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import Any, Final

from gpuscalp.errors import GpuscalpError, is_out_of_memory
from gpuscalp.lifeline import end_with

# The parent ends them itself.
_OURS: Final = (signal.SIGINT, signal.SIGTERM)
# A process that was killed is gone at once, unless it waits for a disk.
_END_S: Final = 10.0

Submit = Callable[..., Future[Any]]


@contextmanager
def process_pool(count: int, *, where: str, fix: str) -> Iterator[Submit]:
    """Give a function that has a call done by one of ``count`` processes, and returns its future.

    However the block ends, no process is left. After an exception none of them has gone on: what they write
    must be whole or not at all.

    Parameters
    ----------
    where, fix : of the error where memory runs out: in a process, or so that the kernel ends one

    Raises
    ------
    GpuscalpError    memory ran out, or a process died
    """
    # Spawned: a fork of a process with running threads (OpenMP, NumPy) may never come back.
    pool = ProcessPoolExecutor(count, multiprocessing.get_context("spawn"), initializer=_end_with_parent)

    def submit(call: Callable[..., Any], *arguments: Any) -> Future[Any]:
        # A process is started here, and inherits what is blocked, already while it imports.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _OURS)
        try:
            return pool.submit(call, *arguments)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    try:
        yield submit
    except Exception as error:
        _end(pool)
        died = isinstance(error, BrokenProcessPool)
        if not (died or is_out_of_memory(error)):
            raise
        raise GpuscalpError(
            "a process was ended, most often because memory ran out" if died else "memory ran out",
            where=where,
            value=f"{count} processes",
            fix=fix,
        ) from None
    except BaseException:
        _end(pool)
        raise
    pool.shutdown()


def _end(pool: ProcessPoolExecutor) -> None:
    """Kill the processes and see them gone: what they have begun would go on for minutes."""
    processes = list((getattr(pool, "_processes", None) or {}).values())
    for process in processes:
        process.kill()
    for process in processes:
        process.join(_END_S)
    pool.shutdown(wait=False, cancel_futures=True)


def _end_with_parent() -> None:
    """End this process when its parent is gone, which cannot say so where it was killed."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    end_with(parent.sentinel)
