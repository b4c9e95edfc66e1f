"""When a decision could have been made, and when its order would arrive: on the exchange's clock.

Owns: the time model of the backtest. Never: looks at prices.

A frame that ends at ``end`` is closed by the first message, of any symbol, that carries an exchange time of
``end + lateness`` or later, because only that moves the watermark. So nothing can be decided before that
message has been received. Receive times are in the recorder's clock, which may be seconds off (−1.5 s in one
of the recordings this was tested with); only differences of delays mean something. The smallest
``recv − exch`` seen so far stands for a delay of zero, so a frame's extra feed delay is what its closing
message took longer than the fastest message ever did:

    known   = max(end + lateness, min over symbols of recv(closing message) − smallest delay)
    arrival = known + compute latency + order latency

The fastest message's own delay cannot be measured from a recording. It belongs into ``order_latency_ms``,
which is therefore to be set to the whole way: exchange → here → exchange.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, final

import numpy as np

from gpuscalp.archive import BookSeries, QuoteSeries
from gpuscalp.config import CostConfig, GridConfig
from gpuscalp.schema import I64, NS_PER_MS

_SAMPLE: Final = 100_000  # feed delays kept for the report


@dataclass(frozen=True, slots=True)
class _RunningMinimum:
    """The smallest delay of all messages received until a time."""

    recv_ns: I64
    smallest_ns: I64

    @classmethod
    def of(cls, recv_ns: I64, delay_ns: I64, before_ns: int) -> _RunningMinimum:
        order = np.argsort(recv_ns, kind="stable")
        return cls(recv_ns[order], np.minimum(np.minimum.accumulate(delay_ns[order]), before_ns))

    def until(self, at_ns: I64) -> I64:
        found: I64 = self.smallest_ns[np.searchsorted(self.recv_ns, at_ns, side="right") - 1]
        return found


@final
class Latency:
    """Arrival times of orders, frame by frame."""

    def __init__(self, grid: GridConfig, cost: CostConfig) -> None:
        self._lateness_ns = grid.lateness_ms * NS_PER_MS
        self._own_ns = round((cost.compute_latency_ms + cost.order_latency_ms) * NS_PER_MS)
        self._smallest_ns = int(np.iinfo(np.int64).max)
        self._delays: list[I64] = []
        self._kept = 0

    def arrivals(self, end_ns: I64, series: Sequence[QuoteSeries | BookSeries]) -> I64:
        """Return int64[T]: when an order decided on each frame reaches the exchange.

        Parameters
        ----------
        end_ns : int64[T]  frame closes, increasing
        series : recorded states of all symbols around these frames, in arrival order
        """
        due = end_ns + self._lateness_ns
        if len(end_ns) == 0:
            return due
        fastest = self._fastest(int(end_ns[-1]), series)
        known = np.full(len(due), np.iinfo(np.int64).max, np.int64)
        for rows in series:
            if len(rows) == 0:
                continue
            closing = np.searchsorted(np.maximum.accumulate(rows.exch_ns), due, side="left")
            seen = closing < len(rows)
            received = rows.recv_ns[closing[seen]]
            known[seen] = np.minimum(known[seen], received - fastest.until(received))
        known = np.where(known == np.iinfo(np.int64).max, due, np.maximum(known, due))
        if self._kept < _SAMPLE:
            self._delays.append((known - due)[: _SAMPLE - self._kept])
            self._kept += len(self._delays[-1])
        return known + self._own_ns

    def _fastest(self, last_end_ns: int, series: Sequence[QuoteSeries | BookSeries]) -> _RunningMinimum:
        """Return the smallest delay seen so far as a function of receive time.

        What is carried to the next window are the rows up to the last frame only: so the answer is the same
        however the frames are cut into windows, and never knows a later message.
        """
        recv_ns = np.concatenate([np.empty(0, np.int64), *(rows.recv_ns for rows in series)])
        exch_ns = np.concatenate([np.empty(0, np.int64), *(rows.exch_ns for rows in series)])
        delay_ns = recv_ns - exch_ns
        found = _RunningMinimum.of(recv_ns, delay_ns, self._smallest_ns)
        past = delay_ns[exch_ns <= last_end_ns]
        self._smallest_ns = min(self._smallest_ns, int(past.min()) if len(past) else self._smallest_ns)
        return found

    def feed_delay_ms(self) -> dict[str, float]:
        """Return median, p99 and largest extra feed delay over (the first 100,000) frames."""
        if not self._delays:
            return {"p50": 0.0, "p99": 0.0, "max": 0.0}
        delays = np.concatenate(self._delays) / NS_PER_MS
        return {
            "p50": float(np.median(delays)),
            "p99": float(np.quantile(delays, 0.99)),
            "max": float(delays.max()),
        }
