"""Work in the background: what a slow disk is asked for, and what becomes of an error."""

from __future__ import annotations

import asyncio
import threading
import time

from gpuscalp.live.background import Background


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
