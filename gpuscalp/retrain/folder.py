"""The folder of a session's retraining.

    SESSION/retraining/candidate/   the last bundle that came of it
    SESSION/retraining/work/        archive and rejects of a run; nothing of it stays
    SESSION/retraining/lock         held by the one process that retrains; in it, processors that it gives up

Owns: these names, that one process at a time works there, what a killed one has left.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from gpuscalp.errors import UsageError
from gpuscalp.locks import ASKED_S, read_lock, take_lock

FOLDER: Final = "retraining"
CANDIDATE: Final = "candidate"
_WORK: Final = "work"
_LOCK: Final = "lock"
HELD: Final = "another process retrains this session"
_BYTES_MAX: Final = 16_384


@contextmanager
def alone(folder: Path, cores: Sequence[int] = ()) -> Iterator[Path]:
    """Be the one process that retrains a session; yield an empty folder to work in.

    Parameters
    ----------
    cores : processors that it uses and gives up at once to the session's process, for ``busy_cores``

    Raises
    ------
    UsageError    another one does
    """
    folder.mkdir(exist_ok=True)
    work = folder / _WORK
    lock = take_lock(folder / _LOCK, wait_s=ASKED_S)
    if lock is None:
        raise UsageError(HELD, where=str(folder), fix="wait for it to end")
    try:
        os.ftruncate(lock, 0)
        os.write(lock, " ".join(map(str, cores)).encode())
        shutil.rmtree(work, ignore_errors=True)  # of a run that was killed
        work.mkdir()
        try:
            yield work
        finally:
            shutil.rmtree(work, ignore_errors=True)
    finally:
        os.close(lock)


def is_held(folder: Path) -> bool:
    """Whether somebody retrains the session now, in any process."""
    return _told(folder) is not None


def busy_cores(folder: Path) -> frozenset[int]:
    """Return the processors that whoever retrains the session now has told of; none where nobody does."""
    with suppress(ValueError):  # not ours, or from a version before
        return frozenset(map(int, (_told(folder) or b"").split()))
    return frozenset()


def _told(folder: Path) -> bytes | None:
    """Return what stands in the lock; None where nobody holds it."""
    path = folder / _LOCK
    try:
        if read_lock(path).held:
            with path.open("rb") as file:
                return file.read(_BYTES_MAX)
    except OSError:
        pass
    return None


def clear(folder: Path) -> str:
    """Remove what a run that was killed has left; return why it is still there, "" if it is not."""
    work = folder / _WORK
    if not work.exists():
        return ""
    try:
        lock = take_lock(folder / _LOCK)
        if lock is None:
            return HELD
        try:
            shutil.rmtree(work)
        finally:
            os.close(lock)
    except OSError as error:
        return f"{work} cannot be removed: {error.strerror}"
    return ""
