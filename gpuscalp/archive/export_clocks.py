"""From rows in order of arrival to events in the order of two clocks.

Owns: which exchange and local times the events get, every change made to a time, and how long a row waits for
others that overtook it. Never: reads or writes files.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from gpuscalp.archive.export_rows import RowBatch, chosen, joined
from gpuscalp.ops import fused_book as fused
from gpuscalp.schema import I64, NS_PER_S, TickKind

# A row that arrives this much later than one sent after it is told to the exchange as if sent when its turn
# comes. On the recordings no message was under way for more than 0.7 s; waiting costs the memory of its rows.
WAIT_NS: Final = 10 * NS_PER_S
_EVENTS: Final = 1 << 16
NO_FLOOR_NS: Final = -int(np.iinfo(np.int64).max)


@dataclass(slots=True)
class Shift:
    """Times of one field that were changed row by row.

    Attributes
    ----------
    rows, max_ns : how many, and the largest change (always towards the future)
    """

    rows: int = 0
    max_ns: int = 0

    def note(self, changes_ns: I64) -> None:
        changed = int(np.count_nonzero(changes_ns))
        if changed:
            self.rows += changed
            self.max_ns = max(self.max_ns, int(changes_ns.max()))

    def add(self, other: Shift) -> None:
        self.rows += other.rows
        self.max_ns = max(self.max_ns, other.max_ns)

    def to_dict(self) -> dict[str, int]:
        return {"rows": self.rows, "max_ns": self.max_ns}


@dataclass(slots=True)
class Shifts:
    """What was done to the times of a file, beyond the offset that all local times got.

    Attributes
    ----------
    exch_ts : rows later than ``WAIT_NS``, dated when their turn came
    local_ts : rows seen before they were sent or before the row ahead of them, even with the offset
    """

    exch_ts: Shift = field(default_factory=Shift)
    local_ts: Shift = field(default_factory=Shift)


class TwoClocks:
    """Turn the rows of one file into events.

    Give it every batch in order of arrival, then call ``finish``; use up what a call yields before the next.

    Parameters
    ----------
    offset_ns : added to every receive time
    local_floor_ns : no local time is smaller: the last one of the file before

    Attributes
    ----------
    shifts : what was changed so far
    book : its ``shared`` counts cleared books and superseded quotes
    local_floor_ns : the last local time so far
    """

    def __init__(self, *, offset_ns: int, local_floor_ns: int = NO_FLOOR_NS) -> None:
        self.shifts = Shifts()
        self.book = fused.new_fused_book()
        self.local_floor_ns = local_floor_ns
        self._offset_ns = offset_ns
        self._batch = joined([])
        self._at_exchange = np.empty(0, np.bool_)  # rows of the batch whose turn at the exchange is over
        self._local_start = 0
        self._newest_ns = self._turn_ns = NO_FLOOR_NS
        self._out = np.zeros(_EVENTS, fused.EVENT)

    def add(self, batch: RowBatch) -> Iterator[fused.Events]:
        """Take rows and yield the events whose order is settled. The arrays yielded are used again."""
        rows = batch.rows
        raised = np.maximum(rows[:, fused.EXCH], self._turn_ns)
        self.shifts.exch_ts.note(raised - rows[:, fused.EXCH])
        rows[:, fused.EXCH] = raised
        shifted = rows[:, fused.LOCAL] + self._offset_ns
        local = np.maximum(np.maximum.accumulate(np.maximum(shifted, raised)), self.local_floor_ns)
        self.shifts.local_ts.note(local - shifted)
        rows[:, fused.LOCAL] = local
        self.local_floor_ns = int(local[-1])
        self._newest_ns = max(self._newest_ns, int(raised.max()))
        self._batch = joined([self._batch, batch])
        self._at_exchange = np.concatenate([self._at_exchange, np.zeros(len(batch), np.bool_)])
        yield from self._tell(self._newest_ns - WAIT_NS)

    def finish(self) -> Iterator[fused.Events]:
        """Yield the events of the rows that still wait."""
        yield from self._tell(None)

    def _tell(self, until_ns: int | None) -> Iterator[fused.Events]:
        """Yield what happened at the exchange up to a time, and what was seen here before that turn came."""
        rows = self._batch.rows
        waiting = np.flatnonzero(~self._at_exchange)
        # Of one instant the trades come first: the book that they made already lacks what they took, and a
        # simulator that sees the book first takes it from the queue twice.
        later = rows[waiting, fused.KIND] != TickKind.TRADE
        order = waiting[np.lexsort((waiting, later, rows[waiting, fused.EXCH]))]
        rank = np.full(len(rows), -1, np.int64)
        rank[order] = np.arange(len(order))
        if until_ns is not None:
            order = order[: np.searchsorted(rows[order, fused.EXCH], until_ns, side="right")]
        if len(order):
            self._turn_ns = int(rows[order[-1], fused.EXCH])
            yield from self._run(order, rank)
        if until_ns is None:  # what is left was overtaken on its way here
            yield from self._run(order[:0], rank)
        self._at_exchange[order] = True
        kept = ~self._at_exchange
        kept[self._local_start :] = True
        self._local_start = int(np.count_nonzero(kept[: self._local_start]))
        self._batch, self._at_exchange = chosen(self._batch, kept), self._at_exchange[kept]

    def _run(self, order: I64, rank: I64) -> Iterator[fused.Events]:
        places: Any = np.zeros(2, np.int64)
        while True:
            arguments = (order, rank, self._local_start, places, self._out)
            count = fused.tell(self.book, self._batch.rows, self._batch.levels, *arguments)
            if count:
                yield self._out[:count]
            if count + fused.STEP_EVENTS <= len(self._out):
                break
        self._local_start += int(places[1])
