"""Time in a live session: the exchange's, and the frames that only a clock can close.

Owns: when the server is asked for its time, which moment the clock may tell the session, and that no step of
our clock gets into it. Never: judges the estimate (gpuscalp.feeds.clock).
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Final, final

from gpuscalp.config import LiveConfig
from gpuscalp.errors import GpuscalpError
from gpuscalp.feeds.clock import ClockOffset
from gpuscalp.feeds.rest import RestClient
from gpuscalp.live.session import Session
from gpuscalp.schema import NS_PER_MS

_LOG: Final = logging.getLogger("gpuscalp.session")
# A few samples at once at the start: one may have had a bad way.
_FIRST_COUNT: Final = 5
_FIRST_S: Final = 0.05


def exchange_clock(clock: ClockOffset, newest: Callable[[], int]) -> Callable[[], int]:
    """Return a clock that tells our time, corrected; until it can be, the time of the newest message.

    An estimate that comes down does not make it go back: what is dated stays in order. One that runs ahead of
    the monotonic clock, and of the messages too, is a wall clock that was set: time goes on without it, or
    whatever is true would come too late until it has passed. (After a sleep of the machine the monotonic
    clock is behind; there the first message shows that the wall clock is right.)

    Any thread may ask: the engine's dates its decisions by it while the loop closes frames.
    """
    told = 0
    trusted: tuple[int, int] | None = None  # the last estimate that was, and when it was (monotonic)
    asking = threading.Lock()  # of two at once, the slower would take back what the other was told

    def now() -> int:
        nonlocal told, trusted
        with asking:
            exch_ns, now_ns, least_ns = clock.exchange_ns(time.time_ns()), time.monotonic_ns(), newest()
            if trusted is not None:
                least_ns = max(least_ns, trusted[0] + now_ns - trusted[1])
            if exch_ns is not None and (trusted is None or exch_ns - least_ns <= clock.limit_ns):
                trusted = (exch_ns, now_ns)
                least_ns = max(exch_ns, newest())
            told = max(told, least_ns)
            return told

    return now


@final
class Timekeeper:
    """Keeps a session's idea of time.

    Parameters
    ----------
    session : is told
    config : of this run
    clock : is fed
    rest : is asked, on ``executor``: it blocks

    Attributes
    ----------
    now : tells the exchange's time, which never goes back (``exchange_clock``)
    """

    def __init__(
        self, session: Session, config: LiveConfig, clock: ClockOffset, rest: RestClient, executor: Executor
    ) -> None:
        grid = session.bundle.contract.training.config.grid
        self.now = exchange_clock(clock, lambda: session.market.exch_ns)
        self._session, self._clock, self._rest, self._executor = session, clock, rest, executor
        self._interval_s = config.feed.clock_interval_ms / 1_000
        self._wait_ns = config.session.clock_close_ms * NS_PER_MS
        self._frame_ns, self._lateness_ns = grid.frame_ms * NS_PER_MS, grid.lateness_ms * NS_PER_MS

    async def watch(self) -> None:
        """Ask for the server's time now and then, until cancelled. A call that fails is one sample less."""
        loop, told = asyncio.get_running_loop(), False
        while True:
            wait_s = self._interval_s
            try:
                sample = await loop.run_in_executor(self._executor, self._rest.server_time)
                self._clock.on_server_time(*sample)
                told = False
                if self._clock.sample_count < _FIRST_COUNT:
                    wait_s = _FIRST_S
            except GpuscalpError as error:
                if not told:
                    _LOG.warning("the venue does not tell its time: %s", error)
                told = True
            await asyncio.sleep(wait_s)

    def close_frames(self, now_ns: int) -> None:
        """Let the clock close a frame that no message has closed.

        Not before the first message, and not by a clock that is not trusted.
        """
        newest_ns = self._session.market.exch_ns
        if not newest_ns or self._clock.has_drifted:
            return
        told_ns = self.now() - self._wait_ns
        if self._frame(told_ns) > self._frame(newest_ns):
            self._session.on_clock(told_ns, now_ns)

    def _frame(self, exch_ns: int) -> int:
        """Return the number of the first frame that a time leaves open."""
        return (exch_ns - self._lateness_ns) // self._frame_ns
