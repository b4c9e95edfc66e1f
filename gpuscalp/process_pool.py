"""Processes that work for this one, and end when it does, however it ends.

Owns: how they begin, that no signal of the terminal or of a service's stop reaches them, their end, and the
words for one that has died. Never: chooses what they do, or how many there are.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any, Final, NoReturn

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


@contextmanager
def stopped_as_interrupted() -> Iterator[None]:
    """Let SIGTERM interrupt the block as Ctrl-C does, at once, so that what it has begun is ended.

    Otherwise SIGTERM would end the process, unless that is a command, and be forgotten where a library lets
    it go. And Ctrl-C would wait for the next ``await`` of a coroutine: asyncio takes it from Python's own
    handler, and from no other.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # signals are handled by the main thread only
        return
    before = {signal.SIGTERM: signal.getsignal(signal.SIGTERM)}
    outer, ctrl_c = before[signal.SIGTERM], signal.getsignal(signal.SIGINT)
    # A block inside another one notes for both.
    stop = outer if isinstance(outer, _Stop) else _Stop()
    # A process that a shell has put into the background hears none.
    if ctrl_c in (signal.default_int_handler, stop):
        before[signal.SIGINT] = ctrl_c
    for number in before:
        signal.signal(number, stop)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def hear_stops(stop: Callable[[str], object]) -> None:
    """Let SIGINT, SIGTERM and SIGHUP (the terminal is closed) be heard by the running loop, by their names.

    One that whoever began this process lets it ignore stays ignored. Not in the main thread none is heard.
    """
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        with suppress(ValueError, RuntimeError):  # not the main thread
            if signal.getsignal(number) is not signal.SIG_IGN:
                loop.add_signal_handler(number, stop, signal.Signals(number).name)


def interrupt_if_stopped() -> None:
    """Interrupt a block of ``stopped_as_interrupted`` that has been told to stop, and went on.

    An interrupt is lost in a callback of which Python passes no error on, and where a library catches it.

    Raises
    ------
    KeyboardInterrupt    a signal has come since the outermost block began
    """
    stop = signal.getsignal(signal.SIGTERM)
    if isinstance(stop, _Stop) and stop.wanted:
        raise KeyboardInterrupt


class _Stop:
    """Takes SIGTERM as Ctrl-C, and notes that one of them came."""

    def __init__(self) -> None:
        self.wanted = False

    def __call__(self, number: int, frame: FrameType | None) -> NoReturn:
        self.wanted = True
        signal.default_int_handler(number, frame)


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
