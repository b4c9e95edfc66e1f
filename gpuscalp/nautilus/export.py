"""An archive as a ParquetDataCatalog of NautilusTrader.

Owns: what is written in which portions. A file holds at most so many events, and no two files of a type and
symbol share an instant: Nautilus finds what it is asked for by the times in their names.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, final

from gpuscalp.archive import Archive
from gpuscalp.archive.reader import choose_venue
from gpuscalp.nautilus.arrivals import Row, arrivals
from gpuscalp.nautilus.catalog import COLUMNS, FOLDER, HAS_FUNDING, KINDS, TABLE_NAMES, beside, open_catalog
from gpuscalp.nautilus.events import EventMaker, as_received
from gpuscalp.nautilus.installed import require
from gpuscalp.nautilus.instruments import to_nautilus
from gpuscalp.nautilus.names import instrument_name
from gpuscalp.progress import Progress, silent

FILE_EVENTS: Final = 250_000
_GROUP: Final = 65_536


def export_catalog(
    path: Path,
    out: Path,
    *,
    venue: str | None = None,
    symbols: Sequence[str] = (),
    start_ns: int | None = None,
    end_ns: int | None = None,
    file_events: int = FILE_EVENTS,
    progress: Progress = silent,
) -> dict[str, Any]:
    """Write a catalog and return the account of what is in it.

    Parameters
    ----------
    path, out : archive and new folder
    venue : may be left out where the archive has only one
    symbols : empty = all
    start_ns, end_ns : half-open range of exchange time; None is open
    file_events : most events of a file, save for those of one instant

    Raises
    ------
    ConfigError, UsageError, ArchiveError
    """
    began, version = time.perf_counter(), require()
    archive = Archive.open(path)
    venue = choose_venue(archive, venue)
    names = tuple(symbols) or archive.symbols(venue)
    instruments = archive.instruments(venue, names)
    archive.span(venue, names, start_ns, end_ns)
    perpetuals = []
    for each in instruments:
        parts = archive.manifest.select(venue, (each.symbol,))
        perpetuals.append(to_nautilus(each, parts, ts_ns=min(part.first_recv_ns for part in parts)))
    catalog = open_catalog(out, new=True)
    catalog.write_data(perpetuals)
    (out / FOLDER).mkdir()
    maker = EventMaker(instruments, perpetuals, as_received)
    ids = [instrument_name(venue, symbol) for symbol in names]
    writer = _Writer(catalog, file_events)
    aside = [_Beside(beside(out, name)) for name in ids]
    rows: Counter[str] = Counter()
    total = sum(part.rows for part in archive.manifest.select(venue, names))
    try:
        for batch in arrivals(archive, venue, names, start_ns=start_ns, end_ns=end_ns):
            _write(batch, maker, writer, aside, rows)
            progress(sum(rows.values()), total, "")
        writer.finish()
    finally:
        for file in aside:
            file.close()
    doubtful = sum(file.doubtful for file in aside)
    return {
        "catalog": str(out),
        "nautilus": version,
        "venue": venue,
        "instruments": ids,
        "rows": {name: rows[name] for name in TABLE_NAMES},
        "events": dict(sorted(writer.counts.items())),
        "files": writer.file_count,
        "beside": {
            "folder": str(out / FOLDER),
            "fields": ["seq", "quality", "update_id", "index_price", *([] if HAS_FUNDING else ["funding"])],
            "doubtful_rows": doubtful,
        },
        "left_out": ["gaps", "sources", "rejects"],
        "seconds": round(time.perf_counter() - began, 3),
    }


def _write(
    batch: Sequence[Row],
    maker: EventMaker,
    writer: _Writer,
    aside: Sequence[_Beside],
    rows: Counter[str],
) -> None:
    events: list[Any] = []
    for row in batch:
        table, symbol, values = row
        rows[table.name] += 1
        aside[symbol].add(row)
        events.clear()
        maker.make((table, symbol, (*values[:3], 0, *values[4:])), events)  # its doubts lie beside it
        for event in events:
            writer.add(event)


@final
class _Writer:
    """Events on their way into files.

    Attributes
    ----------
    counts : events by type
    file_count : files written
    """

    def __init__(self, catalog: Any, file_events: int) -> None:
        self._catalog, self._file_events = catalog, file_events
        self._waiting: dict[tuple[type, str], list[Any]] = {}
        self.counts: Counter[str] = Counter()
        self.file_count = 0

    def add(self, event: Any) -> None:
        kinds = event.deltas if hasattr(event, "deltas") else (event,)
        kind = type(kinds[0])
        if not any(kind in each for each in KINDS.values()):
            return
        key = kind, str(event.instrument_id)
        waiting = self._waiting.setdefault(key, [])
        if len(waiting) >= self._file_events and waiting[-1].ts_init < event.ts_init:
            self._flush(kind, waiting)
        waiting += kinds

    def finish(self) -> None:
        for (kind, _), waiting in self._waiting.items():
            if waiting:
                self._flush(kind, waiting)

    def _flush(self, kind: type, waiting: list[Any]) -> None:
        self._catalog.write_data(waiting)
        self.counts[kind.__name__] += len(waiting)
        self.file_count += 1
        waiting.clear()


@final
class _Beside:
    """The file of one symbol beside Nautilus's data."""

    def __init__(self, path: Path) -> None:
        from gpuscalp.arrow import pa, pq

        self._schema = pa.schema([pa.field(name, pa.int64(), nullable=False) for name in COLUMNS])
        self._file = pq.ParquetWriter(
            path,
            self._schema,
            compression="zstd",
            use_dictionary=False,
            column_encoding=dict.fromkeys(COLUMNS, "DELTA_BINARY_PACKED"),
        )
        self._rows: list[tuple[int, ...]] = []
        self.doubtful = 0

    def add(self, row: Row) -> None:
        table, _, values = row
        recv_ns, exch_ns, seq, quality = values[:4]
        update_id = {"quotes": values[4], "books": values[4], "marks": exch_ns}.get(table.name, 0)
        marks = values[4:8] if table.name == "marks" else (0, 0, 0, 0)
        number = TABLE_NAMES.index(table.name)
        self._rows.append((recv_ns, number, seq, quality, update_id, *marks))
        self.doubtful += quality != 0
        if len(self._rows) == _GROUP:
            self._flush()

    def close(self) -> None:
        self._flush()
        self._file.close()

    def _flush(self) -> None:
        from gpuscalp.arrow import pa

        if self._rows:
            columns = [pa.array(column, pa.int64()) for column in zip(*self._rows, strict=True)]
            self._file.write_table(pa.Table.from_arrays(columns, schema=self._schema))
            self._rows.clear()
