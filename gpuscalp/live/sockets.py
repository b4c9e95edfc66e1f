"""The market of a session from sockets of our own: connections, book snapshots, the venue's time.

Owns: what a paper session is fed with (``gpuscalp.live.source.Source``). Never: decides anything.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from functools import partial
from random import random
from typing import Any, final

from gpuscalp.config import LiveConfig
from gpuscalp.errors import UsageError
from gpuscalp.execution.reconcile import Rule
from gpuscalp.feeds.call_pool import CallPool
from gpuscalp.feeds.client import FeedClient
from gpuscalp.feeds.clock import ClockOffset
from gpuscalp.feeds.messages import DepthSnapshot
from gpuscalp.feeds.rest import RestClient, RestReply
from gpuscalp.feeds.routes import Endpoint
from gpuscalp.latency import Stage
from gpuscalp.live.health import Health
from gpuscalp.live.off_tick import OffTick
from gpuscalp.live.records import Command, HealthRecord
from gpuscalp.live.session import Session
from gpuscalp.live.snapshots import Snapshots, brings_changes
from gpuscalp.live.source import Driver
from gpuscalp.live.status import clock_status, feed_status
from gpuscalp.live.timekeeper import Timekeeper
from gpuscalp.schema import NS_PER_MS


@final
class SocketSource:
    """Feeds a session from the venue's streams.

    Parameters
    ----------
    session : is fed
    config : as the session's, with the URLs of this run
    endpoints : connections to be kept, redundant ones included
    rest : the venue's REST calls
    clock : our clock's offset; fed here
    """

    def __init__(
        self,
        session: Session,
        config: LiveConfig,
        endpoints: Sequence[Endpoint],
        rest: RestClient,
        clock: ClockOffset,
    ) -> None:
        self.clock = clock
        self._session = session
        streams = tuple(dict.fromkeys(name for each in endpoints for name in each.streams))
        symbols = [each.symbol for each in session.about.instruments]
        self._health = Health(symbols, streams)
        self._off_tick = OffTick(session.about.instruments, session.market.ingest.off_ticks())
        self._calls = CallPool(3, "rest")
        self._timekeeper = Timekeeper(session, config, clock, rest, self._calls)
        self._newest_ns = 0
        self._snapshots = Snapshots(
            rest,
            self._calls,
            self._on_snapshot,
            monotonic=time.monotonic_ns,
            symbols=symbols,
            renew_ns=config.feed.rotate_ms * NS_PER_MS if brings_changes(config.feed.streams) else 0,
            weight_per_minute=config.feed.weight_per_minute,
        )
        self._client = FeedClient(
            tuple(endpoints),
            config.feed,
            self,
            wall=time.time_ns,
            monotonic=time.monotonic_ns,
            jitter=random,
        )

    def attach(self, driver: Driver) -> None:
        self._driver = driver
        for number in sorted(self._session.open_connections):
            self._session.on_lost(number, time.time_ns(), "the process has ended")

    async def run(self) -> None:
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._client.run())
                tasks.create_task(self._timekeeper.watch())
        except BaseExceptionGroup as group:
            raise group.exceptions[0] from None

    def now(self) -> int:
        return self._timekeeper.now()

    def poll(self, now_ns: int) -> None:
        self._driver.guarded(partial(self._session.poll, now_ns))
        self._driver.guarded(partial(self._timekeeper.close_frames, now_ns))

    def health(self, device: tuple[str, ...]) -> HealthRecord:
        ingest = self._session.market.ingest
        self._snapshots.poll(ingest.unsynced(), ingest.near_edge())
        off_tick = self._off_tick.judge(ingest.off_ticks(), time.monotonic_ns())
        return self._health.judge(self._client, self.clock, device, off_tick)

    def send(self) -> None:
        """The paper broker has been given everything by the session."""

    def objection(self, command: Command) -> str:  # noqa: ARG002
        return ""

    async def take_over(self, rule: Rule) -> str:
        raise UsageError("a paper session shares its account with nobody", where=f"gpuscalp adopt ({rule})")

    def status(self) -> dict[str, Any]:
        return {
            "feeds": feed_status(self._session, self._client, self._snapshots),
            "clock": clock_status(self._session, self.clock),
        }

    def unprotected(self) -> str:
        return ""  # paper is at no exchange

    def stream_ages_s(self) -> dict[str, float]:
        return self._client.stream_ages_s()

    async def close(self) -> None:
        await self._snapshots.close()
        # A call that hangs (a name server that does not answer) keeps nobody from writing down the end.
        self._calls.shutdown(wait=False, cancel_futures=True)

    # The feed's receiver

    def on_open(self, number: int, endpoint: Endpoint, now_ns: int) -> None:
        self._driver.guarded(lambda: self._session.on_open(number, endpoint, now_ns))

    def on_messages(self, number: int, recv_ns: int, messages: list[bytes]) -> None:
        began = time.perf_counter_ns()
        session, latency = self._session, self._driver.latency
        self._driver.guarded(lambda: session.on_messages(number, recv_ns, messages))
        newest_ns = session.market.exch_ns
        if newest_ns > self._newest_ns:
            self._newest_ns = newest_ns
            self.clock.on_event(recv_ns, newest_ns)
            offset_ns = self.clock.offset_ns
            if offset_ns is not None:
                latency.add(Stage.RECEIVE, max(0, recv_ns + offset_ns - newest_ns), len(messages))
        latency.add(Stage.DECODE, (time.perf_counter_ns() - began) // max(1, len(messages)), len(messages))
        self._driver.kick()

    def on_lost(self, number: int, now_ns: int, reason: str) -> None:
        self._driver.guarded(lambda: self._session.on_lost(number, now_ns, reason))

    def joined(self, number: int) -> bool:
        return self._session.joined(number)

    def _on_snapshot(self, reply: RestReply, snapshot: DepthSnapshot) -> str:
        fate = ""

        def take() -> None:
            nonlocal fate
            fate = self._session.on_snapshot(reply, snapshot)

        self._driver.guarded(take)
        return fate
