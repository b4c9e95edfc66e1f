"""The market of a session as an archive, from its journal.

Owns: which segments are needed, and their import. The segment that a session is writing is read as far as it
is whole. Never: writes into the session's journal.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final
from urllib.parse import parse_qs, urlsplit

from gpuscalp.archive.assembly import Assembly, SourceRun
from gpuscalp.archive.formats import recognise
from gpuscalp.archive.rejects import RejectLog
from gpuscalp.archive.writer import STAGING_NAME, ArchiveWriter
from gpuscalp.errors import DataError
from gpuscalp.journal import RecordKind, segments_of
from gpuscalp.journal.blocks import SEGMENT_BYTES, decode_segment
from gpuscalp.journal.reader import JournalReader
from gpuscalp.live.directory import SessionFile
from gpuscalp.schema import NS_PER_MS

# Streams of changes, which say nothing without a whole book before them.
_CHANGES: Final = "depth@"


@dataclass(frozen=True, slots=True)
class Imported:
    """What was taken from a journal.

    Attributes
    ----------
    segments, rows : files read, and rows written of all tables
    rejects : lines that could not be taken; a torn end is one
    """

    segments: int
    rows: int
    rejects: int


def import_journal(
    session: Path, about: SessionFile, archive: Path, *, since_ns: int, told: Callable[[int, int], None]
) -> Imported:
    """Write a new archive of the market that a session has seen, under its own venue and instruments.

    Parameters
    ----------
    session, about : its directory, and what it is
    archive : of which there is nothing yet
    since_ns : of what lies before this, by the wall clock, only as much is read as books need
    told : how many bytes have been read, of how many

    Raises
    ------
    DataError       the journal holds no messages of sockets: its ticks came from elsewhere
    JournalError    it is damaged
    """
    if about.config.broker != "paper":
        raise DataError(
            "this journal cannot be imported: NautilusTrader brought its ticks, not sockets of ours",
            where=str(session),
            value=f"broker {about.config.broker}",
            fix="record the market beside it (a paper session of the same symbols), and train on that",
        )
    segments = _needed(session / "journal", about, since_ns)
    venue = about.config.venue
    with ArchiveWriter(archive, venue, instruments=about.instruments) as writer:
        staging = writer.path / STAGING_NAME
        # The name that the model was trained under; the messages of an embedded exchange look like Binance's.
        files = [replace(recognise(each), venue=venue) for each in segments]
        total = sum(each.size_bytes for each in files)
        runs = [
            SourceRun(each, known=False, log=RejectLog(staging, each.digest), strict=False) for each in files
        ]
        assembly = Assembly(
            writer,
            book_interval_ns=about.config.session.book_interval_ms * NS_PER_MS,
            tell=lambda count: told(count, total),
        )
        try:
            sources = [source for committed in assembly.run(runs) for source in committed]
        finally:
            for run in runs:
                run.log.close()
    return Imported(
        segments=len(segments),
        rows=sum(sum(each.rows.values()) for each in sources),
        rejects=sum(sum(each.rejects.values()) for each in sources),
    )


def _needed(journal: Path, about: SessionFile, since_ns: int) -> list[Path]:
    """Return the segments from a time on, and as many before it as bring a whole book of each symbol.

    Raises
    ------
    DataError    there are no messages yet
    """
    segments = [each for each in segments_of(journal) if _has_messages(each)]
    if not segments:
        raise DataError("the journal has no messages yet", where=str(journal), fix="wait, then try again")
    begun = [_created_ns(each) for each in segments]
    first = max((index for index, at_ns in enumerate(begun) if at_ns <= since_ns), default=0)
    missing = set()
    if any(name.startswith(_CHANGES) for name in about.config.feed.streams):
        missing = {each.symbol for each in about.instruments}
    start = first
    while True:
        if missing:
            missing -= _snapshots_in(segments[start])
        if not missing or start == 0:
            return segments[start:]
        start -= 1


def _has_messages(segment: Path) -> bool:
    """Whether a whole block of messages stands in a segment, which may be one that is being written."""
    for block in JournalReader(segment, torn=True).blocks():
        if any(record.kind == RecordKind.RAW for record in block):
            return True
    return False


def _created_ns(segment: Path) -> int:
    with segment.open("rb") as file:
        return decode_segment(file.read(SEGMENT_BYTES), str(segment)).created_ns


def _snapshots_in(segment: Path) -> set[str]:
    """Return the symbols of which a whole book was fetched."""
    found: set[str] = set()
    for block in JournalReader(segment, torn=True).blocks():
        for record in block:
            if record.kind == RecordKind.REST:
                url = record.body.partition(b"\n")[0].partition(b" ")[2].decode("ascii", "replace")
                found.update(parse_qs(urlsplit(url).query).get("symbol", ()))
    return found
