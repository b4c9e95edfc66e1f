"""The loop of a live session: a source and time on one side, the engine's thread on the other.

Owns: the tasks, what is due when, latencies. Never: decides anything, or writes to a session's files except
through it. The source never waits for the engine: what comes is written and decoded on the loop's thread, and
the engine works on its own, one batch at a time.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any, Final, TypeVar, final

from msgspec.structs import replace

from gpuscalp.config import LiveConfig
from gpuscalp.errors import UnprotectedError, UsageError
from gpuscalp.latency import LatencyHistogram, Stage
from gpuscalp.live import heap
from gpuscalp.live.background import Background
from gpuscalp.live.commands import Commands
from gpuscalp.live.control import ControlServer, write_status
from gpuscalp.live.engine import Outcome
from gpuscalp.live.gpu_watch import GpuWatch
from gpuscalp.live.market import Work
from gpuscalp.live.monitor import Monitor
from gpuscalp.live.narration import Narrator
from gpuscalp.live.onlookers import Harmless, Onlookers
from gpuscalp.live.placement import Placement
from gpuscalp.live.probes import LOOP_S, Pulse
from gpuscalp.live.rule_watch import RuleWatch
from gpuscalp.live.saving import Saving
from gpuscalp.live.session import Session
from gpuscalp.live.source import TIME_IS_UP, Source
from gpuscalp.live.status import status_of
from gpuscalp.live.succession import Succession
from gpuscalp.logs import LogWriter
from gpuscalp.schema import NS_PER_MS, NS_PER_S
from gpuscalp.stop_signals import hear_stops

T = TypeVar("T")

_LOG: Final = logging.getLogger("gpuscalp.session")
_TICK_S: Final = 0.002
_HEALTH_NS: Final = 250 * NS_PER_MS
# What the disk has not confirmed for so long a power cut would take: nothing is opened on it any more.
_DISK_NS: Final = 10 * NS_PER_S
DISK_HANGS: Final = "disk:hangs"
# The engine's thread must not wait long for the interpreter while the loop decodes.
_SWITCH_S: Final = 0.0002


@final
class Runner:
    """Runs one session until it is stopped.

    Parameters
    ----------
    session : open; closed at the end
    config : as the session's
    source : of its inputs; closed at the end
    on_status : told the status now and then, for a terminal
    gpu : over the GPUs of the session, if it has any; started and stopped with it
    logs : where the session's log goes, if it has any
    rules : of the symbols at the venue; None: nobody watches them
    pulse, onlookers : told that the loop comes round, and of what fails beside it

    Attributes
    ----------
    latency : by stage
    failure : what ended the session, if not a stop
    monitor : what is measured beyond the session's own state
    last_status, detail : the newest, and what is too long for it (``Monitor.detail``)
    use : changes what the session predicts with (``gpuscalp.live.commands.Commands.use``)
    busy : the engine works; what it changes must not be read now
    """

    def __init__(
        self,
        session: Session,
        config: LiveConfig,
        source: Source,
        *,
        on_status: Callable[[dict[str, Any]], None] | None = None,
        gpu: GpuWatch | None = None,
        logs: LogWriter | None = None,
        pulse: Pulse | None = None,
        onlookers: Onlookers | None = None,
        rules: RuleWatch | None = None,
    ) -> None:
        self.session, self.latency = session, LatencyHistogram()
        self.monitor = Monitor(session, self.latency, config.promotion)
        self._onlookers = onlookers or Onlookers()
        session.engine.watcher = Harmless(self.monitor, self._onlookers)
        self.failure: BaseException | None = None
        self.stop_reason = ""
        self.last_status: dict[str, Any] = {}
        self.detail: dict[str, Any] = {}
        self._config, self._source, self._on_status, self._gpu = config, source, on_status, gpu
        self._rules = rules or RuleWatch((), "", None)
        self._logs, self._pulse = logs, pulse or Pulse(time.monotonic_ns())
        self._narrator = Narrator(
            session.about.session_id, [each.symbol for each in session.about.instruments]
        )
        self._engine = ThreadPoolExecutor(1, "engine")
        self._placement = Placement(session.path, self._engine)
        self._disk = Background("disk", self._fail)
        self._slow = Background("checkpoint", self._fail)  # the journal's fsync must not wait for it
        # Untold: a status is due. Unasked: the same of what is done with the models.
        self.busy = self._forced = self._untold = self._unasked = False
        self._stopping = asyncio.Event()
        self._started_ns = time.monotonic_ns()
        self._due: dict[str, int] = {}
        self._saving = Saving(session, self._onlookers, self._slow, guarded=self.guarded)
        self._commands = Commands(session, self, source, self._disk.pool)
        self.use = self._commands.use
        self._succession = Succession(session, config, self.monitor, self.use)
        self._control = ControlServer(session.path, self._commands.answer)

    async def run(self, seconds: float | None = None) -> None:
        """Run until stopped, for some seconds, or until something fails; then close the session.

        Raises
        ------
        GpuscalpError    what it failed of: the disk, an overload, a bit that differs
        """
        start = self.session.start
        _LOG.info("runs: %s", "new" if start.fresh else f"{start.repeated} records were repeated")
        if start.torn_bytes:
            _LOG.warning(
                "a crash had left %d bytes at the journal's end, which were cut off", start.torn_bytes
            )
        try:
            async with contextlib.AsyncExitStack() as ending:  # each step, whatever becomes of the others
                ending.callback(heap.release)
                ending.callback(sys.setswitchinterval, sys.getswitchinterval())
                for pool in (self._slow.pool, self._disk.pool, self._engine):
                    ending.callback(pool.shutdown, wait=True, cancel_futures=True)
                ending.push_async_callback(self._control.close)
                ending.push_async_callback(self._finish)
                ending.push_async_callback(self._source.close)
                await self._run(seconds)
        except Exception as error:
            self._fail(error)
        if left := self._source.unprotected():
            bare = UnprotectedError.of(left, self.session.path, self.failure)
            _LOG.error("%s", bare)
            raise bare from self.failure
        if self.failure is not None:
            raise self.failure

    async def _run(self, seconds: float | None) -> None:
        tasks: list[asyncio.Task[None]] = []
        try:
            self._pulse.phase, self._pulse.beat_ns = "running", time.monotonic_ns()
            sys.setswitchinterval(_SWITCH_S)
            self.watch_signals()
            self._source.attach(self)
            heap.settle()
            await self._control.start()
            if self._gpu is not None:
                self._gpu.start()
            works = (self._source.run(), self._tick(), self._rules.watch())
            tasks += [asyncio.create_task(work) for work in works]
            for task in tasks:
                task.add_done_callback(self._ended)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._stopping.wait()
            self.stop_reason = self.stop_reason or TIME_IS_UP
        except Exception as error:
            self._fail(error)
        finally:
            self._pulse.phase = "stopping"
            self._stopping.set()  # time may be up: from now on no command is taken
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            if self._gpu is not None:
                self._gpu.stop()

    def watch_signals(self) -> None:
        """End the session by the signals that it does not ignore."""
        hear_stops(self.stop)

    def stop(self, reason: str) -> None:
        """Ask for the end."""
        if not self.stop_reason:
            _LOG.info("stops: %s", reason)
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
            self.latency,
            self.monitor,
            uptime_s=(time.monotonic_ns() - self._started_ns) / NS_PER_S,
            exch_ns=self._source.now(),
            source=self._source.status(),
            succession=self._succession.status(),
            gpu=None if self._gpu is None else self._gpu.status(),
            logs=None if self._logs is None else self._logs.status(),
            onlookers=self._onlookers,
        )

    def set_log_level(self, level: str, logger: str) -> dict[str, str]:
        """Set the level of a part of the program; return those that are set.

        Raises
        ------
        UsageError    there is no such level, or this session has no log
        """
        if self._logs is None:
            raise UsageError("this session has no log", where=str(self.session.path))
        self._logs.set_level(level, logger)
        _LOG.info("level of %s: %s", logger, level)
        return self._logs.levels()

    # Work for the engine

    def kick(self, *, force: bool = False) -> None:
        """Give the engine its next batch, if it waits for one and one is due."""
        self._forced |= force
        if not (self.busy or self._commands.looking) and self.failure is None:
            force, self._forced = self._forced, False
            self.guarded(lambda: self._give(force=force))

    def _give(self, *, force: bool) -> None:
        now_ns = time.time_ns()
        work = self.session.take(self._source.now(), now_ns, force=force)
        if work is None:
            return
        self._commands.given()
        step = partial(self.session.engine.step, work, self._source.now)
        self._let_work(step, partial(self._done, work, now_ns))

    def _let_work(self, job: Callable[[], T], then: Callable[[T], None]) -> None:
        """Do something in the engine's thread, and then something here."""
        loop = asyncio.get_running_loop()

        def done(future: Future[T]) -> None:
            self.busy = False
            self._pulse.working_ns = 0
            if (error := future.exception()) is not None:
                self._fail(error)
            else:
                self.guarded(lambda: then(future.result()))

        self.busy = True
        self._pulse.working_ns = time.monotonic_ns()
        self._engine.submit(job).add_done_callback(lambda future: loop.call_soon_threadsafe(done, future))

    def _done(self, work: Work, taken_ns: int, outcome: Outcome) -> None:
        began, look_on = time.perf_counter_ns(), self._onlookers.run
        self.session.apply(outcome, time.time_ns())
        self._source.send()
        self._rules.on_reports(work.reports)
        self._commands.answered(outcome)
        if outcome.frames and work.recv_ns:
            self.latency.add(Stage.BATCH, taken_ns - work.recv_ns)
            self.latency.add(Stage.ORDER, time.perf_counter_ns() - began)
            self.latency.add(Stage.TOTAL, time.time_ns() - work.recv_ns)
        look_on("monitor", partial(self.monitor.on_work, work, outcome))
        look_on("log", partial(self._narrator.tell, outcome))
        if self.session.engine.whole_waits:
            # Now that the frame's orders have left. The next batch waits for it, and so does the status.
            whole = partial(look_on, "whole", self.session.engine.predict_whole)
            self._let_work(whole, lambda _: self._rest(outcome))
        else:
            self._rest(outcome)

    def _rest(self, outcome: Outcome) -> None:
        """Do what needs the engine at rest, and let it go on."""
        if outcome.frames:  # now: everything stands still, and the next frame is farthest away
            if self._saving.owed:
                self._saving.save()
            if self._untold:
                self._tell()
            self._pulse.frame_done.set()
        if self._unasked:
            self._succeed()
        self.kick(force=self._commands.waiting)

    # Time

    async def _tick(self) -> None:
        """Do what is due."""
        config, session = self._config, self.session
        while True:
            await asyncio.sleep(_TICK_S)
            now_ns = time.time_ns()
            beat_ns, self._pulse.beat_ns = self._pulse.beat_ns, time.monotonic_ns()
            if (stood_s := (self._pulse.beat_ns - beat_ns) / NS_PER_S) > LOOP_S:
                _LOG.warning("stood still for %.1f s: stopped, starved, or held up by the disk", stood_s)
            self.guarded(partial(self._source.poll, now_ns))
            if self._is_due("flush", config.journal.flush_ms * NS_PER_MS):
                self.guarded(session.flush)
            if self._is_due("sync", config.journal.sync_ms * NS_PER_MS):
                self._disk.do("sync", partial(session.journal.settle, *session.journal.pending_sync()))
            if self._is_due("health", _HEALTH_NS):
                device = () if self._gpu is None else self._gpu.reasons()
                if self._disk.age_ns("sync") > _DISK_NS:
                    device += (DISK_HANGS,)
                session.on_health(replace(self._source.health(device), rules=self._rules.closed), now_ns)
                self._onlookers.run("placement", self._placement.poll)
                self._unasked = True
                if not self.busy:
                    self._succeed()
            self._saving.owed |= self._is_due("checkpoint", round(config.session.checkpoint_s * NS_PER_S))
            if self._is_due("status", config.session.status_ms * NS_PER_MS):
                if self._untold:  # no frame has closed since it was due
                    self._tell()
                self._untold = True
            self.kick()

    def _succeed(self) -> None:
        """Look after the models, now that the engine rests: one that is always behind rests nowhere else."""
        self._unasked = False
        self.guarded(partial(self._succession.poll, time.time_ns()))

    def _is_due(self, what: str, every_ns: int) -> bool:
        """Whether something has not been done for so long; the first time counts from the start."""
        now_ns = time.monotonic_ns()
        due_ns = self._due.setdefault(what, now_ns + every_ns)
        if now_ns < due_ns:
            return False
        self._due[what] = now_ns + every_ns
        return True

    def _tell(self) -> None:
        if self.busy:  # the engine is changing what the status reads: a moment later
            self._due["status"] = time.monotonic_ns()
            return
        self._untold = False
        self._onlookers.run("status", self._look)

    def _look(self) -> None:
        self._renew()
        written = partial(write_status, self.session.path, self.last_status)
        self._disk.do("status_file", partial(self._onlookers.run, "status_file", written))
        if self._on_status is not None:
            self._onlookers.run("terminal", partial(self._on_status, self.last_status))
        self.detail = self.monitor.detail(self._source.stream_ages_s())

    def _renew(self) -> None:
        self.last_status = self.status()

    # Beginning and end

    async def _finish(self) -> None:
        """Let the engine come to its end, then write everything down."""
        while self.busy:
            await asyncio.sleep(_TICK_S)
        self._commands.give_up()
        self.guarded(self._succession.close)
        # A checkpoint has to be noted while there is a journal; the last status must come last.
        for pool in (self._slow.pool, self._disk.pool):
            await asyncio.get_running_loop().run_in_executor(pool, int)
        session, look_on = self.session, self._onlookers.run
        if self.failure is None:
            self.guarded(session.journal.sync)
        if clean := self.failure is None:
            self._saving.save_last()
        look_on("status", self._renew)
        self.last_status = self.last_status | {"running": False, "reason": self.stop_reason}
        look_on("status_file", partial(write_status, session.path, self.last_status))
        self.guarded(partial(session.close, now_ns=time.time_ns(), clean=clean))

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
            _LOG.error("failed", exc_info=error)
            self.stop(f"failed: {error}")
