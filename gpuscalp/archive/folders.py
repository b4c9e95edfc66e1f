"""Which files of a folder are sources.

Owns: the walk through a folder and those below it, and what is passed over there. Never: opens a file.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Collection
from pathlib import Path
from typing import Final, NoReturn

from gpuscalp.archive.manifest import LOCK_NAME
from gpuscalp.archive.manifest import NAME as MANIFEST_NAME
from gpuscalp.errors import UsageError
from gpuscalp.journal.reader import SUFFIX as JOURNAL_SUFFIX

SUFFIXES: Final = (".gz", ".zip", ".csv", ".dat", ".txt", ".jsonl", ".0", JOURNAL_SUFFIX)

# What `data record` leaves beside the journal: the instruments as the venue listed them.
EXCHANGE_INFO: Final = "exchangeInfo.json"

_ARCHIVE: Final = "an archive"
_SESSION: Final = "a session's folder"
_JOURNAL: Final = "a session's journal"
_RECORDING: Final = "a recording"
_BESIDE: Final = ("lock", EXCHANGE_INFO)
_FIXES: Final = {
    _ARCHIVE: "name the folder with the files that it was imported from",
    _SESSION: "name the folder journal in it, to import what the session received",
}


def sources_in(folder: Path) -> tuple[list[Path], dict[str, str]]:
    """Return the source files in a folder and below it, and by path why the others are none.

    The files of a folder come before those of its sub-folders, each sorted by name. Names that begin with a
    dot are hidden and not looked at. An archive or a session below belongs to somebody else, and a session's
    journal is a source only where its own folder is the one given.

    Raises
    ------
    UsageError
        a folder cannot be read, or the one given is an archive or that of a session
    """
    files: list[Path] = []
    others: dict[str, str] = {}
    walked: set[str] = set()  # links may lead back
    for top, folders, names in os.walk(folder, onerror=_refuse, followlinks=True):
        here, real = Path(top), os.path.realpath(top)
        kind = _kind(folders, names)
        if here == folder:
            if kind in _FIXES:
                raise UsageError(f"the folder is {kind}", where=str(folder), fix=_FIXES[kind])
        elif kind not in (None, _RECORDING):
            others[str(here)] = kind
        if real in walked or str(here) in others:
            folders.clear()
            continue
        walked.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            path = here / name
            if name.startswith(".") or (kind in (_JOURNAL, _RECORDING) and name in _BESIDE):
                continue
            if not name.endswith(SUFFIXES):
                others[str(path)] = "no source by its name"
            elif _is_special(path):
                others[str(path)] = "no regular file"
            else:
                files.append(path)
    return files, others


def _kind(folders: Collection[str], names: Collection[str]) -> str | None:
    """Return whose folder it is by what lies in it; None = anybody's."""
    # Two of three: a copy may lack the hidden lock, a killed first import the manifest.
    signs = (MANIFEST_NAME in names, LOCK_NAME in names, any(name.startswith("venue=") for name in folders))
    if sum(signs) > 1:
        return _ARCHIVE
    if "session.json" in names:
        return _SESSION
    if any(name.endswith(JOURNAL_SUFFIX) for name in names):
        return _RECORDING if EXCHANGE_INFO in names else _JOURNAL
    return None


def _is_special(path: Path) -> bool:
    """Whether it is a pipe or a device, which might never end. A link to nothing and what may not be looked
    at are told by who opens them."""
    try:
        return not stat.S_ISREG(path.stat().st_mode)
    except OSError:
        return False


def _refuse(error: OSError) -> NoReturn:
    raise UsageError(
        f"cannot read the folder: {error.strerror}",
        where=str(error.filename),
        fix="correct its permissions, or name the files",
    ) from None
