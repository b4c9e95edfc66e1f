"""Streams that were acknowledged and do not deliver.

Owns: what pause is usual for each stream of a connection, and which one is too long. A socket that answers
pings says nothing about its streams: a subscription on the wrong route is acknowledged and silent for ever,
and a stream may stop while its neighbours go on. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import final

from gpuscalp.config import FeedConfig
from gpuscalp.feeds.routes import is_rare
from gpuscalp.schema import NS_PER_MS

# One message in so many forgets a share of the longest pause, so that a single long one does not dull the
# watch for ever.
_FORGET = 1.0 / 256.0


class _Stream:
    __slots__ = ("count", "last_ns", "longest_ns")

    def __init__(self, now_ns: int) -> None:
        self.last_ns = now_ns
        self.count = 0
        self.longest_ns = 0.0


@final
class Watchdog:
    """Watches the streams of one connection.

    Call ``start`` when the venue has acknowledged the streams, ``on_message`` for every message, and
    ``silent`` now and then; a stream that it returns calls for a reconnection and, until its data flow again,
    for no new positions on it.
    """

    def __init__(self, config: FeedConfig) -> None:
        self._config = config
        self._streams: dict[str, _Stream] = {}

    def start(self, streams: Iterable[str], now_ns: int) -> None:
        """Begin to watch, apart from streams that speak only when something happens (liquidations). A
        stream's usual pause is kept from the connection before."""
        usual = {name: stream.longest_ns for name, stream in self._streams.items()}
        self._streams = {name: _Stream(now_ns) for name in streams if not is_rare(name)}
        for name, stream in self._streams.items():
            stream.longest_ns = usual.get(name, 0.0)

    def stop(self) -> None:
        """The connection is gone: nothing is expected of it."""
        for stream in self._streams.values():
            stream.count = -1

    def on_message(self, stream: str, now_ns: int) -> None:
        """Take the receive time of a message; of streams that were not asked for it is no matter."""
        found = self._streams.get(stream)
        if found is None:
            return
        if found.count > 0:
            pause_ns = now_ns - found.last_ns
            found.longest_ns = max(float(pause_ns), found.longest_ns - found.longest_ns * _FORGET)
        found.count = max(found.count, 0) + 1
        found.last_ns = now_ns

    def limit_ns(self, stream: str) -> int:
        """Return the pause after which a stream counts as silent."""
        config, found = self._config, self._streams[stream]
        if found.count == 0:
            return config.first_message_ms * NS_PER_MS
        if not found.longest_ns:
            # No pause is known yet, and the best bids and asks of all symbols come every five seconds.
            return max(config.first_message_ms, config.stale_min_ms) * NS_PER_MS
        usual_ns = config.stale_factor * found.longest_ns
        return int(min(max(usual_ns, config.stale_min_ms * NS_PER_MS), config.stale_max_ms * NS_PER_MS))

    def delivering(self, now_ns: int) -> list[str]:
        """Return the streams that have brought something since the start and are not silent now. One that
        nothing has come from yet is in neither list: it may be healthy, but nobody can tell."""
        return [
            name
            for name, stream in self._streams.items()
            if stream.count > 0 and now_ns - stream.last_ns < self.limit_ns(name)
        ]

    def heard_ns(self) -> dict[str, int]:
        """Return when each stream that has brought something since the start did so last."""
        return {name: stream.last_ns for name, stream in self._streams.items() if stream.count > 0}

    def silent(self, now_ns: int) -> list[str]:
        """Return the streams that are silent now."""
        return [
            name
            for name, stream in self._streams.items()
            if stream.count >= 0 and now_ns - stream.last_ns >= self.limit_ns(name)
        ]
