"""What NautilusTrader says goes where everything else is said: into the session's log, without secrets.

Owns: the way of its lines. It writes them itself, in native code, and only to standard output or to files; so
it gets a private folder in memory, and what appears there is read and passed on. Never: leaves that folder.
"""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, final

import msgspec

_LOOK_S: Final = 0.2
_MEMORY: Final = Path("/dev/shm")  # noqa: S108  # only a folder with a name of its own is made there
_LEVELS: Final = {
    "DEBUG": logging.DEBUG,
    "INFO": logging.INFO,
    "WARN": logging.WARNING,
    "WARNING": logging.WARNING,
    "ERROR": logging.ERROR,
}
LOGGER: Final = "nautilus"


class _Line(msgspec.Struct):
    """One line of its JSON."""

    message: str
    level: str = "INFO"
    component: str = ""


@contextmanager
def passed_on(session: Path) -> Iterator[Path]:
    """Yield a folder; what is written into files there comes into our log, and is gone afterwards.

    Parameters
    ----------
    session : its directory, of which the caller has the lock: what a killed process of it has left behind
        goes with the next start
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
    relay = _Relay(folder)
    relay.start()
    try:
        yield folder
    finally:
        relay.stop()
        shutil.rmtree(folder, ignore_errors=True)


@final
class _Relay:
    """The thread that reads."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
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
        self._look()

    def _look(self) -> None:
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
    except msgspec.DecodeError:
        found = _Line(line.decode("utf-8", "replace"))
    part = f"{LOGGER}.{found.component}" if found.component else LOGGER
    # Already chosen by ``nautilus.log_level``: what has come is written.
    logger = logging.getLogger(LOGGER)
    record = logger.makeRecord(
        part, _LEVELS.get(found.level.upper(), logging.INFO), __file__, 0, "%s", (found.message,), None
    )
    logger.handle(record)
