"""What must end a session ends it, at once and with its reason; what it had written is gone on with."""

from __future__ import annotations

import errno
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from gpuscalp.config import SessionConfig
from gpuscalp.errors import FeedError, JournalError, NotRunningError
from gpuscalp.exchange.embedded import Exchange
from gpuscalp.feeds.rest import RestClient
from gpuscalp.journal import JournalWriter
from gpuscalp.live import checkpoints, runner
from gpuscalp.live.commands import Commands
from gpuscalp.live.control import SOCKET_FILE, ControlServer, read_status, write_status
from gpuscalp.live.engine import Engine
from gpuscalp.live.health import Health
from gpuscalp.live.monitor import Monitor
from gpuscalp.live.narration import Narrator
from gpuscalp.live.placement import Placement
from gpuscalp.live.store import Store
from gpuscalp.live.succession import Succession
from tests.live.sessions import FRAME_MS, Running, eager_config, feed_of
from tests.waiting import until

# Every second frame a checkpoint, and a status.
_BUSY = SessionConfig(status_ms=100, checkpoint_s=0.1)


def _session(path: Path, exchange: Exchange, bundle: Path, **parts: Any) -> Running:
    config = eager_config(feed_of(exchange, redundancy=1), **parts)
    return Running(path / "session", config, bundle)


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


def test_what_only_looks_on_ends_no_session_and_keeps_no_answer_back(
    exchange: Exchange, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A statistic without memory, or a status file without room, ended a session that held positions; one
    that failed behind a batch took the answers to its commands with it."""
    full, no_memory = _refuse(OSError(errno.ENOSPC, "No space left on device")), _refuse(MemoryError())
    with _session(tmp_path, exchange, bundle, session=_BUSY) as running:
        running.wait(lambda status: bool(status["trading"]["fills"]), "a fill")
        for owner, name, error in (
            (Monitor, "on_step", no_memory),
            (Monitor, "on_work", no_memory),
            (Monitor, "_predictions", no_memory),
            (Narrator, "tell", no_memory),
            (Placement, "poll", full),
            (Store, "tidy", full),
            (checkpoints, "_compressed", full),
            (runner, "write_status", full),
        ):
            monkeypatch.setattr(owner, name, error)
        failing = {"monitor", "log", "placement", "database", "checkpoint", "status_file"}
        status = running.wait(lambda status: failing <= {*status["onlookers"]["last"]}, "every failure")
        assert status["onlookers"]["last"]["status_file"] == "OSError: [Errno 28] No space left on device"
        assert status["onlookers"]["errors"] >= len(failing)
        assert status["trading"]["fills"], "what was measured before is shown"
        running.wait_trading()
        assert running.ask("halt")["state"] == "reducing"
        assert not list((running.path / "checkpoints").glob("*.partial"))
        ended = running.stop()
    ended.check(whole=False)
    assert ended.status["reason"].startswith("stop")
    # As it stands on a full disk: without a newer checkpoint, from the journal.
    monkeypatch.undo()
    with _session(tmp_path, exchange, bundle, session=_BUSY) as running:
        running.wait(lambda status: status["frames"] > 0, "a start")
        running.ask("resume")
        running.wait_trading()
        running.stop().check()


def test_a_defect_behind_a_batch_ends_the_session(
    exchange: Exchange, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It went to the event loop's handler and was seen by nobody; checkpoint and status of the batch, too."""
    with _session(tmp_path, exchange, bundle) as running:
        running.wait_trading()
        monkeypatch.setattr(Commands, "answered", _refuse(RuntimeError("a defect")))
        assert isinstance(running.join(), RuntimeError)


def test_a_disk_that_refuses_everything_is_told_of_with_its_place_and_leaves_no_socket(
    exchange: Exchange, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last status could not be written either, and that was what one was told."""
    with _session(tmp_path, exchange, bundle) as running:
        running.wait_trading()
        refused = JournalError("cannot write", where="the journal", fix="make room")
        monkeypatch.setattr(runner, "write_status", _refuse(OSError(errno.ENOSPC, "no space left")))
        monkeypatch.setattr(JournalWriter, "flush", _refuse(refused))
        assert running.join() is refused
        assert not (running.path / SOCKET_FILE).exists()


def test_a_start_that_fails_at_its_socket_lets_go_of_the_session(
    exchange: Exchange, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its journal and its lock stayed open: a second start in the same process was refused."""
    monkeypatch.setattr(ControlServer, "start", _refuse(OSError(errno.ENOSPC, "no space left")))
    with _session(tmp_path, exchange, bundle) as running:
        assert isinstance(running.join(), OSError)
    monkeypatch.undo()
    with _session(tmp_path, exchange, bundle) as running:
        running.wait_trading()
        running.stop().check()


def test_nothing_is_opened_while_the_disk_hangs_and_the_last_status_is_the_one_that_stays(
    exchange: Exchange,
    bundle: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """One that a slow disk was still writing came after it, and said that the session runs."""
    answers, settle = threading.Event(), JournalWriter.settle

    def hang(journal: JournalWriter, *what: int) -> None:
        answers.wait()
        settle(journal, *what)

    def slow(path: Path, status: dict[str, Any]) -> None:
        if status["running"]:
            time.sleep(0.5)
        write_status(path, status)

    monkeypatch.setattr(runner, "write_status", slow)
    with _session(tmp_path, exchange, bundle) as running:
        running.wait(lambda status: status["frames"] > 5, "some frames")
        monkeypatch.setattr(runner, "_DISK_NS", 1)
        monkeypatch.setattr(JournalWriter, "settle", hang)
        running.wait(lambda status: status["health"]["device"] == [runner.DISK_HANGS], "a disk that hangs")
        monkeypatch.setattr(runner, "_DISK_NS", 10**18)
        answers.set()
        running.wait(lambda status: not status["health"]["device"], "a disk that answers")
        monkeypatch.setattr(runner, "LOOP_S", -1.0)
        running.wait(lambda _: any("stood still" in each for each in caplog.messages), "a loop that stood")
        running.stop()
    assert read_status(running.path)["running"] is False


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


def test_an_engine_that_does_not_catch_up_is_asked_all_the_same(
    exchange: Exchange, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its status never came, and ``stop --flatten`` waited for its 30 s, flat or not."""
    step = Engine.step

    def slow(engine: Engine, *work: Any) -> Any:
        time.sleep(2 * FRAME_MS / 1e3)
        return step(engine, *work)

    with _session(tmp_path, exchange, bundle) as running:
        running.wait_trading()
        monkeypatch.setattr(Engine, "step", slow)
        before = running.ask("status")["batches"]["taken"]
        running.wait(lambda status: status["batches"]["taken"] > before + 5, "answers while it works")
        assert running.ask("stop", flatten=True)["flat"]
        assert running.join() is None
    assert running.ended is not None
    running.ended.check()


def test_models_are_looked_after_though_the_engine_does_not_catch_up(
    exchange: Exchange, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whenever it was time for them it worked: none was promoted or taken back while that went on."""
    step, poll = Engine.step, Succession.poll
    happened: list[str] = []

    def slow(engine: Engine, *work: Any) -> Any:
        time.sleep(3 * FRAME_MS / 1e3)
        happened.append("step")
        return step(engine, *work)

    def counted(succession: Succession, now_ns: int) -> None:
        happened.append("poll")
        poll(succession, now_ns)

    with _session(tmp_path, exchange, bundle) as running:
        running.wait_trading()
        monkeypatch.setattr(Engine, "step", slow)
        monkeypatch.setattr(Succession, "poll", counted)
        until(lambda: happened.count("step") >= 20, "twenty steps")  # nobody asks: that lets it rest
        monkeypatch.undo()
        running.stop().check()
    assert happened[5:].count("poll") >= 3


def test_a_session_ends_though_a_call_to_the_venue_hangs(
    exchange: Exchange, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name server that does not answer held up its last checkpoint and the journal's end for half a minute:
    longer than many a supervisor waits."""
    asked, answered = threading.Event(), threading.Event()

    def hang(client: RestClient) -> Any:
        asked.set()
        answered.wait()
        raise FeedError("too late")

    try:
        with _session(tmp_path, exchange, bundle) as running:
            running.wait_trading()
            monkeypatch.setattr(RestClient, "server_time", hang)
            assert asked.wait(60)
            ended = running.stop()
    finally:
        answered.set()
    ended.check()
