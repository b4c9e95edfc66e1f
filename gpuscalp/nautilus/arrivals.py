"""The rows of an archive, all columns of all tables and symbols, one by one in the order of arrival.

Owns: the merge. Never: knows NautilusTrader. ``Archive.tick_batches`` has the same rows in the same order,
but ticks have no room for ids and for the levels of books.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final, final

import numpy as np

from gpuscalp.archive import Archive
from gpuscalp.archive.streams import PartReader
from gpuscalp.archive.tables import COMMON, Table
from gpuscalp.schema import I64

_END: Final = np.iinfo(np.int64).max

# table, symbol index, and the values of COMMON and of the table's own columns
Row = tuple[Table, int, tuple[Any, ...]]


@final
class _Stream:
    """A part, and the rows read from it that have not been handed on."""

    def __init__(self, reader: PartReader, symbol: int) -> None:
        self.reader, self.symbol = reader, symbol
        self._recv_ns: I64 = np.empty(0, np.int64)
        self._seq: I64 = np.empty(0, np.int64)
        self._rows: list[tuple[Any, ...]] = []

    def read(self) -> None:
        columns = self.reader.read()
        names = (*COMMON, *self.reader.table.columns)
        self._rows += zip(*(columns[name].tolist() for name in names), strict=True)
        self._recv_ns = np.concatenate([self._recv_ns, columns["recv_ns"]])
        self._seq = np.concatenate([self._seq, columns["seq"]])

    def take_before(self, recv_ns: int) -> tuple[I64, I64, list[tuple[Any, ...]]]:
        count = len(self._rows) if recv_ns == _END else int(np.searchsorted(self._recv_ns, recv_ns))
        taken = self._recv_ns[:count], self._seq[:count], self._rows[:count]
        self._recv_ns, self._seq, self._rows = (
            self._recv_ns[count:], self._seq[count:], self._rows[count:],
        )  # fmt: skip
        return taken

    @property
    def is_done(self) -> bool:
        return not self._rows and self.reader.next_recv_ns == _END


def arrivals(
    archive: Archive,
    venue: str,
    symbols: Sequence[str],
    *,
    start_ns: int | None = None,
    end_ns: int | None = None,
) -> Iterator[list[Row]]:
    """Yield the rows by (recv_ns, seq, symbol), a few thousand at a time.

    Each part holds about one row group in memory: a row is handed on once every unread one is known to be
    received later.

    Raises
    ------
    ArchiveError    a file is missing or damaged
    """
    streams = [
        _Stream(PartReader(archive.path, part, start_ns, end_ns), symbols.index(part.symbol))
        for part in archive.manifest.select(venue, symbols)
        if (start_ns is None or part.last_exch_ns >= start_ns)
        and (end_ns is None or part.first_exch_ns < end_ns)
    ]
    try:
        while streams:
            bound = min(stream.reader.next_recv_ns for stream in streams)
            merged = _merged(streams, bound)
            if merged:
                yield merged
            for stream in streams:
                if stream.reader.next_recv_ns == bound != _END:
                    if not stream.reader.is_open:
                        stream.reader.open()
                    else:
                        stream.read()
            streams = [stream for stream in streams if not stream.is_done]
    finally:
        for stream in streams:
            stream.reader.close()


def _merged(streams: Sequence[_Stream], bound: int) -> list[Row]:
    rows: list[Row] = []
    recv, seq, symbol = [], [], []
    for stream in streams:
        recv_ns, number, values = stream.take_before(bound)
        if values:
            table = stream.reader.table
            rows += [(table, stream.symbol, each) for each in values]
            recv.append(recv_ns)
            seq.append(number)
            symbol.append(np.full(len(values), stream.symbol))
    if not rows:
        return rows
    order = np.lexsort((np.concatenate(symbol), np.concatenate(seq), np.concatenate(recv)))
    return [rows[index] for index in order.tolist()]
