"""The directory of a session: what it is, laid out once, and who may run it.

    SESSION/session.json   what runs: configuration, instruments, ids; written once
    SESSION/bundle/        the model, copied, so that the session can always be repeated
    SESSION/models/        those that it has changed to since (gpuscalp.live.models)
    SESSION/journal/       every message and every decision (docs/journal.md)
    SESSION/checkpoints/   states to start from
    SESSION/state.sqlite   orders, fills, positions, risk state
    SESSION/status.json    what it last said of itself
    SESSION/lock           held by the one process that runs it

Owns: session.json, the lock, and how both sides are made from what stands there.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Final

import msgspec
from msgspec import Struct

from gpuscalp import __version__
from gpuscalp.bundle import read_contract
from gpuscalp.config import LiveConfig
from gpuscalp.errors import UNREADABLE, ConfigError, NotRunningError, UsageError
from gpuscalp.files import pretty, sync_folder
from gpuscalp.journal import segments_of
from gpuscalp.live.control import OWN_MARKET, read_status
from gpuscalp.live.control import SESSION_FILE as SESSION_FILE
from gpuscalp.live.engine import Engine
from gpuscalp.live.market import Market
from gpuscalp.live.models import FOLDER, SessionModels
from gpuscalp.locks import ASKED_S, take_lock
from gpuscalp.pipeline import FeaturePipeline
from gpuscalp.registry.store import note_session
from gpuscalp.schema import Instrument
from gpuscalp.trader import Trader

# What ``create`` is still making.
_BUNDLE_PARTIAL: Final = ".bundle.partial"
_FILE_PARTIAL: Final = f".{SESSION_FILE}.partial"


class SessionFile(Struct, frozen=True):
    """What a session is, once and for all.

    Attributes
    ----------
    device_reason : why it is this device
    market : what it trades on: "venue", or of an exchange in its own process "synthetic" or "replayed"
    """

    session_id: str
    created_ns: int
    version: str
    device: str
    bundle: str
    config: LiveConfig
    instruments: tuple[Instrument, ...]
    device_reason: str = ""
    market: str = OWN_MARKET

    @property
    def market_name(self) -> str:
        """The name under which its market is kept: a market of our own making is never the venue's."""
        return self.config.venue if self.market == OWN_MARKET else self.market

    @property
    def config_digest(self) -> str:
        """First 16 hex digits of SHA-256: two sessions that differ in nothing but time have the same."""
        return hashlib.sha256(msgspec.json.encode(self.config)).hexdigest()[:16]


def build(about: SessionFile, models: SessionModels, pipeline: FeaturePipeline) -> tuple[Market, Engine]:
    """Return both sides of a session, as they are before the first message."""
    bundle = models.first
    training, config = bundle.contract.training, about.config
    trader = Trader(
        config,
        about.instruments,
        horizon_ms=training.config.label.horizon_ms,
        trained_until_ns=training.trained_on.end_ns,
    )
    engine = Engine(
        pipeline,
        bundle,
        trader,
        opened=models.open,
        session_id=about.session_id,
        predict_within_ms=config.session.predict_within_ms,
        deadline_ms=config.engine.deadline_ms,
    )
    return Market(about.instruments, config, training.config.grid), engine


def open_models(path: Path, about: SessionFile) -> tuple[SessionModels, FeaturePipeline]:
    """Return the models of a session and the features that they read, on the CPU: what other devices say is
    held against it (gpuscalp.worker).

    Raises
    ------
    ModelError, FeatureMismatchError    the model that it was begun with is damaged, or another one
    """
    training = read_contract(path / "bundle").training.config
    pipeline = FeaturePipeline(
        grid=training.grid, features=training.features, instruments=about.instruments, threads=1
    )
    return SessionModels(path, about.bundle, pipeline.graph), pipeline


def create(
    path: Path,
    config: LiveConfig,
    bundle: Path,
    instruments: Sequence[Instrument],
    *,
    now_ns: int,
    device: str = "cpu",
    device_reason: str = "",
    market: str = OWN_MARKET,
) -> None:
    """Lay out the directory of a new session, for its owner alone: who can open the lock can hold it.

    Raises
    ------
    UsageError    there is something at ``path``
    """
    _refuse_taken(path)
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    with suppress(PermissionError):  # somebody else has made it, and knows who may look into it
        path.chmod(0o700)
    note_session(bundle, path, now_ns=now_ns)
    with ExitStack() as undo:
        held = lock(path)  # refuses all but one of those that begin here at once
        undo.callback(os.close, held)
        _refuse_taken(path)
        failed = undo.enter_context(ExitStack())
        failed.callback((path / "lock").unlink)
        failed.callback(_remove, path)
        _remove(path)  # of a start that was killed
        shutil.copytree(bundle, path / _BUNDLE_PARTIAL, dirs_exist_ok=True)
        about = SessionFile(
            session_id=secrets.token_hex(4),
            created_ns=now_ns,
            version=__version__,
            device=device,
            bundle=read_contract(bundle).digest,
            config=config,
            instruments=tuple(instruments),
            device_reason=device_reason,
            market=market,
        )
        with (path / _FILE_PARTIAL).open("wb") as file:
            file.write(pretty(about))
            file.flush()
            os.fsync(file.fileno())
        # Last, and in one step: a directory without it is no session yet.
        (path / _BUNDLE_PARTIAL).rename(path / "bundle")
        (path / _FILE_PARTIAL).rename(path / SESSION_FILE)
        sync_folder(path)
        failed.pop_all()


def _refuse_taken(path: Path) -> None:
    """Refuse a directory with anything in it but what is left of a start that was killed before there was a
    session: its partial file tells that what stands beside it is nobody else's."""
    names = {each.name for each in path.iterdir()} if path.exists() else set()
    ours = {"bundle", "journal"} if _FILE_PARTIAL in names else set()
    if names - ours - {"lock", _BUNDLE_PARTIAL, _FILE_PARTIAL}:
        raise UsageError("there is something here already", where=str(path), fix="name a new directory")


def _remove(path: Path) -> None:
    """Remove what ``create`` makes, for whoever holds the lock; can be killed at any moment, too."""
    with suppress(FileNotFoundError):  # first: the rest is no session without it
        (path / SESSION_FILE).rename(path / _FILE_PARTIAL)
    for name in (_BUNDLE_PARTIAL, "bundle", "journal"):
        shutil.rmtree(path / name, ignore_errors=True)
    (path / _FILE_PARTIAL).unlink(missing_ok=True)


def remove_unbegun(path: Path) -> None:
    """Remove what ``create`` has made, unless the session has begun: its journal has a segment then.

    The folder itself stays: it may have been there before. So do reports on crashes.
    """
    with suppress(OSError, UsageError):  # what made a start fail is what is worth telling
        held = lock(path)
        try:
            if not segments_of(path / "journal"):
                _remove(path)
                (path / "lock").unlink()
        finally:
            os.close(held)


def read_about(path: Path) -> SessionFile:
    """Return what a session is.

    Raises
    ------
    UsageError     there is no session at ``path``
    ConfigError    its file is damaged, or of another version
    """
    try:
        data = (path / SESSION_FILE).read_bytes()
    except OSError:
        raise UsageError(
            "no session here", where=str(path), fix="name the directory that `gpuscalp live` was given"
        ) from None
    try:
        return msgspec.json.decode(data, type=SessionFile)
    except UNREADABLE as error:
        raise ConfigError(
            "the session's description cannot be read",
            where=str(path / SESSION_FILE),
            value=str(error),
            fix="restore the session from a backup, or begin another one",
        ) from None


def lead_of(path: Path) -> Path:
    """Return where the model lies that a session was led by when it last said so.

    Raises
    ------
    UsageError    there is no session
    """
    about = read_about(path)
    try:
        digest = str(read_status(path)["model"]["bundle"])
    except (UsageError, NotRunningError, LookupError, TypeError):
        digest = about.bundle
    return path / "bundle" if digest == about.bundle else path / FOLDER / digest


def lock(path: Path) -> int:
    """Take the session's lock; it falls with the process, however that ends."""
    file = take_lock(path / "lock", wait_s=ASKED_S)
    if file is None:
        owner = (path / "lock").read_text(encoding="ascii", errors="replace").strip()
        raise UsageError(
            "another process runs this session",
            where=str(path),
            value=f"process {owner}",
            fix="gpuscalp status shows it, gpuscalp stop ends it",
        )
    os.ftruncate(file, 0)
    os.write(file, b"%d\n" % os.getpid())
    return file
