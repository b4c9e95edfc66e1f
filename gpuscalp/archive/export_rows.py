"""Trades, quotes and books of one symbol as one stream in order of arrival, for exports.

Owns: the rows that the exports read, and what makes a row unsound. Never: converts a price.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from gpuscalp.archive.manifest import Part
from gpuscalp.archive.streams import PartReader, Rows, merged
from gpuscalp.archive.tables import Table
from gpuscalp.ops import fused_book as fused
from gpuscalp.schema import BOOK_LEVELS, I64, Quality, TickKind

EXPORTED: Final = ("trades", "quotes", "books")

_END: Final = np.iinfo(np.int64).max
_SIDES: Final = ("bid_price_e8", "bid_qty_e8", "ask_price_e8", "ask_qty_e8")
_NO_LEVELS: Final = np.empty((0, len(_SIDES), BOOK_LEVELS), np.int64)
# A row as long as it is alone: a book carries its levels itself.
_ROW: Final = np.dtype([("row", np.int64, fused.COLUMNS), ("levels", np.object_)])
_UNSOUND: Final = Quality.GAP | Quality.RESYNC | Quality.CROSSED


@dataclass(frozen=True, slots=True)
class RowBatch:
    """Rows in order of arrival.

    Attributes
    ----------
    rows : int64[N, 10]       columns of gpuscalp.ops.fused_book; LOCAL holds the receive time
    levels : int64[M, 4, 20]  of the books among them, which FIRST points into
    """

    rows: I64
    levels: I64

    def __len__(self) -> int:
        return len(self.rows)


def arrivals(readers: Sequence[PartReader], *, batch_rows: int) -> Iterator[RowBatch]:
    """Merge parts of one symbol by (recv_ns, seq).

    Parameters
    ----------
    readers : parts of the tables in ``EXPORTED``
    batch_rows : least length of every batch but the last

    Yields
    ------
    RowBatch                  never empty

    Raises
    ------
    ArchiveError
        a file is missing or damaged
    """
    ready: list[npt.NDArray[Any]] = []
    for rows in merged(((reader, 0) for reader in readers), _made):
        ready.append(rows)
        if sum(map(len, ready)) >= batch_rows:
            yield _batch_of(np.concatenate(ready))
            ready = []
    if ready:
        yield _batch_of(np.concatenate(ready))


def unsound_rows(batch: RowBatch) -> dict[str, Counter[str]]:
    """Count the quotes and books that must not be believed, by table and reason (such as ``gap|resync``)."""
    found: dict[str, Counter[str]] = {"quotes": Counter(), "books": Counter()}
    quality = batch.rows[:, fused.QUALITY] & _UNSOUND
    for name, kind in (("quotes", TickKind.QUOTE), ("books", TickKind.BOOK)):
        values = quality[(batch.rows[:, fused.KIND] == kind) & (quality != 0)]
        for value, count in zip(*np.unique(values, return_counts=True), strict=True):
            reason = "|".join(bit.name.lower() for bit in Quality if bit & int(value) and bit.name)
            found[name][reason] += int(count)
    return found


def least_latency_ns(archive: Path, parts: Sequence[Part], start_ns: int | None, end_ns: int | None) -> int:
    """Return the smallest receive time less exchange time of all rows; 0 where there are none."""
    least = _END
    for part in parts:
        for rows in PartReader(archive, part, start_ns, end_ns, columns=("recv_ns", "exch_ns")).groups():
            if len(rows["recv_ns"]):
                least = min(least, int((rows["recv_ns"] - rows["exch_ns"]).min()))
    return 0 if least == _END else least


def _made(columns: Rows, table: Table, _: int) -> npt.NDArray[Any]:
    made = np.zeros(len(columns["recv_ns"]), _ROW)
    rows = made["row"]
    rows[:, fused.KIND] = table.kind
    rows[:, fused.EXCH], rows[:, fused.LOCAL] = columns["exch_ns"], columns["recv_ns"]
    rows[:, fused.SEQ], rows[:, fused.QUALITY] = columns["seq"], columns["quality"]
    if table.kind is TickKind.TRADE:
        for index, name in enumerate(("price_e8", "qty_e8", "side")):
            rows[:, fused.FIRST + index] = columns[name]
        return made
    rows[:, fused.UPDATE_ID] = columns["update_id"]
    bid, ask = columns["bid_price_e8"], columns["ask_price_e8"]
    if table.kind is TickKind.QUOTE:
        for index, name in enumerate(_SIDES):
            rows[:, fused.FIRST + index] = columns[name]
    else:
        levels = np.stack([columns[name] for name in _SIDES], axis=1)
        made["levels"] = np.fromiter(levels, np.object_, len(levels))
        bid, ask = bid[:, 0], ask[:, 0]
    # The importer sets this bit; an archive that something else wrote may lack it.
    rows[:, fused.QUALITY] |= np.where((bid >= ask) & (ask > 0), int(Quality.CROSSED), 0)
    return made


def _batch_of(made: npt.NDArray[Any]) -> RowBatch:
    rows = np.ascontiguousarray(made["row"])
    is_book = rows[:, fused.KIND] == TickKind.BOOK
    rows[is_book, fused.FIRST] = np.arange(np.count_nonzero(is_book))
    levels = made["levels"][is_book]
    return RowBatch(rows, np.stack(levels) if len(levels) else _NO_LEVELS)


def chosen(batch: RowBatch, which: slice | npt.NDArray[np.bool_]) -> RowBatch:
    """Return some rows of a batch, with the levels that they need and no others."""
    rows = batch.rows[which].copy()
    is_book = rows[:, fused.KIND] == TickKind.BOOK
    levels = batch.levels[rows[is_book, fused.FIRST]]
    rows[is_book, fused.FIRST] = np.arange(len(levels))
    return RowBatch(rows, levels)


def joined(batches: Sequence[RowBatch]) -> RowBatch:
    """Concatenate batches."""
    if len(batches) == 1:
        return batches[0]
    if not batches:
        return RowBatch(np.empty((0, fused.COLUMNS), np.int64), _NO_LEVELS)
    rows = np.concatenate([batch.rows for batch in batches])
    first = level = 0
    for batch in batches:
        part = rows[first : first + len(batch)]
        part[part[:, fused.KIND] == TickKind.BOOK, fused.FIRST] += level
        first, level = first + len(batch), level + len(batch.levels)
    return RowBatch(rows, np.concatenate([batch.levels for batch in batches]))
