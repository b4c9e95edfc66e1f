"""What was on offer: the recorded quotes and books of one symbol around a moment, each unit to be taken once.

Owns: which recorded state an order meets, and how it is walked. Never: knows orders, fees or an account.

Rules, all on the exchange's clock:

* The state that an order meets is the first one recorded **at or after** its arrival, be it quote or book.
  The last one before would be wrong for recordings that are thinned out (depth every 100 ms): its prices may
  be gone by the arrival, and a fill there would be earlier than the order.
* A quote shows one level. Levels behind it come from the first book recorded at or after the quote, within
  ``DEPTH_REACH_MS``; only prices strictly worse than the quote's are used. Where there is no such book, what
  exceeds the quote's quantity is not filled.
* States that are one-sided, crossed or flagged (gap, resync, crossed) are passed over.
* What one order took is not there for the next one that meets the same state: same table, time and price.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, final

import numpy as np

from gpuscalp.archive import BookSeries, QuoteSeries
from gpuscalp.orders import BUY
from gpuscalp.schema import E8, I64, NS_PER_MS, Instrument, Quality

DEPTH_REACH_MS: Final = 1_000
_UNSOUND: Final = int(Quality.GAP | Quality.RESYNC | Quality.CROSSED)

TakenKey = tuple[str, int, int, int]  # table, exchange time, side, price


@dataclass(frozen=True, slots=True)
class State:
    """One recorded state as an order meets it.

    Attributes
    ----------
    exch_ns : when it was recorded
    mid2_e8 : best bid + best ask
    levels : (price_e8, qty_e8, key) of the side that the order crosses to, best first
    """

    exch_ns: int
    mid2_e8: int
    levels: tuple[tuple[int, int, TakenKey], ...]


@dataclass(frozen=True, slots=True)
class _Table:
    """Sound rows of one table in exchange time; prices in ticks, quantities in 1e-8."""

    name: str
    exch_ns: I64
    bid_px: I64
    ask_px: I64
    bid_qty: I64
    ask_qty: I64

    @classmethod
    def of(cls, name: str, series: QuoteSeries | BookSeries) -> _Table:
        # Not (len, -1): numpy cannot infer a width from no rows, and a recording may have no book at all.
        wide = (len(series), series.bid_px.shape[1] if series.bid_px.ndim == 2 else 1)
        bid_px, ask_px = series.bid_px.reshape(wide), series.ask_px.reshape(wide)
        best_bid, best_ask = bid_px[:, 0], ask_px[:, 0]
        sound = (best_bid > 0) & (best_ask > best_bid) & ((series.quality & _UNSOUND) == 0)
        rows = np.flatnonzero(sound)
        # Arrival order may differ from exchange order by a few messages; a later time never hides an earlier.
        rows = rows[np.argsort(series.exch_ns[rows], kind="stable")]
        return cls(
            name,
            series.exch_ns[rows],
            bid_px[rows].astype(np.int64),
            ask_px[rows].astype(np.int64),
            np.rint(series.bid_qty.reshape(wide)[rows] * E8).astype(np.int64),
            np.rint(series.ask_qty.reshape(wide)[rows] * E8).astype(np.int64),
        )

    def first_from(self, at_ns: int) -> int | None:
        """Index of the first row at or after a time. Of rows of the same time it is the first recorded."""
        index = int(np.searchsorted(self.exch_ns, at_ns, side="left"))
        return index if index < len(self.exch_ns) else None

    def last_until(self, at_ns: int) -> int | None:
        index = int(np.searchsorted(self.exch_ns, at_ns, side="right")) - 1
        return index if index >= 0 else None

    def mid2_e8(self, row: int, tick_e8: int) -> int:
        return (int(self.bid_px[row, 0]) + int(self.ask_px[row, 0])) * tick_e8

    def levels(self, row: int, side: int, tick_e8: int) -> list[tuple[int, int, TakenKey]]:
        px, qty = (self.ask_px, self.ask_qty) if side == BUY else (self.bid_px, self.bid_qty)
        time = int(self.exch_ns[row])
        return [
            (int(price) * tick_e8, int(amount), (self.name, time, side, int(price)))
            for price, amount in zip(px[row], qty[row], strict=True)
            if price > 0 and amount > 0
        ]


@final
class Liquidity:
    """A window of recorded states of one symbol.

    Parameters
    ----------
    instrument : gives the tick size
    """

    def __init__(self, instrument: Instrument) -> None:
        self._tick_e8 = instrument.tick_size_e8
        self._tables: tuple[_Table, ...] = ()
        self._taken: dict[TakenKey, int] = {}

    def load(self, quotes: QuoteSeries, books: BookSeries) -> None:
        """Put a new window in place of the old one; what was taken inside the new one is remembered."""
        self._tables = (_Table.of("quote", quotes), _Table.of("book", books))
        starts = [int(table.exch_ns[0]) for table in self._tables if len(table.exch_ns)]
        first = min(starts, default=0)
        self._taken = {key: qty for key, qty in self._taken.items() if key[1] >= first}

    def meet(self, at_ns: int, side: int) -> State | None:
        """Return the first state at or after a time as an order of ``side`` sees it, if there is one."""
        quote, book = self._tables
        quote_row, book_row = quote.first_from(at_ns), book.first_from(at_ns)
        # A book says more than a quote of the same time.
        if book_row is not None and (quote_row is None or book.exch_ns[book_row] <= quote.exch_ns[quote_row]):
            return self._state(book, book_row, side)
        if quote_row is None:
            return None
        return self._state(quote, quote_row, side, behind=book)

    def last(self, at_ns: int, side: int) -> State | None:
        """Return the last state at or before a time: what is known at the end of the data."""
        quote, book = self._tables
        quote_row, book_row = quote.last_until(at_ns), book.last_until(at_ns)
        if book_row is not None and (quote_row is None or book.exch_ns[book_row] >= quote.exch_ns[quote_row]):
            return self._state(book, book_row, side)
        return None if quote_row is None else self._state(quote, quote_row, side)

    def take(self, state: State, qty_e8: int, step_e8: int) -> list[tuple[int, int]]:
        """Walk a state from its best level and return (price_e8, qty_e8) of what was filled.

        Quantities are whole steps; a level is left for the next when less than a step of it remains.
        """
        filled: list[tuple[int, int]] = []
        for price, displayed, key in state.levels:
            if qty_e8 <= 0:
                break
            amount = min(qty_e8, max(0, displayed - self._taken.get(key, 0)))
            amount -= amount % step_e8
            if amount > 0:
                self._taken[key] = self._taken.get(key, 0) + amount
                filled.append((price, amount))
                qty_e8 -= amount
        return filled

    def _state(self, table: _Table, row: int, side: int, behind: _Table | None = None) -> State:
        levels = table.levels(row, side, self._tick_e8)
        time = int(table.exch_ns[row])
        if behind is not None and levels:
            deeper = behind.first_from(time)
            if deeper is not None and behind.exch_ns[deeper] - time <= DEPTH_REACH_MS * NS_PER_MS:
                best = levels[0][0]
                levels += [
                    level
                    for level in behind.levels(deeper, side, self._tick_e8)
                    if side * (level[0] - best) > 0
                ]
        return State(time, table.mid2_e8(row, self._tick_e8), tuple(levels))
