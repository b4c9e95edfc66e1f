"""Which connections are renewed because streams of theirs are silent.

Owns: what a silence says of its connection. A symbol in which nothing happens is as quiet as a stream that is
broken, on all redundant connections alike, and a new connection costs what comes while there is none. So

- a connection is renewed for a stream that another one has gone on delivering, next after four times as
  long a silence, until it brings it: a server may have lost one stream, and not the others;
- where nobody delivers it, for one that is never quiet (marks, streams over all symbols), next after four
  times as long a silence, until it delivers again;
- where nobody delivers one that may well be quiet (trades, quotes, depth): after ``stale_max_ms``, for
  whichever of them it is the next time after four times as long, and so on: some ten times a year, however
  quiet they are. The venue may have lost the subscription;
- while another connection to the same streams is away it is not: one copy always stays.

A connection over which nothing comes at all is the business of ``gpuscalp.feeds.connection``. Pure.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Final, final

from gpuscalp.config import FeedConfig
from gpuscalp.feeds.routes import is_steady
from gpuscalp.feeds.watchdog import Pauses, Watchdog
from gpuscalp.schema import NS_PER_MS

_PATIENCE: Final = 4
_ANY: Final = -1  # in place of a connection: a stream that nobody delivers
_QUIET: Final = ("", _ANY)  # all streams that may be quiet


@final
class Watch:
    """The watchdogs of all connections.

    Call ``start`` when the venue has acknowledged the streams of a connection, ``stop`` when it has ended,
    ``on_early`` for every message before ``start`` and the watchdog's ``on_message`` for every one after it,
    and ``overdue`` about once a second.

    Parameters
    ----------
    streams : those of every connection that is kept; redundant ones stand several times

    Attributes
    ----------
    watchdogs : by connection
    """

    def __init__(self, config: FeedConfig, streams: Iterable[Iterable[str]]) -> None:
        self._config = config
        self._copies = Counter(name for each in streams for name in each)
        self.watchdogs: dict[int, Watchdog] = {}
        self._early_ns: dict[int, dict[str, int]] = {}
        self._pauses: dict[str, Pauses] = {}
        self._heard_ns: dict[str, int] = {}  # of connections that have ended
        self._newest_ns: dict[str, int] = {}  # as ``heard_ns`` was at the last judgement
        self._patience_ns: dict[tuple[str, int], int] = {}  # by stream and connection

    def on_early(self, number: int, stream: str, now_ns: int) -> None:
        """Take the time of a message of a connection that is not acknowledged as a whole: a stream delivers
        from the reply to its own request on, and its next message may be long in coming."""
        self._early_ns.setdefault(number, {})[stream] = now_ns

    def start(self, number: int, streams: Iterable[str], now_ns: int) -> None:
        watchdog = self.watchdogs[number] = Watchdog(self._config, streams, self._pauses, now_ns)
        for name, at_ns in self._early_ns.pop(number, {}).items():
            watchdog.on_message(name, at_ns)

    def stop(self, number: int) -> None:
        self._early_ns.pop(number, None)
        watchdog = self.watchdogs.pop(number, None)
        if watchdog is not None:
            _keep_newest(self._heard_ns, watchdog)

    def delivering(self, now_ns: int) -> frozenset[str]:
        """Return the streams that deliver now, over any connection."""
        return frozenset(name for dog in self.watchdogs.values() for name in dog.delivering(now_ns))

    def heard_ns(self) -> dict[str, int]:
        """Return when each stream that has ever brought anything did so last, over any connection."""
        heard_ns = self._heard_ns.copy()
        for dog in self.watchdogs.values():
            _keep_newest(heard_ns, dog)
        return heard_ns

    def overdue(self, now_ns: int) -> list[tuple[int, str]]:
        """Return the connections that are to be renewed now, and why."""
        # What another one had brought a judgement ago should have come over this one as well by now.
        before_ns, self._newest_ns = self._newest_ns, self.heard_ns()
        for name, number in list(self._patience_ns):
            dogs = [dog for each, dog in self.watchdogs.items() if number in (_ANY, each)]
            if any(dog.is_delivering(name, now_ns) for dog in dogs):
                del self._patience_ns[name, number]
        there = Counter(name for dog in self.watchdogs.values() for name in dog.streams)
        found = []
        for number, dog in self.watchdogs.items():
            if any(there[name] < self._copies[name] for name in dog.streams):
                continue
            because = [name for name in dog.silent(now_ns) if self._is_cause(number, name, before_ns, now_ns)]
            if because:
                there.subtract(dog.streams)
                silent_ms = max(now_ns - dog.last_ns(name) for name in because) // NS_PER_MS
                shown = ", ".join(because[:3]) + (", …" if len(because) > 3 else "")
                found.append((number, f"acknowledged, but silent for {silent_ms} ms: {shown}"))
        return found

    def _is_cause(self, number: int, name: str, before_ns: dict[str, int], now_ns: int) -> bool:
        """Whether a silent stream is a reason to renew its connection; patience for the next time grows."""
        last_ns, config = self.watchdogs[number].last_ns(name), self._config
        key, least_ns, silent_ns = (name, number), 0, now_ns - last_ns
        if before_ns.get(name, last_ns) - last_ns < config.stale_min_ms * NS_PER_MS:
            key = (name, _ANY)
            if not is_steady(name):
                key, least_ns = _QUIET, config.stale_max_ms * NS_PER_MS
            silent_ns = now_ns - self._newest_ns.get(name, last_ns)
        if silent_ns < self._patience_ns.get(key, least_ns):
            return False
        self._patience_ns[key] = _PATIENCE * silent_ns
        return True


def _keep_newest(heard_ns: dict[str, int], watchdog: Watchdog) -> None:
    for name, at_ns in watchdog.heard_ns().items():
        heard_ns[name] = max(at_ns, heard_ns.get(name, 0))
