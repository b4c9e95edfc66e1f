"""The recorded quotes and books of one symbol, and which of them a broker's display would heed.

Owns: what skipping rows must not lose. A broker that is written for one event at a time would take most of a
backtest's time if it were told of every row, and hardly any row meets an order. So a display is brought up to
date only when something looks at it:

* its levels are built up again from the last book that is young enough to be taken from, the best levels at
  that time, and what came after;
* what our orders have taken is counted against every change of the levels concerned in between.

Levels that are too old to be taken from are not built up again. An order that rests would look at them, for
its place in the queue: so this is for orders that take or end.

Never: decides when (``gpuscalp.backtest.venue`` does), or knows orders. Rows are counted from the first one
that is kept; ``gpuscalp.execution.display`` has the rules that are repeated here for many rows at once, and
tests/backtest/test_venue.py holds both against each other.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, final

import numpy as np
import numpy.typing as npt

from gpuscalp.archive import BookSeries
from gpuscalp.backtest.shown import FAR, ShownSide
from gpuscalp.errors import ArchiveError
from gpuscalp.execution.display import Display
from gpuscalp.schema import E8, I64, TICK, Instrument, Quality, TickKind, Ticks

_DOUBT: Final = int(Quality.GAP | Quality.RESYNC | Quality.CROSSED)
_NEVER: Final = 1 << 62

Bools = npt.NDArray[np.bool_]
# (start_ns, end_ns) in exchange time, half-open
ReadBooks = Callable[[int, int], BookSeries]
# bid prices, bid quantities, ask prices, ask quantities, in 1e-8
Levels = list[list[int]]


@final
class Track:
    """Rows of one symbol in the order of arrival.

    Parameters
    ----------
    instrument : gives the tick size
    read_books : the levels that the ticks of books do not carry
    depth_age_ns : how old a book may be for the levels behind the best one to be taken

    Attributes
    ----------
    ticks : TICK[N], quotes and books
    positions : int64[N], their places among the rows of all symbols
    next_row : the first row that the display has neither been told of nor been counted against
    told_row : the next row that a broker with orders of this symbol must be told of
    told_position : its position; larger than any if there is none
    """

    def __init__(self, instrument: Instrument, read_books: ReadBooks, depth_age_ns: int) -> None:
        self._symbol, self._tick_e8 = instrument.symbol, instrument.tick_size_e8
        self._read_books = read_books
        self._depth_age_ns = depth_age_ns
        self.ticks: Ticks = np.empty(0, TICK)
        self.positions: I64 = np.empty(0, np.int64)
        self.next_row = 0
        self._stale = False  # rows that matter have been passed over
        self._levels: I64 | None = None
        self._sides: tuple[ShownSide, ShownSide] | None = None
        # What the display's own state would be after the last row: time, soundness, time of its levels.
        self._state_ns, self._sound, self._book_ns = -1, False, -1
        # By row: it sets the best levels; it sets the levels behind them; it changes anything at all.
        self._best = np.empty(0, np.bool_)
        self._depth = np.empty(0, np.bool_)
        self._matters = np.empty(0, np.bool_)
        self._index()

    def add(self, ticks: Ticks, positions: I64) -> None:
        """Take the next rows."""
        best, depth, matters = self._judge(ticks)
        self.ticks = np.concatenate([self.ticks, ticks])
        self.positions = np.concatenate([self.positions, positions])
        self._best = np.concatenate([self._best, best])
        self._depth = np.concatenate([self._depth, depth])
        self._matters = np.concatenate([self._matters, matters])
        self._levels = None
        self._index()

    def move_to(self, row: int) -> None:
        """Note that the rows before one have been told, or do not matter any more."""
        self.next_row = row
        place = int(self._matter_rows.searchsorted(row))
        if place < len(self._matter_rows):
            self.told_row = int(self._matter_rows[place])
            self.told_position = int(self.positions[self.told_row])
        else:
            self.told_row, self.told_position = len(self.ticks), _NEVER

    def levels(self, row: int) -> Levels:
        """Return the levels of a row that is a book."""
        levels: Levels = self._loaded()[:, self._book_place[row]].tolist()
        return levels

    def catch_up(self, display: Display, position: int, now_ns: int) -> None:
        """Make a display what it would be had it been told of every row before a position.

        Parameters
        ----------
        now_ns : exchange time; no order will look at the display sooner
        """
        row = int(self.positions.searchsorted(position))
        self._skip(display, row)
        if not self._stale:
            return
        with display.rebuilt():
            for index in self._rebuilding_rows(row, now_ns).tolist():
                self._tell(display, index)
        self._stale = False

    def drop(self, display: Display, position: int, now_ns: int) -> None:
        """Forget rows before a position that nothing will need again."""
        row = int(self.positions.searchsorted(position))
        self._skip(display, row)
        needed = self._rebuilding_rows(row, now_ns)
        first = min(int(needed[0]) if len(needed) else row, self.next_row, len(self.ticks) - 1)
        if first <= 0:
            return
        # Rows received at once stay together: their receive time finds their levels in the archive.
        first = int(self.ticks["recv_ns"].searchsorted(self.ticks["recv_ns"][first]))
        if self._levels is not None:
            self._levels = self._levels[:, int(self._book_place[first]) :].copy()
        self.ticks, self.positions = self.ticks[first:].copy(), self.positions[first:].copy()
        self._best, self._depth = self._best[first:].copy(), self._depth[first:].copy()
        self._matters = self._matters[first:].copy()
        self.next_row -= first
        self._index()

    def _judge(self, ticks: Ticks) -> tuple[Bools, Bools, Bools]:
        """Say of each row what it changes in a display; see ``Display.on_quote`` and ``Display.on_book``."""
        count = len(ticks)
        exch_ns, kind = ticks["exch_ns"], ticks["kind"]
        quote, book = kind == TickKind.QUOTE, kind == TickKind.BOOK
        clean = (ticks["quality"] & _DOUBT) == 0
        sound = clean & (ticks["px0"] > 0) & (ticks["px1"] > ticks["px0"]) & (ticks["q0"] > 0)
        sound &= ticks["q1"] > 0
        state_ns = _largest_before(exch_ns, quote | (book & clean), self._state_ns)
        newest = (quote | book) & (exch_ns >= state_ns[:-1])
        # The soundness after a row is that of the newest state so far.
        last = np.maximum.accumulate(np.where(newest, np.arange(count), -1))
        after = np.where(last >= 0, sound[last], self._sound) if count else sound
        before = np.concatenate([[self._sound], after[:-1]]) if count else after
        deepens = book & sound & (newest | before)
        book_ns = _largest_before(exch_ns, deepens, self._book_ns)
        deepens &= exch_ns >= book_ns[:-1]
        self._state_ns, self._book_ns = int(state_ns[-1]), int(book_ns[-1])
        self._sound = bool(after[-1]) if count else self._sound
        return newest & sound, deepens, newest | deepens

    def _index(self) -> None:
        kind = self.ticks["kind"]
        self._best_rows = np.flatnonzero(self._best)
        self._depth_rows = np.flatnonzero(self._depth)
        self._matter_rows = np.flatnonzero(self._matters)
        self._book_place = np.cumsum(kind == TickKind.BOOK) - (kind == TickKind.BOOK)
        self._sides = None
        self.move_to(self.next_row)

    def _skip(self, display: Display, row: int) -> None:
        """Pass over the rows before one: what was taken is counted against them."""
        first, last = self._matter_rows.searchsorted((self.next_row, row))
        if first < last:
            self._stale = True
            for side, number in ((display.bids, 0), (display.asks, 1)):
                if side.taken_prices:
                    self._shown()[number].count(side, self.next_row, row)
        self.move_to(max(self.next_row, row))

    def _rebuilding_rows(self, row: int, now_ns: int) -> I64:
        """Return the rows that build up the levels as they are before a row."""
        best = int(self._best_rows.searchsorted(row))
        if best == 0:
            return self._best_rows[:0]
        start, depth = self._best_rows[best - 1], int(self._depth_rows.searchsorted(row))
        if depth:
            book = self._depth_rows[depth - 1]
            if now_ns - int(self.ticks["exch_ns"][book]) <= self._depth_age_ns:
                # A book older than the newest state goes behind the best levels that were there.
                start = self._best_rows[self._best_rows.searchsorted(book, side="right") - 1]
        first, last = self._matter_rows.searchsorted((start, row))
        return self._matter_rows[first:last]

    def _tell(self, display: Display, row: int) -> None:
        exch_ns, _, bid, ask, bid_qty, ask_qty, _, _, _, kind, _, quality = self.ticks[row].item()
        sound = not quality & _DOUBT
        if kind == TickKind.BOOK:
            display.on_book(exch_ns, *self.levels(row), sound=sound)
        else:
            unit = self._tick_e8
            display.on_quote(
                exch_ns, bid * unit, round(bid_qty * E8), ask * unit, round(ask_qty * E8), sound=sound
            )

    def _shown(self) -> tuple[ShownSide, ShownSide]:
        """Return what the rows show of bids and asks."""
        if self._sides is None:
            self._sides = self._shown_side(1), self._shown_side(-1)
        return self._sides

    def _shown_side(self, sign: int) -> ShownSide:
        outwards = -sign * self._tick_e8
        px, qty = (self.ticks[name] for name in (("px0", "q0") if sign > 0 else ("px1", "q1")))
        quotes = np.flatnonzero(self._best & (self.ticks["kind"] == TickKind.QUOTE))
        books = self._depth_rows
        price, shown = np.zeros((2, 0, 1), np.int64)
        if len(books):
            price, shown = self._loaded()[:2] if sign > 0 else self._loaded()[2:]
            price, shown = price[self._book_place[books]], shown[self._book_place[books]]
            shown = np.where(price > 0, shown, 0)
        above = self._best_rows[np.searchsorted(self._best_rows, books, side="right") - 1]
        return ShownSide(
            sign=sign,
            quote_rows=quotes,
            best=outwards * px[quotes].astype(np.int64),
            best_qty=_units(qty[quotes]),
            book_rows=books,
            price=-sign * price,
            qty=shown,
            untold=np.where(self._best[books], FAR, outwards * px[above].astype(np.int64)),
            far=np.where(shown > 0, -sign * price, -FAR).max(axis=1),
        )

    def _loaded(self) -> I64:
        """Read the levels of all books in the track, unless they are there.

        Returns
        -------
        int64[4, books, levels]    bid prices, bid quantities, ask prices, ask quantities, in 1e-8

        Raises
        ------
        ArchiveError
            the archive no longer holds what its ticks were made of
        """
        if self._levels is not None:
            return self._levels
        books = self.ticks[self.ticks["kind"] == TickKind.BOOK]
        exch_ns, recv_ns = books["exch_ns"], books["recv_ns"]
        series = self._read_books(int(exch_ns.min()), int(exch_ns.max()) + 1)
        # Both are in the order of arrival, and no row received with the first one is missing here.
        first = int(np.searchsorted(series.recv_ns, recv_ns[0]))
        rows = slice(first, first + len(books))
        if not np.array_equal(series.exch_ns[rows], exch_ns):
            raise ArchiveError(
                "the books of a symbol have changed while they were read",
                where=self._symbol,
                fix="run the backtest again when nothing writes to the archive",
            )
        self._levels = np.stack(
            [
                series.bid_px[rows].astype(np.int64) * self._tick_e8,
                _units(series.bid_qty[rows]),
                series.ask_px[rows].astype(np.int64) * self._tick_e8,
                _units(series.ask_qty[rows]),
            ]
        )
        return self._levels


def _units(qty: npt.NDArray[np.float64]) -> I64:
    return np.rint(qty * E8).astype(np.int64)


def _largest_before(exch_ns: I64, counted: Bools, carried: int) -> I64:
    """Return int64[N + 1]: the largest time counted so far, before each row and after the last."""
    times = np.where(counted, exch_ns, -1)
    return np.maximum.accumulate(np.concatenate([[carried], times]))
