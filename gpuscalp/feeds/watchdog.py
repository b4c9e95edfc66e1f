"""Streams that were acknowledged and do not deliver.

Owns: what pause is usual for each stream, and which one is too long. A socket that answers pings says
nothing about its streams: a subscription on the wrong route is acknowledged and silent for ever, and a stream
may stop while its neighbours go on. What follows from a silence is decided in ``gpuscalp.feeds.watch``. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, final

from gpuscalp.config import FeedConfig
from gpuscalp.feeds.routes import is_rare
from gpuscalp.schema import NS_PER_MS, NS_PER_S

# The longest pause is forgotten in this time, so that a single one does not dull the watch for ever. By time,
# not by messages: a burst of them would forget the pause that comes after every burst.
_FORGET_NS: Final = 256.0 * NS_PER_S


@final
class Pauses:
    """The pauses of one stream, over whichever connection it came.

    Attributes
    ----------
    seen_ns : how long it has been seen, from its first message to its newest
    longest_ns : longest pause between two of its messages on one connection, partly forgotten
    """

    __slots__ = ("_first_ns", "longest_ns", "seen_ns")

    def __init__(self) -> None:
        self._first_ns: int | None = None
        self.seen_ns = 0
        self.longest_ns = 0.0

    def on_message(self, now_ns: int, pause_ns: int) -> None:
        """Take a message; ``pause_ns`` is 0 for the first one of a connection."""
        if self._first_ns is None:
            self._first_ns = now_ns
        self.seen_ns = now_ns - self._first_ns
        self.longest_ns = max(pause_ns, self.longest_ns * (1.0 - min(pause_ns / _FORGET_NS, 1.0)))


class _Stream:
    __slots__ = ("count", "last_ns", "pauses")

    def __init__(self, now_ns: int, pauses: Pauses) -> None:
        self.last_ns, self.pauses = now_ns, pauses
        self.count = 0


@final
class Watchdog:
    """Watches the streams of one connection from the moment when the venue has acknowledged them.

    Call ``on_message`` for every message. A stream that is not ``delivering`` calls for no new positions on
    it.

    Parameters
    ----------
    streams : those that speak only when something happens (liquidations) are left out
    pauses : by stream, shared by all connections and kept from those before; what is missing is added
    """

    def __init__(
        self, config: FeedConfig, streams: Iterable[str], pauses: dict[str, Pauses], now_ns: int
    ) -> None:
        self._config = config
        # No limit is shorter: most streams are younger, and it is asked of thousands several times a second.
        self._least_ns = NS_PER_MS * min(config.first_message_ms, config.stale_min_ms, config.stale_max_ms)
        self._streams = {
            name: _Stream(now_ns, pauses.setdefault(name, Pauses())) for name in streams if not is_rare(name)
        }

    def on_message(self, stream: str, now_ns: int) -> None:
        """Take the receive time of a message; of streams that were not asked for it is no matter."""
        found = self._streams.get(stream)
        if found is None:
            return
        found.pauses.on_message(now_ns, now_ns - found.last_ns if found.count else 0)
        found.count += 1
        found.last_ns = now_ns

    def limit_ns(self, stream: str) -> int:
        """Return the pause after which a stream counts as silent."""
        config, found = self._config, self._streams[stream]
        if found.count == 0:
            return config.first_message_ms * NS_PER_MS
        longest_ns = config.stale_max_ms * NS_PER_MS
        if found.pauses.seen_ns < longest_ns:
            # Of a stream that was seen for less than that nobody knows its pauses: trades come in bursts.
            return longest_ns
        usual_ns = config.stale_factor * found.pauses.longest_ns
        return int(min(max(usual_ns, config.stale_min_ms * NS_PER_MS), longest_ns))

    def delivering(self, now_ns: int) -> list[str]:
        """Return the streams that have brought something since the start and are not silent now. One that
        nothing has come from yet is in neither list: it may be healthy, but nobody can tell."""
        silent = set(self.silent(now_ns))
        return [name for name, stream in self._streams.items() if stream.count > 0 and name not in silent]

    def is_delivering(self, stream: str, now_ns: int) -> bool:
        found = self._streams.get(stream)
        return found is not None and found.count > 0 and now_ns - found.last_ns < self.limit_ns(stream)

    def silent(self, now_ns: int) -> list[str]:
        """Return the streams that are silent now."""
        latest_ns = now_ns - self._least_ns
        return [
            name
            for name, stream in self._streams.items()
            if stream.last_ns <= latest_ns and now_ns - stream.last_ns >= self.limit_ns(name)
        ]

    def heard_ns(self) -> dict[str, int]:
        """Return when each stream that has brought something since the start did so last."""
        return {name: stream.last_ns for name, stream in self._streams.items() if stream.count > 0}

    def last_ns(self, stream: str) -> int:
        """Return when a stream brought something last; before that, when the watch began."""
        return self._streams[stream].last_ns

    @property
    def streams(self) -> Iterable[str]:
        """The streams that are watched."""
        return self._streams.keys()
