"""The directory of a long run that can be gone on with.

Owns: the refusals, and the lock. Never: writes into it: each kind of run has files of its own.
"""

from __future__ import annotations

import fcntl
from pathlib import Path

import msgspec

from gpuscalp.errors import UsageError


def taken(out: Path) -> UsageError:
    """Return the refusal to begin where something lies already."""
    return UsageError(
        "the directory is taken",
        where=str(out),
        fix="give another one with --out, or go on in it with --resume",
    )


def require_begun(file: Path, what: str) -> None:
    """Refuse to go on where nothing was begun.

    Parameters
    ----------
    file : that every run of the kind begins with
    what : the kind

    Raises
    ------
    UsageError
    """
    if not file.is_file():
        raise UsageError(f"no {what} here to go on with", where=str(file.parent), fix="leave --resume out")


def require_alone(file: int, path: Path, what: str) -> None:
    """Be the only process that works on a run, until the descriptor is closed, however the process ends.

    Parameters
    ----------
    file, path : descriptor and name of a file that stays as long as the run
    what : the kind

    Raises
    ------
    UsageError
    """
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise UsageError(
            f"another process works on this {what}", where=str(path), fix="wait for it to end"
        ) from None


def require_same(file: Path, wanted: str, what: str, parts: str) -> None:
    """Refuse to go on with another run.

    Parameters
    ----------
    file : JSON, with the ``hash`` of everything that decides the result
    wanted : that of this one
    what : the kind
    parts : what may differ, in words

    Raises
    ------
    UsageError
    """
    try:
        found = msgspec.json.decode(file.read_bytes())["hash"]
    except (msgspec.DecodeError, KeyError, TypeError):
        found = None
    if found != wanted:
        raise UsageError(
            f"this is another {what}: {parts} differ",
            where=str(file),
            value=found,
            fix=f"this one is {wanted}; give another directory",
        )
