"""Lines that could not be taken: ``rejects/<digest of the source>.jsonl``.

Owns: the file's form: one JSON object a line with ``line``, ``reason``, ``where``, ``value`` and ``raw``
(bounded). Every reject is counted; the file keeps the first hundred thousand.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import IO, Final

import msgspec

from gpuscalp.errors import DecodeError

FOLDER: Final = "rejects"
RAW_BYTES_MAX: Final = 2_000
KEPT_MAX: Final = 100_000


class RejectLog:
    """Collect the rejects of one source; ``install`` puts the file into the archive.

    Attributes
    ----------
    counts : rejects by reason
    """

    def __init__(self, staging: Path, digest: str) -> None:
        self.counts: Counter[str] = Counter()
        self._path = staging / f"{digest}.jsonl"
        self._file: IO[bytes] | None = None

    def add(self, line: int, error: DecodeError, raw: bytes) -> None:
        """Note one line. ``line`` counts from 1 in the unpacked file."""
        self.counts[error.what] += 1
        if self.counts.total() > KEPT_MAX:
            return
        if self._file is None:
            self._file = self._path.open("wb")
        record = {
            "line": line,
            "reason": error.what,
            "where": error.where,
            "value": None if error.value is None else str(error.value)[:200],
            "raw": raw[:RAW_BYTES_MAX].decode("utf-8", "replace"),
        }
        self._file.write(msgspec.json.encode(record) + b"\n")

    def install(self, archive: Path) -> None:
        """Put the finished file into the archive, in place of one from an earlier, killed run."""
        if not self.counts:
            return
        self.close()
        folder = archive / FOLDER
        folder.mkdir(exist_ok=True)
        self._path.replace(folder / self._path.name)

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
