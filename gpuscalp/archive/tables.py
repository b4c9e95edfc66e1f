"""The four tables of the archive: columns, types, row groups, and the path of a part.

Owns: the layout on disk. Never: opens a file.
"""

from __future__ import annotations

import datetime
import os
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from gpuscalp.errors import ArchiveError
from gpuscalp.schema import BOOK_LEVELS, E8, NS_PER_DAY, TickKind

if TYPE_CHECKING:
    from gpuscalp.arrow import pa

Columns = Mapping[str, npt.NDArray[Any]]

COMMON: Final = ("recv_ns", "exch_ns", "seq", "quality")


@dataclass(frozen=True, slots=True)
class Table:
    """One kind of row.

    Attributes
    ----------
    name : file stem and manifest key
    kind : the tick that a row becomes
    columns : payload columns, int64 unless they stand in ``narrow``
    prices, quantities : the payload columns that are prices and quantities, multiples of 1e-8
    levels : payload columns hold BOOK_LEVELS values a row, best first, 0 = no level
    group_rows : rows of a Parquet row group. The reader holds about one group of every symbol and table
        in memory, so groups stay small enough for several hundred symbols.
    """

    name: str
    kind: TickKind
    columns: tuple[str, ...]
    prices: tuple[str, ...]
    quantities: tuple[str, ...]
    levels: frozenset[str]
    narrow: frozenset[str]
    group_rows: int

    def dtype(self, column: str) -> np.dtype[Any]:
        if column == "quality":
            return np.dtype(np.uint16)
        return np.dtype(np.int8) if column in self.narrow else np.dtype(np.int64)


_BOOK_SIDES: Final = ("bid_price_e8", "bid_qty_e8", "ask_price_e8", "ask_qty_e8")

TRADES: Final = Table(
    name="trades",
    kind=TickKind.TRADE,
    columns=("trade_id", "price_e8", "qty_e8", "side"),
    prices=("price_e8",),
    quantities=("qty_e8",),
    levels=frozenset(),
    narrow=frozenset({"side"}),
    group_rows=16_384,
)
QUOTES: Final = Table(
    name="quotes",
    kind=TickKind.QUOTE,
    columns=("update_id", *_BOOK_SIDES),
    prices=("bid_price_e8", "ask_price_e8"),
    quantities=("bid_qty_e8", "ask_qty_e8"),
    levels=frozenset(),
    narrow=frozenset(),
    group_rows=16_384,
)
BOOKS: Final = Table(
    name="books",
    kind=TickKind.BOOK,
    columns=("update_id", *_BOOK_SIDES),
    prices=("bid_price_e8", "ask_price_e8"),
    quantities=("bid_qty_e8", "ask_qty_e8"),
    levels=frozenset(_BOOK_SIDES),
    narrow=frozenset(),
    group_rows=2_048,
)
MARKS: Final = Table(
    name="marks",
    kind=TickKind.MARK,
    columns=("mark_price_e8", "index_price_e8", "funding_rate_e8", "next_funding_ns"),
    prices=(),
    quantities=(),
    levels=frozenset(),
    narrow=frozenset(),
    group_rows=16_384,
)

# In this order two rows of one message would be told apart, and `data info` lists them.
TABLES: Final = {table.name: table for table in (TRADES, QUOTES, BOOKS, MARKS)}


def arrow_schema(table: Table) -> pa.Schema:
    """Return the Arrow schema of a table's files."""
    from gpuscalp.arrow import pa

    fields = [pa.field(name, pa.from_numpy_dtype(table.dtype(name)), nullable=False) for name in COMMON]
    for name in table.columns:
        kind = pa.from_numpy_dtype(table.dtype(name))
        if name in table.levels:
            kind = pa.list_(pa.field("element", kind, nullable=False), BOOK_LEVELS)
        fields.append(pa.field(name, kind, nullable=False))
    return pa.schema(fields)


def shown(table: Table, columns: Columns) -> pa.Table:
    """Return columns as stored in the form for people: decimal numbers as float64, times as timestamps."""
    from gpuscalp.arrow import pa, timed

    arrays = {}
    for name in (*COMMON, *table.columns):
        values, short = columns[name], name.removesuffix("_e8")
        if short != name:
            # 0 is no price and no level; as a rate of funding it is one like others.
            known = values if name == "funding_rate_e8" else np.where(values == 0, np.nan, values)
            flat = pa.array((known / E8).ravel())
            arrays[short] = (
                pa.FixedSizeListArray.from_arrays(flat, BOOK_LEVELS) if name in table.levels else flat
            )
        else:
            arrays[name] = pa.array(values, mask=values == 0 if name == "next_funding_ns" else None)
    return timed(pa.table(arrays))


def checked_columns(table: Table, columns: Columns) -> dict[str, npt.NDArray[Any]]:
    """Return the columns in file order with their exact dtypes; ``quality`` may be left out (all zero).

    Raises
    ------
    ArchiveError
        a column is missing, unknown, not of an integer type, of another length, or not [N, 20] where the
        table keeps levels
    """
    wanted = (*COMMON, *table.columns)
    where = f"columns of {table.name}"
    unknown = sorted(set(columns) - set(wanted))
    if unknown:
        raise ArchiveError("unknown column", where=where, value=unknown[0], fix=f"known: {', '.join(wanted)}")
    if "recv_ns" not in columns:
        raise ArchiveError("missing column", where=where, value="recv_ns", fix=f"needed: {', '.join(wanted)}")
    count = len(columns["recv_ns"])
    checked: dict[str, npt.NDArray[Any]] = {}
    for name in wanted:
        if name == "quality" and name not in columns:
            checked[name] = np.zeros(count, np.uint16)
            continue
        if name not in columns:
            raise ArchiveError("missing column", where=where, value=name, fix=f"needed: {', '.join(wanted)}")
        values = np.asarray(columns[name])
        shape = (count, BOOK_LEVELS) if name in table.levels else (count,)
        if values.shape != shape or values.dtype.kind not in "iu":
            raise ArchiveError(
                f"column must be integers of shape {shape}",
                where=f"{where}, {name}",
                value=f"{values.dtype}{values.shape}",
            )
        checked[name] = np.ascontiguousarray(values, dtype=table.dtype(name))
    return checked


def crossed_count(columns: Columns) -> int:
    """Return how many rows of quotes or books have a best bid at or above the best ask."""
    bid, ask = columns["bid_price_e8"], columns["ask_price_e8"]
    if bid.ndim == 2:
        bid, ask = bid[:, 0], ask[:, 0]
    return int(np.count_nonzero((bid >= ask) & (bid > 0) & (ask > 0)))


def day_name(day: int) -> str:
    """Return ``YYYY-MM-DD`` of a day counted from 1970-01-01."""
    return (datetime.date(1970, 1, 1) + datetime.timedelta(days=day)).isoformat()


def day_of(ns: int) -> str:
    """Return the UTC day of a time in ns."""
    return day_name(ns // NS_PER_DAY)


def part_path(venue: str, symbol: str, day: str, table: str, number: int) -> str:
    """Return the path of a part below the archive. The first part of a day carries the plain table name;
    later imports that touch the same day add numbered parts instead of rewriting it."""
    stem = table if number == 0 else f"{table}.{number}"
    return f"venue={venue}/symbol={symbol}/date={day}/{stem}.parquet"


def footer_crc32(file: IO[bytes]) -> int:
    """Return the CRC-32 of a part's footer, its length and magic number. Parquet's own checksums are of
    pages; a flipped bit of the footer can change which rows a range has, or make Arrow abort the process."""
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - 8))
    length = int.from_bytes(file.read(4), "little")
    file.seek(max(0, size - 8 - length))
    return zlib.crc32(file.read())


def is_name(text: str) -> bool:
    """Whether a symbol or venue can name a folder: letters of any script, digits, ``_`` and ``-``."""
    return 0 < len(text) <= 64 and all(char.isalnum() or char in "_-" for char in text)
