"""Ids of one stream: what is missing, what came twice, what came late.

Owns: the open gaps of a stream whose ids have no holes (``TradeChain``), the newest id of one whose ids only
rise (``Ascent``), and whether the venue counts anew (``Restart``). Pure.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Final

from gpuscalp.schema import NS_PER_S

# Gaps that may still be filled by late trades. Older ones are final.
OPEN_MAX: Final = 256
# Rising ids below the newest one, in a row, that show the newest one to be wrong.
_OUTVOTED: Final = 3
# How much later than all that was taken a message has to be dated: copies are dated alike.
_LATER_NS: Final = NS_PER_S


class Link(Enum):
    """How an id follows: the next one; behind a GAP; FILLS an earlier gap; DUPLICATE of one seen; or LATE,
    from before the first one seen or from a gap that is no longer open."""

    NEXT = "next"
    GAP = "gap"
    FILLS = "fills"
    DUPLICATE = "duplicate"
    LATE = "late"


_NEXT: Final = Link.NEXT  # an enum's member costs five times as much to look up as a name


class Ascent:
    """The newest id of a stream whose ids only rise.

    One damaged id far ahead would make everything after it late. So when several messages in a row rise
    among themselves between the last two ids taken, the newest one is outvoted and the stream goes on from
    them. A stretch of old messages sent once more does not come above the last but one and stays late.

    Attributes
    ----------
    newest, before : the last two ids taken, without one that was outvoted; None before the first
    """

    __slots__ = ("_late_count", "_late_id", "before", "newest")

    def __init__(self) -> None:
        self.newest: int | None = None
        self.before: int | None = None
        self._late_count = self._late_id = 0

    def on_id(self, number: int) -> Link:
        """Take the id of one message: NEXT, DUPLICATE (equal to the newest) or LATE."""
        newest = self.newest
        if newest is None or number > newest:
            self.before, self.newest = newest, number
            self._late_count = 0
            return _NEXT
        if number == newest:
            return Link.DUPLICATE
        rising = number > self._late_id if self._late_count else True
        if not rising or self.before is None or number <= self.before:
            self._late_count = 0
            return Link.LATE
        self._late_id = number
        self._late_count += 1
        if self._late_count < _OUTVOTED:
            return Link.LATE
        self.newest, self._late_count = number, 0
        return Link.NEXT


class Restart:
    """Whether the ids of a stream have begun anew: a symbol was listed again, or a testnet was reset.

    Everything after that would be late for good. Copies and old messages sent once more have old event times;
    here several messages in a row have rising ids and are dated later than what was taken last.
    """

    __slots__ = ("_count", "_number", "_taken_ns")

    def __init__(self) -> None:
        self._count = self._number = self._taken_ns = 0

    def on_refused(self, number: int, exch_ns: int, taken_ns: int) -> bool:
        """Take a message that its id has made late; return whether the ids have begun anew with it.

        Parameters
        ----------
        number, exch_ns : its id and event time
        taken_ns : event time of the message that was taken last
        """
        in_a_row = self._count and self._taken_ns == taken_ns and number > self._number
        if exch_ns < taken_ns + _LATER_NS:
            self._count = 0
            return False
        self._count = self._count + 1 if in_a_row else 1
        self._number, self._taken_ns = number, taken_ns
        return self._count >= _OUTVOTED


@dataclass(slots=True)
class Missing:
    """Ids first_id … last_id, missing between two receive times."""

    first_id: int
    last_id: int
    from_ns: int
    to_ns: int


class TradeChain:
    """Follow the ids of one trade stream; Binance numbers trades of a symbol without holes."""

    __slots__ = ("_final", "_first_id", "_last_id", "_last_ns", "_open")

    def __init__(self) -> None:
        self._first_id = 0
        self._last_id: int | None = None
        self._last_ns = 0
        self._open: list[Missing] = []
        self._final: list[Missing] = []

    def on_id(self, trade_id: int, recv_ns: int) -> Link:
        """Take the id of one trade, in arrival order."""
        last = self._last_id
        if last is None:
            self._first_id = self._last_id = trade_id
            self._last_ns = recv_ns
            return Link.NEXT
        if trade_id <= last:
            return self._on_earlier(trade_id)
        from_ns, self._last_id, self._last_ns = self._last_ns, trade_id, recv_ns
        if trade_id == last + 1:
            return _NEXT
        if len(self._open) == OPEN_MAX:
            self._final.append(self._open.pop(0))
        self._open.append(Missing(last + 1, trade_id - 1, from_ns, recv_ns))
        return Link.GAP

    def settle(self) -> int:
        """Forget the gaps that are no longer open, and return how many they were."""
        count, self._final = len(self._final), []
        return count

    def close_gaps(self) -> list[Missing]:
        """Return all gaps found since the last call. They are final: what fills them later is late."""
        gaps = [*self._final, *self._open]
        self._final, self._open = [], []
        return gaps

    def _on_earlier(self, trade_id: int) -> Link:
        if trade_id < self._first_id:
            return Link.LATE
        for index, gap in enumerate(self._open):
            if gap.first_id <= trade_id <= gap.last_id:
                rest = [
                    Missing(gap.first_id, trade_id - 1, gap.from_ns, gap.to_ns),
                    Missing(trade_id + 1, gap.last_id, gap.from_ns, gap.to_ns),
                ]
                self._open[index : index + 1] = [part for part in rest if part.first_id <= part.last_id]
                if len(self._open) > OPEN_MAX:
                    self._final.append(self._open.pop(0))
                return Link.FILLS
        if any(gap.first_id <= trade_id <= gap.last_id for gap in self._final):
            return Link.LATE
        return Link.DUPLICATE
