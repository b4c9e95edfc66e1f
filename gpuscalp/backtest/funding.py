"""Funding times, rates and mark prices out of the recorded mark stream.

Owns: which funding is due when. Never: knows a position.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np

from gpuscalp.archive import MarkSeries
from gpuscalp.schema import E8


@dataclass(frozen=True, slots=True)
class FundingEvent:
    """Funding of one symbol at one moment: the last rate and mark price announced before it."""

    symbol_index: int
    at_ns: int
    mark_e8: int
    rate_e8: int


@final
class FundingSchedule:
    """Collects announcements and hands out what has come due.

    A mark message announces the next funding time and the rate as it stands; the rate that counts is the last
    one announced before that time (Binance USD-M: ``r`` and ``T`` of markPriceUpdate).
    """

    def __init__(self) -> None:
        self._due: dict[tuple[int, int], FundingEvent] = {}
        self._settled_ns = -1
        self.announced: set[int] = set()  # symbols whose funding is known

    def announce(self, symbol_index: int, marks: MarkSeries) -> None:
        """Take in a window of mark messages; windows may overlap."""
        known = (marks.next_funding_ns > marks.exch_ns) & np.isfinite(marks.mark)
        known &= np.isfinite(marks.funding_rate)
        if known.any():
            self.announced.add(symbol_index)
        for at in np.unique(marks.next_funding_ns[known]):
            if at <= self._settled_ns:
                continue
            row = int(np.flatnonzero(known & (marks.next_funding_ns == at))[-1])
            self._due[symbol_index, int(at)] = FundingEvent(
                symbol_index=symbol_index,
                at_ns=int(at),
                mark_e8=round(float(marks.mark[row]) * E8),
                rate_e8=round(float(marks.funding_rate[row]) * E8),
            )

    def due(self, until_ns: int) -> list[FundingEvent]:
        """Return, once, what has come due up to and including a time, in the order of time and symbol."""
        if until_ns <= self._settled_ns:
            return []
        self._settled_ns = until_ns
        ready = sorted(
            (event for event in self._due.values() if event.at_ns <= until_ns),
            key=lambda event: (event.at_ns, event.symbol_index),
        )
        for event in ready:
            del self._due[event.symbol_index, event.at_ns]
        return ready
