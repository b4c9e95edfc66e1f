"""What was recorded, in the order of arrival: the ticks that the features were made of.

Owns: the rows between two decisions, and how late each was. Never: looks at prices, or reads a file twice.

A tape is a window that moves: rows are added as the features take them, and dropped when they have been
played. A position counts rows from the beginning and stays the same for good.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, final

import numpy as np

from gpuscalp.backtest.delay import LeastDelay
from gpuscalp.backtest.track import Track
from gpuscalp.ops.skim import reaching
from gpuscalp.schema import I64, TICK, TickKind, Ticks

_NEVER: Final = 1 << 62


@final
class Tape:
    """Rows of S symbols.

    Parameters
    ----------
    tracks : S

    Attributes
    ----------
    tracks : trades, quotes and books by symbol
    start, end : positions of the first row kept and of the next one to come
    recv_ns, exch_ns : int64[end - start], receive and exchange times
    clock_ns : int64[end - start], the largest exchange time so far: what a clock driven by the rows shows
    delay_ns : int64[end - start], the smallest receive time less exchange time of the minute before
    delay : where those come from
    mark_position : of the next mark; larger than any if there is none
    """

    def __init__(self, tracks: Sequence[Track]) -> None:
        self.tracks = tuple(tracks)
        self.start = self.end = 0
        self.recv_ns: I64 = np.empty(0, np.int64)
        self.exch_ns: I64 = np.empty(0, np.int64)
        self.clock_ns: I64 = np.empty(0, np.int64)
        self.delay_ns: I64 = np.empty(0, np.int64)
        self.delay = LeastDelay()
        self._marks: Ticks = np.empty(0, TICK)
        self._mark_positions: I64 = np.empty(0, np.int64)
        self._go_to_mark(0)

    def add(self, ticks: Ticks) -> None:
        """Take the next rows of all symbols, in the order of arrival."""
        if not len(ticks):
            return
        recv_ns, exch_ns = ticks["recv_ns"].copy(), ticks["exch_ns"].copy()
        clock_ns, delay_ns = np.maximum.accumulate(exch_ns), self.delay.after_each(recv_ns, exch_ns)
        if len(self.clock_ns):
            clock_ns = np.maximum(clock_ns, self.clock_ns[-1])
        self.recv_ns = np.concatenate([self.recv_ns, recv_ns])
        self.exch_ns = np.concatenate([self.exch_ns, exch_ns])
        self.clock_ns = np.concatenate([self.clock_ns, clock_ns])
        self.delay_ns = np.concatenate([self.delay_ns, delay_ns])
        positions = np.arange(self.end, self.end + len(ticks), dtype=np.int64)
        self.end += len(ticks)
        mark = ticks["kind"] == TickKind.MARK
        self._marks = np.concatenate([self._marks, ticks[mark]])
        self._mark_positions = np.concatenate([self._mark_positions, positions[mark]])
        self._go_to_mark(self._mark)
        symbols = ticks["symbol"].astype(np.int64)
        kind = ticks["kind"]
        symbols[(kind == TickKind.MARK) | (kind == TickKind.CLOCK)] = -1
        order = np.argsort(symbols, kind="stable")
        edges = np.searchsorted(symbols[order], np.arange(len(self.tracks) + 1))
        for track, first, last in zip(self.tracks, edges[:-1], edges[1:], strict=True):
            if first < last:
                rows = order[first:last]
                track.add(ticks.take(rows), positions[rows])

    def clock_before(self, position: int) -> int:
        """Return the largest exchange time of the rows before a position; -1 before the first row."""
        return int(self.clock_ns[position - 1 - self.start]) if position > self.start else -1

    def time_of(self, position: int) -> int:
        """Return the exchange time of a row."""
        return int(self.exch_ns[position - self.start])

    def reaching(self, at_ns: int, first: int, last: int) -> int:
        """Return the position of the first row at or after a time, from one position to another, or that."""
        found: int = reaching(self.exch_ns, first - self.start, last - self.start, at_ns)
        return found + self.start

    def next_mark(self) -> tuple[int, ...]:
        """Return the fields of the next mark, and go on to the one after it."""
        found: tuple[int, ...] = self._marks[self._mark].item()
        self._go_to_mark(self._mark + 1)
        return found

    def _go_to_mark(self, mark: int) -> None:
        self._mark = mark
        left = mark < len(self._mark_positions)
        self.mark_position = int(self._mark_positions[mark]) if left else _NEVER

    def drop(self, position: int) -> None:
        """Forget the rows before a position, all but two. What tracks keep they decide themselves.

        The last one stays: it may close the next frame as well, and it tells the time. So does the one before
        it: together they tell how long nothing had come.
        """
        keep = position - 2
        if keep <= self.start:
            return
        gone = keep - self.start
        self.recv_ns, self.exch_ns = self.recv_ns[gone:].copy(), self.exch_ns[gone:].copy()
        self.clock_ns = self.clock_ns[gone:].copy()
        self.delay_ns = self.delay_ns[gone:].copy()
        self._marks = self._marks[self._mark :].copy()
        self._mark_positions = self._mark_positions[self._mark :].copy()
        self._go_to_mark(0)
        self.start = keep
