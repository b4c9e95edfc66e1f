"""What an operator is told over a session's socket: what went wrong, and never that a session has ended which
goes on."""

from __future__ import annotations

import asyncio
import errno
import json
import logging
import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from gpuscalp.cli import run
from gpuscalp.cli.live import _command
from gpuscalp.errors import (
    CanaryError,
    ConfigError,
    DeadlineError,
    ExecutionError,
    GpuscalpError,
    JournalError,
    ModelError,
    NotRunningError,
    UsageError,
)
from gpuscalp.feeds.socket import SocketError
from gpuscalp.live import control
from gpuscalp.live.control import SESSION_FILE, SOCKET_FILE, STATUS_FILE, ControlServer, Request, ask
from gpuscalp.live.directory import lock
from gpuscalp.user import user_name


@contextmanager
def served(path: Path, error: BaseException, **answers: dict[str, Any]) -> Iterator[None]:
    """Answer ``status`` in a thread, and what is given; everything else fails."""
    (path / SESSION_FILE).write_text("{}")
    (path / STATUS_FILE).write_text('{"state": "active"}')

    async def handler(request: Request) -> dict[str, Any]:
        if request.command == "status":
            return {"state": "active"}
        if request.command not in answers:
            raise error
        return answers[request.command]

    loop = asyncio.new_event_loop()
    server, ending = ControlServer(path, handler), asyncio.Event()
    ready = threading.Event()

    async def serve() -> None:
        await server.start()
        ready.set()
        await ending.wait()
        await server.close()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    try:
        assert ready.wait(60)
        yield
    finally:
        loop.call_soon_threadsafe(ending.set)
        thread.join()
        loop.close()


@pytest.mark.parametrize(
    "kind", [UsageError, NotRunningError, ConfigError, DeadlineError, ModelError, CanaryError, JournalError]
)
def test_error_of_the_session_arrives_as_what_it_is(tmp_path: Path, kind: type[GpuscalpError]) -> None:
    """All of them but two arrived as wrong usage."""
    sent = kind("it cannot", where="there", value="7", fix="mend it")
    with served(tmp_path, sent), pytest.raises(GpuscalpError) as told:
        ask(tmp_path, Request("use"))
    assert type(told.value) is kind
    assert told.value.to_dict() == sent.to_dict()


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)),
        ValueError("not a number"),
        ConnectionResetError(errno.ECONNRESET, "the exchange hung up"),
        SocketError("no class that is known to who asks"),
    ],
)
def test_failure_of_the_session_is_told_and_it_goes_on(
    tmp_path: Path, error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    """`gpuscalp use` on a full disk said that the session had ended, while it traded on."""
    with served(tmp_path, error):
        with caplog.at_level(logging.ERROR), pytest.raises(GpuscalpError) as told:
            ask(tmp_path, Request("use"))
        assert ask(tmp_path, Request("status")) == {"state": "active"}
    assert type(told.value) is GpuscalpError
    assert str(error) in str(told.value)
    if not isinstance(error, GpuscalpError):
        assert "goes on" in told.value.what
        assert [record.exc_info[1] for record in caplog.records if record.exc_info] == [error]


def test_stop_is_sent_by_a_user_without_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a container under a number of its own every stop ended with a traceback, and nothing was sent."""

    def unknown(uid: int) -> None:
        raise KeyError(f"getpwuid(): uid not found: {uid}")

    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("pwd.getpwuid", unknown)
    arrived = ExecutionError("it has arrived")
    with served(tmp_path, arrived), pytest.raises(ExecutionError, match="it has arrived"):
        _command(tmp_path, "flatten", json=False)
    assert user_name() == f"user {os.getuid()}"


def test_socket_is_its_owners_alone_and_nothing_else_is_changed_by_it(tmp_path: Path) -> None:
    """The socket was made under a umask of the whole process: folders that others made meanwhile had 0600."""
    before = os.umask(0)
    try:
        asyncio.run(_start_beside(tmp_path))
        assert os.umask(0) == 0
    finally:
        os.umask(before)


async def _start_beside(path: Path) -> None:
    """Start a server, and make a folder while it starts."""

    async def handler(_: Request) -> dict[str, Any]:
        return {}

    server, folder = ControlServer(path, handler), path / "made meanwhile"
    asyncio.get_running_loop().call_soon(folder.mkdir)
    await server.start()
    try:
        assert folder.stat().st_mode & 0o777 == 0o777
        assert (path / SOCKET_FILE).stat().st_mode & 0o777 == 0o600
    finally:
        await server.close()


@pytest.mark.parametrize("command", ["halt", "status"])
def test_who_may_not_command_is_not_told_that_nothing_runs(
    tmp_path: Path, command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """An emergency halt by another user said that no process runs the session, and how to start it."""

    def refused(*_: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    with served(tmp_path, AssertionError()):
        monkeypatch.setattr(socket.socket, "connect", refused)
        assert run([command, str(tmp_path), "--json"]) == UsageError.exit_code
    error = json.loads(capsys.readouterr().out)["error"]
    assert error["what"] == "this user may not command the session"
    assert "sudo -u" in error["fix"]
    assert error["value"] == "Permission denied"


@pytest.mark.parametrize(("words", "left"), [(["--close"], "position BTCUSDT +2"), ([], "order X"), ([], "")])
def test_what_an_operator_could_not_take_over_is_named(
    tmp_path: Path, words: list[str], left: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The command said that it was done, and its text named nothing."""
    command = "close" if words else "adopt"
    answer = {"command": command, "left": left, "state": "reducing"}
    with served(tmp_path, AssertionError(), **{command: answer}):
        code = run(["adopt", str(tmp_path), *words, "--json"])
    found = json.loads(capsys.readouterr().out)
    if not left:
        assert (code, found) == (0, answer)
        return
    assert (code, found["error"]["value"]) == (DeadlineError.exit_code, left)
    assert found["error"]["fix"].startswith(" ".join(["gpuscalp adopt", *words]) + ",")


@pytest.mark.parametrize("damaged", [b"", b"[]", b'{"state": "act', b"\xff"])
def test_damaged_status_denies_no_session(
    tmp_path: Path, damaged: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    """An empty one, as a power cut leaves it, was no session at all (2); a list was a traceback."""
    (tmp_path / STATUS_FILE).write_bytes(damaged)
    assert run(["status", str(tmp_path), "--json"]) == UsageError.exit_code
    capsys.readouterr()
    (tmp_path / SESSION_FILE).write_text("{}")
    assert run(["status", str(tmp_path), "--json"]) == NotRunningError.exit_code
    error = json.loads(capsys.readouterr().out)["error"]
    assert error["what"] == "no process runs this session, and its last status cannot be read"
    assert error["where"] == str(tmp_path / STATUS_FILE)
    assert "the next start writes it again" in error["fix"]


def test_session_without_a_status_has_never_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / SESSION_FILE).write_text("{}")
    assert run(["status", str(tmp_path), "--json"]) == UsageError.exit_code
    assert "never run" in json.loads(capsys.readouterr().out)["error"]["what"]


class Clock:
    """Time that passes by waiting alone."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, passed: Callable[[], object] = lambda: None) -> None:
        self.waited_s, self._passed = 0.0, passed
        fake = SimpleNamespace(monotonic=lambda: self.waited_s, sleep=self._wait)
        monkeypatch.setattr(control, "time", fake)

    def _wait(self, seconds: float) -> None:
        self.waited_s += seconds
        self._passed()


@pytest.mark.parametrize("killed", [False, True])
def test_command_is_taken_by_a_session_that_is_starting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, killed: bool
) -> None:
    """A halt after a crash was told that nothing runs, and how to start it; a second later it traded."""
    if killed:
        monkeypatch.chdir(tmp_path)  # the whole name may be too long
        with closing(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)) as dead:
            dead.bind(SOCKET_FILE)
    with ExitStack() as running:
        running.callback(os.close, lock(tmp_path))

        def begin() -> None:  # it has repeated its journal
            running.enter_context(served(tmp_path, AssertionError(), halt={"state": "reducing"}))

        clock = Clock(monkeypatch, begin)
        assert ask(tmp_path, Request("halt")) == {"state": "reducing"}
    assert clock.waited_s > 0


@pytest.mark.parametrize(("command", "patience_s"), [("halt", 60), ("status", 10)])
def test_session_that_is_long_in_starting_is_not_said_to_be_gone(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    command: str,
    patience_s: float,
) -> None:
    (tmp_path / SESSION_FILE).write_text("{}")
    clock = Clock(monkeypatch)
    with ExitStack() as running:
        running.callback(os.close, lock(tmp_path))
        assert run([command, str(tmp_path), "--json"]) == DeadlineError.exit_code
    assert json.loads(capsys.readouterr().out)["error"]["kind"] == "StartingError"
    assert patience_s <= clock.waited_s < patience_s + 1
    assert run(["halt", str(tmp_path), "--json"]) == NotRunningError.exit_code


def test_who_asks_whether_a_session_runs_refuses_no_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To ask is to hold the lock for a moment. Two who asked refused one, which systemd does not repeat."""
    asking, waits = [lock(tmp_path)], list[float]()

    def ask_again(seconds: float) -> None:
        os.close(asking.pop())
        if not waits:
            asking.append(lock(tmp_path))
        waits.append(seconds)

    clock = SimpleNamespace(sleep=ask_again, monotonic=lambda: 0.0)
    monkeypatch.setattr("gpuscalp.locks.time", clock)
    os.close(lock(tmp_path))
    assert len(waits) == 2
