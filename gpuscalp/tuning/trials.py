"""What the trials of a search gave, on disk: one JSON object a line, appended and never changed.

Owns: ``trials.jsonl``, its lock, and the torn end that a killed driver leaves. A line is on the disk before
anything is made of it, so what follows from the lines is the same after any number of crashes.
Never: decides which trial goes on.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Final, final

import msgspec
from msgspec import Struct

from gpuscalp.errors import UNREADABLE, DataError
from gpuscalp.run_folder import require_alone

TRIALS_FILE: Final = "trials.jsonl"


class FoldFigures(Struct, frozen=True, forbid_unknown_fields=True):
    """Held-out rows of one fold.

    Attributes
    ----------
    rows : that the log loss is of
    symbol_hours : of all symbols together, in which the strategy decided or held
    acts : how often the strategy would have entered
    net_bps : sum over the acts: mid return in the direction of the act less fees and spread, bps
    log_loss, base_log_loss : of the model, and of the class shares of the training rows
    rounds : that each member kept
    """

    rows: int
    symbol_hours: float
    acts: int
    net_bps: float
    log_loss: float
    base_log_loss: float
    rounds: tuple[int, ...]


class Generation(Struct, frozen=True, forbid_unknown_fields=True, tag="generation", tag_field="line"):
    """The values of the trials of one generation, in the order of their numbers."""

    generation: int
    params: tuple[dict[str, Any], ...]


class Rung(Struct, frozen=True, forbid_unknown_fields=True, tag="rung", tag_field="line"):
    """What a trial gave with so many boosting rounds; ``failure`` says why it gave nothing."""

    trial: int
    rung: int
    rounds: int
    folds: tuple[FoldFigures, ...]
    seconds: float
    failure: str | None = None


@final
class TrialLog:
    """The lines of one search, open for appending. Use it as a context manager.

    Attributes
    ----------
    generations : by number
    rungs : by trial and rung

    Raises
    ------
    UsageError
        another process appends to it
    DataError
        a whole line cannot be read
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / TRIALS_FILE
        self.generations: dict[int, Generation] = {}
        self.rungs: dict[tuple[int, int], Rung] = {}
        self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            require_alone(self._file, self._path, "search")
            data = self._path.read_bytes()
            whole = data.rfind(b"\n") + 1
            for number, line in enumerate(data[:whole].splitlines(), start=1):
                self._take(self._decoded(line, number))
            # What was being written when the driver died is no line.
            os.ftruncate(self._file, whole)
            os.lseek(self._file, whole, os.SEEK_SET)
        except BaseException:
            os.close(self._file)
            raise

    def __enter__(self) -> TrialLog:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._file)

    def add(self, line: Generation | Rung) -> None:
        """Append a line; when this returns it is on the disk."""
        data = msgspec.json.encode(line) + b"\n"
        while data:
            data = data[os.write(self._file, data) :]
        os.fsync(self._file)
        self._take(line)

    def _decoded(self, line: bytes, number: int) -> Generation | Rung:
        try:
            return msgspec.json.decode(line, type=Generation | Rung)
        except UNREADABLE as error:
            raise DataError(
                f"not a line of a search: {error}",
                where=f"{self._path}, line {number}",
                fix="begin anew in another directory: this file was changed by hand or by a disk",
            ) from None

    def _take(self, line: Generation | Rung) -> None:
        if isinstance(line, Generation):
            self.generations[line.generation] = line
        else:
            self.rungs[line.trial, line.rung] = line
