"""Entries of a session's log again, chosen and in order, while it is written too.

Owns: which entries are wanted, the order of rotated files, following. Never: writes.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Final

import msgspec
from msgspec import Struct

from gpuscalp.errors import UNREADABLE, UsageError
from gpuscalp.logs.entry import Entry
from gpuscalp.logs.writing import LEVELS, LOG_FILE, LOG_FOLDER, check_part

_LOOK_S: Final = 0.1
_DECODER: Final = msgspec.json.Decoder(Entry)


class Wanted(Struct, frozen=True):
    """Which entries; what is not set does not matter.

    Attributes
    ----------
    level : this one and graver ones
    logger : of this part of the program and those below it
    ids : of any of these frames or orders; an order also by its number
    from_ns, to_ns : at or after, before
    """

    level: str = ""
    logger: str = ""
    ids: tuple[str, ...] = ()
    from_ns: int | None = None
    to_ns: int | None = None

    def takes(self, entry: Entry) -> bool:
        """Whether an entry is wanted."""
        if self.level and _gravity(entry.level) < _gravity(self.level):
            return False
        if self.logger and not f"{entry.logger}.".startswith(f"{self.logger}."):
            return False
        if self.ids and not any(_bears(entry, each) for each in self.ids):
            return False
        late = self.to_ns is not None and entry.at_ns >= self.to_ns
        return not late and (self.from_ns is None or entry.at_ns >= self.from_ns)


def read(session: Path, wanted: Wanted) -> Iterator[Entry]:
    """Yield the entries of a session's log, the oldest first.

    Raises
    ------
    UsageError    there is no log, or no such part of the program
    """
    check_part(wanted.logger)
    for path in files_of(session):
        try:
            with path.open("rb") as file:
                yield from _entries(file, wanted)
        except FileNotFoundError:  # the rotation has taken it just now
            continue


def follow(session: Path, wanted: Wanted, *, idle_s: float | None = None) -> Iterator[Entry]:
    """Yield what is written from now on, for ever.

    Parameters
    ----------
    idle_s : end when nothing has been written for so long; None: never
    """
    file: IO[bytes] = files_of(session)[-1].open("rb")
    file.seek(0, 2)
    last = time.monotonic()
    try:
        while idle_s is None or time.monotonic() - last < idle_s:
            for entry in _entries(file, wanted):
                last = time.monotonic()
                yield entry
            newer = _newer(session, file)
            if newer is None:
                time.sleep(_LOOK_S)
                continue
            try:
                yield from _entries(file, wanted)  # what came between the last look and the rotation
            finally:
                file.close()
                file = newer
    finally:
        file.close()


def files_of(session: Path) -> list[Path]:
    """Return the files of a log, the oldest first.

    Raises
    ------
    UsageError    there are none
    """
    folder = session / LOG_FOLDER
    numbered = [
        (int(number), path)
        for path in folder.glob(f"{LOG_FILE}.*")
        if (number := path.name.rpartition(".")[2]).isdecimal()
    ]
    found = [path for _, path in sorted(numbered, reverse=True)]
    if (folder / LOG_FILE).is_file():
        found.append(folder / LOG_FILE)
    if not found:
        raise UsageError(
            "no log here", where=str(folder), fix="name the directory that `gpuscalp live` was given"
        )
    return found


def frames_of(session: Path, order: str) -> tuple[str, ...]:
    """Return the frames that an order came from, as the log tells."""
    wanted = Wanted(ids=(order,))
    return tuple(sorted({entry.frame for entry in read(session, wanted) if entry.frame}))


def _entries(file: IO[bytes], wanted: Wanted) -> Iterator[Entry]:
    """Yield what is wanted of the whole lines from where the file stands; it stands behind them then."""
    while True:
        at = file.tell()
        line = file.readline()
        if not line.endswith(b"\n"):  # being written
            file.seek(at)
            return
        try:
            entry = _DECODER.decode(line)
        except UNREADABLE:  # a crash has cut it short, and another process went on behind it
            continue
        if wanted.takes(entry):
            yield entry


def _bears(entry: Entry, name: str) -> bool:
    if name.isdecimal():
        return entry.order.endswith(f"-{name}")
    # What is said of all symbols of a frame is said of each of them.
    whole = entry.frame.startswith("@") and name.endswith(entry.frame)
    return name in (entry.order, entry.frame) or whole


def _gravity(level: str) -> int:
    return LEVELS.index(level) if level in LEVELS else len(LEVELS)


def _newer(session: Path, file: IO[bytes]) -> IO[bytes] | None:
    """Open the file that was begun after one; None where there is none, or while names change.

    Whoever reads slowly, such as a pager, is several files behind.
    """
    ours = os.fstat(file.fileno())
    try:
        named = _named(session)
        inodes = list(named)
        if ours.st_ino in named:
            inodes = inodes[inodes.index(ours.st_ino) + 1 :]
        elif ours.st_nlink:  # else the rotation has taken it: on with the oldest that is left
            return None
        if not inodes:
            return None
        newer = named[inodes[0]].open("rb")
        if _named(session) == named:
            return newer
        newer.close()
    except (FileNotFoundError, UsageError):
        pass
    return None


def _named(session: Path) -> dict[int, Path]:
    """Return the files of a log by what stays when their names change, the oldest first."""
    return {path.stat().st_ino: path for path in files_of(session)}
