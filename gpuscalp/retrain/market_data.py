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
from gpuscalp.journal.reader import JournalReader
from gpuscalp.live.control import SYNTHETIC_MARKET
from gpuscalp.live.directory import SessionFile
from gpuscalp.live.snapshots import brings_changes
from gpuscalp.schema import NS_PER_MS

# Of a symbol without a snapshot for so many rounds of them (gpuscalp.live.snapshots) there is none to come.
_ROUNDS: Final = 3


@dataclass(frozen=True, slots=True)
class Imported:
    """What was taken from a journal.

    Attributes
    ----------
    segments, rows : files read, those before the time included, and rows written of all tables
    rejects : lines that could not be taken; a torn end is one
    """

    segments: int
    rows: int
    rejects: int


def import_journal(
    session: Path, about: SessionFile, archive: Path, *, since_ns: int, told: Callable[[int, int], None]
) -> Imported:
    """Write a new archive of the market that a session has seen, under its own name and instruments.

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
    segments, before_count = _needed(session / "journal", about, since_ns)
    venue = venue_of(about)
    instruments = [replace(each, venue=venue) for each in about.instruments]
    with ArchiveWriter(archive, venue, instruments=instruments) as writer:
        staging = writer.path / STAGING_NAME
        files = [replace(recognise(each), venue=venue) for each in segments]
        total = sum(each.size_bytes for each in files)
        runs = [
            # Of those before nothing is written but what books go on from.
            SourceRun(each, known=index < before_count, log=RejectLog(staging, each.digest), strict=False)
            for index, each in enumerate(files)
        ]
        assembly = Assembly(
            writer,
            book_interval_ns=about.config.session.book_interval_ms * NS_PER_MS,
            tell=lambda count: told(count, total),
        )
        try:
            sources = [source for committed in assembly.run(runs) for source in committed]
            writer.commit()
        finally:
            for run in runs:
                run.log.close()
    return Imported(
        segments=len(segments),
        rows=sum(sum(each.rows.values()) for each in sources),
        rejects=sum(sum(each.rejects.values()) for each in sources),
    )


def venue_of(about: SessionFile) -> str:
    """Return the venue that the models of a session are trained for.

    A replayed market was the venue's, and who rehearses with it rehearses a change of models too. One that
    was made up never was: no model of it may be taken for one of the venue's.
    """
    return SYNTHETIC_MARKET if about.market == SYNTHETIC_MARKET else about.config.venue


def _needed(journal: Path, about: SessionFile, since_ns: int) -> tuple[list[Path], int]:
    """Return the segments from a time on, behind as many before it as bring a whole book of each symbol, and
    how many these are.

    Raises
    ------
    DataError    there are no messages yet
    """
    begun = [(each, at_ns) for each in segments_of(journal) if (at_ns := _begun_ns(each)) is not None]
    if not begun:
        raise DataError("the journal has no messages yet", where=str(journal), fix="wait, then try again")
    segments = [each for each, _ in begun]
    first = max((index for index, (_, at_ns) in enumerate(begun) if at_ns <= since_ns), default=0)
    missing = set()
    if brings_changes(about.config.feed.streams):
        missing = {each.symbol for each in about.instruments}
    start = first
    until_ns = begun[first][1] - _ROUNDS * about.config.feed.rotate_ms * NS_PER_MS
    while True:
        if missing:
            missing -= _snapshots_in(segments[start])
        if not missing or start == 0 or begun[start][1] <= until_ns:
            return segments[start:], first - start
        start -= 1


def _begun_ns(segment: Path) -> int | None:
    """Return when the first record of a segment came; None where no whole block of messages stands in it,
    which may be one that is being written. The header of a first segment says when its process began."""
    begun_ns = None
    for block in JournalReader(segment, torn=True).blocks():
        begun_ns = block[0].recv_ns if begun_ns is None else begun_ns
        if any(record.kind == RecordKind.RAW for record in block):
            return begun_ns
    return None


def _snapshots_in(segment: Path) -> set[str]:
    """Return the symbols of which a whole book was fetched."""
    found: set[str] = set()
    for block in JournalReader(segment, torn=True).blocks():
        for record in block:
            if record.kind == RecordKind.REST:
                url = record.body.partition(b"\n")[0].partition(b" ")[2].decode("ascii", "replace")
                found.update(parse_qs(urlsplit(url).query).get("symbol", ()))
    return found
