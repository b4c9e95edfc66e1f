"""Which symbols' streams bring something, where Nautilus keeps the connections.

Owns: the judgement of a symbol. It is silent while one of its streams is: quotes and marks, by which
positions are valued and frames are priced, after ``nautilus.silent_ms``; trades and books, like all streams
of a feed of ours, after a multiple of their usual pause (``gpuscalp.feeds.watchdog``). That a stream was
subscribed to says nothing: it counts when its first message has come. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, final

from gpuscalp.config import LiveConfig
from gpuscalp.feeds.routes import stream_names
from gpuscalp.feeds.watchdog import Watchdog
from gpuscalp.schema import NS_PER_MS, NS_PER_S, TickKind

_KINDS: Final = {
    TickKind.TRADE: "aggTrade",
    TickKind.QUOTE: "bookTicker",
    TickKind.BOOK: "depth20@100ms",
    TickKind.MARK: "markPrice@1s",
}
_PROMPT: Final = (TickKind.QUOTE, TickKind.MARK)


@final
class Streams:
    """The streams of S symbols, by the monotonic clock.

    Parameters
    ----------
    symbols : names
    config : of the session
    now_ns : when they were subscribed to, or before
    """

    def __init__(self, symbols: Sequence[str], config: LiveConfig, now_ns: int) -> None:
        self._names = {kind: stream_names(symbols, (stream,)) for kind, stream in _KINDS.items()}
        self._limit_ns = config.nautilus.silent_ms * NS_PER_MS
        every = [name for names in self._names.values() for name in names]
        self._watchdog = Watchdog(config.feed, every, {}, now_ns)

    def on_event(self, symbol: int, kind: TickKind, now_ns: int) -> None:
        self._watchdog.on_message(self._names[kind][symbol], now_ns)

    def silent(self, now_ns: int) -> tuple[int, ...]:
        """Return the indices of symbols of which a stream is silent."""
        brings = set(self._watchdog.delivering(now_ns))
        for kind in _PROMPT:
            names = self._names[kind]
            brings -= {each for each in names if now_ns - self._watchdog.last_ns(each) > self._limit_ns}
        of_symbols = zip(*self._names.values(), strict=True)
        return tuple(index for index, names in enumerate(of_symbols) if not brings.issuperset(names))

    def ages_s(self, now_ns: int) -> dict[str, float]:
        """Return the time since the last message of each stream that has brought anything, by its name."""
        return {name: (now_ns - at_ns) / NS_PER_S for name, at_ns in self._watchdog.heard_ns().items()}
