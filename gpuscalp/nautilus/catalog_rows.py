"""The rows of a catalog of NautilusTrader, in the order of arrival.

Owns: which events make a row again. With the file that an export has left beside Nautilus's data the rows are
those of the archive, in its order. A catalog that something else has made has no such file: there trades come
before quotes, books and marks of the same instant, and what Nautilus does not hold is found as far as it can
be: a crossed quote shows, a lost message does not.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any, Final, final

import numpy as np
from nautilus_trader.model.data import FundingRateUpdate, IndexPriceUpdate, OrderBookDelta
from nautilus_trader.model.enums import BookAction, OrderSide, RecordFlag

from gpuscalp.archive.tables import TABLES, Table
from gpuscalp.errors import UsageError
from gpuscalp.feeds.book import LocalBook, level_array
from gpuscalp.feeds.messages import DepthSnapshot, Levels
from gpuscalp.nautilus.arrivals import Row
from gpuscalp.nautilus.catalog import COLUMNS, KINDS, TABLE_NAMES, beside
from gpuscalp.nautilus.catalog_files import EventFiles, reading
from gpuscalp.nautilus.instruments import RAW_PER_E8
from gpuscalp.schema import I64, NS_PER_S, Quality

# So much of the catalog lies in memory at once.
_WINDOW_NS: Final = 120 * NS_PER_S
_SIDES: Final = {1: 1, 2: -1, 0: 0}
_LAST: Final = int(RecordFlag.F_LAST)
_DIGITS_MAX: Final = 18  # of an id that int64 can hold
_CROSSED: Final = int(Quality.CROSSED)

# ts_event, ts_init, and the table's own columns
Made = tuple[int, int, tuple[Any, ...]]


def catalog_rows(
    catalog: Any,
    path: Path,
    instruments: Sequence[str],
    *,
    left_out: Counter[str],
) -> Iterator[list[Row]]:
    """Yield the rows of some instruments by (recv_ns, seq, symbol), one window of time after the other.

    Parameters
    ----------
    catalog, path : open, and where it lies
    instruments : Nautilus's ids; their order gives the symbol indices
    left_out : is told what could not be made a row, by reason

    Raises
    ------
    UsageError    the catalog does not have one of them, or what lies beside it is of another one
    """
    readers = [_Symbol(catalog, path, name, index, left_out) for index, name in enumerate(instruments)]
    for start_ns, end_ns in _windows(span for reader in readers for span in reader.spans):
        rows = [row for reader in readers for row in reader.read(start_ns, end_ns)]
        if rows:
            rows.sort(key=lambda row: (row[2][0], row[2][2], row[1]))
            yield rows
    for reader in readers:
        reader.finish()


@final
class _Symbol:
    """One instrument of a catalog.

    Attributes
    ----------
    spans : receive times of the first and last events of its files
    """

    def __init__(self, catalog: Any, path: Path, name: str, symbol: int, left_out: Counter[str]) -> None:
        self._catalog, self._name, self._symbol, self._left_out = catalog, name, symbol, left_out
        self.spans: list[tuple[int, int]] = [
            span for kinds in KINDS.values() for kind in kinds for span in catalog.get_intervals(kind, name)
        ]
        if not self.spans:
            raise UsageError("the catalog has no market data of an instrument", where=str(path), value=name)
        self._files = {
            table: EventFiles(path, kinds[0], name) for table, kinds in KINDS.items() if table != "marks"
        }
        self._unreadable: set[type] = set()
        self._book = LocalBook()
        self._pending: list[Any] = []
        self._seq = 0
        file = beside(path, name)
        self._beside = _Beside(file) if file.is_file() else None

    def read(self, start_ns: int, end_ns: int) -> list[Row]:
        """Return the rows of a window, both ends included; windows follow each other."""
        # The file beside has all of the marks.
        names = [name for name in TABLE_NAMES if name != "marks" or self._beside is None]
        made = {name: self._made(name, start_ns, end_ns) for name in names}
        if self._beside is None:
            return self._found(made)
        return self._told(made, self._beside.until(end_ns))

    def finish(self) -> None:
        if self._pending:
            self._left_out["changes of a book without an end"] += len(self._pending)
        for kind in self._unreadable:
            self._left_out[f"{kind.__name__}: this version of NautilusTrader does not read it"] += 1

    def _told(self, made: dict[str, list[Made]], aside: I64) -> list[Row]:
        """Put rows together with what lies beside them."""
        waiting = {name: deque(rows) for name, rows in made.items()}
        rows: list[Row] = []
        for recv_ns, number, seq, quality, update_id, *marked in aside.tolist():
            name = TABLE_NAMES[number]
            if name == "marks":
                rows.append(self._row(name, (recv_ns, update_id, seq, quality), tuple(marked)))
                continue
            if not waiting[name] or waiting[name][0][1] != recv_ns:
                raise self._another()
            exch_ns, _, values = waiting[name].popleft()
            if name != "trades":
                values = (update_id, *values[1:])
            rows.append(self._row(name, (recv_ns, exch_ns, seq, quality), values))
        if any(waiting.values()):
            raise self._another()
        return rows

    def _found(self, made: dict[str, list[Made]]) -> list[Row]:
        rows = [
            (recv_ns, place, name, exch_ns, values)
            for place, name in enumerate(TABLE_NAMES)
            for exch_ns, recv_ns, values in made[name]
        ]
        rows.sort(key=lambda row: row[:2])
        found = []
        for recv_ns, _, name, exch_ns, values in rows:
            quality = 0
            if name in ("quotes", "books"):
                bid, ask = values[1], values[3]
                if name == "books":
                    bid, ask = bid[0], ask[0]
                quality = _CROSSED if bid >= ask > 0 else 0
            found.append(self._row(name, (recv_ns, exch_ns, self._seq, quality), values))
            self._seq += 1
        return found

    def _row(self, name: str, common: tuple[int, ...], values: tuple[Any, ...]) -> Row:
        table: Table = TABLES[name]
        return table, self._symbol, (*common, *values)

    def _another(self) -> UsageError:
        return UsageError(
            "what lies beside the catalog does not belong to it",
            where=self._name,
            fix="export the archive again, or remove the folder gpuscalp from the catalog",
        )

    def _made(self, name: str, start_ns: int, end_ns: int) -> list[Made]:
        if name == "marks":
            return _marks([event for kind in KINDS[name] for event in self._query(kind, start_ns, end_ns)])
        events = self._files[name].until(end_ns)
        if name == "trades":
            return [made for event in events if (made := self._trade(event)) is not None]
        if name == "quotes":
            return [self._quote(event) for event in events]
        return self._books(events)

    def _query(self, kind: type, start_ns: int, end_ns: int) -> list[Any]:
        try:
            found: list[Any] = self._catalog.query(kind, identifiers=[self._name], start=start_ns, end=end_ns)
        except RuntimeError:
            # Of a type that it writes, and has no reader for.
            self._unreadable.add(kind)
            return []
        return found

    def _trade(self, tick: Any) -> Made | None:
        side = _SIDES[int(tick.aggressor_side)]
        if not side:
            self._left_out["trades without a taker's side"] += 1
            return None
        number = str(tick.trade_id)
        if not (number.isascii() and number.isdigit() and len(number) <= _DIGITS_MAX):
            self._left_out["trade ids that are no numbers"] += 1
            number = "0"
        values = (int(number), self._e8(tick.price.raw), self._e8(tick.size.raw), side)
        return tick.ts_event, tick.ts_init, values

    def _quote(self, tick: Any) -> Made:
        raw = (tick.bid_price.raw, tick.bid_size.raw, tick.ask_price.raw, tick.ask_size.raw)
        return tick.ts_event, tick.ts_init, (0, *map(self._e8, raw))

    def _books(self, deltas: Sequence[Any]) -> list[Made]:
        """Return a row for each group of changes that ends with F_LAST."""
        made: list[Made] = []
        for delta in deltas:
            self._pending.append(delta)
            if delta.flags & _LAST:
                self._apply(self._pending)
                values = (delta.sequence, *(tuple(side) for side in self._book.top()))
                made.append((delta.ts_event, delta.ts_init, values))
                self._pending = []
        return made

    def _apply(self, deltas: Sequence[OrderBookDelta]) -> None:
        bids: Levels = []
        asks: Levels = []
        for delta in deltas:
            if delta.action == BookAction.CLEAR:
                self._book = LocalBook()
                bids.clear()
                asks.clear()
                continue
            order = delta.order
            qty_e8 = 0 if delta.action == BookAction.DELETE else self._e8(order.size.raw)
            side = bids if order.side == OrderSide.BUY else asks
            side.append((self._e8(order.price.raw), qty_e8))
        book = self._book
        if book.last_id is None:
            book.on_snapshot(DepthSnapshot("", 0, 0, [], []))
        before = book.last_id or 0
        book.on_update(before + 1, before + 1, before, level_array(bids, asks), 0, len(bids), len(asks))

    def _e8(self, raw: int) -> int:
        value: int
        value, rest = divmod(raw, RAW_PER_E8)
        if rest:
            self._left_out["digits behind the eighth"] += 1
        return value


def _marks(events: Sequence[Any]) -> list[Made]:
    """Join the parts of mark prices that have the same times."""
    parts: dict[tuple[int, int], list[int]] = {}
    for event in events:
        row = parts.setdefault((event.ts_init, event.ts_event), [0, 0, 0, 0])
        if isinstance(event, FundingRateUpdate):
            # It comes back as text.
            row[2], row[3] = int(Decimal(event.rate).scaleb(8)), event.next_funding_ns or 0
        else:
            row[isinstance(event, IndexPriceUpdate)] = int(event.value.as_decimal().scaleb(8))
    return [(exch_ns, recv_ns, tuple(parts[recv_ns, exch_ns])) for recv_ns, exch_ns in sorted(parts)]


def _batches(path: Path) -> Iterator[Any]:
    from gpuscalp.arrow import pq

    with reading(path):
        yield from pq.ParquetFile(path).iter_batches(columns=list(COLUMNS))


def _windows(spans: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Yield the windows, both ends included, in which there may be something: a catalog of two days that lie
    a year apart has a quarter of a million others, and each would be asked for."""
    start_ns = 0
    for first_ns, last_ns in sorted(spans):
        start_ns = max(start_ns, first_ns)
        while start_ns <= last_ns:
            yield start_ns, start_ns + _WINDOW_NS - 1
            start_ns += _WINDOW_NS


@final
class _Beside:
    """Reads the file beside the data of one symbol, in portions."""

    def __init__(self, path: Path) -> None:
        self._batches = _batches(path)
        self._rows: I64 = np.empty((0, len(COLUMNS)), np.int64)

    def until(self, end_ns: int) -> I64:
        """Return the rows received up to a time, int64[N, columns], and forget them."""
        while not len(self._rows) or self._rows[-1, 0] <= end_ns:
            batch = next(self._batches, None)
            if batch is None:
                break
            more = np.stack([column.to_numpy() for column in batch.columns], axis=1)
            self._rows = np.concatenate([self._rows, more])
        count = int(np.searchsorted(self._rows[:, 0], end_ns, side="right"))
        taken, self._rows = self._rows[:count], self._rows[count:]
        return taken
