"""How late a row was, by a clock that nobody has set: against the fastest row of the last minute.

Owns: the estimate of what the recorder's clock is off, from the rows so far alone, however they are cut into
batches.

The clock of a recorder is off by seconds, and not always by the same: in the recordings this was tested with
the least of ``recv − exch`` wanders by 37 ms within eight minutes and by 215 ms within a day, and clocks are
set. Over a whole archive the least of it would take all of that for delay. Over less than a few seconds it
would take a feed that is held up for a clock that was set: for a second in a row all rows were late by 0.3 s.
A minute is what a live session takes as well (``gpuscalp.feeds.clock``).
"""

from __future__ import annotations

from collections import deque
from itertools import pairwise
from typing import Final, final

import numpy as np

from gpuscalp.schema import I64, NS_PER_MS, NS_PER_S

# The window moves by slices: it holds the slice that has begun, and those of the 50 s before it.
_SLICE_NS: Final = 10 * NS_PER_S
_SLICES: Final = 6
_STEP_NS: Final = 100 * NS_PER_MS
_NONE: Final = int(np.iinfo(np.int64).max)


@final
class LeastDelay:
    """The least receive time less exchange time of the last minute.

    Rows must come in the order of arrival.

    Attributes
    ----------
    steps : (receive time, rise in ns): when it rose by more than 0.1 s. The recorder's clock was set forward
        in the minute before, or all rows since have been so late. Behind a minute without rows there is none.
    """

    def __init__(self) -> None:
        self._slices: deque[list[int]] = deque()  # number, least of its rows
        self._least_ns = _NONE
        self.steps: list[tuple[int, int]] = []

    def after(self, recv_ns: int, exch_ns: int) -> int:
        """Take a row, and return the least with it."""
        self._enter(recv_ns)
        self._take(recv_ns - exch_ns)
        return self._least_ns

    def after_each(self, recv_ns: I64, exch_ns: I64) -> I64:
        """Take N rows, and return int64[N], the least with each."""
        found = recv_ns - exch_ns
        cuts = np.flatnonzero(np.diff(recv_ns // _SLICE_NS)) + 1
        for first, last in pairwise((0, *cuts.tolist(), len(found))):
            if first < last:
                self._enter(int(recv_ns[first]))
                delay_ns, before_ns = found[first:last], self._least_ns
                np.minimum.accumulate(delay_ns, out=delay_ns)
                self._take(int(delay_ns[-1]))
                np.minimum(delay_ns, before_ns, out=delay_ns)
        return found

    def _enter(self, recv_ns: int) -> None:
        """Go on to the slice of a receive time, and forget those that are too old by then."""
        number, slices = recv_ns // _SLICE_NS, self._slices
        if slices and slices[-1][0] == number:
            return
        while slices and slices[0][0] <= number - _SLICES:
            slices.popleft()
        before_ns, self._least_ns = self._least_ns, min((least for _, least in slices), default=_NONE)
        if slices and self._least_ns - before_ns > _STEP_NS:
            self.steps.append((recv_ns, self._least_ns - before_ns))
        slices.append([number, _NONE])

    def _take(self, delay_ns: int) -> None:
        newest = self._slices[-1]
        newest[1] = min(newest[1], delay_ns)
        self._least_ns = min(self._least_ns, delay_ns)
