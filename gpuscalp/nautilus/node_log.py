"""What NautilusTrader says goes where everything else is said: into the session's log, without secrets.

Owns: the way of its lines. It writes them itself, in native code, to standard output, standard error and
files; so its thread gets a standard error of its own, which nobody reads, and a private folder in memory, and
what appears there is read and passed on. Never: leaves that folder.
"""

from __future__ import annotations

import ctypes
import hashlib
import logging
import os
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, TypeVar, final

import msgspec

from gpuscalp.errors import UNREADABLE
from gpuscalp.live.heap import uncollected

T = TypeVar("T")

_LOOK_S: Final = 0.2
_LAST_S: Final = 0.05  # a writer that was asked to flush does it in its own time
_MEMORY: Final = Path("/dev/shm")  # noqa: S108  # only a folder with a name of its own is made there
_LEVELS: Final = {
    "DEBUG": logging.DEBUG,
    "INFO": logging.INFO,
    "WARN": logging.WARNING,
    "WARNING": logging.WARNING,
    "ERROR": logging.ERROR,
}
LOGGER: Final = "nautilus"
_LOG: Final = logging.getLogger("gpuscalp.session")
# close_range(2), since Linux 5.9 and of the same number everywhere, with CLOSE_RANGE_UNSHARE: a container may
# call it, unlike unshare(2).
_CLOSE_RANGE: Final = 436
_UNSHARE: Final = 2
_LAST_FILE: Final = 0xFFFF_FFFF


class _Line(msgspec.Struct):
    """One line of its JSON."""

    message: str
    level: str = "INFO"
    component: str = ""


@contextmanager
def passed_on(session: Path, *, flush: Callable[[], None] = lambda: None) -> Iterator[Path]:
    """Yield a folder; what is written into files there comes into our log, and is gone afterwards.

    Parameters
    ----------
    session : its directory, of which the caller has the lock: what a killed process of it has left behind
        goes with the next start
    flush : has what is written put into the files: an error must not wait for 8 KiB of others
    """
    name = hashlib.sha256(os.fsencode(session.resolve())).hexdigest()[:16]
    base = _MEMORY if _MEMORY.is_dir() else Path(tempfile.gettempdir())
    prefix = f"gpuscalp-nautilus-{os.getuid()}-{name}"
    for left in base.glob(f"{prefix}*"):
        with suppress(OSError):  # its owner may take it away meanwhile
            if left.lstat().st_uid == os.getuid():
                shutil.rmtree(left, ignore_errors=True)
    # Never the same name twice: everybody may make a folder here, and nobody can remove another one's.
    folder = Path(tempfile.mkdtemp(prefix=f"{prefix}-", dir=base))
    relay = _Relay(folder, flush)
    relay.start()
    try:
        yield folder
    finally:
        relay.stop()
        shutil.rmtree(folder, ignore_errors=True)


def without_stderr(begin: Callable[[], T]) -> T:
    """Call something that starts a native writer; return its answer.

    NautilusTrader writes every error to standard error, whatever its configuration says (1.231), signatures
    and all. The same lines are in its files. What we say there, and a library before it aborts, has to get
    through, so that the process keeps it. The writer is started by a thread with a table of open files of its
    own, which it inherits: its standard error is the null device, and it holds none of our files open.

    Parameters
    ----------
    begin : is called there; what it opens is open for the threads that it starts, and for nobody else
    """
    answers: list[T] = []
    failures: list[BaseException] = []

    def work() -> None:
        # A signal that is taken here could not wake the loop: that goes through a file of ours.
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        try:
            if libc.syscall(_CLOSE_RANGE, 3, _LAST_FILE, _UNSHARE) == 0:
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, 2)
                os.close(nowhere)
            else:
                _LOG.warning(
                    "standard error gets NautilusTrader's errors too: %s", os.strerror(ctypes.get_errno())
                )
            answers.append(begin())
        except BaseException as error:
            failures.append(error)

    libc = ctypes.CDLL(None, use_errno=True)
    libc.syscall.argtypes = [ctypes.c_long, ctypes.c_uint, ctypes.c_uint, ctypes.c_int]
    thread = threading.Thread(target=work, name="nautilus log")
    with uncollected():  # what is collected there would close its files in the wrong table
        thread.start()
        thread.join()
    for error in failures:
        raise error
    return answers[0]


@final
class _Relay:
    """The thread that reads."""

    def __init__(self, folder: Path, flush: Callable[[], None]) -> None:
        self._folder, self._flush = folder, flush
        self._read: dict[Path, int] = {}  # bytes that were passed on
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="nautilus log", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._ended.wait(_LOOK_S):
            self._look()
        self._flush()
        time.sleep(_LAST_S)
        self._look()

    def _look(self) -> None:
        self._flush()
        for path in sorted(self._folder.iterdir()):
            at = self._read.get(path, 0)
            try:
                with path.open("rb") as file:
                    file.seek(at)
                    data = file.read()
            except FileNotFoundError:  # its rotation has taken it
                continue
            whole = data[: data.rfind(b"\n") + 1]
            self._read[path] = at + len(whole)
            for line in whole.splitlines():
                _pass_on(line)


def _pass_on(line: bytes) -> None:
    try:
        found = msgspec.json.decode(line, type=_Line)
    except UNREADABLE:
        found = _Line(line.decode("utf-8", "replace"))
    part = f"{LOGGER}.{found.component}" if found.component else LOGGER
    # Already chosen by ``nautilus.log_level``: what has come is written.
    logger = logging.getLogger(LOGGER)
    record = logger.makeRecord(
        part, _LEVELS.get(found.level.upper(), logging.INFO), __file__, 0, "%s", (found.message,), None
    )
    logger.handle(record)
