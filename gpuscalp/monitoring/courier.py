"""Carries messages to one channel, from a thread of its own.

Owns: what a channel has still to be given, when it is tried again (by the monotonic clock: the other one may
be set), what is counted, and that the log has why a channel fails. One that hangs keeps only its own messages
back. Never: raises; the thread is a daemon.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, final

from gpuscalp.monitoring.alarms import Message
from gpuscalp.monitoring.channel import Channel
from gpuscalp.monitoring.conditions import SEVERITIES

_LOG: Final = logging.getLogger("gpuscalp.session")
WAITING_MAX: Final = 50  # messages


@dataclass(eq=False)
class _Owed:
    """A message that the channel has not taken yet."""

    message: Message
    settled: Callable[[bool], None]
    due_s: float
    tries: int = 0


@final
class Courier:
    """Gives a channel its messages, the gravest first, from ``start`` on.

    Parameters
    ----------
    retries_s : pauses after tries that failed; after the last one a message is dropped

    Attributes
    ----------
    counts : result → messages; result is ``sent``, ``failed`` (one try) or ``dropped`` (given up)
    thread : ends some time after ``end``
    """

    def __init__(self, channel: Channel, retries_s: Sequence[float]) -> None:
        self._channel, self._retries_s = channel, retries_s
        self._owed: list[_Owed] = []
        self._changed = threading.Condition()  # guards what is owed, and counts
        self._ending = False
        self.service = channel.service
        self.counts = Counter(sent=0, failed=0, dropped=0)
        self._last: str | None = None  # why the channel did not take what it was given last
        self.thread = threading.Thread(target=self._run, name=f"notify {self.service}", daemon=True)

    def start(self) -> None:
        self.thread.start()

    def owe(self, message: Message, settled: Callable[[bool], None]) -> None:
        """Take over a message, without waiting for the channel. Of too many the oldest is dropped.

        Parameters
        ----------
        settled : told once, in some thread, whether the message was sent; it must not wait
        """
        with self._changed:
            if len(self._owed) >= WAITING_MAX:  # what was in hand comes back to a full queue
                self._drop(self._owed.pop(0))
            self._owed.append(_Owed(message, settled, time.monotonic()))
            self._changed.notify()

    def end(self) -> None:
        """Try once more what is left, and no more."""
        with self._changed:
            self._ending = True
            self._changed.notify()

    def _run(self) -> None:
        while (owed := self._take()) is not None:
            try:
                failure = self._channel.send(owed.message)
            except Exception as error:  # a defect of ours: whoever is dead tells nothing any more
                failure = type(error).__name__
            with self._changed:
                self._book(owed, failure)

    def _take(self) -> _Owed | None:
        """Return what is to be sent next, when it is due; None at the end."""
        with self._changed:
            while True:
                now_s = time.monotonic()
                due = [each for each in self._owed if self._ending or each.due_s <= now_s]
                if due:
                    owed = min(due, key=lambda each: SEVERITIES.index(each.message.severity))
                    self._owed.remove(owed)
                    return owed
                if self._ending:
                    return None
                next_s = min((each.due_s for each in self._owed), default=None)
                self._changed.wait(None if next_s is None else next_s - now_s)

    def _book(self, owed: _Owed, failure: str | None) -> None:
        changed, self._last = failure != self._last, failure
        if failure is None:
            self.counts["sent"] += 1
            owed.settled(True)
            return
        self.counts["failed"] += 1
        if changed:  # it may say the same of every message from now on
            _LOG.warning("a notification could not be delivered: %s: %s", self.service, failure)
        if owed.tries == len(self._retries_s) or self._ending:
            self._drop(owed)
            return
        owed.due_s, owed.tries = time.monotonic() + self._retries_s[owed.tries], owed.tries + 1
        self._owed.append(owed)

    def _drop(self, owed: _Owed) -> None:
        self.counts["dropped"] += 1
        owed.settled(False)
