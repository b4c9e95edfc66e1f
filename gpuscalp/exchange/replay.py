"""The replay: the source's messages into the venue, when their time has come.

Owns: the exchange's clock (speed, shift), the start and the end of the source. Pure: the wall clock comes in.

One clock for everything that the exchange says: event times, server time, order times. At speed N it runs
N times as fast as the world's; at the greatest speed it is the time of the newest message. It starts at the
wall clock's time, or at the recording's own where ``recorded`` is asked for, at the moment at which every
symbol has a book (or, in a source without books, a bid and an ask). What lies before it is taken at once.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from gpuscalp.errors import DataError
from gpuscalp.exchange.listing import Listing
from gpuscalp.exchange.rules import SymbolRules
from gpuscalp.exchange.source import Source, SourceMessage, WholeBook
from gpuscalp.exchange.venue import Venue
from gpuscalp.feeds.messages import DepthUpdate
from gpuscalp.schema import NS_PER_MS

# How far a source is searched for the moment at which all symbols have a book.
_SEARCHED: Final = 30_000
_PAUSE_MS: Final = 1_000


class Replay:
    """Drives a venue.

    Call ``prepare``, then ``start`` when the market shall run; ``step`` again and again.

    Parameters
    ----------
    speed : factor; None = as fast as it goes
    recorded : keep the recording's own times instead of moving them to now
    loop : begin again at the end of the source, one second later

    Attributes
    ----------
    started, ended : the market runs; the source is at its end
    taken : messages taken so far
    """

    def __init__(
        self, venue: Venue, source: Source, *, speed: float | None, recorded: bool = False, loop: bool = False
    ) -> None:
        self._venue, self._source = venue, source
        self.speed, self.recorded, self._loop = speed, recorded, loop
        self.ended = False
        self.taken = 0
        self._messages: Iterator[SourceMessage] = iter(())
        self._next: SourceMessage | None = None
        self._shift_ms = self._origin_ms = self._wall_start_ms = self._ready_ms = self._first_ms = 0
        self._newest_ms = 0  # of the source
        self.started = False

    def prepare(self, wall_ms: int) -> None:
        """Open the source and take what lies before the start, so that books are there to be asked for.

        Raises
        ------
        DataError
            the source has no messages
        """
        self._ready_ms = self._find_ready()
        self._anchor(wall_ms)
        self._messages = self._source.messages()
        self._advance()
        self._take_until(self._origin_ms, most=None)

    def start(self, wall_ms: int) -> None:
        """Let the market run from now on. Call ``prepare`` before."""
        self._anchor(wall_ms)
        self.started = True

    def now_ms(self, wall_ms: int) -> int:
        """Return the exchange's time."""
        if not self.started:
            return self._origin_ms if self.recorded else wall_ms
        if self.speed is None:
            return self._venue.now_ms
        return self._origin_ms + int((wall_ms - self._wall_start_ms) * self.speed)

    def step(self, wall_ms: int, most: int = 1_000) -> bool:
        """Take what is due, up to ``most`` messages; return whether more is due now."""
        if self.started and self._take_until(None if self.speed is None else self.now_ms(wall_ms), most=most):
            return True
        self._venue.advance(self.now_ms(wall_ms))
        return False

    def _anchor(self, wall_ms: int) -> None:
        self._origin_ms = self._ready_ms if self.recorded else wall_ms
        self._wall_start_ms = wall_ms
        self._shift_ms = self._origin_ms - self._ready_ms

    def _take_until(self, now_ms: int | None, *, most: int | None) -> bool:
        taken = 0
        venue = self._venue
        while self._next is not None:
            at_ms = max(venue.now_ms, self._time(self._next) + self._shift_ms)
            if now_ms is not None and at_ms > now_ms:
                return False
            if most is not None and taken >= most:
                return True
            venue.advance(at_ms)
            venue.on_message(self._next, self._shift_ms)
            taken += 1
            self.taken += 1
            self._advance()
        return False

    def _advance(self) -> None:
        self._next = next(self._messages, None)
        if self._next is None and self._loop and self.started:
            self._shift_ms = self._venue.now_ms + _PAUSE_MS - self._first_ms
            self._messages = self._source.messages()
            self._next = next(self._messages, None)
        self.ended = self._next is None

    def _time(self, message: SourceMessage) -> int:
        """Return the message's time in ms of the source; an undated one has that of the newest before it."""
        if message.exch_ns:
            self._newest_ms = message.exch_ns // NS_PER_MS
        return self._newest_ms

    def _find_ready(self) -> int:
        listings = {item.symbol: Listing(SymbolRules.of(item)) for item in self._source.instruments}
        unquoted, shallow = set(listings), set(listings)
        quoted_ms = self._first_ms = newest_ms = 0
        for number, message in enumerate(self._source.messages()):
            newest_ms = max(newest_ms, message.exch_ns // NS_PER_MS)
            self._first_ms = self._first_ms or newest_ms
            if message.symbol in shallow:
                listing = listings[message.symbol]
                listing.on_message(message, newest_ms, 0)
                if listing.ready:
                    unquoted.discard(message.symbol)
                    if isinstance(message, WholeBook | DepthUpdate):
                        shallow.discard(message.symbol)
            if not unquoted and not quoted_ms:
                quoted_ms = newest_ms
            if not shallow or number >= _SEARCHED:
                break
        if not newest_ms:
            raise DataError(
                "the source has no messages",
                where="the market to replay",
                fix="name another, or a longer range",
            )
        return newest_ms if not shallow else quoted_ms or newest_ms
