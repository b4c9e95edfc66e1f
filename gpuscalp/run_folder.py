"""The directory of a long run.

Owns: the refusals, and the lock. Never: writes into it: each kind of run has files of its own.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import ParamSpec, TypeVar

import msgspec

from gpuscalp.errors import UNREADABLE, UsageError
from gpuscalp.files import make_writable

P = ParamSpec("P")
T = TypeVar("T")


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


def require_alone(file: int, path: Path, what: str, *, fix: str = "wait for it to end") -> None:
    """Be the only process that works on a run, until the descriptor is closed, however the process ends.

    Parameters
    ----------
    file, path : descriptor and name of a file that stays as long as the run
    what : the kind
    fix : advice to the process that is refused

    Raises
    ------
    UsageError
    """
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise UsageError(f"another process works on this {what}", where=str(path), fix=fix) from None


def alone_on_out(run: Callable[P, T]) -> Callable[P, T]:
    """Let one process at a time work on the keyword ``out`` of a run that appears there when it is whole.

    The lock lies beside it: nothing lies in a directory that is to be empty, nor stays of a run that fails.

    Raises
    ------
    UsageError
        by what is returned: another process works on it
    """

    @wraps(run)
    def locked(*args: P.args, **parts: P.kwargs) -> T:
        out = parts.get("out")
        if not isinstance(out, Path):
            return run(*args, **parts)
        make_writable(out.parent)
        path = out.parent / f".{out.name}.lock"
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            require_alone(file, out, "run directory", fix="give another one with --out")
            try:
                return run(*args, **parts)
            finally:
                path.unlink(missing_ok=True)
        finally:
            os.close(file)

    return locked


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
    except (*UNREADABLE, KeyError, TypeError):
        found = None
    if found != wanted:
        raise UsageError(
            f"this is another {what}: {parts} differ",
            where=str(file),
            value=found,
            fix=f"this one is {wanted}; give another directory",
        )
