"""From the parts of a running session into its log file, without holding any of them up.

Owns: the queue between those who say something and the one thread that writes, what happens when it is full
(the entry is dropped and counted), the files and their rotation, the levels. Never: decides what is said.
"""

from __future__ import annotations

import logging
import sys
import time
from collections import deque
from logging.handlers import QueueHandler, QueueListener, RotatingFileHandler
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, Final, final

from gpuscalp.config import LogsConfig
from gpuscalp.errors import UsageError
from gpuscalp.logs.entry import Entry, JsonForm, TextForm, entry_of

LOG_FOLDER: Final = "logs"
LOG_FILE: Final = "gpuscalp.jsonl"
LEVELS: Final = ("DEBUG", "INFO", "WARNING", "ERROR")
OURS: Final = "gpuscalp"
# What has a log of its own, below `OURS`.
PARTS: Final = (
    "dashboard",
    "frames",
    "logs",
    "models",
    "ops",
    "orders",
    "retraining",
    "risk",
    "session",
    "worker",
)
# So many of the newest entries are at hand for a crash report.
_KEPT: Final = 200
_LOOK_S: Final = 0.05
_LOG: Final = logging.getLogger("gpuscalp.logs")


@final
class _Intake(QueueHandler):
    """Where entries go in. A queue that never blocks, and that takes no more than ``limit``."""

    def __init__(self, queue: SimpleQueue[Any], limit: int) -> None:
        super().__init__(queue)
        self.limit, self.dropped, self.taken = limit, 0, 0
        self.newest: deque[logging.LogRecord] = deque(maxlen=_KEPT)

    def prepare(self, record: logging.LogRecord) -> logging.LogRecord:
        # The words are made now, by the thread that says them: what they are made of may change. Everything
        # else is made by the thread that writes. Copied, because other handlers get the same record.
        record = logging.makeLogRecord(record.__dict__)
        record.msg, record.args = record.getMessage(), None
        if record.exc_info:
            record.exc_text = record.exc_text or logging.Formatter().formatException(record.exc_info)
            record.exc_info = None
        return record

    def enqueue(self, record: logging.LogRecord) -> None:
        self.newest.append(record)
        if self.queue.qsize() >= self.limit:  # type: ignore[attr-defined]  # ours has it
            self.dropped += 1
            return
        self.taken += 1
        self.queue.put_nowait(record)


@final
class _Listener(QueueListener):
    """The thread that writes."""

    def __init__(self, intake: _Intake, *handlers: logging.Handler) -> None:
        super().__init__(intake.queue, *handlers)
        self._intake, self._told = intake, 0

    def dequeue(self, block: bool) -> logging.LogRecord:
        # It looks by itself: to wake it for each entry would take the interpreter from who has just spoken.
        while True:
            try:
                record: logging.LogRecord = self.queue.get_nowait()  # type: ignore[attr-defined]  # ours has it
                return record
            except Empty:
                if not block:
                    raise
            time.sleep(_LOOK_S)

    def handle(self, record: logging.LogRecord) -> None:
        super().handle(record)
        if (dropped := self._intake.dropped) > self._told:
            count, self._told = dropped - self._told, dropped
            words = f"{count} entries were dropped: more came than could be written"
            for handler in self.handlers:
                handler.handle(logging.LogRecord(_LOG.name, logging.WARNING, __file__, 0, words, None, None))


@final
class LogWriter:
    """The log of one session, from ``open`` to ``close``. One at a time in a process.

    What is said between the constructor and ``open`` waits: only who holds the session's lock may write.

    Parameters
    ----------
    config : level, files, what goes to standard error as well
    """

    def __init__(self, config: LogsConfig) -> None:
        self._config = config
        self._intake = _Intake(SimpleQueue(), config.queue)
        self._levels: dict[str, int] = {}  # as they were before
        self._listener: _Listener | None = None
        self._handlers: list[logging.Handler] = []
        self.set_level(config.level)
        logging.getLogger().addHandler(self._intake)

    def open(self, session: Path | None) -> None:
        """Begin to write into a session's directory; None: to standard error alone.

        Raises
        ------
        OSError    it cannot be written to
        """
        config = self._config
        if session is not None:
            folder = session / LOG_FOLDER
            folder.mkdir(exist_ok=True)
            _end_line(folder / LOG_FILE)
            file = RotatingFileHandler(
                folder / LOG_FILE, maxBytes=config.file_bytes, backupCount=config.files, encoding="utf-8"
            )
            file.setFormatter(JsonForm())
            self._handlers.append(file)
        if config.stderr != "off":
            stream = logging.StreamHandler(sys.stderr)
            stream.setFormatter(JsonForm() if config.stderr == "json" else TextForm())
            self._handlers.append(stream)
        for handler in self._handlers:
            # A full disk must not fill standard error with tracebacks, or end a session: it is counted.
            handler.handleError = self._on_error  # type: ignore[method-assign]
        self._listener = _Listener(self._intake, *self._handlers)
        self._listener.start()

    def close(self) -> None:
        """Write what waits, and let go of everything."""
        logging.getLogger().removeHandler(self._intake)
        for name, level in self._levels.items():
            logging.getLogger(name).setLevel(level)
        if self._listener is not None:
            self._listener.stop()
        for handler in self._handlers:
            handler.close()

    def set_level(self, level: str, logger: str = OURS) -> None:
        """Let everything from a level on be written, of one part of the program and those below it.

        Raises
        ------
        UsageError    there is no such level, or no such part
        """
        if level not in LEVELS:
            raise UsageError("no such level", where="log level", value=level, fix=", ".join(LEVELS))
        check_part(logger)
        chosen = logging.getLogger(logger)
        self._levels.setdefault(logger, chosen.level)
        chosen.setLevel(level)

    def levels(self) -> dict[str, str]:
        """Return the levels that were set, by part of the program."""
        return {name: logging.getLevelName(logging.getLogger(name).level) for name in self._levels}

    def newest(self) -> list[Entry]:
        """Return the newest entries, the oldest first; dropped ones are among them."""
        return [entry_of(record) for record in tuple(self._intake.newest)]

    def status(self) -> dict[str, Any]:
        """Return the section ``logs`` of a session's status."""
        return {"taken": self._intake.taken, "dropped": self._intake.dropped, "levels": self.levels()}

    def _on_error(self, record: logging.LogRecord) -> None:  # noqa: ARG002
        self._intake.dropped += 1


def check_part(logger: str) -> None:
    """Refuse a name below ours under which nothing is ever said. Those of libraries are not known.

    Raises
    ------
    UsageError
    """
    ours, _, part = logger.partition(".")
    if ours == OURS and part and part.partition(".")[0] not in PARTS:
        known = ", ".join(f"{OURS}.{each}" for each in PARTS)
        raise UsageError(
            "no such part of the program", where="--logger", value=logger, fix=f"one of: {known}"
        )


def _end_line(path: Path) -> None:
    """End the line that a crash has cut short: the next entry must not be lost with it."""
    if path.is_file() and path.stat().st_size:
        with path.open("r+b") as file:
            file.seek(-1, 2)
            if file.read(1) != b"\n":
                file.write(b"\n")
