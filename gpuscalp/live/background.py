"""Work that nobody waits for, in a thread of its own: of each kind one at a time.

Owns: that a disk which takes longer than it is given is not asked for ever more, and since when it works.
Never: does what a session may not go on without and not say so.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import final


@final
class Background:
    """One thread.

    Parameters
    ----------
    name : of the thread
    failed : told in the loop's thread of what went wrong

    Attributes
    ----------
    pool : for those who do wait; shut down by the owner
    """

    def __init__(self, name: str, failed: Callable[[BaseException], None]) -> None:
        self.pool = ThreadPoolExecutor(1, name)
        self._failed = failed
        self._since_ns: dict[str, int] = {}

    def do(self, what: str, action: Callable[[], None]) -> None:
        """Do something when its turn comes; nothing where the same is not done yet."""
        if what in self._since_ns:
            return
        loop = asyncio.get_running_loop()

        def done(future: Future[None]) -> None:
            self._since_ns.pop(what)
            error = future.exception() if not future.cancelled() else None
            if error is not None:
                loop.call_soon_threadsafe(self._failed, error)

        self._since_ns[what] = time.monotonic_ns()
        self.pool.submit(action).add_done_callback(done)

    def age_ns(self, what: str) -> int:
        """Return for how long something has waited and been done; 0 where it is not to be done."""
        since_ns = self._since_ns.get(what)
        return 0 if since_ns is None else time.monotonic_ns() - since_ns
