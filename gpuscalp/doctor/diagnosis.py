"""All checks of one machine for one session, those that wait at the same time.

Owns: which checks are made, their order, what each depends on. Never: judges.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gpuscalp.config import FeedConfig, JournalConfig, LiveConfig
from gpuscalp.device import DeviceName, RequestedDevice, describe
from gpuscalp.device_choice import describe_choice
from gpuscalp.doctor import clock, compiled, disk, gpu, machine, network, packages, session
from gpuscalp.doctor import model as bundle
from gpuscalp.doctor.check import Check, Diagnosis, fail, skip
from gpuscalp.doctor.configuration import read_config
from gpuscalp.doctor.operation import (
    check_log_folder,
    check_nautilus,
    check_notify,
    check_running,
    check_secrets,
    read_running,
)
from gpuscalp.doctor.port import check_port
from gpuscalp.doctor.streams import PATIENCE, Patience, socket_count
from gpuscalp.errors import ConfigError
from gpuscalp.live.control import OWN_MARKET, SESSION_FILE
from gpuscalp.live.directory import SessionFile, lead_of, read_about
from gpuscalp.locks import read_lock
from gpuscalp.monitoring.nvml import import_nvml, survey
from gpuscalp.schema import Instrument


def examine(
    *,
    config: Path | None = None,
    model: Path | None = None,
    session_dir: Path | None = None,
    device: RequestedDevice = "auto",
    offline: bool = False,
) -> Diagnosis:
    """Make all checks for what a command line names: ``config`` is a TOML file, None takes the defaults, and
    the rest is that of ``diagnose``."""
    told, live = read_config(config)
    found = diagnose(live, model=model, session_dir=session_dir, device=device, offline=offline)
    return Diagnosis((told, *found.checks))


def diagnose(
    live: LiveConfig | None,
    *,
    model: Path | None = None,
    session_dir: Path | None = None,
    device: RequestedDevice = "auto",
    offline: bool = False,
    patience: Patience = PATIENCE,
) -> Diagnosis:
    """Make all checks. Takes as long as the slowest of them; not to be called where an event loop runs.

    Parameters
    ----------
    live : configuration of the session; None: it cannot be used, which leaves the network out
    model : bundle; None leaves its checks out
    session_dir : directory of a session, there or not: its instruments have to be those of today. None looks
        at the disk of the present directory only
    device : what the session will ask for
    offline : sends nothing
    patience : with the exchange
    """
    about = None
    if session_dir is not None and (session_dir / SESSION_FILE).exists():
        about = read_about(session_dir)
    running = read_running(session_dir)
    config, feed = live or LiveConfig(), None if live is None else live.feed
    instruments = {} if about is None else {each.symbol: each for each in about.instruments}

    async def run() -> list[Check]:
        symbols = tuple(instruments) if model is None else bundle.symbols_of(model)
        folder = Path.cwd() if session_dir is None else session_dir / "journal"
        parts = await asyncio.gather(
            asyncio.to_thread(_software),
            asyncio.to_thread(_machine, feed, symbols),
            asyncio.to_thread(_disk, folder, config.journal),
            asyncio.to_thread(
                _device_and_model, device, model, config.engine.deadline_ms, _on_its_venue(live, about)
            ),
            _network(feed, symbols, instruments, patience, offline=offline),
            asyncio.to_thread(_session, session_dir, running=running is not None),
        )
        return [check for part in parts for check in part]

    return Diagnosis(
        (
            *asyncio.run(run()),
            check_port(config.metrics.port, host=config.metrics.address, running=running is not None),
            _expiry(live, model, session_dir, about),
            check_nautilus(live),
            check_log_folder(session_dir),
            check_notify(),
            check_secrets(),
            check_running(running),
        )
    )


def _software() -> list[Check]:
    installed = packages.read_installed()
    return [
        packages.check_packages(packages.read_requirements(), installed),
        packages.check_xgboost(installed, has_driver=packages.driver_present()),
        compiled.check_kernels(compiled.read_kernel_cache()),
    ]


def _machine(feed: FeedConfig | None, symbols: Sequence[str]) -> list[Check]:
    found = machine.read_machine()
    try:
        sockets = 0 if feed is None else socket_count(symbols, feed)
    except ConfigError:
        sockets = 0  # the network's checks tell it
    return [
        machine.check_cpu(found),
        machine.check_memory(found),
        machine.check_open_files(found, socket_count=sockets),
        clock.check_sync(clock.read_kernel_clock(), feed or FeedConfig()),
    ]


def _disk(folder: Path, journal: JournalConfig) -> list[Check]:
    found = disk.read_disk(folder)
    return [disk.check_space(found, journal), disk.check_latency(found, journal)]


def _device_and_model(
    device: RequestedDevice, model: Path | None, deadline_ms: float, live: LiveConfig | None
) -> list[Check]:
    work = None if model is None else bundle.workload_of(model)
    described = describe(device) if work is None else describe_choice(device, work, deadline_ms=deadline_ms)
    checks = [gpu.check_device(described, has_driver=packages.driver_present())]
    if device == "cpu":
        checks.append(skip("gpu_health", "the CPU was asked for"))
    else:
        nvml = import_nvml()
        checks.append(gpu.check_health(None if nvml is None else survey(nvml)))
    used: DeviceName | None = described["device"]  # type: ignore[assignment]  # as describe documents
    cuda: Any = described["cuda"]
    cache = compiled.read_cuda_cache(cuda["compute_capability"]) if used == "cuda" else None
    checks.append(compiled.check_cuda_kernels(cache))
    if model is None:
        checks.append(skip("model", "no model was named"))
    elif used is None:
        checks.append(skip("model", "the device that was asked for cannot run it"))
    else:
        checks.append(bundle.check_model(model, device=used, live=live))
    return checks


def _on_its_venue(live: LiveConfig | None, about: SessionFile | None) -> LiveConfig | None:
    """Return what a session on its venue has, or would be given; None where its market is its own."""
    if about is None:
        return live
    return about.config if about.market == OWN_MARKET else None


def _expiry(
    live: LiveConfig | None, model: Path | None, session_dir: Path | None, about: SessionFile | None
) -> Check:
    """Look at the model that was named, else at the one that leads the session, by its own limit."""
    risk = (live or LiveConfig()).risk
    if session_dir is not None and about is not None:
        risk, model = about.config.risk, model or lead_of(session_dir)
    return bundle.check_expiry(model, risk.max_model_age_h, now_ns=time.time_ns())


async def _network(
    feed: FeedConfig | None,
    symbols: Sequence[str],
    instruments: Mapping[str, Instrument],
    patience: Patience,
    *,
    offline: bool,
) -> list[Check]:
    if offline:
        return [skip(name, "not asked: --offline") for name in network.NAMES]
    if feed is None:
        return [skip(name, "the configuration cannot be read") for name in network.NAMES]
    return await network.check_network(feed, symbols, instruments=instruments, patience=patience)


def _session(session_dir: Path | None, *, running: bool) -> list[Check]:
    names = ("session_lock", "session_journal", "session_state")
    if session_dir is None:
        return [skip(name, "no session was named") for name in names]
    journal = session_dir / "journal"
    try:
        lock = read_lock(journal / "lock")
        checks = [session.check_lock(journal, lock, running=running)]
        if lock.held:
            return checks + [skip(name, "the journal is being written") for name in names[1:]]
        return [*checks, session.check_journal(journal), session.check_state(session_dir)]
    except OSError as error:
        fix = "correct the permissions, or name another directory"
        what = f"{journal} cannot be read: {error.strerror}"
        return [fail("session_lock", what, fix), *(skip(name, "it cannot be read") for name in names[1:])]
