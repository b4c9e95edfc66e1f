"""How far our clock is from the exchange's.

Owns: two independent estimates and what they say about one another. Pure.

From server time: the reply to ``GET /fapi/v1/time`` was written between sending and receiving, so the offset
is known to within half the round trip; of the samples of the last minutes those with the shortest round trips
are the best ones, and their median is taken, so that one wrong reply does not matter. Both the estimate and a
new reply being within half of their round trips, they cannot contradict one another while our clock runs on:
after three in a row that do it was set, and nothing from before counts.

From event times: a message cannot arrive before it was sent, so the smallest receive time minus event time
is a bound: offset ≤ −min(recv − exch) within the message's travel time. It costs nothing and sees at once
when a clock jumps.

Offset: exchange time minus our time, ns. ``exchange_ns = recv_ns + offset_ns``.
"""

from __future__ import annotations

from collections import deque
from statistics import median_low
from typing import Final, final

from gpuscalp.config import FeedConfig
from gpuscalp.schema import NS_PER_MS, NS_PER_S

_SAMPLES_MAX: Final = 64
_BEST: Final = 5
_WINDOW_NS: Final = 600 * NS_PER_S
_AGAINST: Final = 3
_ROUNDED_NS: Final = 2 * NS_PER_MS  # replies and messages name whole milliseconds
_SLICE_NS: Final = 10 * NS_PER_S
_SLICES: Final = 6


@final
class ClockOffset:
    """Estimate the offset; say when it is not to be trusted.

    One thread feeds it and asks whether it has drifted. The offset may be asked by any thread at any time: a
    session's engine dates its orders by it while another thread takes samples.

    Attributes
    ----------
    sample_count : samples of server time taken since the beginning
    limit_ns : a larger offset, or a larger disagreement, is drift
    """

    def __init__(self, config: FeedConfig) -> None:
        self.limit_ns = config.clock_limit_ms * NS_PER_MS
        self._samples: deque[tuple[int, int, int]] = deque(maxlen=_SAMPLES_MAX)  # at, round trip, offset
        self._slices: deque[list[int]] = deque(maxlen=_SLICES)  # [begin, least recv − exch]
        self._estimate: tuple[int, int] | None = None  # offset, uncertainty; replaced and never changed
        self._against = 0  # replies in a row that contradict the estimate
        self.sample_count = 0

    def on_server_time(self, sent_ns: int, recv_ns: int, server_ns: int) -> None:
        """Take one reply; times by the wall clock. A clock that stepped back in between is no sample."""
        round_trip_ns = recv_ns - sent_ns
        if round_trip_ns < 0:
            return
        offset_ns = server_ns - (sent_ns + recv_ns) // 2
        self._against = self._against + 1 if self._contradicts(offset_ns, round_trip_ns // 2) else 0
        self._samples.append((recv_ns, round_trip_ns, offset_ns))
        while recv_ns - self._samples[0][0] > _WINDOW_NS or len(self._samples) > self._against >= _AGAINST:
            self._samples.popleft()
        best = sorted((round_trip, offset) for _, round_trip, offset in self._samples)[:_BEST]
        # That of one: between replies from before and after a clock was set is nobody's time.
        self._estimate = median_low(offset for _, offset in best), best[-1][0] // 2
        self.sample_count += 1

    def _contradicts(self, offset_ns: int, uncertainty_ns: int) -> bool:
        if self._estimate is None:
            return False
        return abs(offset_ns - self._estimate[0]) > self._estimate[1] + uncertainty_ns + _ROUNDED_NS

    def on_event(self, recv_ns: int, exch_ns: int) -> None:
        """Take the times of one market message. One of a batch is enough: the newest."""
        delay_ns = recv_ns - exch_ns
        if not self._slices or not 0 <= recv_ns - self._slices[-1][0] < _SLICE_NS:
            self._slices.append([recv_ns, delay_ns])
        elif delay_ns < self._slices[-1][1]:
            self._slices[-1][1] = delay_ns

    @property
    def offset_ns(self) -> int | None:
        """Exchange time minus our time; None before the first sample."""
        estimate = self._estimate
        return None if estimate is None else estimate[0]

    @property
    def uncertainty_ns(self) -> int | None:
        """Half of the largest round trip among the samples used."""
        estimate = self._estimate
        return None if estimate is None else estimate[1]

    @property
    def has_drifted(self) -> bool:
        """Whether trading must stop: no estimate, an offset beyond the limit, or event times that contradict
        it, because they lie in the future of the corrected clock or because all of them are old."""
        if self._estimate is None or abs(self._estimate[0]) > self.limit_ns:
            return True
        if not self._slices:
            return False
        offset_ns, uncertainty_ns = self._estimate
        # Of the last two slices: the first message of a new one may have been held up.
        travel_ns = min(least for _, least in list(self._slices)[-2:]) + offset_ns
        return travel_ns < -(uncertainty_ns + _ROUNDED_NS) or travel_ns > self.limit_ns + uncertainty_ns

    def exchange_ns(self, now_ns: int) -> int | None:
        """Return our time as the exchange's; None before the first sample."""
        offset_ns = self.offset_ns
        return None if offset_ns is None else now_ns + offset_ns
