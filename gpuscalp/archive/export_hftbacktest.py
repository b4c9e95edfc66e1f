"""Export for hftbacktest: an archive's trades, quotes and books as its event files.

Owns: which files are written, and the account of what is in them and what is not. Never: imports hftbacktest;
the layout is in gpuscalp.ops.fused_book, its meaning in docs/data.md.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np

from gpuscalp.archive.export_clocks import NO_FLOOR_NS, Shift, TwoClocks
from gpuscalp.archive.export_npz import CLOCKS, KINDS, EventFile
from gpuscalp.archive.export_rows import EXPORTED, RowBatch, arrivals, least_latency_ns, unsound_rows
from gpuscalp.archive.manifest import Part
from gpuscalp.archive.reader import Archive, choose_venue
from gpuscalp.archive.streams import PartReader
from gpuscalp.archive.tables import TABLES
from gpuscalp.errors import UsageError
from gpuscalp.ops import fused_book as fused
from gpuscalp.progress import Progress, silent
from gpuscalp.schema import NS_PER_DAY, Quality, TickKind

BATCH_ROWS: Final = 65_536


@dataclass(slots=True)
class ExportedFile:
    """One file: a symbol and a UTC day of exchange time.

    Attributes
    ----------
    path, symbol, day : where and of what
    events, bytes : size
    rows : by table, rows of the archive that were read for it
    first_exch_ns, last_exch_ns, first_local_ns, last_local_ns : times of its events, as written
    """

    path: str
    symbol: str
    day: str
    events: int
    bytes: int
    rows: dict[str, int]
    first_exch_ns: int
    last_exch_ns: int
    first_local_ns: int
    last_local_ns: int


class ExportReport:
    """What was written, what was changed on the way, and what was left out.

    Parameters
    ----------
    offset_ns : added to all local times
    offset_from : ``auto`` or ``given``
    """

    def __init__(self, offset_ns: int, offset_from: Literal["auto", "given"]) -> None:
        self.offset_ns, self.offset_from = offset_ns, offset_from
        self.files: list[ExportedFile] = []
        self.kinds = {clock: Counter(dict.fromkeys(KINDS, 0)) for clock in ("exchange", "local")}
        self.clocks: Counter[str] = Counter(dict.fromkeys(CLOCKS, 0))
        self.rows: Counter[str] = Counter(dict.fromkeys(EXPORTED, 0))
        self.skipped: dict[str, Counter[str]] = {"quotes": Counter(), "books": Counter()}
        self.superseded_quotes = 0
        self.cleared_books = 0
        self.trades_after_gap = 0
        self.exch_ts, self.local_ts = Shift(), Shift()
        self.instruments: dict[str, dict[str, Any]] = {}
        self.seconds = 0.0

    def to_dict(self) -> dict[str, Any]:
        events = sum(self.clocks.values())
        return {
            "files": [asdict(file) for file in self.files],
            "instruments": self.instruments,
            "rows": dict(self.rows),
            "events": {
                "total": events,
                **self.clocks,
                "kinds": {clock: dict(counts) for clock, counts in self.kinds.items()},
            },
            "shifted": {
                "local_ts": {
                    "offset_ns": self.offset_ns,
                    "offset_from": self.offset_from,
                    "offset_rows": sum(self.rows.values()) if self.offset_ns else 0,
                    "raised": self.local_ts.to_dict(),
                },
                "exch_ts": {"raised": self.exch_ts.to_dict()},
            },
            "skipped": {name: dict(reasons) for name, reasons in self.skipped.items()},
            "superseded_quotes": self.superseded_quotes,
            "gaps": {"cleared_books": self.cleared_books, "trades_after_gap": self.trades_after_gap},
            "left_out": ["marks"],
            "seconds": round(self.seconds, 3),
            "events_per_s": round(events / self.seconds) if self.seconds else 0,
        }


def export_hftbacktest(
    path: str | Path,
    out: str | Path,
    *,
    venue: str | None = None,
    symbols: Sequence[str] = (),
    start_ns: int | None = None,
    end_ns: int | None = None,
    latency_offset_ns: int | None = None,
    overwrite: bool = False,
    progress: Progress = silent,
) -> ExportReport:
    """Write ``<symbol>_<YYYYMMDD>.npz`` for every symbol and UTC day.

    Parameters
    ----------
    path : the archive
    out : folder for the files; made if it is not there
    venue : may be left out where the archive has only one
    symbols : empty = all
    start_ns, end_ns : half-open range of exchange time; None is open
    latency_offset_ns : added to all receive times; None = just enough for nothing to be received before it
        was sent, the same for all files, because all were recorded by one clock
    overwrite : replace files that are there
    progress : called with rows read, all rows, and the file

    Raises
    ------
    ArchiveError
        a file of the archive is damaged
    UsageError
        the archive does not have the venue, a symbol, or anything in the range; a file is there already; the
        offset is negative or longer than a day
    """
    began = time.perf_counter()
    archive, folder = Archive.open(path), Path(out)
    if latency_offset_ns is not None and not 0 <= latency_offset_ns <= NS_PER_DAY:
        raise UsageError(
            "the offset must lie between 0 and a day",
            where="--latency-offset",
            value=latency_offset_ns,
            fix=f"nanoseconds, {NS_PER_DAY} at most",
        )
    name = choose_venue(archive, venue)
    plan = _plan(archive, name, symbols, start_ns, end_ns)
    targets = {key: folder / f"{key[0]}_{key[1].replace('-', '')}.npz" for key in plan}
    present = [target for target in targets.values() if target.exists()]
    if present and not overwrite:
        raise UsageError(
            f"{len(present)} of {len(targets)} files are there already",
            where=str(folder),
            value=present[0].name,
            fix="give another folder, or --overwrite",
        )
    folder.mkdir(parents=True, exist_ok=True)
    every = [part for parts in plan.values() for part in parts]
    if latency_offset_ns is None:
        offset_ns = max(0, -least_latency_ns(archive.path, every, start_ns, end_ns))
        report = ExportReport(offset_ns, "auto")
    else:
        report = ExportReport(latency_offset_ns, "given")
    report.instruments = _instruments(archive, name, [symbol for symbol, _ in plan])
    total = sum(part.rows for part in every)
    floors: dict[str, int] = {}
    for (symbol, day), parts in plan.items():
        readers = [PartReader(archive.path, part, start_ns, end_ns) for part in parts]
        clocks = TwoClocks(offset_ns=report.offset_ns, local_floor_ns=floors.get(symbol, NO_FLOOR_NS))
        file = EventFile(targets[symbol, day])
        _write_day(file, readers, clocks, symbol, day, report, progress, total)
        floors[symbol] = clocks.local_floor_ns
    report.seconds = time.perf_counter() - began
    return report


def _write_day(
    file: EventFile,
    readers: Sequence[PartReader],
    clocks: TwoClocks,
    symbol: str,
    day: str,
    report: ExportReport,
    told: Progress,
    total: int,
) -> None:
    """Write the file of one symbol and day, if anything is in it, and enter it into the report."""
    try:
        before = report.rows.copy()
        for batch in arrivals(readers, batch_rows=BATCH_ROWS):
            _count_rows(batch, report)
            for events in clocks.add(batch):
                file.add(events)
            told(sum(report.rows.values()), total, file.path.name)
        for events in clocks.finish():
            file.add(events)
        if file.count:
            size_bytes = file.finish()
            rows = {table: report.rows[table] - before[table] for table in EXPORTED}
            report.files.append(_described(file, symbol, day, size_bytes, rows))
    finally:
        file.discard()
    _add_account(file, clocks, report)


def _plan(
    archive: Archive, venue: str, symbols: Sequence[str], start_ns: int | None, end_ns: int | None
) -> dict[tuple[str, str], list[Part]]:
    """Return the parts of every file, by symbol and day."""
    archive.time_range(venue, symbols)  # names that are not there are an error
    plan: dict[tuple[str, str], list[Part]] = {}
    for part in archive.manifest.select(venue, symbols, EXPORTED):
        if (start_ns is None or part.last_exch_ns >= start_ns) and (
            end_ns is None or part.first_exch_ns < end_ns
        ):
            plan.setdefault((part.symbol, part.day), []).append(part)
    if not plan:
        raise UsageError(
            "there are no trades, quotes or books to export",
            where=f"venue {venue} of {archive.path}",
            value=", ".join(symbols) or None,
            fix="`gpuscalp data info` says what the archive has and when",
        )
    archive.span(venue, symbols, start_ns, end_ns)  # each part may meet both ends of a range that is none
    return {key: plan[key] for key in sorted(plan)}


def _instruments(archive: Archive, venue: str, symbols: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return what a backtest has to be told of each symbol."""
    names = tuple(dict.fromkeys(symbols))
    return {
        instrument.symbol: {
            "tick_size": instrument.tick_size,
            "lot_size": instrument.step_size,
            "source": instrument.source,
        }
        for instrument in archive.instruments(venue, names)
    }


def _count_rows(batch: RowBatch, report: ExportReport) -> None:
    kind = batch.rows[:, fused.KIND]
    for table in EXPORTED:
        report.rows[table] += int(np.count_nonzero(kind == TABLES[table].kind))
    for table, reasons in unsound_rows(batch).items():
        report.skipped[table].update(reasons)
    flagged = (batch.rows[:, fused.QUALITY] & Quality.GAP) != 0
    report.trades_after_gap += int(np.count_nonzero(flagged & (kind == TickKind.TRADE)))


def _add_account(file: EventFile, clocks: TwoClocks, report: ExportReport) -> None:
    for clock, counts in file.kinds.items():
        report.kinds[clock].update(counts)
    report.clocks.update(file.clocks)
    report.exch_ts.add(clocks.shifts.exch_ts)
    report.local_ts.add(clocks.shifts.local_ts)
    report.cleared_books += int(clocks.book.shared[fused.CLEARED])
    report.superseded_quotes += int(clocks.book.shared[fused.SUPERSEDED])


def _described(file: EventFile, symbol: str, day: str, size_bytes: int, rows: dict[str, int]) -> ExportedFile:
    return ExportedFile(
        path=str(file.path),
        symbol=symbol,
        day=day,
        events=file.count,
        bytes=size_bytes,
        rows=rows,
        first_exch_ns=file.first_ns["exch_ts"],
        last_exch_ns=file.last_ns["exch_ts"],
        first_local_ns=file.first_ns["local_ts"],
        last_local_ns=file.last_ns["local_ts"],
    )
