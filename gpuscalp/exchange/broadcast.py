"""Market streams: which message goes out on which stream, and when.

Owns: update speeds, the accumulation of book differences for each speed, the streams over all symbols.
Never: the content of a payload (``listing``), who listens (``hub``). Pure: time comes in.

Each speed of a symbol's depth stream is a chain of its own: an event covers the ids after the one before it
(``pu``) up to ``u``, and its first id is ``U``. A snapshot taken at any moment fits, because the ids are the
book's. Nothing is made for streams that nobody listens to.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Final

from gpuscalp.exchange.bars import INTERVALS_MS
from gpuscalp.exchange.book import BookChange
from gpuscalp.exchange.hub import Hub
from gpuscalp.exchange.listing import Listing, Update

# Update speeds in ms of the depth streams and what clients call them. 0 ms is not in the documentation any
# more; it is served as it was: at once.
_DEPTH_NAMES: Final = {
    0: ("@depth@0ms",),
    100: ("@depth@100ms",),
    250: ("@depth", "@depth@250ms"),
    500: ("@depth@500ms", "@rpiDepth@500ms", "@rpiDepth"),
}
_PARTIAL_NAMES: Final = {
    100: tuple((f"@depth{n}@100ms", n) for n in (5, 10, 20)),
    250: tuple((f"@depth{n}{tail}", n) for n in (5, 10, 20) for tail in ("", "@250ms")),
    500: tuple((f"@depth{n}@500ms", n) for n in (5, 10, 20)),
}
# The source's marks come about every second; where they stop, the clock takes over.
_MARK_SILENCE_MS: Final = 1_500


@dataclass(slots=True)
class _Pending:
    """Differences that wait for their speed's next event."""

    first_id: int
    previous_id: int
    last_id: int = 0
    bids: dict[int, int] = field(default_factory=dict)
    asks: dict[int, int] = field(default_factory=dict)

    def add(self, change: BookChange) -> None:
        self.last_id = change.last_id
        self.bids.update(change.bids)
        self.asks.update(change.asks)

    def change(self) -> BookChange:
        bids = sorted(self.bids.items(), reverse=True)
        return BookChange(self.first_id, self.last_id, self.previous_id, bids, sorted(self.asks.items()))


@dataclass(slots=True)
class _Timer:
    period_ms: int
    action: Callable[[int], None]
    due_ms: int = 0


class Broadcast:
    """The market streams of all symbols.

    Call ``on_update`` with every change, and ``advance`` with the time of everything before it.
    """

    def __init__(self, hub: Hub, listings: Iterable[Listing]) -> None:
        self._hub = hub
        self._listings = {listing.symbol: listing for listing in listings}
        self._names = {symbol: symbol.lower() for symbol in self._listings}
        self._pending: dict[tuple[str, int], _Pending] = {}
        self._partial: dict[str, int] = {}  # last id sent on a partial stream
        timers: tuple[tuple[int, Callable[[int], None]], ...] = (
            *((speed, self._depth_timer(speed)) for speed in (100, 250, 500)),
            (100, self._aggregates),
            (250, self._klines),
            (1_000, self._marks_1s),
            (3_000, self._marks_3s),
            (2_000, self._tickers),
            (1_000, self._all_tickers),
            (5_000, self._all_book_tickers),
        )
        self._timers = [_Timer(period, action) for period, action in timers]
        self._due_ms = 0

    def on_update(self, listing: Listing, update: Update, now_ms: int) -> None:
        """Send what goes out at once and keep what waits."""
        hub, name = self._hub, self._names[listing.symbol]
        if update.trade is not None and hub.wants(stream := f"{name}@trade"):
            hub.publish(stream, listing.trade_event(now_ms))
        if update.closed is not None and hub.wants(stream := f"{name}@aggTrade"):
            hub.publish(stream, listing.aggregate_event(update.closed, now_ms))
        if update.book is not None:
            self._on_change(listing, name, update.book, now_ms)
        if update.best_changed and hub.wants(stream := f"{name}@bookTicker"):
            hub.publish(stream, listing.ticker_event(now_ms))
        if update.mark and hub.wants(stream := f"{name}@markPrice@1s"):
            hub.publish(stream, listing.mark_event(now_ms))

    def advance(self, now_ms: int) -> None:
        """Run every timer that is due up to a time, in order."""
        if now_ms < self._due_ms:
            return
        if not self._due_ms or now_ms - self._due_ms > 60_000:
            # The first call, or a jump of the source: no minute of missed beats.
            for timer in self._timers:
                timer.due_ms = (now_ms // timer.period_ms + 1) * timer.period_ms
        while (due := min(timer.due_ms for timer in self._timers)) <= now_ms:
            for timer in self._timers:
                if timer.due_ms == due:
                    timer.action(due)
                    timer.due_ms = due + timer.period_ms
        self._due_ms = due

    def _on_change(self, listing: Listing, name: str, change: BookChange, now_ms: int) -> None:
        hub = self._hub
        for speed, tails in _DEPTH_NAMES.items():
            wanted = [stream for tail in tails if hub.wants(stream := name + tail)]
            if speed == 0:
                for stream in wanted:
                    hub.publish(stream, listing.depth_event(change, now_ms))
                continue
            key = (listing.symbol, speed)
            if not wanted:
                self._pending.pop(key, None)
                continue
            if key not in self._pending:
                self._pending[key] = _Pending(change.first_id, change.previous_id)
            self._pending[key].add(change)

    def _depth_timer(self, speed: int) -> Callable[[int], None]:
        def run(now_ms: int) -> None:
            for key in [key for key in self._pending if key[1] == speed]:
                listing, change = self._listings[key[0]], self._pending.pop(key).change()
                for tail in _DEPTH_NAMES[speed]:
                    self._send(self._names[key[0]] + tail, listing.depth_event, change, now_ms)
            for symbol, listing in self._listings.items():
                for tail, count in _PARTIAL_NAMES[speed]:
                    if self._hub.wants(stream := self._names[symbol] + tail):
                        self._send_partial(listing, stream, count, now_ms)

        return run

    def _send_partial(self, listing: Listing, stream: str, count: int, now_ms: int) -> None:
        book = listing.book
        before = self._partial.get(stream, book.last_id - 1)
        if before == book.last_id:
            return
        self._partial[stream] = book.last_id
        top = BookChange(before + 1, book.last_id, before, book.bids.levels(count), book.asks.levels(count))
        self._hub.publish(stream, listing.depth_event(top, now_ms))

    def _aggregates(self, now_ms: int) -> None:
        for symbol, listing in self._listings.items():
            closed = listing.close_aggregate(now_ms)
            if closed is not None:
                self._send(f"{self._names[symbol]}@aggTrade", listing.aggregate_event, closed, now_ms)

    def _klines(self, now_ms: int) -> None:
        for stream in self._hub.streams():
            name, _, tail = stream.partition("@kline_")
            if tail in INTERVALS_MS and name.upper() in self._listings:
                payload = self._listings[name.upper()].bars.kline(tail, now_ms)
                if payload is not None:
                    self._hub.publish(stream, payload)

    def _marks_1s(self, now_ms: int) -> None:
        for symbol, listing in self._listings.items():
            if listing.ready and now_ms - listing.mark_ms > _MARK_SILENCE_MS:
                self._send(f"{self._names[symbol]}@markPrice@1s", listing.mark_event, now_ms)
        self._send_all("!markPrice@arr@1s", lambda listing: listing.ready and listing.mark_event(now_ms))

    def _marks_3s(self, now_ms: int) -> None:
        for symbol, listing in self._listings.items():
            if listing.ready:
                self._send(f"{self._names[symbol]}@markPrice", listing.mark_event, now_ms)
        self._send_all("!markPrice@arr", lambda listing: listing.ready and listing.mark_event(now_ms))

    def _tickers(self, now_ms: int) -> None:
        for symbol, listing in self._listings.items():
            for kind, make in (("ticker", listing.bars.ticker), ("miniTicker", listing.bars.mini_ticker)):
                if self._hub.wants(stream := f"{self._names[symbol]}@{kind}") and (payload := make(now_ms)):
                    self._hub.publish(stream, payload)

    def _all_tickers(self, now_ms: int) -> None:
        self._send_all("!ticker@arr", lambda listing: listing.bars.ticker(now_ms))
        self._send_all("!miniTicker@arr", lambda listing: listing.bars.mini_ticker(now_ms))

    def _all_book_tickers(self, now_ms: int) -> None:
        if self._hub.wants("!bookTicker"):
            for listing in self._listings.values():
                if listing.ready:
                    self._hub.publish("!bookTicker", listing.ticker_event(now_ms))

    def _send(self, stream: str, make: Callable[..., Any], *values: Any) -> None:
        if self._hub.wants(stream):
            self._hub.publish(stream, make(*values))

    def _send_all(self, stream: str, make: Callable[[Listing], Any]) -> None:
        if self._hub.wants(stream):
            payloads = [payload for listing in self._listings.values() if (payload := make(listing))]
            if payloads:
                self._hub.publish(stream, payloads)
