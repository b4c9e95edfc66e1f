"""Begin a live session, or go on with one, and run it until it is stopped.

Owns: what is put together for a run: instruments from the venue, the directory, connections, clocks.
"""

from __future__ import annotations

import asyncio
import logging
import os
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final, NoReturn, Protocol, final

import msgspec

from gpuscalp.bundle import read_contract
from gpuscalp.config import LiveConfig, flat_dict, variable_of
from gpuscalp.crash import reported
from gpuscalp.device import RequestedDevice
from gpuscalp.errors import ConfigError, ModelError, UsageError
from gpuscalp.exchange.faults import Fault
from gpuscalp.feeds.clock import ClockOffset
from gpuscalp.feeds.proxies import proxy_of
from gpuscalp.feeds.rest import RestClient
from gpuscalp.feeds.routes import endpoints, stream_names
from gpuscalp.live.control import OWN_MARKET
from gpuscalp.live.directory import SESSION_FILE, create, lock, read_about, remove_unbegun
from gpuscalp.live.embedded import embedded_config, embedded_defaults, market_of, served, train_embedded
from gpuscalp.live.gpu_watch import GpuWatch, open_watch
from gpuscalp.live.listing import compare_listing, instruments_of
from gpuscalp.live.market import Work
from gpuscalp.live.observed import observed, refusal_told
from gpuscalp.live.onlookers import Onlookers
from gpuscalp.live.probes import Pulse
from gpuscalp.live.retrainer import registry_of
from gpuscalp.live.runner import Runner
from gpuscalp.live.session import Session
from gpuscalp.live.sockets import SocketSource
from gpuscalp.live.source import Source
from gpuscalp.live.timekeeper import exchange_clock
from gpuscalp.live.venue import check_market, check_model_market, check_reached
from gpuscalp.live.workers import look_for_gpus, predicting
from gpuscalp.logs import LogWriter
from gpuscalp.monitoring.gpu_judgement import CardVerdict
from gpuscalp.monitoring.nvml import CardSample
from gpuscalp.process_pool import interrupt_if_stopped, stopped_as_interrupted
from gpuscalp.progress import Progress
from gpuscalp.redaction import keep_environment
from gpuscalp.rehearsal import open_source
from gpuscalp.warm import compile_missing
from gpuscalp.worker import WorkerFault

_LOG: Final = logging.getLogger("gpuscalp.session")
# What a session is watched with may be another at every start, and so may who changes its models: nothing in
# its journal follows from it but what is written there.
OPERATING: Final = ("metrics", "logs", "notify", "retraining", "promotion", "adaptation")


class Way(Protocol):
    """How a session reaches its exchange."""

    @property
    def market(self) -> str:
        """What it has there: ``gpuscalp.live.directory.SessionFile.market``."""

    def running(self, config: LiveConfig) -> LiveConfig:
        """Return the configuration with the URLs of this run."""

    def created(self, config: LiveConfig, symbols: Sequence[str]) -> LiveConfig:
        """Return the configuration that a new session is begun with."""

    def source(
        self, session: Session, config: LiveConfig, rest: RestClient, clock: ClockOffset
    ) -> Source: ...


@final
class SocketWay:
    """Sockets of our own.

    Parameters
    ----------
    urls : of an exchange on this machine; None: those of the configuration
    market : what that exchange serves, in a word
    """

    def __init__(self, urls: dict[str, str] | None = None, *, market: str = OWN_MARKET) -> None:
        self._urls, self.market = urls, market

    def running(self, config: LiveConfig) -> LiveConfig:
        return config if self._urls is None else embedded_config(config, self._urls)

    def created(self, config: LiveConfig, symbols: Sequence[str]) -> LiveConfig:  # noqa: ARG002
        return config

    def source(
        self, session: Session, config: LiveConfig, rest: RestClient, clock: ClockOffset
    ) -> SocketSource:
        names = stream_names([each.symbol for each in session.about.instruments], config.feed.streams)
        routes = [
            each
            for copy in range(config.feed.redundancy)
            for each in endpoints(names, config.feed, copy=copy)
        ]
        return SocketSource(session, config, routes, rest, clock)


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
    told: Progress | None = None,
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
        return _run(path, config, model, device, seconds, worker_faults, told, on_status, chosen)
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
            return _run(path, config, model, device, seconds, worker_faults, told, on_status, chosen)


def refuse_embedded(broker: str) -> NoReturn:
    """Refuse orders to an account where the market is that of an exchange in this process."""
    raise UsageError(
        "an embedded exchange fills on paper: it has a market, and no account that orders could go to",
        where="--embedded",
        value=f"broker = {broker}",
        fix="leave out --broker, or the key in --config; a session that was begun with it needs its exchange",
    )


def _run(
    path: Path,
    config: LiveConfig | None,
    model: Path | None,
    device: RequestedDevice,
    seconds: float | None,
    worker_faults: Sequence[WorkerFault],
    told: Progress | None,
    on_status: Callable[[dict[str, Any]], None] | None,
    way: Way,
) -> dict[str, Any]:
    with ExitStack() as undo:
        refused = undo.enter_context(ExitStack())
        refused.enter_context(refusal_told(path))
        known = (path / SESSION_FILE).exists()
        if known:
            # A second start by mistake: what it brings, such as a model of its own making, is no matter then.
            os.close(lock(path))
            check_market(path, way.market)
            check_same(path, config, model)
            config = _with_operating(read_about(path).config, config)
        elif model is None:
            raise UsageError("a session needs a model", where="--model", fix="gpuscalp train makes one")
        elif config is None:
            config = LiveConfig()
        registry_of(config.retraining)  # refused before there is a session
        running = way.running(config)
        if way.market == OWN_MARKET:
            check_reached(running)
            if not known and model is not None:
                check_model_market(model, config)
        chosen, reason = (
            (read_about(path).device, "") if known or model is None else _choose(device, model, config)
        )
        if worker_faults and chosen == "cpu" and config.engine.workers != "cpu":
            raise UsageError(
                "no worker predicts that could fail",
                where="--worker-fault",
                fix="rehearse it by --embedded --device cpu, or set engine.workers to cpu",
            )
        rest = RestClient(running.feed, clock=time.time_ns, proxy_url=proxy_of(running.feed.rest_url))
        undo.callback(rest.close)
        notes = compare_listing(rest, read_about(path)) if known else ()
        if not known and model is not None:
            instruments = instruments_of(rest, config.venue, model)
            begun = way.created(config, [each.symbol for each in instruments])
            create(
                path,
                begun,
                model,
                instruments,
                now_ns=time.time_ns(),
                device=chosen,
                device_reason=reason,
                market=way.market,
            )
            # A start that comes to nothing must not tie the name to its model and its configuration.
            undo.callback(remove_unbegun, path)
        compile_missing(told=told)  # here, where no connection waits, and not at the first message
        interrupt_if_stopped()  # nothing has begun yet
        refused.pop_all()  # from here on `observed` tells
        return asyncio.run(_session(path, running, rest, seconds, worker_faults, told, on_status, way, notes))


async def _session(
    path: Path,
    config: LiveConfig,
    rest: RestClient,
    seconds: float | None,
    worker_faults: Sequence[WorkerFault],
    told: Progress | None,
    on_status: Callable[[dict[str, Any]], None] | None,
    way: Way,
    notes: Sequence[str],
) -> dict[str, Any]:
    clock = ClockOffset(config.feed)
    sessions: list[Session] = []
    watches: list[GpuWatch] = []
    pulse, onlookers = Pulse(time.monotonic_ns()), Onlookers()
    runners: list[Runner] = []
    newest: dict[str, Any] = {}
    now = exchange_clock(clock, lambda: sessions[0].market.exch_ns if sessions else time.time_ns())

    def clock_of(_: Work) -> Callable[[], int]:
        return now

    def repeated(count: int) -> None:
        pulse.beat_ns = time.monotonic_ns()
        if told is not None:
            told(count, None, "repeating the journal")

    def show(status: dict[str, Any]) -> None:
        nonlocal newest
        newest = status
        if on_status is not None:
            on_status(status)

    def judged() -> Sequence[tuple[CardSample, CardVerdict]]:
        return watches[0].judged() if watches else ()

    def detail() -> dict[str, Any]:
        return runners[0].detail if runners else {}

    with ExitStack() as around:
        # Before anybody is told anything in its name: a second start by mistake is no failure of the session.
        held = lock(path)
        refused = around.enter_context(ExitStack())
        refused.callback(os.close, held)
        logs = LogWriter(config.logs)
        around.callback(logs.close)
        # A port that is taken is found before anything has begun.
        around.enter_context(observed(path, config, lambda: newest, detail, judged, pulse, onlookers))
        around.enter_context(reported(path, logs.newest))
        refused.pop_all()  # it is the session's from here on
        session = Session(path, now_ns=time.time_ns(), clock_of=clock_of, on_progress=repeated, held=held)
        logs.open(path)
        for note in notes:
            _LOG.warning("%s", note)
        sessions.append(session)
        # Of a start that fails between here and the loop, which closes it otherwise.
        unstarted = around.enter_context(ExitStack())
        unstarted.callback(lambda: session.close(now_ns=time.time_ns(), clean=False))
        predictor = around.enter_context(predicting(session, config.engine, worker_faults))
        gpu = open_watch(session.about.device, config.gpu_health, predictor)
        if gpu is not None:
            watches.append(gpu)
        source = way.source(session, config, rest, clock)
        runner = Runner(
            session, config, source, on_status=show, gpu=gpu, logs=logs, pulse=pulse, onlookers=onlookers
        )
        runners.append(runner)
        interrupt_if_stopped()  # from here on it trades
        unstarted.pop_all()
        await runner.run(seconds)
        newest = runner.last_status
    return newest


def _choose(device: RequestedDevice, model: Path, config: LiveConfig) -> tuple[str, str]:
    """Return the device for a model, by what was measured of this machine, and why it is this one."""
    if device == "cpu":
        return device, "it was asked for"
    contract = read_contract(model)
    answer = look_for_gpus(
        device,
        f"--symbols={len(contract.training.symbols)}",
        f"--trees={contract.tree_count}",
        f"--deadline-ms={config.engine.deadline_ms}",
    )
    return str(answer["device"]), str(answer["reason"])


def check_same(
    path: Path,
    config: LiveConfig | None,
    model: Path | None,
    *,
    environment: Mapping[str, str] = os.environ,
) -> None:
    """Refuse to go on with a session under another configuration or model.

    Parameters
    ----------
    environment : that the configuration was loaded with

    Raises
    ------
    ConfigError    the configurations differ
    ModelError     the models do
    """
    about = read_about(path)
    if model is not None and read_contract(model).digest != about.bundle:
        raise ModelError(
            "the session was begun with another model",
            where=str(path),
            value=str(model),
            fix=f"leave out --model, or {begin_anew(about.config)}",
        )
    if config is not None:
        config = _with_operating(config, about.config)
    if config is not None and about.config.broker != "paper":  # its balance at the start is the account's
        config = msgspec.structs.replace(config, account=about.config.account)
    if config is None or msgspec.json.encode(config) == msgspec.json.encode(about.config):
        return
    ours, theirs = flat_dict(config), flat_dict(about.config)
    differing = [key for key in theirs | ours if ours.get(key) != theirs.get(key)]
    variables = {key: variable_of(key, environment) for key in differing}
    named = ", ".join(sorted({name for name in variables.values() if name}))
    remedies = [f"unset {named}"] if named else []
    if not all(variables.values()):
        remedies.append("leave out --config")
    raise ConfigError(
        "the session was begun with another configuration",
        where=str(path),
        value="; ".join(
            f"{key}: {ours.get(key)!r}, the session has {theirs.get(key)!r}" for key in differing
        ),
        fix=f"{' and '.join(remedies)}, or {begin_anew(about.config)}",
    )


def begin_anew(config: LiveConfig) -> str:
    """Return the advice to leave a session for a new one, which would know nothing of real positions."""
    return f"begin a new session{'' if config.broker == 'paper' else ', once this one holds no position'}"


def _with_operating(config: LiveConfig, other: LiveConfig | None) -> LiveConfig:
    """Return a configuration with the sections of another one that may change between starts."""
    if other is None:
        return config
    return msgspec.structs.replace(config, **{name: getattr(other, name) for name in OPERATING})
