"""Which parts of a walk-forward are finished, and whether they still are what was written.

Owns: ``parts.json``: part → file → sha256. A part is a directory that is written whole or not at all.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Final, final

import msgspec

from gpuscalp.errors import UNREADABLE, DataError
from gpuscalp.files import pretty, replace_file

PARTS_FILE: Final = "parts.json"


@final
class Parts:
    """The finished parts below one directory.

    Parameters
    ----------
    folder : exists; what ``parts.json`` in it says is taken over

    Raises
    ------
    DataError
        ``parts.json`` cannot be read
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._file = folder / PARTS_FILE
        self._known: dict[str, dict[str, str]] = {}
        if self._file.exists():
            try:
                self._known = msgspec.json.decode(self._file.read_bytes(), type=dict[str, dict[str, str]])
            except UNREADABLE as error:
                raise DataError(f"not a list of parts: {error}", where=str(self._file)) from None

    def finished(self, part: Path) -> bool:
        """Say whether a part need not be made again.

        Raises
        ------
        DataError
            it is finished, but not what was written, or not there
        """
        wanted = self._known.get(self._name(part))
        if wanted is None:
            return False
        found = _digests(part)
        if found != wanted:
            changed = sorted(
                name for name in wanted.keys() | found.keys() if wanted.get(name) != found.get(name)
            )
            raise DataError(
                "a finished part was changed after it was written",
                where=str(part),
                value=", ".join(changed),
                fix=f"start anew in another directory, or take the part out of {self._file} and delete it",
            )
        return True

    def add(self, part: Path) -> None:
        """Note that a part is finished.

        Raises
        ------
        DataError
            there is nothing
        """
        self._known[self._name(part)] = _digests(part)
        replace_file(self._file, pretty(dict(sorted(self._known.items()))))

    def _name(self, part: Path) -> str:
        return part.relative_to(self._folder).as_posix()


def _digests(part: Path) -> dict[str, str]:
    found = {
        path.relative_to(part).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(part.rglob("*"))
        if path.is_file()
    }
    if not found:
        # Noted as finished it would be passed over from then on.
        raise DataError(
            "a finished part is missing or empty",
            where=str(part),
            fix=f"start anew in another directory, or take the part out of {PARTS_FILE}",
        )
    return found
