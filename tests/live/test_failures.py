"""What must end a session ends it, at once and with its reason; what it had written is gone on with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gpuscalp.errors import JournalError, NotRunningError, UsageError
from gpuscalp.exchange.embedded import Exchange
from gpuscalp.journal import JournalWriter
from gpuscalp.live.engine import Engine
from gpuscalp.live.health import Health
from tests.live.sessions import Running, eager_config, feed_of


def _session(path: Path, exchange: Exchange, bundle: Path) -> Running:
    return Running(path / "session", eager_config(feed_of(exchange, redundancy=1)), bundle)


def _refuse(error: Exception) -> Any:
    def call(*_: object, **__: object) -> Any:
        raise error

    return call


def test_a_defect_in_the_loop_ends_the_session_instead_of_leaving_it_without_time(
    exchange: Exchange, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The task that flushes, closes frames and judges the health once died alone, and the session lived on
    with its gate as it was."""
    with _session(tmp_path, exchange, bundle) as running:
        running.wait_trading()
        monkeypatch.setattr(Health, "judge", _refuse(RuntimeError("a defect")))
        error = running.join()
    assert isinstance(error, RuntimeError)
    monkeypatch.undo()
    with _session(tmp_path, exchange, bundle) as running:
        running.wait_trading()
        running.stop().check()


def test_a_disk_that_refuses_ends_the_session_and_nothing_is_done_that_is_not_written(
    exchange: Exchange, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with _session(tmp_path, exchange, bundle) as running:
        running.wait_trading()
        monkeypatch.setattr(JournalWriter, "flush", _refuse(JournalError("no space left")))
        error = running.join()
    assert isinstance(error, JournalError)
    monkeypatch.undo()
    with _session(tmp_path, exchange, bundle) as running:
        running.wait_trading()
        running.stop().check()


def test_whoever_waits_for_a_command_is_told_that_the_session_has_ended(
    exchange: Exchange, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answer never came, and the process waited for whoever waited for it."""
    with _session(tmp_path, exchange, bundle) as running:
        running.wait_trading()
        monkeypatch.setattr(Engine, "_obey", _refuse(RuntimeError("a defect")))
        with pytest.raises(NotRunningError):
            running.ask("halt")
        assert isinstance(running.join(), RuntimeError)
    # What was not answered may or may not have been written; what was written is gone on with.
    monkeypatch.undo()
    with _session(tmp_path, exchange, bundle) as running:
        if running.wait(lambda status: status["frames"] > 0, "a start")["state"] != "active":
            running.ask("resume")
        running.wait_trading()
        running.stop().check()


def test_a_word_that_is_no_command_is_refused_and_changes_nothing(
    exchange: Exchange, bundle: Path, tmp_path: Path
) -> None:
    with _session(tmp_path, exchange, bundle) as running:
        running.wait_trading()
        with pytest.raises(UsageError, match="no such command"):
            running.ask("dance")
        running.wait_trading()
        running.stop().check()
