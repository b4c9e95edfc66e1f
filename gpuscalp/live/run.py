"""Begin a live session, or go on with one, and run it until it is stopped.

Owns: what is put together for a run: instruments from the venue, the directory, connections, clocks.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from gpuscalp.archive.instruments import parse_exchange_info
from gpuscalp.bundle import read_contract
from gpuscalp.config import LiveConfig, to_dict
from gpuscalp.device import RequestedDevice, resolve
from gpuscalp.errors import ConfigError, UsageError
from gpuscalp.exchange.faults import Fault
from gpuscalp.feeds.clock import ClockOffset
from gpuscalp.feeds.rest import RestClient
from gpuscalp.feeds.routes import endpoints, stream_names
from gpuscalp.live.directory import SESSION_FILE, create, read_about
from gpuscalp.live.embedded import embedded_config, embedded_defaults, served, train_embedded
from gpuscalp.live.market import Work
from gpuscalp.live.runner import Runner
from gpuscalp.live.session import Session
from gpuscalp.live.timekeeper import exchange_clock
from gpuscalp.rehearsal import open_source
from gpuscalp.schema import Instrument
from gpuscalp.train.passes import Progress

_PROGRESS: Final = "repeating the journal"


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
    seed: int = 7,
    told: Progress | None = None,
    on_status: Callable[[dict[str, Any]], None] | None = None,
) -> dict[str, Any]:
    """Run a session and return how it stood at its end.

    Parameters
    ----------
    path : directory of the session; new, or one to go on with
    config : None takes that of the session, or the defaults
    model : bundle; None takes that of the session, or with ``embedded`` trains a small one
    device : where features and predictions are computed
    seconds : None = until stopped
    embedded : against an exchange in this process
    archive, recordings, faults, seed : of the embedded exchange: its market and what goes wrong in it
    told : told how far the preparation is
    on_status : told the status while it runs

    Raises
    ------
    UsageError      no model was named, or the session is run by another process
    ConfigError     another configuration or model than the session's own
    FeedError       the venue cannot be reached
    ParityError, JournalError    as ``Session``
    """
    if not embedded:
        return _run(path, config, model, device, seconds, told, on_status)
    fresh = not (path / SESSION_FILE).exists()
    if fresh and model is None and (archive is not None or recordings):
        raise UsageError("no model for this market", where="--model", fix="name a bundle of its symbols")
    if fresh and config is None:
        config = embedded_defaults()
    source = open_source(archive=archive, recordings=recordings, seed=seed)
    with tempfile.TemporaryDirectory(prefix="gpuscalp-embedded-") as folder:
        if fresh and model is None:
            model = Path(folder) / "model"
            train_embedded(model, seed=seed, now_ns=time.time_ns(), told=told)
        with served(source, faults=faults, seed=seed) as urls:
            return _run(path, config, model, device, seconds, told, on_status, urls)


def _run(
    path: Path,
    config: LiveConfig | None,
    model: Path | None,
    device: RequestedDevice,
    seconds: float | None,
    told: Progress | None,
    on_status: Callable[[dict[str, Any]], None] | None,
    urls: dict[str, str] | None = None,
) -> dict[str, Any]:
    if (path / SESSION_FILE).exists():
        check_same(path, config, model)
        config = read_about(path).config
    elif config is None:
        config = LiveConfig()
    running = config if urls is None else embedded_config(config, urls)
    rest = RestClient(running.feed, clock=time.time_ns)
    try:
        if not (path / SESSION_FILE).exists():
            if model is None:
                raise UsageError("a session needs a model", where="--model", fix="gpuscalp train makes one")
            chosen = resolve(device).name
            create(
                path,
                config,
                model,
                _instruments(rest, config.venue, model),
                now_ns=time.time_ns(),
                device=chosen,
            )
        return asyncio.run(_session(path, running, rest, seconds, told, on_status))
    finally:
        rest.close()


async def _session(
    path: Path,
    config: LiveConfig,
    rest: RestClient,
    seconds: float | None,
    told: Progress | None,
    on_status: Callable[[dict[str, Any]], None] | None,
) -> dict[str, Any]:
    clock = ClockOffset(config.feed)
    sessions: list[Session] = []
    now = exchange_clock(clock, lambda: sessions[0].market.exch_ns if sessions else time.time_ns())

    def clock_of(_: Work) -> Callable[[], int]:
        return now

    def repeated(count: int) -> None:
        if told is not None:
            told(count, None, _PROGRESS)

    session = Session(path, now_ns=time.time_ns(), clock_of=clock_of, on_progress=repeated)
    sessions.append(session)
    names = stream_names([each.symbol for each in session.about.instruments], config.feed.streams)
    routes = [
        each for copy in range(config.feed.redundancy) for each in endpoints(names, config.feed, copy=copy)
    ]
    runner = Runner(session, config, routes, rest, clock, on_status=on_status)
    await runner.run(seconds)
    return runner.last_status


def _instruments(rest: RestClient, venue: str, model: Path) -> list[Instrument]:
    """Ask the venue for the instruments of a model, in the model's order."""
    reply = rest.exchange_info()
    listed = parse_exchange_info(reply.body, venue, where=reply.request)
    wanted = read_contract(model).training.symbols
    missing = [symbol for symbol in wanted if symbol not in listed]
    if missing:
        raise ConfigError(
            "the venue does not list a symbol of the model",
            where=reply.request,
            value=", ".join(missing),
            fix="train a model without it: its columns depend on all of its symbols",
        )
    return [listed[symbol] for symbol in wanted]


def check_same(path: Path, config: LiveConfig | None, model: Path | None) -> None:
    """Refuse to go on with a session under another configuration or model.

    Raises
    ------
    ConfigError    they differ
    """
    about = read_about(path)
    if model is not None and read_contract(model).digest != about.bundle:
        raise ConfigError(
            "the session was begun with another model",
            where=str(path),
            value=str(model),
            fix="leave out --model, or begin a new session",
        )
    if config is None or msgspec.json.encode(config) == msgspec.json.encode(about.config):
        return
    ours, theirs = _flat(to_dict(config)), _flat(to_dict(about.config))
    key = next(key for key in ours if ours[key] != theirs.get(key))
    raise ConfigError(
        "the session was begun with another configuration",
        where=str(path),
        value=f"{key}: {ours[key]!r}, the session has {theirs.get(key)!r}",
        fix="leave out --config, or begin a new session",
    )


def _flat(data: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in data.items():
        if isinstance(value, dict):
            found |= _flat(value, f"{prefix}{key}.")
        else:
            found[prefix + key] = value
    return found
