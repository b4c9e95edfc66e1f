"""Starts that come to nothing, starts under another configuration, and what is said of one that is well."""

from __future__ import annotations

import importlib
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from gpuscalp.config import MetricsConfig, RetrainingConfig
from gpuscalp.doctor.diagnosis import examine
from gpuscalp.errors import ConfigError, ModelError, UsageError
from gpuscalp.exchange.embedded import Exchange
from gpuscalp.live import directory
from gpuscalp.live.backup import backup
from gpuscalp.live.control import SOCKET_FILE, is_running
from gpuscalp.live.directory import create, lock, read_about, remove_unbegun
from gpuscalp.live.restore import restore
from gpuscalp.live.run import run_live
from gpuscalp.live.session import Session
from gpuscalp.live.start import check_same
from gpuscalp.live.way import SocketWay
from gpuscalp.logs import LogWriter, Wanted, read
from tests.conftest import ROOT
from tests.live.sessions import Running, eager_config, feed_of, instruments, write_eager_bundle


def _run(path: Path, exchange: Exchange, bundle: Path, **parts: Any) -> dict[str, Any]:
    config = eager_config(feed_of(exchange, redundancy=1), **parts)
    return run_live(path, config, model=bundle, device="cpu", seconds=0.2)


@contextmanager
def _taken_port() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        yield taken.getsockname()[1]


def _made(path: Path) -> list[str]:
    return sorted(each.name for each in path.iterdir())


def test_name_of_a_start_that_came_to_nothing_is_free(exchange, bundle, tmp_path):
    """A session that had never run kept the model of the start that found its port taken."""
    path, other = tmp_path / "session", write_eager_bundle(tmp_path / "other", seed=1)
    with _taken_port() as port, pytest.raises(ConfigError, match="port for metrics"):
        _run(path, exchange, other, metrics=MetricsConfig(port=port))
    assert _made(path) == []
    status = _run(path, exchange, bundle)
    assert status["frames"] >= 0
    assert status["market"] == status["venue"] == "binance_usdm"
    assert read_about(path).bundle == status["model"]["bundle"]


def test_registry_without_a_place_is_refused_before_there_is_a_session(exchange, bundle, tmp_path):
    path = tmp_path / "session"
    with pytest.raises(ConfigError, match="no absolute path"):
        _run(path, exchange, bundle, retraining=RetrainingConfig(registry="models"))
    assert not path.exists()


def test_start_that_is_refused_by_the_session_leaves_nothing(exchange, bundle, tmp_path, monkeypatch):
    def refuse(*_: object, **__: object) -> None:
        raise ModelError("not on this machine")

    monkeypatch.setattr("gpuscalp.live.session.open_models", refuse)
    with pytest.raises(ModelError):
        _run(tmp_path / "session", exchange, bundle)
    assert _made(tmp_path / "session") == []


@pytest.mark.parametrize(
    ("step", "begun"),
    [("start.instruments_of", False), ("run.compile_missing", False), ("run.open_watch", True)],
    ids=["not begun", "compiling", "begun"],
)
def test_start_that_was_told_to_stop_never_runs(exchange, bundle, tmp_path, monkeypatch, step, begun):
    """SIGTERM was lost where a library let the interrupt go, and the session began to trade."""
    place, name = step.split(".")
    path, module = tmp_path / "session", importlib.import_module(f"gpuscalp.live.{place}")
    real = getattr(module, name)

    def careless(*arguments: Any, **named: Any) -> Any:
        with suppress(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)
        return real(*arguments, **named)

    monkeypatch.setattr(module, name, careless)
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt):
        _run(path, exchange, bundle)
    assert signal.getsignal(signal.SIGTERM) is before
    if not begun:
        assert _made(path) == []
    monkeypatch.undo()
    assert _run(path, exchange, bundle)["reason"] == "time is up"


def test_what_is_not_compiled_is_compiled_before_a_start_connects(exchange, bundle, tmp_path, monkeypatch):
    """The first session on a machine compiled at its first messages: blind for 20 s, and trading then."""
    steps: list[str] = []
    source = SocketWay.source
    monkeypatch.setattr("gpuscalp.ops._numba.compiled_mark", lambda: tmp_path / "none")
    monkeypatch.setattr("gpuscalp.warm.compile_cpu", lambda: steps.append("compiled"))
    monkeypatch.setattr(SocketWay, "source", lambda *args: steps.append("source") or source(*args))
    for _ in ("new", "again"):
        _run(tmp_path / "session", exchange, bundle)
    assert steps == ["compiled", "source"] * 2


def test_copy_that_fails_leaves_nothing(bundle, tmp_path, monkeypatch):
    def full(source: Path, target: Path, **_: object) -> None:
        target.mkdir()
        (target / "contract.json").write_text("{")
        raise OSError(28, "no space left")

    monkeypatch.setattr(directory.shutil, "copytree", full)
    with pytest.raises(OSError, match="no space"):
        create(tmp_path / "session", eager_config(), bundle, instruments(), now_ns=1)
    assert _made(tmp_path / "session") == []


KILLED = """
import os, signal, sys
from pathlib import Path
from gpuscalp.live import directory
from tests.live.sessions import eager_config, instruments

point, rename = sys.argv[3], Path.rename

def dying(*arguments, **named):
    if point == "copy" or arguments[1].name == point:
        os.kill(os.getpid(), signal.SIGKILL)
    return rename(*arguments, **named)

if point == "copy":
    directory.read_contract = dying
else:
    Path.rename = dying
directory.create(Path(sys.argv[1]), eager_config(), Path(sys.argv[2]), instruments(), now_ns=1)
"""


@pytest.mark.parametrize("point", ["copy", "bundle", "session.json"])
def test_start_that_was_killed_before_there_was_a_session_keeps_nobody_out(bundle, tmp_path, point):
    """The directory was refused from then on, as if it were somebody else's, until it was removed by hand."""
    path = tmp_path / "session"
    killed = subprocess.run([sys.executable, "-c", KILLED, path, bundle, point], cwd=ROOT, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert _made(path) != []
    create(path, eager_config(), bundle, instruments(), now_ns=2)
    assert _made(path) == ["bundle", "lock", "session.json"]
    assert directory.read_about(path).created_ns == 2


def test_what_is_not_of_a_start_is_refused_and_stays(bundle, tmp_path):
    (tmp_path / "bundle").mkdir()
    (tmp_path / "bundle" / "mine").touch()
    with pytest.raises(UsageError, match="something here already"):
        create(tmp_path, eager_config(), bundle, instruments(), now_ns=1)
    assert [each.name for each in tmp_path.rglob("*")] == ["bundle", "mine"]


@pytest.mark.parametrize("there", [False, True])
def test_session_is_its_owners_alone_and_so_are_its_backup_and_what_is_restored(bundle, tmp_path, there):
    """Everybody on the machine could read journal and database, and hold the lock against every start."""
    before = os.umask(0o022)
    try:
        path = tmp_path / "session"
        if there:
            path.mkdir()
        create(path, eager_config(), bundle, instruments(), now_ns=1)
        backup([path, bundle], tmp_path / "saved.tar")
        session, model = map(Path, restore(tmp_path / "saved.tar", tmp_path / "restored")["restored"])
    finally:
        os.umask(before)
    modes = [stat.S_IMODE(each.stat().st_mode) for each in (path, tmp_path / "saved.tar", session)]
    assert [f"{mode:o}" for mode in modes] == ["700", "600", "700"]
    assert stat.S_IMODE(model.stat().st_mode) & 0o055 == 0o055  # what is others' to read stays so


def test_session_that_has_begun_or_is_in_use_is_not_removed(bundle, tmp_path):
    path = tmp_path / "session"
    create(path, eager_config(), bundle, instruments(), now_ns=1)
    held = lock(path)
    before = _made(path)
    remove_unbegun(path)
    os.close(held)
    assert _made(path) == before
    session = Session(path, now_ns=2, clock_of=lambda _: lambda: 2)
    session.close(now_ns=3, clean=True)
    before = _made(path)
    remove_unbegun(path)
    assert _made(path) == before


def test_start_of_a_session_that_runs_is_told_so_and_nothing_of_its_model(exchange, bundle, tmp_path):
    """The slower of two first starts of an embedded one was told to leave out a --model that it never had."""
    path, other = tmp_path / "session", write_eager_bundle(tmp_path / "other", seed=1)
    create(path, eager_config(feed_of(exchange, redundancy=1)), bundle, instruments(), now_ns=1)
    held = lock(path)
    with pytest.raises(UsageError, match="another process runs this session"):
        _run(path, exchange, other)
    os.close(held)
    with pytest.raises(ModelError, match="begun with another model"):
        _run(path, exchange, other)


def test_session_that_ends_keeps_its_lock_until_nothing_is_left_of_it(
    exchange, bundle, tmp_path, monkeypatch
):
    """Who started in that moment lost the socket to the end of the one before, and could not be stopped."""
    path, seen, close = tmp_path / "session", list[tuple[bool, bool]](), LogWriter.close

    def watched(logs: LogWriter) -> None:
        close(logs)
        seen.append((is_running(path), (path / SOCKET_FILE).exists()))

    monkeypatch.setattr(LogWriter, "close", watched)
    _run(path, exchange, bundle)
    assert seen == [(True, False)]
    assert not is_running(path)


def test_failure_of_a_later_start_removes_nothing(exchange, bundle, tmp_path):
    path = tmp_path / "session"
    _run(path, exchange, bundle)
    shutil.rmtree(path / "journal")  # as on a disk that is not there today
    before = _made(path)
    with _taken_port() as port, pytest.raises(ConfigError, match="port for metrics"):
        _run(path, exchange, bundle, metrics=MetricsConfig(port=port))
    assert _made(path) == before


@pytest.mark.parametrize(
    ("changes", "environment", "fix"),
    [
        ({"venue": "synthetic"}, {}, "leave out --config, or begin a new session"),
        ({"venue": "synthetic"}, {"GPUSCALP__METRICS__PORT": "1"}, "leave out --config, or begin"),
        ({"venue": "synthetic"}, {"GPUSCALP__VENUE": "synthetic"}, "unset GPUSCALP__VENUE, or begin"),
        (
            {"venue": "synthetic", "broker": "nautilus"},
            {"GPUSCALP__BROKER": "nautilus"},
            "unset GPUSCALP__BROKER and leave out --config, or begin",
        ),
    ],
)
def test_other_configuration_is_told_whole_and_by_its_source(bundle, tmp_path, changes, environment, fix):
    """Who had set a variable was told to leave out --config, which then refuses the variable."""
    create(tmp_path / "session", eager_config(), bundle, instruments(), now_ns=1)
    with pytest.raises(ConfigError, match="another configuration") as refused:
        check_same(tmp_path / "session", eager_config(**changes), None, environment=environment)
    assert str(refused.value.fix).startswith(fix)
    for key, value in changes.items():
        assert f"{key}: {value!r}, the session has" in str(refused.value.value)


def test_no_fault_is_found_in_a_session_that_runs_and_stops_well(exchange, bundle, tmp_path):
    """The doctor said that it should be ended because it ran, and its log had a warning for every connection
    that it ended with."""
    path = tmp_path / "session"
    with Running(path, eager_config(feed_of(exchange, redundancy=1)), bundle) as running:
        running.wait_trading()
        checks = {
            each.name: each.status for each in examine(session_dir=path, device="cpu", offline=True).checks
        }
        running.stop()
    names = ("session_running", "session_lock", "session_journal", "session_state")
    assert [checks[name] for name in names] == ["ok", "ok", "skip", "skip"]
    said = [entry for entry in read(path, Wanted()) if entry.text.startswith("connection ")]
    ends = [(entry.level, entry.text.rpartition(": ")[2]) for entry in said if " is open: " not in entry.text]
    assert ends
    assert set(ends) == {("INFO", "stopped")}
