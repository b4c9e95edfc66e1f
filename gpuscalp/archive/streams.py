"""Lazy reading of parts, and their merge into one stream in arrival order.

Owns: row-group pruning, exact division into instrument ticks, and the bounded k-way merge.
Never: looks at the manifest's bookkeeping beyond paths and times.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from heapq import heappop, heapreplace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from gpuscalp.archive.manifest import Part
from gpuscalp.archive.tables import COMMON, TABLES, Table, arrow_schema, footer_crc32
from gpuscalp.errors import ArchiveError, is_out_of_memory
from gpuscalp.schema import BOOK_LEVELS, E8, F64, I32, I64, NS_PER_MS, TICK, Instrument, TickKind, Ticks

if TYPE_CHECKING:
    from gpuscalp.arrow import pq

Rows = dict[str, npt.NDArray[Any]]
Make = Callable[[Rows, Table, int], npt.NDArray[Any]]

_END: Final = np.iinfo(np.int64).max
_PX_MAX: Final = np.iinfo(np.int32).max
# To ask a part for what is due takes about as long as to read so many rows.
_ROWS_A_PART: Final = 64


class PartReader:
    """The rows of one part inside a time range, one row group at a time.

    Parameters
    ----------
    archive : root of the archive
    part : which file
    start_ns, end_ns : half-open range of ``exch_ns``; None is open
    columns : what is read; None = everything. ``exch_ns`` must be among them.
    """

    def __init__(
        self,
        archive: Path,
        part: Part,
        start_ns: int | None,
        end_ns: int | None,
        *,
        columns: Sequence[str] | None = None,
    ) -> None:
        self.part = part
        self.table: Table = TABLES[part.table]
        self._columns = (*COMMON, *self.table.columns) if columns is None else tuple(columns)
        self._path = archive / part.path
        self._start_ns = -_END if start_ns is None else start_ns
        self._end_ns = _END if end_ns is None else end_ns
        self._file: pq.ParquetFile | None = None
        self._groups: list[tuple[int, int]] | None = None  # (first recv_ns, index), last first

    @property
    def next_recv_ns(self) -> int:
        """A lower bound of the receive time of the next unread row; the largest int64 when there is none.
        The file is opened only when the bound that the manifest gives has been reached."""
        if self._groups is None:
            return self.part.first_recv_ns
        return self._groups[-1][0] if self._groups else _END

    def open(self) -> None:
        """Read the footer. Groups wholly outside the range are never read.

        Raises
        ------
        ArchiveError
            the file is missing or damaged
        """
        from gpuscalp.arrow import pa, pq

        try:
            with self._path.open("rb") as file:
                if footer_crc32(file) != self.part.footer_crc32:
                    raise _damaged(self._path, "its footer is not the one that was written")
            self._file = pq.ParquetFile(self._path, memory_map=False, page_checksum_verification=True)
        except FileNotFoundError:
            raise ArchiveError(
                "a file that the manifest names is missing",
                where=str(self._path),
                fix="`gpuscalp data verify` lists the damage; import the sources again",
            ) from None
        except (OSError, pa.ArrowException) as error:
            if is_out_of_memory(error):
                raise
            raise _damaged(self._path, str(error)) from None
        # Checksums are of whoever has made the archive: it may say anything of itself, and be a small file
        # of as many rows as there is no memory for.
        if not self._file.schema_arrow.equals(arrow_schema(self.table)):
            raise _damaged(self._path, "its columns are not those of the table")
        metadata = self._file.metadata
        recv, exch = (metadata.schema.names.index(name) for name in ("recv_ns", "exch_ns"))
        groups = []
        for index in range(metadata.num_row_groups):
            group = metadata.row_group(index)
            arrived, times = group.column(recv).statistics, group.column(exch).statistics
            if group.num_rows > self.table.group_rows:
                raise _damaged(self._path, f"{group.num_rows} rows in one group")
            if not all(each is not None and each.has_min_max for each in (arrived, times)):
                raise _damaged(self._path, "it does not say which times it has")
            if times.max >= self._start_ns and times.min < self._end_ns:
                groups.append((arrived.min, index))
        self._groups = groups[::-1]

    @property
    def is_open(self) -> bool:
        return self._groups is not None

    def read(self) -> Rows:
        """Read the next row group, cut to the range. May be empty."""
        from gpuscalp.arrow import pa

        assert self._groups, "read after the end"
        assert self._file is not None
        _, index = self._groups.pop()
        try:
            table = self._file.read_row_group(index, columns=list(self._columns), use_threads=False)
        except (OSError, pa.ArrowException) as error:
            if is_out_of_memory(error):
                raise
            raise _damaged(self._path, str(error)) from None
        rows: Rows = {}
        for name in self._columns:
            column = table.column(name).combine_chunks()
            if name in self.table.levels:
                rows[name] = column.flatten().to_numpy(zero_copy_only=False).reshape(-1, BOOK_LEVELS)
            else:
                rows[name] = column.to_numpy(zero_copy_only=False)
        if not self._groups:
            self._file.close()
            self._file = None
        exch = rows["exch_ns"]
        inside = (exch >= self._start_ns) & (exch < self._end_ns)
        if not inside.all():
            rows = {name: values[inside] for name, values in rows.items()}
        return rows

    def groups(self) -> Iterator[Rows]:
        """Yield one row group after the other of a file that may be open already, and close it."""
        if not self.is_open:
            self.open()
        try:
            while self._groups:
                yield self.read()
        finally:
            self.close()

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


def ticks_of(rows: Rows, table: Table, instrument: Instrument, symbol_index: int) -> Ticks:
    """Turn rows of one table into ticks.

    Parameters
    ----------
    rows : columns of N rows as stored
    instrument : gives the tick size that prices are divided by
    symbol_index : goes into ``symbol``

    Returns
    -------
    TICK[N]

    Raises
    ------
    ArchiveError
        a price is no multiple of the tick size, or does not fit in 32 bits
    """
    ticks = np.zeros(len(rows["recv_ns"]), TICK)
    ticks["exch_ns"], ticks["recv_ns"], ticks["quality"] = rows["exch_ns"], rows["recv_ns"], rows["quality"]
    ticks["symbol"], ticks["kind"] = symbol_index, table.kind
    if table.kind is TickKind.TRADE:
        ticks["px0"] = in_ticks(rows["price_e8"], instrument, "price of a trade")
        ticks["q0"] = rows["qty_e8"] / E8
        ticks["side"] = rows["side"]
    elif table.kind is TickKind.QUOTE:
        ticks["px0"] = in_ticks(rows["bid_price_e8"], instrument, "bid of a quote")
        ticks["px1"] = in_ticks(rows["ask_price_e8"], instrument, "ask of a quote")
        ticks["q0"], ticks["q1"] = rows["bid_qty_e8"] / E8, rows["ask_qty_e8"] / E8
    elif table.kind is TickKind.BOOK:
        ticks["px0"] = in_ticks(rows["bid_price_e8"][:, 0], instrument, "bid of a book")
        ticks["px1"] = in_ticks(rows["ask_price_e8"][:, 0], instrument, "ask of a book")
        # A running sum adds from the best level outwards; np.sum would add in pairs.
        bids = np.add.accumulate(rows["bid_qty_e8"] / E8, axis=1)
        asks = np.add.accumulate(rows["ask_qty_e8"] / E8, axis=1)
        ticks["q0"], ticks["q1"] = bids[:, 4], asks[:, 4]
        ticks["q2"], ticks["q3"] = bids[:, BOOK_LEVELS - 1], asks[:, BOOK_LEVELS - 1]
    else:
        ticks["q0"], ticks["q1"] = _price_or_nan(rows["mark_price_e8"]), _price_or_nan(rows["index_price_e8"])
        ticks["q2"] = rows["funding_rate_e8"] / E8
        next_funding = rows["next_funding_ns"]
        ticks["q3"] = np.where(next_funding == 0, np.nan, next_funding // NS_PER_MS)
    return ticks


def in_ticks(price_e8: I64, instrument: Instrument, what: str) -> I32:
    """Divide prices by the tick size, exactly.

    Raises
    ------
    ArchiveError
        there is a remainder, or a quotient needs more than 31 bits
    """
    # Twice as fast as np.divmod, of which the remainder is hardly ever needed.
    quotient = price_e8 // instrument.tick_size_e8
    off = quotient * instrument.tick_size_e8 != price_e8
    where = f"{what} of {instrument.symbol}"
    if off.any():
        wrong = price_e8[off].flat[0]
        raise ArchiveError(
            f"price is no multiple of the tick size {instrument.tick_size}",
            where=where,
            value=int(wrong) / E8,
            fix="the instrument is of another day or venue: import without --instruments, or with that day's",
        )
    if quotient.size and (int(quotient.max()) > _PX_MAX or int(quotient.min()) < 0):
        raise ArchiveError(
            "price does not fit in 32 bits of ticks",
            where=where,
            value=f"{int(quotient.max())} ticks of {instrument.tick_size}",
            fix="a damaged price is too large, or makes the observed tick size too small: take its line out, "
            "and import into a new archive",
        )
    return quotient.astype(np.int32)


def _price_or_nan(price_e8: I64) -> F64:
    """Return prices in quote currency, NaN where 0 stands for unknown."""
    return np.where(price_e8 == 0, np.nan, price_e8 / E8)


class _Stream:
    """A part, and what was made of the rows read from it that has not been handed on."""

    def __init__(self, reader: PartReader, symbol_index: int, make: Make) -> None:
        self.reader, self.symbol_index, self._make = reader, symbol_index, make
        self._recv_ns = self._seq = np.empty(0, np.int64)
        self._made: npt.NDArray[Any] = np.empty(0, np.int64)

    @property
    def is_exhausted(self) -> bool:
        return len(self._made) == 0 and self.reader.next_recv_ns == _END

    def advance(self) -> int:
        """Open the part, or read its next row group; return how many rows that brought."""
        if not self.reader.is_open:
            self.reader.open()
            return 0
        rows = self.reader.read()
        recv_ns, seq = rows["recv_ns"], rows["seq"]
        made = self._make(rows, self.reader.table, self.symbol_index)
        if len(self._made):
            recv_ns, seq = np.concatenate([self._recv_ns, recv_ns]), np.concatenate([self._seq, seq])
            made = _joined([self._made, made])
        self._recv_ns, self._seq, self._made = recv_ns, seq, made
        return len(rows["recv_ns"])

    def take_before(self, recv_ns: int) -> tuple[I64, I64, npt.NDArray[Any]]:
        """Hand out what was received before a time; everything when the time is the largest int64."""
        count = len(self._made) if recv_ns == _END else int(self._recv_ns.searchsorted(recv_ns))
        taken = self._recv_ns[:count], self._seq[:count], self._made[:count]
        self._recv_ns, self._seq, self._made = self._recv_ns[count:], self._seq[count:], self._made[count:]
        return taken


def merged(parts: Iterable[tuple[PartReader, int]], make: Make) -> Iterator[npt.NDArray[Any]]:
    """Merge the rows of parts by (recv_ns, seq, symbol).

    A row may be handed on once every unread row is known to be received later, so each part holds about
    one row group in memory, however long it is, and all of them together a few rows each more.

    Parameters
    ----------
    parts : reader, not opened yet, and symbol index of each part
    make : makes an array, one entry for each row, of the columns of a row group, its table and symbol index

    Yields
    ------
    what ``make`` has made, in order; never empty

    Raises
    ------
    ArchiveError
        a file is missing or damaged
    """
    streams = (_Stream(reader, symbol_index, make) for reader, symbol_index in parts)
    in_turn = sorted(streams, key=lambda stream: stream.reader.next_recv_ns)
    # A heap. A year of days is thousands of parts, of which few overlap: others cost nothing until reached.
    unread = [(stream.reader.next_recv_ns, index, stream) for index, stream in enumerate(in_turn)]
    del in_turn  # what is read goes when its part is done
    active: list[_Stream] = []
    read_count = 0
    try:
        while unread:
            bound, index, stream = unread[0]
            # Not at every group: with hundreds of symbols most of the time would go into asking all parts.
            if read_count >= _ROWS_A_PART * len(active):
                due = _in_order(active, bound)
                if len(due):
                    yield due
                active = [stream for stream in active if not stream.is_exhausted]
                read_count = 0
            if not stream.reader.is_open:
                active.append(stream)
            read_count += stream.advance()
            if stream.reader.next_recv_ns == _END:
                heappop(unread)
            else:
                heapreplace(unread, (stream.reader.next_recv_ns, index, stream))
        due = _in_order(active, _END)
        if len(due):
            yield due
    finally:
        for stream in active:
            stream.reader.close()


def _in_order(streams: Sequence[_Stream], bound: int) -> npt.NDArray[Any]:
    pieces = [(*stream.take_before(bound), stream.symbol_index) for stream in streams]
    pieces = [piece for piece in pieces if len(piece[0])]
    if not pieces:
        return np.empty(0, np.int64)
    if len(pieces) == 1:
        return pieces[0][2]
    recv_ns, seq, made, symbol_index = zip(*pieces, strict=True)
    symbol = np.repeat(symbol_index, [len(piece) for piece in made])
    order = np.lexsort((symbol, np.concatenate(seq), np.concatenate(recv_ns)))
    return _joined(made).take(order)  # an index would copy field by field


def _joined(pieces: Sequence[npt.NDArray[Any]]) -> npt.NDArray[Any]:
    """Join arrays of one type, as memory where that may be: NumPy copies a structure field by field."""
    dtype = pieces[0].dtype
    if dtype.hasobject:
        return np.concatenate(pieces)
    return np.concatenate([piece.view(f"V{dtype.itemsize}") for piece in pieces]).view(dtype)


def in_batches(pieces: Iterable[Ticks], *, max_ticks: int) -> Iterator[Ticks]:
    """Divide a stream of ticks anew: every batch but the last has ``max_ticks``, and none is empty."""
    pending: list[Ticks] = []
    pending_count = 0
    for piece in pieces:
        pending.append(piece)
        pending_count += len(piece)
        if pending_count >= max_ticks:
            joined = _joined(pending)
            whole = pending_count - pending_count % max_ticks
            for start in range(0, whole, max_ticks):
                yield joined[start : start + max_ticks]
            pending, pending_count = [joined[whole:]], pending_count - whole
    if pending_count:
        yield _joined(pending)


def _damaged(path: Path, why: str) -> ArchiveError:
    return ArchiveError(
        f"a file of the archive is damaged: {why.splitlines()[0]}",
        where=str(path),
        fix="`gpuscalp data verify` lists the damage; import the sources again",
    )
