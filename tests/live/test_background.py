"""Beside a session's work: what a slow disk is asked for, what becomes of errors, what signals end it."""

from __future__ import annotations

import asyncio
import signal
import threading
import time
from types import SimpleNamespace
from typing import Any, cast

import pytest

from gpuscalp.live.background import Background
from gpuscalp.live.runner import Runner


async def test_a_slow_disk_is_asked_for_one_of_each_kind_at_a_time() -> None:
    """What was due while it worked waited behind it, ever more of it: a status file that was minutes old, and
    a ``halt`` that was answered after all of that."""
    free, done = threading.Event(), []
    disk = Background("disk", done.append)
    for round_ in range(100):
        disk.do("sync", lambda: (free.wait(), done.append("sync"))[1])
        disk.do("status_file", lambda round_=round_: done.append(round_))
    assert disk.age_ns("sync") > 0
    assert disk.age_ns("checkpoint") == 0
    waiting = asyncio.get_running_loop().run_in_executor(disk.pool, time.monotonic_ns)
    free.set()
    await waiting
    assert done == ["sync", 0]
    disk.do("status_file", lambda: done.append("again"))
    disk.pool.shutdown(wait=True)
    assert done[2:] == ["again"]
    assert (disk.age_ns("sync"), disk.age_ns("status_file")) == (0, 0)


async def test_what_fails_is_told_in_the_loops_thread_and_may_be_tried_again() -> None:
    told: list[tuple[BaseException, int]] = []

    def fail() -> None:
        raise OSError(5, "Input/output error")

    disk = Background("disk", lambda error: told.append((error, threading.get_ident())))
    for _ in range(2):
        disk.do("sync", fail)
        await asyncio.get_running_loop().run_in_executor(disk.pool, int)
    await asyncio.sleep(0)
    disk.pool.shutdown()
    assert [(str(error), thread) for error, thread in told] == [
        ("[Errno 5] Input/output error", threading.get_ident())
    ] * 2


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("ignored", [False, True])
def test_a_session_hears_the_signals_that_whoever_began_it_has_not_ignored(
    number: signal.Signals, ignored: bool
) -> None:
    """A terminal that was closed ended it as a kill does; under nohup, or behind ``&``, it goes on."""
    stopped: asyncio.Queue[str] = asyncio.Queue()

    async def hear() -> str:
        Runner.watch_signals(cast(Any, SimpleNamespace(stop=stopped.put_nowait)))
        if signal.getsignal(number) is signal.SIG_IGN:
            return ""
        signal.raise_signal(number)
        return await stopped.get()

    def unheard(*_: object) -> None:
        raise AssertionError("the session does not hear it")

    before = signal.signal(number, signal.SIG_IGN if ignored else unheard)
    try:
        assert asyncio.run(hear()) == ("" if ignored else number.name)
    finally:
        signal.signal(number, before)
