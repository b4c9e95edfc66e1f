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
from typing import Final, final

import numpy as np

from gpuscalp.archive import BookSeries, QuoteSeries
from gpuscalp.config import CostConfig, GridConfig
from gpuscalp.schema import I64, NS_PER_MS

_SAMPLE: Final = 100_000  # feed delays kept for the report


@final
class Latency:
    """Arrival times of orders, frame by frame."""

    def __init__(self, grid: GridConfig, cost: CostConfig) -> None:
        self._lateness_ns = grid.lateness_ms * NS_PER_MS
        self._own_ns = round((cost.compute_latency_ms + cost.order_latency_ms) * NS_PER_MS)
        self._smallest_ns: int | None = None
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
        for rows in series:
            if len(rows):
                smallest = int((rows.recv_ns - rows.exch_ns).min())
                self._smallest_ns = (
                    smallest if self._smallest_ns is None else min(self._smallest_ns, smallest)
                )
        known = np.full(len(due), np.iinfo(np.int64).max, np.int64)
        for rows in series:
            if len(rows) == 0:
                continue
            assert self._smallest_ns is not None
            closing = np.searchsorted(np.maximum.accumulate(rows.exch_ns), due, side="left")
            seen = closing < len(rows)
            received = rows.recv_ns[closing[seen]] - self._smallest_ns
            known[seen] = np.minimum(known[seen], received)
        known = np.where(known == np.iinfo(np.int64).max, due, np.maximum(known, due))
        if self._kept < _SAMPLE:
            self._delays.append((known - due)[: _SAMPLE - self._kept])
            self._kept += len(self._delays[-1])
        return known + self._own_ns

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
