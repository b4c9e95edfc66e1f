"""Which reader a file needs, decided from its first lines.

Owns: the recognition of formats, venues and symbols. Never: reads past the first lines, but for the question
whether a recording is of one symbol.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from gpuscalp.archive.arrival import WINDOW, Record, is_newest_first
from gpuscalp.archive.journal_lines import market_of
from gpuscalp.archive.merged import MergedReader, is_merged_header
from gpuscalp.archive.recording import (
    RecordingReader,
    is_over_all,
    is_recording,
    only_symbol,
    symbols_in,
    venue_of,
)
from gpuscalp.archive.source import digest_of, head_of
from gpuscalp.archive.tabular import (
    TickerCsvReader,
    TradeCsvReader,
    header_of,
    is_ticker_header,
    symbol_of,
    symbols_of_rows,
    unusable_kind,
)
from gpuscalp.errors import DecodeError, UnusableSourceError, UsageError
from gpuscalp.schema import NS_PER_MS
from gpuscalp.times import utc

VENUES: Final = ("binance_usdm", "binance_spot")
# How long after a trade was made a session hears of it, where a file tells no more than that. Too long makes
# a model hear late, too short makes it hear what no session could. USD-M: aggTrade is sent after an
# aggregation; E - T was 154 ms in the median and 160 ms at most, of 665 in the recordings of 2021. Spot:
# at most 65 ms of BTCUSDT in 2023, 102 ms at the 99th percentile of NEXOUSDT in 2024.
TRADE_DELAYS_MS: Final = {"binance_usdm": 200, "binance_spot": 100}
# So many bytes tell whether it is text.
_TOLD_BYTES: Final = 512


class LineReader(Protocol):
    """Turns lines into records, one line at a time."""

    name: str

    def read(self, line: bytes, number: int) -> Record | None: ...

    def finish(self) -> Record | None:
        """Return the record that was still held back, after the last line."""


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A recognised file. Thousands of them are held at a time, so nothing of their content is kept.

    Attributes
    ----------
    path, digest, size_bytes : the file, its sha256 and size
    format : name of the reader
    venue : where it was recorded
    symbol : what belongs to it where a line names no symbol; None = no symbol is needed, or none is known
    symbols : those that the first lines or the name tell; empty = unknown
    is_over_all : the first lines have a stream over all symbols
    header : columns of a CSV; None = a recording
    begin_ns : when it begins, or earlier: the least of its first receive times, since the first line may have
        been moved or damaged. Later would be wrong: others would have gone past its first records
    trade_delay_ns : added to the times of trades, of which the file only tells when they were made; None: it
        tells when they were sent or received, or has none
    """

    path: Path
    digest: str
    size_bytes: int
    format: str
    venue: str
    symbol: str | None
    symbols: tuple[str, ...]
    is_over_all: bool
    header: str | None
    begin_ns: int
    trade_delay_ns: int | None = None

    def reader(self) -> LineReader:
        """Return a new reader for the whole file."""
        return _reader(self.header, self.symbol, delay_ns=self.trade_delay_ns or 0)


def recognise(
    path: Path, *, venue: str | None = None, symbol: str | None = None, trade_delay_ms: int | None = None
) -> SourceFile:
    """Look at the first lines of a file.

    Parameters
    ----------
    path : the file
    venue : None = tell from the content, or for CSV from a folder named ``spot`` or ``um`` in the path. The
        journal of a session is of what the session traded on, "synthetic" or "replayed" included
    symbol : for CSV files that do not tell theirs, and recordings of nothing but snapshots
    trade_delay_ms : for CSV files that only tell when trades were made; None = ``TRADE_DELAYS_MS``

    Raises
    ------
    UsageError
        the file is missing or empty, its format is none of ours, its venue cannot be told, none of the first
        rows of a CSV can be read, or its newest lines come first
    UnusableSourceError
        it is of a kind that is published and holds nothing to import
    """
    digest = digest_of(path)
    head = head_of(path)
    if not head.strip():
        raise UsageError(
            "the source is empty or cannot be unpacked",
            where=str(path),
            fix="leave it out, or fetch it again",
        )
    header = None
    if is_recording(head):
        own = only_symbol(path, default=symbol)
        symbols, told = symbols_in(head), market_of(path) or venue_of(head)
    else:
        own = symbol or symbol_of(path.name)
        header = _known_header(path, head, own)
        symbols, told = symbols_of_rows(header, head), _venue_of_path(path, head)
    if own is not None and not symbols:
        symbols = (own,)
    if venue is not None and told is not None and venue != told and header is None:
        raise UsageError(
            f"the messages are of {told}",
            where=str(path),
            value=venue,
            fix="leave --venue out, or correct it",
        )
    chosen = venue or told
    if chosen is None:
        raise UsageError(
            "the file does not tell its venue",
            where=str(path),
            fix=f"give --venue, one of: {', '.join(VENUES)}",
        )
    delay_ns = None
    reader = _reader(header, own)
    if isinstance(reader, TradeCsvReader) and reader.untold:
        delay_ns = NS_PER_MS * (TRADE_DELAYS_MS[chosen] if trade_delay_ms is None else trade_delay_ms)
        reader = _reader(header, own, delay_ns=delay_ns)
    times = _times_in(path, reader, head)
    if is_newest_first(times):
        raise UsageError(
            "lines are newest first",
            where=str(path),
            value=f"{utc(times[0])} … {utc(times[-1])}",
            fix="sort them by time, oldest first",
        )
    return SourceFile(
        path,
        digest,
        path.stat().st_size,
        reader.name,
        chosen,
        own,
        symbols,
        is_over_all(head),
        header,
        min(times[: WINDOW + 1], default=0),
        delay_ns,
    )


def _times_in(path: Path, reader: LineReader, head: bytes) -> list[int]:
    """Return the receive times of the first records; a line that cannot be read has none."""
    times: list[int] = []
    first: UsageError | None = None
    for number, line in enumerate(head.splitlines(), 1):
        try:
            record = reader.read(line, number) if line else None
        except DecodeError as error:
            first = first or UsageError(
                f"none of the first rows can be read: {error.what}",
                where=f"{path}, line {number}" + (f", {error.where}" if error.where else ""),
                value=error.value,
                fix="docs/data.md says what the columns may hold; convert the file, or leave it out",
            )
            continue
        if record is not None:
            times.append(record[0])
    if not times and (last := reader.finish()) is not None:
        times.append(last[0])
    # A recording may begin with lines that say nothing of the rest; the columns of a CSV are all alike.
    if first is not None and not times and not isinstance(reader, RecordingReader):
        raise first
    return times


def _reader(header: str | None, symbol: str | None, *, delay_ns: int = 0) -> LineReader:
    if header is None:
        return RecordingReader(symbol)
    if is_merged_header(header):
        return MergedReader(header)
    if is_ticker_header(header):
        return TickerCsvReader(header, symbol)
    return TradeCsvReader(header, symbol, delay_ns=delay_ns)


def _known_header(path: Path, head: bytes, symbol: str | None) -> str:
    """Return the header of a CSV that a reader takes."""
    try:
        header = header_of(path.name, head)
        _reader(header, symbol)
        return header
    except UsageError as error:
        if (why := unusable_kind(head)) is not None:
            raise UnusableSourceError(
                why,
                where=str(path),
                fix="leave it out; needed are aggTrades or trades, and bookTicker or recorded depth",
            ) from None
        if any(byte < ord("\t") for byte in head[:_TOLD_BYTES]):  # no text has such
            raise UsageError(
                "the format is not known: neither text nor gzip, zip or a journal",
                where=str(path),
                fix="leave it out, or fetch it again; docs/data.md lists what can be imported",
            ) from None
        raise UsageError(
            f"the format is not known: {error.what}",
            where=str(path),
            value=error.value,
            fix=f"{error.fix}; docs/data.md lists what can be imported",
        ) from None


def _venue_of_path(path: Path, head: bytes) -> str | None:
    if b",USD_M_FUTURES," in head:
        return "binance_usdm"
    folders = {part.lower() for part in path.absolute().parts[:-1]}
    if "spot" in folders:
        return "binance_spot"
    if folders & {"um", "usdm"}:
        return "binance_usdm"
    return None
