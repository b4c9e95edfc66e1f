"""A ParquetDataCatalog of NautilusTrader as an archive.

Owns: what of a catalog goes where, and the account of what an archive cannot hold.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gpuscalp.archive import ArchiveWriter
from gpuscalp.archive.tables import COMMON, TABLES
from gpuscalp.archive.writer import is_empty
from gpuscalp.errors import UsageError
from gpuscalp.nautilus.arrivals import Row
from gpuscalp.nautilus.catalog import TABLE_NAMES, beside, open_catalog, perpetuals_of
from gpuscalp.nautilus.catalog_files import reading
from gpuscalp.nautilus.catalog_rows import catalog_rows
from gpuscalp.nautilus.installed import require
from gpuscalp.nautilus.instruments import from_nautilus
from gpuscalp.progress import Progress, silent


def import_catalog(
    path: Path, out: Path, *, instruments: Sequence[str] = (), progress: Progress = silent
) -> dict[str, Any]:
    """Write an archive, one venue of it, and return the account of what is in it.

    Parameters
    ----------
    path, out : catalog and archive, which must not be there; what an interrupted import left may
    instruments : Nautilus's ids; empty = all linear perpetuals

    Raises
    ------
    ConfigError    NautilusTrader is not installed, or too old
    DataError      a file of the catalog cannot be read
    UsageError     the catalog lacks an instrument, or has several venues; ``out`` is taken
    """
    began, version = time.perf_counter(), require()
    catalog = open_catalog(path)
    if out.exists() and not is_empty(out):
        raise UsageError("there is something here already", where=str(out), fix="name a new directory")
    with reading(path):
        found = {str(each.id): from_nautilus(each) for each in perpetuals_of(catalog)}
    names = tuple(instruments) or tuple(found)
    missing = [name for name in names if name not in found]
    if missing or not names:
        raise UsageError(
            "the catalog has no such linear perpetual",
            where=str(path),
            value=", ".join(missing) or None,
            fix=f"it has: {', '.join(found) or 'none'}",
        )
    chosen = [found[name] for name in names]
    venues = sorted({each.venue for each in chosen})
    if len(venues) > 1:
        raise UsageError("choose the instruments of one venue", where=str(path), value=", ".join(venues))
    left_out: Counter[str] = Counter()
    rows: Counter[str] = Counter()
    # What was observed is observed again.
    known = [each for each in chosen if each.source != "observed"]
    with ArchiveWriter(out, venues[0], instruments=known) as writer:
        for batch in catalog_rows(catalog, path, names, left_out=left_out):
            _write(writer, [each.symbol for each in chosen], batch)
            rows.update(row[0].name for row in batch)
            progress(sum(rows.values()), 0, "")
        writer.finish()
    return {
        "archive": str(out),
        "nautilus": version,
        "venue": venues[0],
        "symbols": [each.symbol for each in chosen],
        "rows": {name: rows[name] for name in TABLE_NAMES},
        "exact": all(beside(path, name).is_file() for name in names),
        "left_out": dict(sorted(left_out.items())),
        "not_read": sorted(set(catalog.list_data_types()) - _READ),
        "seconds": round(time.perf_counter() - began, 3),
    }


# Folders of a catalog that are read.
_READ = frozenset(
    {
        "crypto_perpetual",
        "trade_tick",
        "quote_tick",
        "order_book_deltas",
        "order_book_delta",
        "mark_price_update",
        "index_price_update",
        "funding_rate_update",
    }
)


def _write(writer: ArchiveWriter, symbols: Sequence[str], batch: Sequence[Row]) -> None:
    groups: dict[tuple[str, int], list[tuple[Any, ...]]] = {}
    for table, symbol, values in batch:
        groups.setdefault((table.name, symbol), []).append(values)
    for (name, symbol), rows in groups.items():
        table = TABLES[name]
        columns = zip((*COMMON, *table.columns), zip(*rows, strict=True), strict=True)
        writer.write(
            table,
            symbols[symbol],
            {column: np.array(values, table.dtype(column)) for column, values in columns},
        )
