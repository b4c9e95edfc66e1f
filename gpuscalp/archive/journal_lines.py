"""A segment of a journal as the lines of a recording, so that it is imported like one.

Owns: which records are market data, the line that each becomes (``gpuscalp.archive.recording``), which market
they are of, and which of them have come before.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final, final

import msgspec
from msgspec import Struct

from gpuscalp.errors import UNREADABLE, JournalError
from gpuscalp.journal.blocks import MAGIC, Record, RecordKind
from gpuscalp.journal.reader import JournalReader, read_records, segments_of

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

JOURNAL_MAGIC: Final = MAGIC
_NS_PER_S: Final = 1_000_000_000
# Of so many of a journal's newest messages it is known that they came: half a minute of a busy market.
_KEPT: Final = 1 << 18
_INPUTS: Final = frozenset({RecordKind.RAW, RecordKind.REST, RecordKind.TICKS, RecordKind.CONNECTION})


def line_of(record: Record) -> bytes:
    """Return the line of a record with its end; nothing for one that is no market data."""
    if record.kind == RecordKind.RAW:
        # In JSON a line break can only stand between values.
        return b"%d %s\n" % (record.recv_ns, record.body.replace(b"\n", b" "))
    if record.kind == RecordKind.REST:
        request, _, reply = record.body.partition(b"\n")
        url = request.partition(b" ")[2]
        seconds, rest_ns = divmod(record.recv_ns, _NS_PER_S)
        return b"%s -> %d.%09d: %s\n" % (url, seconds, rest_ns, reply.replace(b"\n", b" "))
    return b""


class _Opening(Struct):
    """Of a SESSION record what an import needs (``gpuscalp.live.records.SessionRecord``)."""

    market: str = ""


def market_of(path: Path) -> str | None:
    """Return the market that a segment of a journal is of; None where nothing says so.

    A session has one market, and each of its processes says it once, at its start: if this segment does not,
    another one beside it does. The messages cannot tell: an exchange of our own speaks like Binance.
    """
    with path.open("rb") as file:
        if file.read(len(JOURNAL_MAGIC)) != JOURNAL_MAGIC:
            return None
    found = (_opening(each) for each in (path, *segments_of(path.parent)))
    return next((market for market in found if market is not None), None) or None


def _opening(segment: Path) -> str | None:
    """Return the market that a segment names before its first input, "" where its version named none; None
    if no process began with it."""
    try:
        for record in read_records(segment, torn=True):
            if record.kind == RecordKind.SESSION:
                return msgspec.json.decode(record.body, type=_Opening).market
            if record.kind in _INPUTS:
                return None
    except (JournalError, *UNREADABLE):
        pass  # whoever reads it as a whole accounts for the damage
    return None


@final
class JournalContent(io.RawIOBase):
    """The lines, to be read like a file.

    Reading raises EOFError where the segment's tail is torn, after all whole blocks have been read, and
    JournalError where a byte was altered.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._reader = JournalReader(path, torn=True)
        self._blocks: Iterator[list[Record]] | None = self._reader.blocks()
        self._text = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        target = memoryview(buffer).cast("B")
        while not self._text and self._blocks is not None:
            block = next(self._blocks, None)
            if block is None:
                self._blocks = None
                if self._reader.torn_bytes:
                    raise EOFError(f"torn after block {self._reader.block_count}")
                break
            self._text = memoryview(b"".join(map(line_of, block)))
        count = min(len(target), len(self._text))
        target[:count] = self._text[:count]
        self._text = self._text[count:]
        return count


@final
class Copies:
    """The newest messages of a journal, which has them as every connection brought them.

    By its id alone a copy cannot be told from a message that came late, once a newer one stands between.
    """

    def __init__(self) -> None:
        self._older: set[int] = set()
        self._newer: set[int] = set()

    def has_come(self, raw: bytes) -> bool:
        """Whether a message came before, byte for byte; it has, from here on."""
        mark = hash(raw)
        found = mark in self._newer or mark in self._older
        self._newer.add(mark)
        if len(self._newer) >= _KEPT // 2:
            self._older, self._newer = self._newer, set()
        return found
