"""Begin a live session, or go on with one, and run it until it is stopped.

Owns: what is put together for a run: exchange, clocks, log, metrics, workers, connections.
"""

from __future__ import annotations

import asyncio
import logging
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final, NoReturn

from gpuscalp.config import LiveConfig
from gpuscalp.crash import reported
from gpuscalp.device import RequestedDevice
from gpuscalp.errors import UsageError
from gpuscalp.exchange.faults import Fault
from gpuscalp.feeds.call_pool import look_up_apart
from gpuscalp.feeds.clock import ClockOffset
from gpuscalp.live.directory import SESSION_FILE, lock
from gpuscalp.live.embedded import embedded_defaults, market_of, served, train_embedded
from gpuscalp.live.gpu_watch import GpuWatch, open_watch
from gpuscalp.live.market import Work
from gpuscalp.live.observed import observed, refusal_told
from gpuscalp.live.onlookers import Onlookers
from gpuscalp.live.probes import Pulse
from gpuscalp.live.rule_watch import RuleWatch
from gpuscalp.live.runner import Runner
from gpuscalp.live.session import Session
from gpuscalp.live.start import Begun, Start, begin
from gpuscalp.live.timekeeper import exchange_clock
from gpuscalp.live.way import SocketWay, Way
from gpuscalp.live.workers import predicting
from gpuscalp.logs import LogWriter
from gpuscalp.monitoring.gpu_judgement import CardVerdict
from gpuscalp.monitoring.nvml import CardSample
from gpuscalp.progress import Progress, silent
from gpuscalp.redaction import keep_environment
from gpuscalp.rehearsal import open_source
from gpuscalp.stop_signals import interrupt_if_stopped, stopped_as_interrupted
from gpuscalp.warm import compile_missing
from gpuscalp.worker import WorkerFault

_LOG: Final = logging.getLogger("gpuscalp.session")


@stopped_as_interrupted()
def run_live(
    path: Path,
    config: LiveConfig | None,
    *,
    model: Path | None = None,
    device: RequestedDevice = "auto",
    seconds: float | None = None,
    embedded: bool = False,
    archive: Path | None = None,
    recordings: Sequence[Path] = (),
    faults: Sequence[Fault] = (),
    worker_faults: Sequence[WorkerFault] = (),
    seed: int = 7,
    told: Progress = silent,
    on_status: Callable[[dict[str, Any]], None] | None = None,
    way: Way | None = None,
) -> dict[str, Any]:
    """Run a session and return how it stood at its end.

    In the main thread SIGTERM ends the preparation as Ctrl-C does, and what it has begun is undone; from then
    on both are a clean stop.

    Parameters
    ----------
    path : directory of the session; new, or one to go on with
    config : None takes that of the session, or the defaults
    model : bundle; None takes that of the session, or with ``embedded`` trains a small one
    device : where features and predictions are computed
    seconds : None = until stopped
    embedded : against an exchange in this process
    archive, recordings, faults, seed : of the embedded exchange: its market and what goes wrong in it
    worker_faults : to be rehearsed by the first worker that predicts (docs/gpu.md)
    told : told how far the preparation is
    on_status : told the status while it runs
    way : to the exchange; None: sockets of our own, orders on paper

    Raises
    ------
    UsageError      no model was named, or the session is run by another process
    ConfigError     another configuration or another market than the session's own, or other tick or step
                    sizes of the venue
    ModelError      another model than the session's own, or one of another market than the venue
    FeedError       the venue cannot be reached
    ParityError, JournalError    as ``Session``
    """
    keep_environment(os.environ)
    if not embedded:
        chosen = SocketWay() if way is None else way
        return _run(Start(path, config, model, device, seconds, worker_faults, chosen), told, on_status)
    if way is not None:
        refuse_embedded("nautilus")
    fresh = not (path / SESSION_FILE).exists()
    if fresh and model is None and (archive is not None or recordings):
        raise UsageError("no model for this market", where="--model", fix="name a bundle of its symbols")
    if fresh and config is None:
        config = embedded_defaults(rehearsed=bool(worker_faults) and device == "cpu")
    source = open_source(archive=archive, recordings=recordings, seed=seed)
    with tempfile.TemporaryDirectory(prefix="gpuscalp-embedded-") as folder:
        if fresh and model is None:
            model = Path(folder) / "model"
            train_embedded(model, seed=seed, now_ns=time.time_ns(), told=told)
        with served(source, faults=faults, seed=seed) as urls:
            chosen = SocketWay(urls, market=market_of(source))
            return _run(Start(path, config, model, device, seconds, worker_faults, chosen), told, on_status)


def refuse_embedded(broker: str) -> NoReturn:
    """Refuse orders to an account where the market is that of an exchange in this process."""
    raise UsageError(
        "an embedded exchange fills on paper: it has a market, and no account that orders could go to",
        where="--embedded",
        value=f"broker = {broker}",
        fix="leave out --broker, or the key in --config; a session that was begun with it needs its exchange",
    )


def _run(start: Start, told: Progress, on_status: Callable[[dict[str, Any]], None] | None) -> dict[str, Any]:
    with ExitStack() as undo:
        with refusal_told(start.path):
            begun = begin(start, undo)
            compile_missing(told=told)  # here, where no connection waits, and not at the first message
            interrupt_if_stopped()  # nothing has begun yet
        return asyncio.run(_session(start, begun, told, on_status))


async def _session(
    start: Start,
    begun: Begun,
    told: Progress,
    on_status: Callable[[dict[str, Any]], None] | None,
) -> dict[str, Any]:
    look_up_apart()
    path, config = start.path, begun.config
    clock = ClockOffset(config.feed)
    pulse, onlookers = Pulse(time.monotonic_ns()), Onlookers()
    # Who is told of them is there before them.
    session: Session | None = None
    gpu: GpuWatch | None = None
    runner: Runner | None = None
    newest: dict[str, Any] = {}
    now = exchange_clock(clock, lambda: time.time_ns() if session is None else session.market.exch_ns)

    def clock_of(_: Work) -> Callable[[], int]:
        return now

    def repeated(done: float, total: float | None = None, note: str = "") -> None:
        pulse.beat_ns = time.monotonic_ns()
        told(done, total, note)

    def show(status: dict[str, Any]) -> None:
        nonlocal newest
        newest = status
        if on_status is not None:
            on_status(status)

    def judged() -> Sequence[tuple[CardSample, CardVerdict]]:
        return () if gpu is None else gpu.judged()

    def detail() -> dict[str, Any]:
        return {} if runner is None else runner.detail

    with ExitStack() as around:
        # Before anybody is told anything in its name: a second start by mistake is no failure of the session.
        # Until all is gone that goes by it: what is the next start's must not be taken for ours.
        held = lock(path)
        around.callback(os.close, held)
        logs = LogWriter(config.logs)
        around.callback(logs.close)
        # A port that is taken is found before anything has begun.
        around.enter_context(observed(path, config, lambda: newest, detail, judged, pulse, onlookers))
        around.enter_context(reported(path, logs.newest))
        session = Session(
            path, now_ns=time.time_ns(), clock_of=clock_of, on_progress=repeated, held=os.dup(held)
        )
        logs.open(path)
        for note in begun.notes:
            _LOG.warning("%s", note)
        # Of a start that fails between here and the loop, which closes it otherwise.
        unstarted = around.enter_context(ExitStack())
        unstarted.callback(session.close, now_ns=time.time_ns(), clean=False)
        predictor = around.enter_context(predicting(session, config.engine, start.worker_faults))
        gpu = open_watch(session.about.device, config.gpu_health, predictor)
        source = start.way.source(session, config, begun.rest, clock)
        runner = Runner(
            session,
            config,
            source,
            on_status=show,
            gpu=gpu,
            logs=logs,
            pulse=pulse,
            onlookers=onlookers,
            rules=RuleWatch(session.about.instruments, config.venue, begun.rest),
        )
        interrupt_if_stopped()  # from here on it trades
        unstarted.pop_all()
        await runner.run(start.seconds)
        newest = runner.last_status
    return newest
