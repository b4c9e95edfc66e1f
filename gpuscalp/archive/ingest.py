"""Importing: any number of source files into one archive.

Owns: what belongs together, what is imported already, and the report. The layout of an import:

1. every file is recognised and hashed; what the archive has by digest is not imported again;
2. files of one venue that share a symbol form a component and are merged by receive time, so that the
   snapshot of one day serves the next, and a file of REST snapshots serves the stream beside it;
3. a commit is made where no file is half read, once there is enough for one, and at the end. A killed import
   loses only what was not committed; run again, it reads committed files of the same component once more for
   the state of the book and the trade ids, without writing, and goes on.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path
from typing import Any

from msgspec import structs

from gpuscalp.archive.assembly import Assembly, SourceRun
from gpuscalp.archive.folders import EXCHANGE_INFO, sources_in
from gpuscalp.archive.formats import VENUES, SourceFile, recognise
from gpuscalp.archive.instruments import read_exchange_info, split_fitting
from gpuscalp.archive.manifest import Manifest, Source
from gpuscalp.archive.rejects import RejectLog
from gpuscalp.archive.writer import STAGING_NAME, ArchiveWriter
from gpuscalp.errors import UnusableSourceError, UsageError
from gpuscalp.journal.reader import SUFFIX as JOURNAL_SUFFIX
from gpuscalp.progress import Progress, silent
from gpuscalp.schema import NS_PER_MS, Instrument


@dataclass(slots=True)
class ImportReport:
    """What an import did.

    Attributes
    ----------
    sources : files imported now
    skipped : files that the archive had
    passed_over : what else lies in the folders given, by path, and why it is not imported
    crossed_books, crossed_quotes : rows imported now whose best bid is at or above the best ask
    unsynced : depth updates by symbol that no snapshot ever came for: they made no book rows
    misfits : symbols whose prices are no multiples of the tick size that --instruments gives, or that was
        stored by an import before; that instrument is not used
    agg_trade_lags_ms : how many aggTrades of the recordings were sent so long after their trade
    """

    sources: list[Source] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    passed_over: dict[str, str] = field(default_factory=dict)
    crossed_books: int = 0
    crossed_quotes: int = 0
    unsynced: dict[str, int] = field(default_factory=dict)
    misfits: list[str] = field(default_factory=list)
    agg_trade_lags_ms: Counter[int] = field(default_factory=Counter)
    seconds: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """Return the answer of ``data import --json``."""
        tables: Counter[str] = Counter()
        set_aside: Counter[str] = Counter()
        reasons: Counter[str] = Counter()
        messages: Counter[str] = Counter()
        for source in self.sources:
            tables.update(source.rows)
            set_aside.update(source.set_aside)
            reasons.update(source.rejects)
            messages.update(source.messages)
        lines = sum(source.lines for source in self.sources)
        return {
            "rows": sum(tables.values()),
            "rejects": sum(reasons.values()),
            "gaps": sum(source.gaps for source in self.sources),
            "crossed_books": self.crossed_books,
            "crossed_quotes": self.crossed_quotes,
            "lines": lines,
            "duplicates": sum(source.duplicates for source in self.sources),
            "late": sum(source.late for source in self.sources),
            "out_of_order": sum(source.out_of_order for source in self.sources),
            "rows_by_table": dict(tables),
            "messages": dict(messages),
            "set_aside": dict(set_aside),
            "rejects_by_reason": dict(reasons),
            "unsynced": self.unsynced,
            "misfits": self.misfits,
            "agg_trade_lag_ms": _lag(self.agg_trade_lags_ms),
            "skipped": self.skipped,
            "passed_over": self.passed_over,
            "sources": [structs.asdict(source) for source in self.sources],
            "seconds": round(self.seconds, 3),
            "lines_per_s": round(lines / self.seconds) if self.seconds else 0,
        }


def import_sources(
    paths: Iterable[str | Path],
    archive: str | Path,
    *,
    venue: str | None = None,
    symbol: str | None = None,
    strict: bool = False,
    instruments: Path | None = None,
    book_interval_ms: int = 0,
    trade_delay_ms: int | None = None,
    progress: Progress = silent,
) -> ImportReport:
    """Import files into an archive, new or existing.

    Parameters
    ----------
    paths : files; a folder stands for the source files in it and below (``folders.sources_in``)
    archive : directory of the archive
    venue : None = told by each file
    symbol : for CSV files that do not tell theirs
    strict : the first bad line is an error, and what was not committed before it is not imported
    instruments : exchangeInfo of the venue; None = that of the newest recording of ``gpuscalp.record`` among
        the files; where there is none either, tick sizes are observed
    book_interval_ms : least exchange time between two book rows; 0 = every change of the best 20 levels
    trade_delay_ms : added to the times of trades in CSV files that only tell when they were made; None = that
        of the venue (``gpuscalp.archive.formats.TRADE_DELAYS_MS``)
    progress : told how far the import is

    Raises
    ------
    UsageError
        a file is missing, its format, venue or symbol cannot be told, a folder holds nothing to import, the
        directory is no archive, or it has trades of a file with another delay
    DecodeError
        strict, and a line cannot be read
    ArchiveError
        another import is running
    """
    started = time.monotonic()
    if venue is not None and venue not in VENUES:
        raise UsageError("no such venue", value=venue, fix=f"one of: {', '.join(VENUES)}")
    report = ImportReport()
    files = _recognised(
        paths,
        report,
        lambda path: recognise(path, venue=venue, symbol=symbol, trade_delay_ms=trade_delay_ms),
    )
    if not files:
        raise UsageError("no source files", fix="name files or folders to import")
    shown = _Shown(progress, sum(file.size_bytes for file in files))
    for name in sorted({file.venue for file in files}):
        group = _unique([file for file in files if file.venue == name], report)
        wanted = {told for file in group for told in file.symbols}
        listing = instruments or _listing_beside(group)
        known_instruments = read_exchange_info(listing, name, wanted=wanted) if listing is not None else {}
        with ArchiveWriter(archive, name) as writer:
            _check_delays(writer.manifest, group)
            known = frozenset(each.digest for each in writer.manifest.sources if each.venue == name)
            before = frozenset(part.path for part in writer.manifest.parts)
            for component in components(group):
                _import_component(
                    writer,
                    component,
                    known,
                    report,
                    shown,
                    strict=strict,
                    interval_ns=book_interval_ms * NS_PER_MS,
                )
            if report.sources:
                writer.commit()
            for part in writer.manifest.parts:
                if part.path not in before:
                    report.crossed_books += part.crossed if part.table == "books" else 0
                    report.crossed_quotes += part.crossed if part.table == "quotes" else 0
            report.misfits.extend(_settle_instruments(writer, known_instruments))
    report.seconds = time.monotonic() - started
    return report


def _listing_beside(files: Sequence[SourceFile]) -> Path | None:
    newest_first = sorted(files, key=lambda file: file.begin_ns, reverse=True)
    beside = (
        file.path.with_name(EXCHANGE_INFO) for file in newest_first if file.path.suffix == JOURNAL_SUFFIX
    )
    return next((path for path in beside if path.is_file()), None)


def components(files: Sequence[SourceFile]) -> list[list[SourceFile]]:
    """Group files that share a symbol, directly or over others; each group and the groups are ordered by
    first receive time. One whose symbols are not known, or all there are, may share some with any other."""
    everything = {"", *(symbol for file in files for symbol in file.symbols)}
    groups: list[tuple[set[str], list[SourceFile]]] = []
    for file in files:
        limited = file.symbols and not file.is_over_all
        symbols, members = set(file.symbols) if limited else set(everything), [file]
        apart = []
        for group in groups:
            if group[0] & symbols:
                symbols |= group[0]
                members = [*group[1], *members]
            else:
                apart.append(group)
        groups = [*apart, (symbols, members)]
    ordered = [sorted(members, key=lambda file: file.begin_ns) for _, members in groups]
    return sorted(ordered, key=lambda members: (members[0].begin_ns, members[0].path.name))


def _import_component(
    writer: ArchiveWriter,
    files: Sequence[SourceFile],
    known_digests: frozenset[str],
    report: ImportReport,
    shown: _Shown,
    *,
    strict: bool,
    interval_ns: int,
) -> None:
    known = [file.digest in known_digests for file in files]
    report.skipped.extend(str(file.path) for file, is_known in zip(files, known, strict=True) if is_known)
    if all(known):
        shown.done(files)
        return
    # Known files after the last new one have nothing to give to it.
    count = max(index for index, is_known in enumerate(known) if not is_known) + 1
    staging = writer.path / STAGING_NAME
    runs = [
        SourceRun(file, known=is_known, log=RejectLog(staging, file.digest), strict=strict)
        for file, is_known in zip(files[:count], known[:count], strict=True)
    ]
    assembly = Assembly(writer, book_interval_ns=interval_ns, tell=shown.at(files))
    try:
        for sources in assembly.run(runs):
            report.sources.extend(sources)
    finally:
        for run in runs:
            run.log.close()
            report.agg_trade_lags_ms.update(run.agg_trade_lags_ms)
    report.unsynced.update(assembly.unsynced())
    shown.done(files)


class _Shown:
    """Progress over all components."""

    def __init__(self, progress: Progress, total: int) -> None:
        self._progress, self._total, self._before = progress, total, 0

    def at(self, files: Sequence[SourceFile]) -> Callable[[int], None]:
        symbols = files[0].symbols
        name = ", ".join(symbols) if 0 < len(symbols) <= 8 else files[0].path.name
        before = self._before

        def tell(consumed: int) -> None:
            self._progress(before + consumed, self._total, name)

        return tell

    def done(self, files: Sequence[SourceFile]) -> None:
        self._before += sum(file.size_bytes for file in files)
        self.at(files)(0)


def _recognised(
    paths: Iterable[str | Path], report: ImportReport, look: Callable[[Path], SourceFile]
) -> list[SourceFile]:
    """Look at the files named and at those in the folders named. Of the latter, those of a kind that is no
    use are passed over; one that is not known stops the import, as it may be a damaged recording."""
    files: list[SourceFile] = []
    for path in map(Path, paths):
        if not path.is_dir():
            files.append(look(path))
            continue
        found, others = sources_in(path)
        count = len(files)
        for each in found:
            try:
                files.append(look(each))
            except UnusableSourceError as error:
                others[str(each)] = error.what
        if len(files) == count:
            raise UsageError(
                "the folder holds no source files",
                where=str(path),
                value="; ".join(f"{why}: {of}" for why, of in Counter(others.values()).items()) or None,
                fix="name files, or another folder; docs/data.md lists what can be imported",
            )
        report.passed_over.update(others)
    return files


def _unique(files: Iterable[SourceFile], report: ImportReport) -> list[SourceFile]:
    """Return the files without copies of one another."""
    kept: dict[str, SourceFile] = {}
    for file in files:
        if kept.setdefault(file.digest, file) is not file:
            report.skipped.append(str(file.path))
    return list(kept.values())


def _settle_instruments(writer: ArchiveWriter, given: dict[str, Instrument]) -> list[str]:
    """Store the given instruments that fit, forget stored ones that fit no longer, and name both kinds of
    those that do not: prices of one day may be finer than those of the day before."""
    manifest = writer.manifest
    fitting, misfits = split_fitting(manifest, given, writer.venue)
    replaced = {instrument.symbol for instrument in fitting}
    stored = {
        each.symbol: each
        for each in manifest.instruments
        if each.venue == writer.venue and each.symbol not in replaced
    }
    _, outdated = split_fitting(manifest, stored, writer.venue)
    if outdated or any(instrument not in manifest.instruments for instrument in fitting):
        writer.set_instruments(fitting, forget=outdated)
        writer.commit()
    return sorted({*misfits, *outdated})


def _check_delays(manifest: Manifest, files: Iterable[SourceFile]) -> None:
    """Refuse a file whose trades the archive has under other times."""
    known = {(source.digest, source.venue): source.trade_delay_ns for source in manifest.sources}
    for file in files:
        asked_ns = file.trade_delay_ns
        known_ns = known.get((file.digest, file.venue), asked_ns)
        if asked_ns is not None and known_ns is not None and known_ns != asked_ns:
            was_ms = known_ns / NS_PER_MS
            raise UsageError(
                f"the archive has these trades dated {was_ms:g} ms after they were made",
                where=str(file.path),
                value=f"{asked_ns / NS_PER_MS:g} ms are asked for",
                fix=f"import into a new archive, or give --trade-delay-ms {was_ms:g}",
            )


def _lag(lags_ms: Counter[int]) -> dict[str, int] | None:
    """Return the distribution of the lags, lower quantiles; None without any."""
    count, ordered = lags_ms.total(), sorted(lags_ms)
    if not count:
        return None
    below = list(accumulate(lags_ms[lag] for lag in ordered))
    quantiles = {f"p{part}": ordered[bisect_left(below, count * part / 100)] for part in (50, 95, 99)}
    return {"trades": count, **quantiles, "largest": ordered[-1]}
