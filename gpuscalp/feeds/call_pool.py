"""Threads for calls that may hang: a name server or a disk that does not answer holds up no process's end.

Owns: that nobody waits for such a thread for ever. A thread of ``concurrent.futures`` is waited for when the
interpreter ends, whatever was asked of its pool, and asyncio waits for those that look up names.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any, TypeVar, final

T = TypeVar("T")


@final
class CallPool(ThreadPoolExecutor):  # asyncio takes no other class for its own calls
    """A pool whose threads end with the process.

    Parameters
    ----------
    most : threads at once
    name : of the threads
    patience_s : how long a ``shutdown`` that waits waits at the most
    """

    def __init__(self, most: int, name: str, *, patience_s: float = 5.0) -> None:
        super().__init__(most, name)  # it begins no thread before it is given work, and is given none
        self._most, self._name, self._patience_s = most, name, patience_s
        self._jobs: SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = SimpleQueue()
        self._lock = threading.Lock()
        self._workers: list[threading.Thread] = []
        self._open_count = 0  # jobs that have not ended
        self._closed = False

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        future: Future[T] = Future()
        with self._lock:
            if self._closed:
                raise RuntimeError("cannot schedule new futures after shutdown")
            self._jobs.put((future, partial(fn, *args, **kwargs)))
            self._open_count += 1
            if len(self._workers) < min(self._most, self._open_count):
                name = f"{self._name}_{len(self._workers)}"
                self._workers.append(threading.Thread(target=self._work, name=name, daemon=True))
                self._workers[-1].start()
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        with self._lock:
            self._closed = True
            if cancel_futures:
                self._cancel()
            for _ in self._workers:
                self._jobs.put(None)
        until_s = time.monotonic() + self._patience_s if wait else 0.0
        for worker in self._workers if wait else ():
            worker.join(max(0.0, until_s - time.monotonic()))

    def _cancel(self) -> None:
        try:
            while True:
                if (job := self._jobs.get_nowait()) is not None:
                    job[0].cancel()
        except Empty:
            return

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            future, call = job
            if future.set_running_or_notify_cancel():
                try:
                    result = call()
                except BaseException as error:
                    future.set_exception(error)
                else:
                    future.set_result(result)
            with self._lock:
                self._open_count -= 1
            del job, future, call


def look_up_apart() -> None:
    """Let the running loop look up names, and what else it leaves to threads, where no end waits for ever."""
    asyncio.get_running_loop().set_default_executor(CallPool(8, "asyncio"))
