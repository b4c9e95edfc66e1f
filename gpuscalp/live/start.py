"""What a session is begun with, or goes on with, and what keeps it from either.

Owns: the directory of a new session. Never: runs it (gpuscalp.live.run).
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from gpuscalp.bundle import read_contract
from gpuscalp.config import LiveConfig, flat_dict, variable_of
from gpuscalp.device import RequestedDevice
from gpuscalp.errors import ConfigError, ModelError, UsageError
from gpuscalp.feeds.proxies import proxy_of
from gpuscalp.feeds.rest import RestClient
from gpuscalp.live.control import OWN_MARKET
from gpuscalp.live.directory import SESSION_FILE, create, lock, read_about, remove_unbegun
from gpuscalp.live.listing import compare_listing, instruments_of
from gpuscalp.live.retrainer import registry_of
from gpuscalp.live.venue import check_market, check_model_market, check_reached
from gpuscalp.live.way import Way
from gpuscalp.live.workers import look_for_gpus
from gpuscalp.worker import WorkerFault

# What a session is watched with may be another at every start, and so may who changes its models: nothing in
# its journal follows from it but what is written there.
OPERATING: Final = ("metrics", "logs", "notify", "retraining", "promotion", "adaptation")


@dataclass(frozen=True, slots=True)
class Start:
    """What is asked for; ``gpuscalp.live.run.run_live`` says what None stands for."""

    path: Path
    config: LiveConfig | None
    model: Path | None
    device: RequestedDevice
    seconds: float | None
    worker_faults: Sequence[WorkerFault]
    way: Way


@dataclass(frozen=True, slots=True)
class Begun:
    """What a session runs with: the configuration of this run, a client of its venue, notes for its log."""

    config: LiveConfig
    rest: RestClient
    notes: Sequence[str] = ()


def begin(start: Start, undo: ExitStack) -> Begun:
    """Return what to run with, where nothing is against it; a new session has its directory then.

    ``undo`` takes back what has been begun. Errors: ``run_live``.
    """
    if (start.path / SESSION_FILE).exists():
        return _begin_known(start, undo)
    if start.model is None:
        raise UsageError("a session needs a model", where="--model", fix="gpuscalp train makes one")
    return _begin_new(start, start.model, undo)


def _begin_known(start: Start, undo: ExitStack) -> Begun:
    path = start.path
    # A second start by mistake: what it brings, such as a model of its own making, is no matter then.
    os.close(lock(path))
    check_market(path, start.way.market)
    check_same(path, start.config, start.model)
    about = read_about(path)
    running = _running(_with_operating(about.config, start.config), start.way)
    _check_rehearsal(start, running, about.device)
    rest = _client(running, undo)
    return Begun(running, rest, compare_listing(rest, about))


def _begin_new(start: Start, model: Path, undo: ExitStack) -> Begun:
    config = start.config or LiveConfig()
    running = _running(config, start.way)
    if start.way.market == OWN_MARKET:
        check_model_market(model, config)
    device, reason = _choose(start.device, model, config)
    _check_rehearsal(start, running, device)
    rest = _client(running, undo)
    instruments = instruments_of(rest, config.venue, model)
    create(
        start.path,
        start.way.created(config, [each.symbol for each in instruments]),
        model,
        instruments,
        now_ns=time.time_ns(),
        device=device,
        device_reason=reason,
        market=start.way.market,
    )
    # A start that comes to nothing must not tie the name to its model and its configuration.
    undo.callback(remove_unbegun, start.path)
    return Begun(running, rest)


def _running(config: LiveConfig, way: Way) -> LiveConfig:
    """Return the configuration with the URLs of this run, where nothing in it is refused."""
    registry_of(config.retraining)  # refused before there is a session
    running = way.running(config)
    if way.market == OWN_MARKET:
        check_reached(running)
    return running


def _check_rehearsal(start: Start, config: LiveConfig, device: str) -> None:
    if start.worker_faults and device == "cpu" and config.engine.workers != "cpu":
        raise UsageError(
            "there is no worker that could fail: the CPU predicts in the session's process",
            where="--worker-fault",
            fix="rehearse it by --embedded --device cpu, or set engine.workers to cpu",
        )


def _client(config: LiveConfig, undo: ExitStack) -> RestClient:
    rest = RestClient(config.feed, clock=time.time_ns, proxy_url=proxy_of(config.feed.rest_url))
    undo.callback(rest.close)
    return rest


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
