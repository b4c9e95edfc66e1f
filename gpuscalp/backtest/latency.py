"""When a decision could have been made: on the exchange's clock.

Owns: the time model of the backtest. Never: looks at prices, or sends anything.

A frame that ends at ``end`` is closed by the first row, of any symbol, that carries an exchange time of
``end + lateness`` or later, because only that moves the watermark. So nothing can be decided before that row
has been received. Receive times are in the recorder's clock, which may be seconds off (−1.5 s in one of the
recordings this was tested with); only differences of delays mean something. The smallest ``recv − exch`` of
the last minute (delay.py says why a minute) stands for the fastest way that a message can take, so a frame's
extra feed delay is what its closing row took longer than the fastest one did:

    heard   = recv(closing row) − smallest delay + shortest reply
    decided = heard + compute latency, but not before the frame before it

A frame that ends a run is closed by the first row behind a hole in the recording (``grid.max_gap_ms``). It is
decided on then, but the hole is no delay of the feed, and is left out where delays are reported.

The fastest message's own delay cannot be measured from a recording. It is taken to be the shortest reply of
the paper broker (``paper.reply``): the same way, from the exchange to here.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, final

import numpy as np

from gpuscalp.backtest.moments import Moment
from gpuscalp.backtest.tape import Tape
from gpuscalp.config import CostConfig, GridConfig, PaperConfig
from gpuscalp.execution.latency import compute_leg, least_ns
from gpuscalp.schema import I64, NS_PER_MS

_SAMPLE: Final = 100_000  # feed delays kept for the report


@final
class Latency:
    """When frames are known here.

    Attributes
    ----------
    feed_ns : the way of the fastest message
    """

    def __init__(self, grid: GridConfig, cost: CostConfig, paper: PaperConfig) -> None:
        self._lateness_ns = grid.lateness_ms * NS_PER_MS
        self.feed_ns = least_ns(paper.reply)
        self._max_gap_ns = grid.max_gap_ms * NS_PER_MS
        self._compute = compute_leg(cost.compute, paper.seed)
        self._decided_ns = 0
        self._delays: list[I64] = []
        self._kept = 0

    def moments_of(self, end_ns: I64, tape: Tape) -> Iterator[tuple[int, Moment]]:
        """Yield when each of T frames, by index, is decided on; to be asked once for each frame, in order.

        Parameters
        ----------
        end_ns, tape : as ``heard`` takes them
        """
        positions, heard_ns = self.heard(end_ns, tape)
        # One frame is decided on after the other: a slow one holds up those behind it.
        decided_ns = np.maximum.accumulate(heard_ns + self._compute.draw_many_ns(len(end_ns)))
        decided_ns = np.maximum(decided_ns, self._decided_ns)
        self._decided_ns = int(decided_ns[-1]) if len(decided_ns) else self._decided_ns
        rows = zip(positions.tolist(), heard_ns.tolist(), decided_ns.tolist(), strict=True)
        for index, (position, heard, decided) in enumerate(rows):
            yield index, Moment(position=position, heard_ns=heard, decided_ns=decided)

    def heard(self, end_ns: I64, tape: Tape) -> tuple[I64, I64]:
        """Return int64[T] twice: the position behind each frame's closing row, and when that row is here.

        A frame that no row of the tape closes is heard of when the next row would have been due.

        Parameters
        ----------
        end_ns : int64[T]  frame closes, increasing; none closed by a row that the tape has dropped
        """
        due = end_ns + self._lateness_ns
        closing = np.searchsorted(tape.clock_ns, due)
        known = due.copy()
        seen = closing < len(tape.clock_ns)
        rows = closing[seen]
        known[seen] = tape.recv_ns[rows] - tape.delay_ns[rows]
        if self._kept < _SAMPLE:
            silence_ns = np.zeros(len(due), np.int64)
            silence_ns[seen] = tape.clock_ns[rows] - tape.clock_ns[np.maximum(rows - 1, 0)]
            told = (known - due)[silence_ns <= self._max_gap_ns]
            self._delays.append(told[: _SAMPLE - self._kept])
            self._kept += len(self._delays[-1])
        return np.minimum(tape.start + closing + 1, tape.end), known + self.feed_ns

    def feed_delay_ms(self) -> dict[str, float]:
        """Return median, p99 and largest extra feed delay over (the first 100,000) frames that end no run."""
        return spread_ms(np.concatenate(self._delays or [np.empty(0, np.int64)]))


def spread_ms(delays_ns: I64) -> dict[str, float]:
    """Return median, p99 and largest of delays; zeros where there are none."""
    if not len(delays_ns):
        return {"p50": 0.0, "p99": 0.0, "max": 0.0}
    delays = delays_ns / NS_PER_MS
    return {
        "p50": float(np.median(delays)),
        "p99": float(np.quantile(delays, 0.99)),
        "max": float(delays.max()),
    }
