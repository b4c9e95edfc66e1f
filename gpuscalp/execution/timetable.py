"""Requests on their way to the exchange.

Owns: when each arrives, and their order. Never: knows what becomes of them.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from enum import IntEnum
from typing import final

from gpuscalp.execution.latency import Leg


class RequestKind(IntEnum):
    SUBMIT = 0
    CANCEL = 1
    # The exchange's own: an order has waited too long for a market; a stop has gone off.
    GIVE_UP = 2
    TRIGGER = 3


@dataclass(frozen=True, slots=True, order=True)
class Due:
    """One request at its arrival."""

    at_ns: int
    sequence: int
    kind: RequestKind
    order_id: int


@final
class Timetable:
    """What is on its way, earliest first.

    Parameters
    ----------
    there : the way to the exchange
    """

    def __init__(self, there: Leg) -> None:
        self._there = there
        self._due: list[Due] = []
        self._sequence = 0
        self.last_arrival_ns = -1

    def send(self, kind: RequestKind, order_id: int, sent_ns: int, exchange_ns: int) -> int:
        """Send a request; return its arrival.

        One connection: requests do not overtake each other. None arrives in the exchange's past.
        """
        self.last_arrival_ns = max(sent_ns + self._there.draw_ns(), self.last_arrival_ns, exchange_ns)
        self.set(kind, order_id, self.last_arrival_ns)
        return self.last_arrival_ns

    def set(self, kind: RequestKind, order_id: int, at_ns: int) -> None:
        """Put something on the table for a given time."""
        self._sequence += 1
        heapq.heappush(self._due, Due(at_ns, self._sequence, kind, order_id))

    def now(self, kind: RequestKind, order_id: int, at_ns: int) -> Due:
        """Return something that the exchange itself does at a time, without a way."""
        return Due(at_ns, self._sequence, kind, order_id)

    def next_ns(self, default: int) -> int:
        """Return when the next request arrives."""
        return self._due[0].at_ns if self._due else default

    def pop(self) -> Due:
        return heapq.heappop(self._due)
