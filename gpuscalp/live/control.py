"""Talking to a session that runs: one line of JSON each way over a socket in its directory.

Owns: both ends of the socket, and the file that says how things stood when nobody answers any more. Who may
write to the directory may command: the socket has its permissions (0600), and no network reaches it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shlex
import socket
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final, final

import msgspec

from gpuscalp.errors import (
    UNREADABLE,
    DeadlineError,
    GpuscalpError,
    NotRunningError,
    StartingError,
    UsageError,
    from_dict,
)
from gpuscalp.files import replace_file
from gpuscalp.locks import read_lock
from gpuscalp.redaction import redact

_LOG: Final = logging.getLogger("gpuscalp.session")

SESSION_FILE: Final = "session.json"
SOCKET_FILE: Final = "control.sock"
STATUS_FILE: Final = "status.json"
# What a session may trade on (SessionFile.market): its venue's own market, or that of gpuscalp.synthetic; not
# imported from there, because that package compiles its kernel.
OWN_MARKET: Final = "venue"
SYNTHETIC_MARKET: Final = "synthetic"
_LINE_BYTES_MAX: Final = 1 << 20
# For what is being answered when the session ends.
_LAST_WORDS_S: Final = 1.0
_LOOK_S: Final = 0.05


class Request(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``command``: status, stop, log_level, use, or one of ``records.Command``. ``flatten`` goes with stop,
    ``level`` and ``logger`` with log_level, what follows them with use: ``model`` is the path of a bundle, ""
    with ``back``, or with ``shadow`` for none any more."""

    command: str
    by: str = "somebody"
    flatten: bool = False
    level: str = ""
    logger: str = "gpuscalp"
    model: str = ""
    shadow: bool = False
    back: bool = False
    why: str = ""


# Answers a request; may take its time, until what it says is true and written down.
Handler = Callable[[Request], Awaitable[dict[str, Any]]]


@final
class ControlServer:
    """Answers requests until it is closed.

    Parameters
    ----------
    path : the session's directory
    handler : see Handler
    """

    def __init__(self, path: Path, handler: Handler) -> None:
        self._path, self._handler = path, handler
        self._server: asyncio.AbstractServer | None = None
        self._serving: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        # The session's lock is ours: a socket that lies here belongs to a process that has died.
        (self._path / SOCKET_FILE).unlink(missing_ok=True)
        with _short(self._path) as name:
            self._server = await asyncio.start_unix_server(
                self._serve, sock=_bound(name), limit=_LINE_BYTES_MAX
            )

    async def close(self) -> None:
        """Let what is being answered be said, and close. Who has asked nothing yet keeps nobody waiting."""
        if self._server is not None:
            self._server.close()
            if self._serving:
                await asyncio.wait(self._serving, timeout=_LAST_WORDS_S)
            for task in tuple(self._serving):
                task.cancel()
            await asyncio.gather(*self._serving, return_exceptions=True)
            await self._server.wait_closed()
        (self._path / SOCKET_FILE).unlink(missing_ok=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._serving.add(task)
        try:
            await self._talk(reader, writer)
        except asyncio.CancelledError:  # by close: an end like any other
            writer.close()
        finally:
            self._serving.discard(task)

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            line = await reader.readline()
        except (ValueError, ConnectionError):  # a line without end, or nobody there any more
            writer.close()
            return
        answer = await self._answer(line)
        with contextlib.suppress(ConnectionError):
            writer.write(answer + b"\n")
            await writer.drain()
        writer.close()

    async def _answer(self, line: bytes) -> bytes:
        """Return what is to be said to a line, whatever goes wrong: silence means that the session ends."""
        try:
            request = msgspec.json.decode(line, type=Request)
        except UNREADABLE as error:
            return _refusal(UsageError("not a request", where="control socket", value=str(error)))
        try:
            return _plain(await self._handler(request))
        except GpuscalpError as error:
            return _refusal(error)
        except Exception as error:  # a full disk, or a defect: the session goes on
            _LOG.exception("%s failed", request.command)
            return _refusal(
                GpuscalpError(
                    "the session could not do it, and goes on",
                    where=str(self._path),
                    value=f"{type(error).__name__}: {error}",
                    fix="mend what it names; gpuscalp logs has the whole error",
                )
            )


def ask(path: Path, request: Request, *, timeout_s: float = 10.0) -> dict[str, Any]:
    """Send a request to the process that runs a session, and return its answer.

    One that is starting takes it when it has repeated its journal, if that comes in time.

    Raises
    ------
    NotRunningError    no process runs it
    StartingError      one does, and does not take the request in time: it was not sent
    DeadlineError      it does not answer in time
    UsageError         there is no session at ``path``, this user may not command it, or the request makes no
        sense to it
    GpuscalpError      of the class of the error that the session answers with
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.settimeout(timeout_s)
        try:
            _connect(client, path, timeout_s)
            client.sendall(msgspec.json.encode(request) + b"\n")
            data = b"".join(iter(lambda: client.recv(65_536), b""))
        except TimeoutError:
            raise DeadlineError(
                "the session does not answer",
                where=str(path),
                value=f"{timeout_s:g} s",
                fix="look at its log",
            ) from None
        except PermissionError as error:  # it may well run
            raise UsageError(
                "this user may not command the session",
                where=str(path),
                value=error.strerror,
                fix="run it as the session's user: sudo -u USER gpuscalp …",
            ) from None
        except OSError as error:
            if not (path / SESSION_FILE).is_file():
                raise UsageError(
                    "no session here",
                    where=str(path),
                    fix="name the directory that `gpuscalp live` was given",
                ) from None
            raise NotRunningError(
                "no process runs this session",
                where=str(path),
                value=error.strerror,
                fix=f"{_starting(path)} starts it again",
            ) from None
    if not data:
        raise NotRunningError("the session has ended while it was asked", where=str(path))
    answer: dict[str, Any] = msgspec.json.decode(data)
    if "error" in answer:
        raise from_dict(answer["error"])
    return answer


def _connect(client: socket.socket, path: Path, timeout_s: float) -> None:
    """Connect to a session; to one that starts, as soon as it listens."""
    until = time.monotonic() + timeout_s
    while True:
        try:
            with _short(path) as name:
                client.connect(name)
            return
        except PermissionError:
            raise
        except OSError:
            if not is_running(path):
                raise
        if time.monotonic() >= until:
            raise StartingError(
                "a process holds the session and takes no commands yet",
                where=str(path),
                value=f"{timeout_s:g} s",
                fix="try again in a while: a start repeats its journal, and a replay takes none",
            )
        time.sleep(_LOOK_S)


def is_running(path: Path) -> bool:
    """Whether some process holds the session's lock."""
    try:
        return read_lock(path / "lock").held
    except OSError:
        return False


def write_status(path: Path, status: dict[str, Any]) -> None:
    """Replace the status file in one step."""
    replace_file(path / STATUS_FILE, _plain(status), durable=False)


def read_status(path: Path) -> dict[str, Any]:
    """Return what a session last said of itself.

    Raises
    ------
    UsageError         it has never said anything
    NotRunningError    it has, and that cannot be read
    """
    try:
        return msgspec.json.decode((path / STATUS_FILE).read_bytes(), type=dict[str, Any])
    except (OSError, *UNREADABLE) as error:
        if not isinstance(error, OSError) and (path / SESSION_FILE).is_file():
            raise NotRunningError(
                "no process runs this session, and its last status cannot be read",
                where=str(path / STATUS_FILE),
                value=str(error),
                fix=f"the next start writes it again: {_starting(path)}",
            ) from None
        raise UsageError(
            "no session here, or one that has never run",
            where=str(path),
            fix="name the directory that `gpuscalp live` was given",
        ) from None


class _Begun(msgspec.Struct):
    """Of session.json (``gpuscalp.live.directory.SessionFile``) what a start has to name."""

    market: str = OWN_MARKET


def _starting(path: Path) -> str:
    """Return the command that goes on with a session."""
    words = f"gpuscalp live --session {shlex.quote(str(path))}"
    try:
        market = msgspec.json.decode((path / SESSION_FILE).read_bytes(), type=_Begun).market
    except (OSError, *UNREADABLE):
        return words
    return words if market == OWN_MARKET else f"{words} --embedded"


def _refusal(error: GpuscalpError) -> bytes:
    return _plain({"error": error.to_dict()})


def _plain(answer: dict[str, Any]) -> bytes:
    return redact(msgspec.json.encode(answer).decode(), encoded=True).encode()


@contextlib.contextmanager
def _short(path: Path) -> Any:
    """Yield a name of the socket that fits: the kernel takes 107 bytes, and sessions may lie deep."""
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{folder}/{SOCKET_FILE}"
    finally:
        os.close(folder)


def _bound(name: str) -> socket.socket:
    """Return a socket of this name, its owner's alone from its first moment on.

    Linux gives the file the permissions of the socket. A umask would do the same to whatever other threads
    make meanwhile.
    """
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        os.fchmod(made.fileno(), 0o600)
        made.bind(name)
    except OSError:
        made.close()
        raise
    return made
