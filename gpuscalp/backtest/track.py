"""The recorded trades, quotes and books of one symbol, as far as the broker has yet to take them.

Owns: which rows are kept, and their levels. While no order of a symbol is alive nothing looks at its display:
the rows wait, and are taken when something does, or when they are dropped. Where nothing of the display is
taken the last whole book says all there is to know: what came before it is never read.

Never: decides when (``gpuscalp.backtest.venue`` does), or knows orders. Rows are counted from the first one
that is kept.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, final

import numpy as np
import numpy.typing as npt

from gpuscalp.archive import BookSeries
from gpuscalp.errors import ArchiveError
from gpuscalp.execution.custody import NEVER
from gpuscalp.execution.display import Display
from gpuscalp.execution.matching import Rows
from gpuscalp.ops.skim import DOUBT
from gpuscalp.schema import BOOK_LEVELS, E8, I64, TICK, Instrument, TickKind, Ticks

_KEPT_MOST: Final = 1 << 17  # rows that may wait for a book
_NO_LEVELS: Final = np.zeros((0, 4, BOOK_LEVELS), np.int64)

# (start_ns, end_ns) in exchange time, half-open
ReadBooks = Callable[[int, int], BookSeries]
# Takes rows from one to a position, and returns the first that it did not take.
Take = Callable[[Rows, int, int], int]


@final
class Track:
    """Rows of one symbol in the order of arrival.

    Parameters
    ----------
    instrument : gives the tick size
    read_books : the levels that the ticks of books do not carry

    Attributes
    ----------
    ticks : TICK[N], trades, quotes and books
    positions : int64[N], their places among the rows of all symbols
    next_row : the first row that the broker has not taken
    """

    def __init__(self, instrument: Instrument, read_books: ReadBooks) -> None:
        self.unit = instrument.tick_size_e8
        self._symbol = instrument.symbol
        self._read_books = read_books
        self.ticks: Ticks = np.empty(0, TICK)
        self.positions: I64 = np.empty(0, np.int64)
        self.next_row = 0
        self._newest_ns = -1  # exchange time of any row so far
        self._whole: npt.NDArray[np.bool_] = np.empty(0, np.bool_)
        self._rows: Rows | None = None

    def add(self, ticks: Ticks, positions: I64) -> None:
        """Take the next rows."""
        exch_ns = ticks["exch_ns"]
        newest_ns = np.maximum.accumulate(np.concatenate([[self._newest_ns], exch_ns]))
        self._newest_ns = int(newest_ns[-1])
        # A sound book that no row before it is newer than: it sets every level, the time and the soundness.
        whole = (ticks["kind"] == TickKind.BOOK) & (exch_ns >= newest_ns[:-1])
        whole &= ((ticks["quality"] & DOUBT) == 0) & (ticks["px0"] > 0) & (ticks["px1"] > ticks["px0"])
        whole &= (ticks["q0"] > 0) & (ticks["q1"] > 0)
        self.ticks = np.concatenate([self.ticks, ticks])
        self.positions = np.concatenate([self.positions, positions])
        self._whole = np.concatenate([self._whole, whole])
        self._rows = None

    def take(self, position: int, take: Take) -> int:
        """Let rows before a position be taken; return the position of the first that was not, or this one."""
        if self.next_position < position:
            self.next_row = take(self.load(), self.next_row, position)
        return min(position, self.next_position)

    @property
    def next_position(self) -> int:
        """The position of the next row; larger than any if there is none."""
        return int(self.positions[self.next_row]) if self.next_row < len(self.positions) else NEVER

    def told(self) -> tuple[int, ...]:
        """Return the fields of the next row, and go on to the one after it."""
        found: tuple[int, ...] = self.ticks[self.next_row].item()
        self.next_row += 1
        return found

    def levels(self) -> I64:
        """Return the levels of the row that was told last, a book: int64[4, 20], see ``Rows``."""
        rows = self.load()
        levels: I64 = rows.tops[rows.places[self.next_row - 1]]
        return levels

    def drop(self, position: int, take: Take, *, idle: Display | None) -> None:
        """Forget rows before a position that nothing will need again.

        Parameters
        ----------
        idle : the display, if nothing of it is taken and no order looks at it
        """
        row = int(self.positions.searchsorted(position))
        if idle is not None:
            books = np.flatnonzero(self._whole[self.next_row : row])
            if len(books):
                passed = self.ticks[self.next_row : self.next_row + int(books[-1])]
                trades = np.flatnonzero(passed["kind"] == TickKind.TRADE)
                if len(trades):
                    idle.last_e8 = int(passed["px0"][trades[-1]]) * self.unit
                self.next_row += len(passed)
        if idle is None or row - self.next_row > _KEPT_MOST:
            self.take(position, take)
        first = min(self.next_row, len(self.ticks) - 1)
        if first <= 0:
            return
        # Rows received at once stay together: their receive time finds their levels in the archive.
        first = int(self.ticks["recv_ns"].searchsorted(self.ticks["recv_ns"][first]))
        self.ticks, self.positions = self.ticks[first:].copy(), self.positions[first:].copy()
        self._whole = self._whole[first:].copy()
        self.next_row -= first
        self._rows = None

    def load(self) -> Rows:
        """Return the rows with the levels of their books, which are read unless they are there.

        Raises
        ------
        ArchiveError
            the archive no longer holds what its ticks were made of
        """
        if self._rows is None:
            book = self.ticks["kind"] == TickKind.BOOK
            tops = self._tops(self.ticks[book]) if book.any() else _NO_LEVELS
            self._rows = Rows(self.ticks, self.positions, tops, np.cumsum(book) - book, self.unit)
        return self._rows

    def _tops(self, books: Ticks) -> I64:
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
        tops = np.empty((len(books), 4, BOOK_LEVELS), np.int64)
        for row, px in ((0, series.bid_px), (2, series.ask_px)):
            np.multiply(px[rows], self.unit, out=tops[:, row], dtype=np.int64)
        for row, qty in ((1, series.bid_qty), (3, series.ask_qty)):
            np.copyto(tops[:, row], np.rint(qty[rows] * E8), casting="unsafe")
        return tops
