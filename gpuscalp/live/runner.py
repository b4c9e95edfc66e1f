"""The loop of a live session: sockets and time on one side, the engine's thread on the other.

Owns: the tasks, what is due when, latencies. Never: decides anything, or writes to a session's files except
through it. The feed never waits for the engine: messages are written and decoded on the loop's thread, and
the engine works on its own, one batch at a time.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from random import random
from typing import Any, Final, final

from gpuscalp.config import LiveConfig
from gpuscalp.feeds.client import FeedClient
from gpuscalp.feeds.clock import ClockOffset
from gpuscalp.feeds.messages import DepthSnapshot
from gpuscalp.feeds.rest import RestClient, RestReply
from gpuscalp.feeds.routes import Endpoint
from gpuscalp.latency import LatencyHistogram, Stage
from gpuscalp.live import heap
from gpuscalp.live.commands import Commands
from gpuscalp.live.control import ControlServer, write_status
from gpuscalp.live.engine import Outcome
from gpuscalp.live.gpu_watch import GpuWatch
from gpuscalp.live.health import Health
from gpuscalp.live.market import Work
from gpuscalp.live.records import SignalRecord
from gpuscalp.live.session import Session
from gpuscalp.live.snapshots import Snapshots
from gpuscalp.live.status import status_of
from gpuscalp.live.timekeeper import Timekeeper, exchange_clock
from gpuscalp.schema import NS_PER_MS, NS_PER_S

_TICK_S: Final = 0.002
_HEALTH_NS: Final = 250 * NS_PER_MS
# The engine's thread must not wait long for the interpreter while the loop decodes.
_SWITCH_S: Final = 0.0002


@final
class Runner:
    """Runs one session until it is stopped.

    Parameters
    ----------
    session : open; closed at the end
    config : as the session's, with the URLs of this run
    endpoints : connections to be kept, redundant ones included
    rest : the venue's REST calls
    clock : our clock's offset; the runner feeds it
    on_status : told the status now and then, for a terminal
    gpu : over the GPUs of the session, if it has any; started and stopped with it

    Attributes
    ----------
    latency : by stage
    failure : what ended the session, if not a stop
    last_status : the newest
    busy : the engine works; what it changes must not be read now
    """

    def __init__(
        self,
        session: Session,
        config: LiveConfig,
        endpoints: Sequence[Endpoint],
        rest: RestClient,
        clock: ClockOffset,
        *,
        on_status: Callable[[dict[str, Any]], None] | None = None,
        gpu: GpuWatch | None = None,
    ) -> None:
        self.session, self.latency, self.clock = session, LatencyHistogram(), clock
        self.failure: BaseException | None = None
        self.stop_reason = ""
        self.last_status: dict[str, Any] = {}
        self._config, self._rest, self._on_status, self._gpu = config, rest, on_status, gpu
        self._streams = tuple(dict.fromkeys(name for each in endpoints for name in each.streams))
        self._endpoints = tuple(endpoints)
        self._symbols = [each.symbol for each in session.about.instruments]
        self._health = Health(self._symbols, self._streams)
        self._now = exchange_clock(clock, lambda: session.market.exch_ns)
        self._engine = ThreadPoolExecutor(1, "engine")
        self._calls = ThreadPoolExecutor(3, "rest")
        self._disk = ThreadPoolExecutor(1, "disk")
        self._slow = ThreadPoolExecutor(1, "checkpoint")  # the journal's fsync must not wait for it
        self._timekeeper = Timekeeper(session, config, clock, rest, self._calls)
        self.busy = False
        self._newest_ns = 0
        self._stopping = asyncio.Event()
        self._started_ns = time.monotonic_ns()
        self._due: dict[str, int] = {}
        self._settled = self._owed = False  # the heap, and a checkpoint
        self._snapshots = Snapshots(
            rest,
            self._calls,
            self._on_snapshot,
            monotonic=time.monotonic_ns,
            symbol_count=len(self._symbols),
            weight_per_minute=config.feed.weight_per_minute,
        )
        self._client = FeedClient(
            self._endpoints,
            config.feed,
            _Receiver(self),
            wall=time.time_ns,
            monotonic=time.monotonic_ns,
            jitter=random,
        )
        self._commands = Commands(session, self, self._disk)
        self._control = ControlServer(session.path, self._commands.answer)

    async def run(self, seconds: float | None = None) -> None:
        """Run until stopped, for some seconds, or until something fails; then close the session.

        Raises
        ------
        GpuscalpError    what it failed of: the disk, an overload, a bit that differs
        """
        before = sys.getswitchinterval()
        sys.setswitchinterval(_SWITCH_S)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            with contextlib.suppress(ValueError, RuntimeError):  # not the main thread
                loop.add_signal_handler(number, self.stop, signal.Signals(number).name)
        self._lose_old_connections()
        heap.settle()
        await self._control.start()
        if self._gpu is not None:
            self._gpu.start()
        tasks = [
            asyncio.create_task(work) for work in (self._client.run(), self._tick(), self._timekeeper.watch())
        ]
        for task in tasks:
            task.add_done_callback(self._ended)
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._stopping.wait()
            self.stop_reason = self.stop_reason or "time is up"
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self._snapshots.close()
            if self._gpu is not None:
                self._gpu.stop()
            await self._finish()
            await self._control.close()
            for pool in (self._engine, self._calls, self._disk, self._slow):
                pool.shutdown(wait=True, cancel_futures=True)
            sys.setswitchinterval(before)
            heap.release()
        if self.failure is not None:
            raise self.failure

    def stop(self, reason: str) -> None:
        """Ask for the end."""
        self.stop_reason = self.stop_reason or reason
        self._stopping.set()

    @property
    def stopping(self) -> bool:
        """Whether the end has been asked for."""
        return self._stopping.is_set()

    def status(self) -> dict[str, Any]:
        """Return how things stand."""
        return status_of(
            self.session,
            self._client,
            self.clock,
            self.latency,
            uptime_s=(time.monotonic_ns() - self._started_ns) / NS_PER_S,
            exch_ns=self._now(),
            snapshots=self._snapshots,
            gpu=None if self._gpu is None else self._gpu.status(),
        )

    # Messages

    def on_messages(self, number: int, recv_ns: int, messages: list[bytes]) -> None:
        began = time.perf_counter_ns()
        session = self.session
        self.guarded(lambda: session.on_messages(number, recv_ns, messages))
        newest_ns = session.market.exch_ns
        if newest_ns > self._newest_ns:
            self._newest_ns = newest_ns
            self.clock.on_event(recv_ns, newest_ns)
            offset_ns = self.clock.offset_ns
            if offset_ns is not None:
                self.latency.add(Stage.RECEIVE, max(0, recv_ns + offset_ns - newest_ns), len(messages))
        self.latency.add(
            Stage.DECODE, (time.perf_counter_ns() - began) // max(1, len(messages)), len(messages)
        )
        self.kick()

    def _on_snapshot(self, reply: RestReply, snapshot: DepthSnapshot) -> str:
        fate = ""

        def take() -> None:
            nonlocal fate
            fate = self.session.on_snapshot(reply, snapshot)

        self.guarded(take)
        return fate

    # Work for the engine

    def kick(self, *, force: bool = False) -> None:
        """Give the engine its next batch, if it waits for one and one is due."""
        if not self.busy and self.failure is None:
            self.guarded(lambda: self._give(force=force))

    def _give(self, *, force: bool) -> None:
        now_ns = time.time_ns()
        work = self.session.take(self._now(), now_ns, force=force)
        if work is None:
            return
        self.busy = True
        self._commands.given()
        future = self._engine.submit(self.session.engine.step, work, self._now)
        loop = asyncio.get_running_loop()
        future.add_done_callback(lambda done: loop.call_soon_threadsafe(self._done, work, now_ns, done))

    def _done(self, work: Work, taken_ns: int, done: Future[Outcome]) -> None:
        self.busy = False
        if (error := done.exception()) is not None:
            self._fail(error)
            return
        outcome = done.result()
        began = time.perf_counter_ns()
        self.guarded(lambda: self.session.apply(outcome, time.time_ns()))
        if self.failure is not None:
            return
        if outcome.frames and work.recv_ns:
            self.latency.add(Stage.BATCH, taken_ns - work.recv_ns)
            self.latency.add(Stage.ORDER, time.perf_counter_ns() - began)
            self.latency.add(Stage.TOTAL, time.time_ns() - work.recv_ns)
        self._measure(outcome)
        self._commands.answered(outcome.answers)
        if outcome.frames and self._owed:  # now: everything stands still, and the next frame is farthest away
            self.guarded(self._checkpoint)
        self.kick(force=self._commands.waiting)

    def _measure(self, outcome: Outcome) -> None:
        latency = self.latency
        for _, body in outcome.records:
            if isinstance(body, SignalRecord):
                features_ns, predict_ns, gate_ns = body.stages_ns
                latency.add(Stage.FEATURES, features_ns)
                latency.add(Stage.PREDICT, predict_ns)
                latency.add(Stage.GATE, gate_ns)

    # Time

    async def _tick(self) -> None:
        """Do what is due."""
        config, session = self._config, self.session
        while True:
            await asyncio.sleep(_TICK_S)
            now_ns = time.time_ns()
            self.guarded(partial(session.poll, now_ns))
            self.guarded(partial(self._timekeeper.close_frames, now_ns))
            if self._is_due("flush", config.journal.flush_ms * NS_PER_MS):
                self.guarded(session.flush)
            if self._is_due("sync", config.journal.sync_ms * NS_PER_MS):
                self._in_background(partial(session.journal.settle, *session.journal.pending_sync()))
            if self._is_due("health", _HEALTH_NS):
                device = () if self._gpu is None else self._gpu.reasons()
                session.on_health(self._health.judge(self._client, self.clock, device), now_ns)
                self._snapshots.poll(session.market.ingest.unsynced())
            self._owed |= self._is_due("checkpoint", round(config.session.checkpoint_s * NS_PER_S))
            if self._is_due("status", config.session.status_ms * NS_PER_MS):
                self._tell()
            self.kick()

    def _is_due(self, what: str, every_ns: int) -> bool:
        """Whether something has not been done for so long; the first time counts from the start."""
        now_ns = time.monotonic_ns()
        due_ns = self._due.setdefault(what, now_ns + every_ns)
        if now_ns < due_ns:
            return False
        self._due[what] = now_ns + every_ns
        return True

    def _checkpoint(self) -> None:
        session = self.session
        if not self._settled:
            self._settled = True  # once more: by now the books are there
            heap.settle()
        self._owed = False
        content, seq = session.checkpoint()
        pending = session.journal.pending_sync()

        def write() -> None:
            # The journal first: a checkpoint that is ahead of it would be worth nothing.
            session.journal.settle(*pending)
            name, digest = session.checkpoints.write(content, seq)
            session.store.tidy()
            loop.call_soon_threadsafe(session.note_checkpoint, name, digest, time.time_ns())

        loop = asyncio.get_running_loop()
        self._in_background(write, self._slow)

    def _tell(self) -> None:
        if self.busy:  # the engine is changing what the status reads: a moment later
            self._due["status"] = time.monotonic_ns()
            return
        status = self.status()
        self._in_background(lambda: write_status(self.session.path, status))
        if self._on_status is not None:
            self._on_status(status)

    # Beginning and end

    def _lose_old_connections(self) -> None:
        for number in sorted(self.session.open_connections):
            self.session.on_lost(number, time.time_ns(), "the process has ended")

    async def _finish(self) -> None:
        """Let the engine come to its end, then write everything down."""
        while self.busy:
            await asyncio.sleep(_TICK_S)
        self._commands.give_up()  # there are some only after a failure
        # A checkpoint that is being written has to be noted while there is a journal.
        await asyncio.get_running_loop().run_in_executor(self._slow, int)
        session, clean = self.session, self.failure is None
        try:
            if clean:
                content, seq = session.checkpoint()
                session.journal.sync()
                name, digest = session.checkpoints.write(content, seq)
                session.note_checkpoint(name, digest, time.time_ns())
            self.last_status = self.status() | {"running": False, "reason": self.stop_reason}
            write_status(session.path, self.last_status)
        finally:
            session.close(now_ns=time.time_ns(), clean=clean)

    def guarded(self, action: Callable[[], None]) -> None:
        """Do something that must succeed for the session to go on."""
        try:
            action()
        except Exception as error:  # a defect of ours least of all may go on unseen
            self._fail(error)

    def _ended(self, task: asyncio.Task[None]) -> None:
        """A task that ends before it is told to takes the session with it: nobody else does its work."""
        if not task.cancelled() and (error := task.exception()) is not None:
            self._fail(error)

    def _fail(self, error: BaseException) -> None:
        """Nothing may go on: what cannot be written must not be acted upon."""
        if self.failure is None:
            self.failure = error
            self.stop(f"failed: {error}")

    def _in_background(self, action: Callable[[], None], pool: ThreadPoolExecutor | None = None) -> None:
        loop = asyncio.get_running_loop()

        def done(future: Future[None]) -> None:
            error = future.exception() if not future.cancelled() else None
            if error is not None:
                loop.call_soon_threadsafe(self._fail, error)

        (pool or self._disk).submit(action).add_done_callback(done)


@final
class _Receiver:
    """The session as the feed's receiver, with the measuring around it."""

    def __init__(self, runner: Runner) -> None:
        self._runner, self._session = runner, runner.session

    def on_open(self, number: int, endpoint: Endpoint, now_ns: int) -> None:
        self._runner.guarded(lambda: self._session.on_open(number, endpoint, now_ns))

    def on_messages(self, number: int, recv_ns: int, messages: list[bytes]) -> None:
        self._runner.on_messages(number, recv_ns, messages)

    def on_lost(self, number: int, now_ns: int, reason: str) -> None:
        self._runner.guarded(lambda: self._session.on_lost(number, now_ns, reason))

    def joined(self, number: int) -> bool:
        return self._session.joined(number)
