"""Making a journal whole after a crash or a power cut.

Owns: the decision what is a torn tail and what is damage. Never: cuts off what was known to be on the disk.

The kernel writes pages in any order, so a power cut may leave, after the last fsync, blocks that are cut
short, zeroed or holed, and whole blocks behind them. Every block says how much of its segment was durable
when it was written. So, for the first bad byte of the last segment:

- if a whole block behind it says that this byte was durable by then, the disk or somebody has altered the
  journal since: that is damage, and nothing is touched;
- otherwise it belongs to what no fsync had confirmed: everything from there on is cut off, kept beside the
  journal as ``….torn``, and the journal ends at its last whole block.

Only the last segment can be torn: the ones before were made durable before the next one was begun.
"""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from gpuscalp.errors import JournalError
from gpuscalp.files import sync_folder
from gpuscalp.journal.blocks import (
    BLOCK_HEADER_BYTES,
    MARK_BYTES,
    SEGMENT_BYTES,
    RecordKind,
    check_payload,
    decode_header,
    decode_payload,
    decode_segment,
)
from gpuscalp.journal.reader import raw_blocks, segments_of

TORN_SUFFIX: Final = ".torn"


@dataclass(frozen=True, slots=True)
class Repair:
    """What was cut off: ``cut_bytes`` of ``segment`` from byte ``at`` on, now in ``kept``."""

    segment: Path
    at: int
    cut_bytes: int
    kept: Path


@dataclass(frozen=True, slots=True)
class Tail:
    """The end of a journal, as it was found: whole up to byte ``whole_bytes`` of ``segment_bytes``.

    ``durable_bytes``: the most that a whole block behind the first bad byte says was on the disk.
    ``ended``: its last whole record is END: a clean stop.
    """

    segment: Path
    whole_bytes: int
    segment_bytes: int
    durable_bytes: int
    ended: bool

    @property
    def state(self) -> Literal["whole", "torn", "damaged"]:
        """``torn`` is what opening for writing cuts off; ``damaged`` it refuses."""
        if self.whole_bytes == self.segment_bytes > 0:
            return "whole"
        return "damaged" if self.durable_bytes > self.whole_bytes else "torn"


def inspect(path: str | Path) -> Tail | None:
    """Look at the last segment and change nothing; None where there is none.

    A journal that is being written to may look torn at any moment.
    """
    segments = segments_of(path)
    if not segments:
        return None
    segment = segments[-1]
    at, ended = _whole(segment)
    size = segment.stat().st_size
    return Tail(segment, at, size, 0 if at == size else _durable_in(_from(segment, at)), ended)


def repair(path: str | Path) -> Repair | None:
    """Cut off a torn tail; return what was done, or None where the journal was whole.

    Raises
    ------
    JournalError    the journal is damaged in a place that had been durable
    """
    tail = inspect(path)
    if tail is None or tail.state == "whole":
        return None
    segment, at = tail.segment, tail.whole_bytes
    if tail.state == "damaged":
        raise JournalError(
            "the journal was altered after it had been written",
            where=f"{segment}, byte {at}",
            value=f"durable up to {tail.durable_bytes}",
            fix="restore the file; it is left as it is",
        )
    kept = _keep(segment, _from(segment, at))
    if at < SEGMENT_BYTES:
        segment.unlink()
    else:
        with segment.open("r+b") as file:
            file.truncate(at)
            os.fsync(file.fileno())
    sync_folder(segment.parent)
    return Repair(segment, at, tail.segment_bytes - at, kept)


def _from(segment: Path, at: int) -> bytes:
    with segment.open("rb") as file:
        file.seek(at)
        return file.read()


def _whole(segment: Path) -> tuple[int, bool]:
    """Return how many bytes from the beginning are whole, and whether their last record is END."""
    with segment.open("rb") as file:
        try:
            decode_segment(file.read(SEGMENT_BYTES), str(segment))
        except JournalError:
            return 0, False
        at, last = SEGMENT_BYTES, None
        with suppress(JournalError):
            for offset, header, payload in raw_blocks(file, segment):
                assert header is not None
                at, last = offset + header.size, (header, payload)
    return at, last is not None and any(decode_payload(*last, str(segment), {RecordKind.END}))


def _durable_in(tail: bytes) -> int:
    """Return the largest durable length that a whole block anywhere in it states; 0 if there is none."""
    durable, found = 0, tail.find(MARK_BYTES)
    while found >= 0:
        try:
            header = decode_header(tail[found : found + BLOCK_HEADER_BYTES], "")
            check_payload(header, tail[found + BLOCK_HEADER_BYTES : found + header.size], "")
            durable = max(durable, header.durable_bytes)
        except JournalError:
            pass
        found = tail.find(MARK_BYTES, found + 1)
    return durable


def _keep(segment: Path, tail: bytes) -> Path:
    number = 0
    while (kept := segment.with_name(f"{segment.name}.{number}{TORN_SUFFIX}")).exists():
        number += 1
    with kept.open("wb") as file:
        file.write(tail)
        file.flush()
        os.fsync(file.fileno())
    return kept
