"""Calls that hang, and processes that end all the same."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest

from gpuscalp.feeds.call_pool import CallPool

HANGS = """
import asyncio, threading, time
from gpuscalp.feeds.call_pool import CallPool, look_up_apart

async def session():
    look_up_apart()
    loop = asyncio.get_running_loop()
    begun = threading.Event()
    def hang():
        begun.set()
        time.sleep(3_600)
    loop.run_in_executor(None, hang)          # as loop.getaddrinfo does
    calls = CallPool(1, "rest")
    calls.submit(hang)
    calls.shutdown(wait=False, cancel_futures=True)
    while not begun.is_set():
        await asyncio.sleep(0.01)

asyncio.run(session())
print("ended")
"""


@pytest.fixture
def pool() -> Iterator[CallPool]:
    made = CallPool(2, "calls", patience_s=60.0)
    yield made
    made.shutdown()


def test_a_process_ends_though_a_name_server_does_not_answer() -> None:
    """asyncio and the interpreter waited for the thread: for ever, on Python 3.11."""
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", HANGS], capture_output=True, text=True, timeout=300, check=True
    )
    assert done.stdout == "ended\n"
    assert time.monotonic() - began < 120


def test_it_answers_as_any_pool(pool: CallPool) -> None:
    def fail() -> None:
        raise ValueError("no")

    assert [each.result(60) for each in [pool.submit(pow, 2, number) for number in range(9)]] == [
        2**number for number in range(9)
    ]
    with pytest.raises(ValueError, match="no"):
        pool.submit(fail).result(60)
    assert list(pool.map(abs, (-1, -2))) == [1, 2]


def test_no_more_than_its_threads_work_at_once_and_what_waits_can_be_cancelled(pool: CallPool) -> None:
    go_on, working = threading.Event(), threading.Semaphore(0)

    def wait() -> str:
        working.release()
        go_on.wait(60)
        return threading.current_thread().name

    running = [pool.submit(wait) for _ in range(2)]
    for _ in running:
        assert working.acquire(timeout=60)
    waits = pool.submit(wait)
    pool.shutdown(wait=False, cancel_futures=True)
    assert waits.cancelled()
    go_on.set()
    assert sorted(each.result(60) for each in running) == ["calls_0", "calls_1"]
    with pytest.raises(RuntimeError, match="after shutdown"):
        pool.submit(wait)


def test_a_shutdown_waits_so_long_and_no_longer() -> None:
    go_on = threading.Event()
    pool = CallPool(1, "calls", patience_s=0.2)
    hangs = pool.submit(go_on.wait, 60)
    pool.shutdown()
    assert not hangs.done()
    go_on.set()
    assert hangs.result(60)
