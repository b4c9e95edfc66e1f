"""The rows of an archive, all columns of all tables and symbols, one by one in the order of arrival."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from gpuscalp.archive import Archive
from gpuscalp.archive.streams import Rows
from gpuscalp.archive.tables import COMMON, Table

# table, symbol index, and the values of COMMON and of the table's own columns
Row = tuple[Table, int, tuple[Any, ...]]


def arrivals(
    archive: Archive,
    venue: str,
    symbols: Sequence[str],
    *,
    start_ns: int | None = None,
    end_ns: int | None = None,
) -> Iterator[list[Row]]:
    """Yield the rows by (recv_ns, seq, symbol), a few thousand at a time; memory as ``tick_batches``.

    Raises
    ------
    ArchiveError    a file is missing or damaged
    """
    for rows in archive.arrivals(_made, venue, symbols, start_ns=start_ns, end_ns=end_ns):
        yield rows.tolist()


def _made(rows: Rows, table: Table, symbol: int) -> npt.NDArray[np.object_]:
    columns = (rows[name].tolist() for name in (*COMMON, *table.columns))
    each = ((table, symbol, values) for values in zip(*columns, strict=True))
    return np.fromiter(each, np.object_, len(rows["recv_ns"]))
