"""Event times that cannot be: dated further ahead than the venue's clock is.

Owns: the lead of event times over receive times. One message dated far ahead would close the frames of all
symbols, and what really comes next would be too late for every one of them. A message can be held up on its
way, but not sent ahead of the others: the lead of the event time over the receive time changes only as the
two clocks drift. It is the same for all connections of a receiver, so one ``Lead`` serves them all, as it
serves all lines of a recording. The first message is believed. Pure.
"""

from __future__ import annotations

from typing import Final, final

from gpuscalp.errors import DecodeError
from gpuscalp.feeds.messages import Batch, Ignored, Liquidation, Message
from gpuscalp.schema import NS_PER_MS, NS_PER_S

_STEP_NS: Final = 2 * NS_PER_S
_AHEAD_MAX: Final = 8
_NOTHING: Final = -1  # before any event time


@final
class Lead:
    """The largest lead so far. Call ``check`` with every dated message, in arrival order."""

    __slots__ = ("_ahead_count", "_lead_ns")

    def __init__(self) -> None:
        self._lead_ns: int | None = None
        self._ahead_count = 0

    def plain_ms(self, recv_ns: int) -> int:
        """Return the event time, in ms, up to which ``check`` would change nothing at a receive time."""
        if self._lead_ns is None or self._ahead_count:
            return _NOTHING
        return (recv_ns + self._lead_ns) // NS_PER_MS

    def check(self, recv_ns: int, exch_ns: int) -> None:
        """Take the times of one message.

        Raises
        ------
        DecodeError
            the lead is 2 s above all before it; after 8 such messages in a row a clock was changed, and they
            are taken
        """
        lead_ns = exch_ns - recv_ns
        if self._lead_ns is not None and lead_ns > self._lead_ns + _STEP_NS:
            self._ahead_count += 1
            if self._ahead_count <= _AHEAD_MAX:
                raise DecodeError("event time is ahead of all others", value=exch_ns)
            self._lead_ns = lead_ns
        elif self._lead_ns is None or lead_ns > self._lead_ns:
            self._lead_ns = lead_ns
        self._ahead_count = 0


def event_ns(message: Message) -> int:
    """Return the event time of a message that may make rows, of an array the newest; 0 = there is none."""
    if isinstance(message, Batch):
        return max(map(event_ns, message.messages), default=0)
    return 0 if isinstance(message, Ignored | Liquidation) else message.exch_ns
