"""What counts and cools down: orders per time, losses in a row, volatility by symbol.

Owns: the counts, when a pause ends, and how often a pause may end by itself. Never: knows a clock (times are
arguments), refuses, or changes the state of the gate: gate.py asks and decides.

A pause ends by itself at most ``trips_max`` times in a day (UTC). The next trip of that day latches: losses
in a row close the gate, a symbol stays paused, and only re-arming by hand ends it.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Final, final

import numpy as np

from gpuscalp.schema import F64, NS_PER_MS, NS_PER_S

MINUTE_NS: Final = 60 * NS_PER_S
# A pause without end.
LATCHED_NS: Final = 1 << 62


@final
class OrderRate:
    """The times of the orders of the last minute.

    Bounded: the gate refuses what exceeds its limit, and orders that pass it by (flattening) come one per
    symbol and frame.
    """

    def __init__(self) -> None:
        self.times_ns: deque[int] = deque()

    def forget(self, now_ns: int) -> None:
        """Drop what is a minute old or older."""
        while self.times_ns and self.times_ns[0] <= now_ns - MINUTE_NS:
            self.times_ns.popleft()

    def add(self, now_ns: int) -> None:
        self.times_ns.append(now_ns)

    def within(self, now_ns: int, span_ns: int) -> int:
        """Return how many orders are younger than a span of at most a minute."""
        count = 0
        for at_ns in reversed(self.times_ns):
            if at_ns <= now_ns - span_ns:
                break
            count += 1
        return count


@final
@dataclass(slots=True)
class LossStreak:
    """Losing trades in a row, over all symbols.

    Attributes
    ----------
    losses : since the last trade without a loss, or since the last trip
    until_ns : end of the cool-down; 0 = none yet
    trips : in the present day
    """

    losses: int = 0
    until_ns: int = 0
    trips: int = 0

    def on_trade(self, pnl_e8: int) -> None:
        """Count a closed trade."""
        self.losses = self.losses + 1 if pnl_e8 < 0 else 0

    def observe(self, now_ns: int, *, losses_max: int, pause_ms: int, trips_max: int) -> bool:
        """Trip if there are too many losses; return whether this trip latches."""
        if self.losses < losses_max:
            return False
        self.losses = 0
        self.trips += 1
        self.until_ns = now_ns + pause_ms * NS_PER_MS
        return self.trips > trips_max

    def left_ms(self, now_ns: int) -> float:
        return max(0, self.until_ns - now_ns) / NS_PER_MS


@final
class VolatilityPauses:
    """Which symbols are paused, and how often that happened today.

    Parameters
    ----------
    symbol_count : S

    Attributes
    ----------
    until_ns : int64[S]  end of the pause; LATCHED_NS = until re-armed
    trips : int64[S]     in the present day
    """

    def __init__(self, symbol_count: int) -> None:
        self.until_ns = np.zeros(symbol_count, np.int64)
        self.trips = np.zeros(symbol_count, np.int64)

    def observe(
        self, now_ns: int, volatility_bps: F64, *, limit_bps: float, pause_ms: int, trips_max: int
    ) -> None:
        """Pause the symbols above the limit; one that is paused already is so for longer, and did not trip.

        Parameters
        ----------
        volatility_bps : float64[S]  NaN, not known, trips nothing: a rule refuses it
        """
        wild = volatility_bps > limit_bps
        if not wild.any():
            return
        tripped = wild & (self.until_ns <= now_ns)
        self.trips[tripped] += 1
        ends_ns = np.where(self.trips > trips_max, LATCHED_NS, now_ns + pause_ms * NS_PER_MS)
        np.maximum(self.until_ns, ends_ns, out=self.until_ns, where=wild)

    def left_ms(self, symbol_index: int, now_ns: int) -> float:
        """Return what is left of a symbol's pause; infinite where it latched."""
        until_ns = int(self.until_ns[symbol_index])
        return float("inf") if until_ns == LATCHED_NS else max(0, until_ns - now_ns) / NS_PER_MS
