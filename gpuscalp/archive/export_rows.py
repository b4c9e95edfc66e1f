"""Trades, quotes and books of one symbol as one stream in order of arrival, for exports.

Owns: the merge of the tables, and what makes a row unsound. Never: converts a price.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from gpuscalp.archive.manifest import Part
from gpuscalp.archive.streams import PartReader, Rows
from gpuscalp.archive.tables import Table
from gpuscalp.ops import fused_book as fused
from gpuscalp.schema import BOOK_LEVELS, I64, Quality, TickKind

EXPORTED: Final = ("trades", "quotes", "books")

_END: Final = np.iinfo(np.int64).max
_SIDES: Final = ("bid_price_e8", "bid_qty_e8", "ask_price_e8", "ask_qty_e8")
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

    A row is handed on once every unread row is known to be received later, so each part holds about one row
    group in memory.

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
    held: list[list[RowBatch]] = [[] for _ in readers]
    ready: list[RowBatch] = []
    try:
        for reader in readers:
            reader.open()
        while True:
            bound = min((reader.next_recv_ns for reader in readers), default=_END)
            pieces = []
            for index, batches in enumerate(held):
                if batches:
                    piece, rest = _split(joined(batches), bound)
                    pieces.append(piece)
                    held[index] = [rest] if len(rest) else []
            ready.append(_in_order(joined(pieces)))
            if bound == _END or sum(map(len, ready)) >= batch_rows:
                batch = joined(ready)
                ready = []
                if len(batch):
                    yield batch
            if bound == _END:
                return
            for reader, batches in zip(readers, held, strict=True):
                if reader.next_recv_ns == bound:
                    batches.append(_batch_of(reader.read(), reader.table))
    finally:
        for reader in readers:
            reader.close()


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
        reader = PartReader(archive, part, start_ns, end_ns, columns=("recv_ns", "exch_ns"))
        reader.open()
        try:
            while reader.next_recv_ns != _END:
                rows = reader.read()
                if len(rows["recv_ns"]):
                    least = min(least, int((rows["recv_ns"] - rows["exch_ns"]).min()))
        finally:
            reader.close()
    return 0 if least == _END else least


def _batch_of(columns: Rows, table: Table) -> RowBatch:
    rows = np.zeros((len(columns["recv_ns"]), fused.COLUMNS), np.int64)
    levels = np.empty((0, len(_SIDES), BOOK_LEVELS), np.int64)
    rows[:, fused.KIND] = table.kind
    rows[:, fused.EXCH], rows[:, fused.LOCAL] = columns["exch_ns"], columns["recv_ns"]
    rows[:, fused.SEQ], rows[:, fused.QUALITY] = columns["seq"], columns["quality"]
    if table.kind is TickKind.TRADE:
        payload: list[npt.NDArray[np.int64]] = [columns[name] for name in ("price_e8", "qty_e8", "side")]
        for index, values in enumerate(payload):
            rows[:, fused.FIRST + index] = values
        return RowBatch(rows, levels)
    rows[:, fused.UPDATE_ID] = columns["update_id"]
    bid, ask = columns["bid_price_e8"], columns["ask_price_e8"]
    if table.kind is TickKind.QUOTE:
        for index, name in enumerate(_SIDES):
            rows[:, fused.FIRST + index] = columns[name]
    else:
        levels = np.stack([columns[name] for name in _SIDES], axis=1)
        rows[:, fused.FIRST] = np.arange(len(rows))
        bid, ask = bid[:, 0], ask[:, 0]
    # The importer sets this bit; an archive that something else wrote may lack it.
    rows[:, fused.QUALITY] |= np.where((bid >= ask) & (ask > 0), int(Quality.CROSSED), 0)
    return RowBatch(rows, levels)


def _split(batch: RowBatch, recv_ns: int) -> tuple[RowBatch, RowBatch]:
    """Divide a batch of one table into what was received before a time and the rest."""
    count = len(batch) if recv_ns == _END else int(np.searchsorted(batch.rows[:, fused.LOCAL], recv_ns))
    return chosen(batch, slice(None, count)), chosen(batch, slice(count, None))


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
        return RowBatch(
            np.empty((0, fused.COLUMNS), np.int64), np.empty((0, len(_SIDES), BOOK_LEVELS), np.int64)
        )
    rows = np.concatenate([batch.rows for batch in batches])
    first = level = 0
    for batch in batches:
        part = rows[first : first + len(batch)]
        part[part[:, fused.KIND] == TickKind.BOOK, fused.FIRST] += level
        first, level = first + len(batch), level + len(batch.levels)
    return RowBatch(rows, np.concatenate([batch.levels for batch in batches]))


def _in_order(batch: RowBatch) -> RowBatch:
    order = np.lexsort((batch.rows[:, fused.SEQ], batch.rows[:, fused.LOCAL]))
    return RowBatch(batch.rows[order], batch.levels)
