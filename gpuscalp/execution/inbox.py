"""Reports on their way back to us.

Owns: what has happened but is not known here yet. Never: reads a clock.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import final

from gpuscalp.execution.messages import Report


@final
class Inbox:
    """Holds reports until they are known: what a program that waits for its fills must see, and no sooner."""

    def __init__(self) -> None:
        self._waiting: deque[Report] = deque()

    def __len__(self) -> int:
        return len(self._waiting)

    def put(self, reports: Iterable[Report]) -> None:
        """Take what a call of the broker returned."""
        self._waiting.extend(reports)

    def due(self, now_ns: int) -> list[Report]:
        """Return what is known by now, in the order of time."""
        found: list[Report] = []
        while self._waiting and self._waiting[0].known_ns <= now_ns:
            found.append(self._waiting.popleft())
        return found
