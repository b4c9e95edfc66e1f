"""From raw messages of all connections to ticks: decode, merge, follow the market, pack.

Owns: the one way of live data, used by ``live`` with messages from sockets and by ``replay`` with the same
messages from the journal: the same calls give the same ticks. Pure: no sockets, files or clock.

Order of calls: ``on_messages``, ``on_lost``, ``on_snapshot`` and ``poll`` as things happen, ``take`` whenever
ticks are wanted. A replay has to repeat the first four in the same order with the same arguments.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, final

import numpy as np

from gpuscalp.config import FeedConfig
from gpuscalp.errors import DecodeError
from gpuscalp.feeds.binance import Decoder
from gpuscalp.feeds.book import BookState
from gpuscalp.feeds.lead import Lead, event_ns
from gpuscalp.feeds.market import DUPLICATE, LATE, TAKEN, RowSink, SymbolMarket
from gpuscalp.feeds.merge import Merge, Passed
from gpuscalp.feeds.messages import (
    PARTIAL_DEPTHS,
    Batch,
    DepthSnapshot,
    DepthUpdate,
    Ignored,
    Liquidation,
    MarkPrice,
    PartialBook,
    Ticker,
    Trade,
)
from gpuscalp.feeds.ticks import ObservedSink, Observer, TickBuffer, TickSink
from gpuscalp.ops import wire
from gpuscalp.schema import NS_PER_MS, Instrument, Quality, Ticks

_GAP: Final = int(Quality.GAP)
_KINDS: Final[dict[type, int]] = {Trade: 0, Ticker: 1, DepthUpdate: 2, MarkPrice: 3, PartialBook: 4}
# Flows to be merged per symbol: trades and aggregates apart, and partial books by their depth. By the kind of
# a stream the place among them.
_KEYS: Final = 8
_AGGREGATE: Final = 4
_PARTIAL: Final = {depth: place for place, depth in enumerate(PARTIAL_DEPTHS, 5)}
_PLACES: Final = {
    "trade": 0,
    "bookTicker": 1,
    "depth": 2,
    "markPrice": 3,
    "aggTrade": _AGGREGATE,
    **{f"depth{depth}": place for depth, place in _PARTIAL.items()},
}
_PADDING: Final = bytes(wire.PADDING)
_CHUNK: Final = 1_024
_OTHER, _TRADE, _QUOTE, _DEPTH, _MARK = wire.OTHER, wire.TRADE, wire.QUOTE, wire.DEPTH, wire.MARK
_Row = Trade | Ticker | DepthUpdate | MarkPrice | PartialBook
_DEPTH_OF: Final = dict(zip(wire.PARTIAL, PARTIAL_DEPTHS, strict=True))


@final
class Ingest:
    """All symbols of one venue.

    Parameters
    ----------
    instruments : the symbols, in the order of axis S
    config : FeedConfig
    book_interval_ns : least exchange time between two book ticks of a symbol
    observers : one per symbol, told of every row after its tick was made; None for nobody

    Attributes
    ----------
    merge : what came twice, by connection
    message_count : messages taken
    fates : what became of them: "taken", "duplicate", "late", "before_snapshot", the kind of one that makes
        no ticks ("liquidation", "kline"), or the reason why it was set aside ("other_symbol", "other_margin",
        "other_book_stream"); of an array each element
    rejects : messages that cannot be read, or whose event time cannot be, by reason
    """

    def __init__(
        self,
        instruments: Sequence[Instrument],
        config: FeedConfig,
        *,
        book_interval_ns: int = 0,
        observers: Sequence[Observer] | None = None,
    ) -> None:
        self.merge = Merge(config)
        self.message_count = 0
        self.fates: Counter[str] = Counter()
        self.rejects: Counter[str] = Counter()
        self._buffer = TickBuffer()
        self._names = tuple(instrument.symbol for instrument in instruments)
        self._index = {name: index for index, name in enumerate(self._names)}
        self._sinks = [TickSink(self._buffer, each, index) for index, each in enumerate(instruments)]
        sinks: Sequence[RowSink] = self._sinks
        if observers is not None:
            sinks = [ObservedSink(*pair) for pair in zip(self._sinks, observers, strict=True)]
        self._markets = [SymbolMarket(sink, book_interval_ns=book_interval_ns) for sink in sinks]
        self._handlers: list[tuple[Callable[[int, Any], str], ...]] = [
            (market.on_trade, market.on_ticker, market.on_diff, market.on_mark, market.on_partial_book)
            for market in self._markets
        ]
        self._lead = Lead()
        self._decoder = Decoder()
        self._table = wire.symbol_table(self._names)
        self._heads = np.zeros((_CHUNK, wire.HEAD_SIZE), np.int64)
        self._levels = np.zeros((_CHUNK * 32, 2), np.int64)

    def on_messages(self, number: int, recv_ns: int, messages: Sequence[bytes]) -> None:
        """Take messages of a connection that came together, in order."""
        for start in range(0, len(messages), _CHUNK):
            self._take(number, recv_ns, messages[start : start + _CHUNK])

    def on_lost(self, number: int, now_ns: int) -> None:
        """A connection has ended."""
        self._pass(self.merge.on_lost(number, now_ns), now_ns)

    def on_snapshot(self, recv_ns: int, snapshot: DepthSnapshot) -> str:
        """Take a REST snapshot of the book of ``snapshot.symbol``; return what became of it."""
        if snapshot.exch_ns and not self._credible(recv_ns, snapshot.exch_ns):
            return "reject"
        index = self._index.get(snapshot.symbol)
        fate = "other_symbol" if index is None else self._markets[index].on_snapshot(recv_ns, snapshot)
        self.fates[fate] += 1
        return fate

    def poll(self, now_ns: int) -> None:
        """Let go what has waited long enough for missing messages; call at ``merge.due_ns``."""
        self._pass(self.merge.poll(now_ns), now_ns)

    def take(self) -> Ticks:
        """Return the ticks made since the last call, TICK[N], in order."""
        return self._buffer.take()

    @property
    def tick_count(self) -> int:
        """Ticks that ``take`` would return."""
        return len(self._buffer)

    @property
    def off_tick_count(self) -> int:
        """Rows that made no tick because a price does not fit the instrument."""
        return sum(self.off_ticks())

    def off_ticks(self) -> tuple[int, ...]:
        """Return the same by symbol."""
        return tuple(sink.off_tick_count for sink in self._sinks)

    def unsynced(self) -> tuple[str, ...]:
        """Return the symbols that need a book snapshot: updates come, and the book is not whole."""
        return tuple(
            name
            for name, market in zip(self._names, self._markets, strict=True)
            if market.book.last_id is not None and market.book.state is not BookState.SYNCED
        )

    def near_edge(self) -> tuple[str, ...]:
        """Return the symbols whose book is whole and needs a snapshot soon (``LocalBook.near_edge``)."""
        return tuple(
            name for name, market in zip(self._names, self._markets, strict=True) if market.book.near_edge
        )

    def book_states(self) -> dict[str, str]:
        """Return the state of every symbol's book, by its name."""
        return {
            name: market.book.state.value for name, market in zip(self._names, self._markets, strict=True)
        }

    def resync_counts(self) -> dict[str, int]:
        """Return how often every symbol's book has become doubtful, by its name."""
        return {
            name: market.book.resync_count for name, market in zip(self._names, self._markets, strict=True)
        }

    def settle(self) -> int:
        """Forget gaps that nothing can fill any more, and return how many they were.

        For a session that runs for ever; who wants to know them calls ``gaps`` instead.
        """
        count = sum(len(sink.gaps) for sink in self._sinks)
        for sink in self._sinks:
            sink.gaps.clear()
        return count + sum(market.settle() for market in self._markets)

    def gaps(self) -> list[tuple[str, str, int, int, int, int]]:
        """Return what is known to be missing since the last call: (symbol, kind, from_ns, to_ns, first id,
        last id)."""
        found = []
        for name, market, sink in zip(self._names, self._markets, self._sinks, strict=True):
            market.close_gaps()
            found += [(name, *gap) for gap in sink.gaps]
            sink.gaps.clear()
        return found

    def joined(self, number: int, streams: Iterable[str]) -> bool:
        """Whether a connection has joined all of its streams that others deliver."""
        keys: set[int] = set()
        for stream in streams:
            symbol, _, kind = stream.partition("@")
            indices: Iterable[int] = range(len(self._names))
            if symbol.startswith("!"):
                kind = symbol[1:]
            else:
                index = self._index.get(symbol.upper())
                indices = () if index is None else (index,)
            place = _PLACES.get(kind.partition("@")[0])
            if place is not None:
                keys.update(index * _KEYS + place for index in indices)
        return self.merge.joined(number, keys.__contains__)

    def _take(self, number: int, recv_ns: int, messages: Sequence[bytes]) -> None:
        count = len(messages)
        self.message_count += count
        data = np.frombuffer(b"".join((*messages, _PADDING)), np.uint8)
        ends = np.fromiter(map(len, messages), np.int64, count).cumsum()
        wire.scan(data, ends, *self._table, self._heads[:count], self._levels)
        names, markets, judge, fates = self._names, self._markets, self.merge.judge, self.fates
        taken, plain_ms = 0, self._lead.plain_ms(recv_ns)
        for place, head in enumerate(self._heads[:count].tolist()):
            kind, symbol, ms, ident, a, b, c, d, e = head
            if kind == _OTHER:
                self._take_other(number, recv_ns, messages[place])
                plain_ms = self._lead.plain_ms(recv_ns)
                continue
            if ms > plain_ms:
                credible, plain_ms = self._credible(recv_ns, ms * NS_PER_MS), self._lead.plain_ms(recv_ns)
                if not credible:
                    continue
            if kind == _QUOTE:
                key, previous = symbol * _KEYS + 1, None
            elif kind == _DEPTH:
                key, previous = symbol * _KEYS + 2, b
            elif kind == _TRADE:
                key, previous = symbol * _KEYS + _AGGREGATE * d, ident - 1
            elif kind == _MARK:
                key, previous = symbol * _KEYS + 3, None
            else:
                # Whole by itself: it need not wait for one before it that another connection may bring.
                key, previous = symbol * _KEYS + _PARTIAL[_DEPTH_OF[kind]], None
            verdict = judge(number, key, ident, previous)
            if verdict is None:
                item = self._item(head)
                self._pass(self.merge.on_message(number, key, ident, previous, item, recv_ns), recv_ns)
            elif verdict:
                market, exch_ns = markets[symbol], ms * NS_PER_MS
                if kind == _QUOTE:
                    fate = market.on_ticker(recv_ns, Ticker(names[symbol], exch_ns, ident, a, b, c, d))
                elif kind == _DEPTH:
                    fate = market.on_update(recv_ns, exch_ns, a, ident, b, self._levels, c, d, e)
                elif kind == _TRADE:
                    trade = Trade(names[symbol], exch_ns, ident, a, b, c, d == 1, True)
                    fate = market.on_trade(recv_ns, trade)
                elif kind != _MARK:
                    depth = _DEPTH_OF[kind]
                    fate = market.on_partial(recv_ns, exch_ns, depth, a, ident, b, self._levels, c, d, e)
                else:
                    mark = MarkPrice(names[symbol], exch_ns, a, b, c, d * NS_PER_MS)
                    fate = market.on_mark(recv_ns, mark)
                if fate is TAKEN:
                    taken += 1
                else:
                    fates[fate] += 1
        if taken:
            fates[TAKEN] += taken

    def _credible(self, recv_ns: int, exch_ns: int) -> bool:
        """Whether an event time can be; one that cannot is counted."""
        try:
            self._lead.check(recv_ns, exch_ns)
        except DecodeError as error:
            self.rejects[error.what] += 1
            return False
        return True

    def _item(self, head: Sequence[int]) -> _Row:
        """Return the message of a head, for one that has to wait or is looked at more closely."""
        kind, symbol, ms, ident, a, b, c, d, e = head
        name, exch_ns = self._names[symbol], ms * NS_PER_MS
        if kind == _QUOTE:
            return Ticker(name, exch_ns, ident, a, b, c, d)
        if kind == _TRADE:
            return Trade(name, exch_ns, ident, a, b, c, d == 1, True)
        if kind == _MARK:
            return MarkPrice(name, exch_ns, a, b, c, d * NS_PER_MS)
        bids, asks = (
            [(price, qty) for price, qty in self._levels[start:stop].tolist()]
            for start, stop in ((c, c + d), (c + d, c + d + e))
        )
        if kind == _DEPTH:
            return DepthUpdate(name, exch_ns, a, ident, b, bids, asks)
        return PartialBook(name, exch_ns, _DEPTH_OF[kind], a, ident, b, bids, asks)

    def _take_other(self, number: int, recv_ns: int, raw: bytes) -> None:
        """Take a message that the bulk reader has left."""
        try:
            message = self._decoder.decode(raw)
            if exch_ns := event_ns(message):
                self._lead.check(recv_ns, exch_ns)
        except DecodeError as error:
            self.rejects[error.what] += 1
            return
        for each in message.messages if isinstance(message, Batch) else (message,):
            if isinstance(each, Ignored):
                self.fates[each.kind] += 1
            elif isinstance(each, DepthSnapshot):
                self.fates["snapshot_without_symbol"] += 1
            elif each.symbol not in self._index:
                self.fates["other_symbol"] += 1
            elif isinstance(each, Liquidation):
                self.fates["liquidation"] += 1
            else:
                self._merge(number, recv_ns, each)

    def _merge(self, number: int, recv_ns: int, message: _Row) -> None:
        index = self._index[message.symbol]
        key = index * _KEYS + _KINDS[type(message)]
        previous: int | None = None
        if isinstance(message, Trade):
            ident, previous = message.trade_id, message.trade_id - 1
            key += _AGGREGATE * message.aggregate
        elif isinstance(message, PartialBook):
            ident, key = message.last_id, index * _KEYS + _PARTIAL[message.depth]
        elif isinstance(message, DepthUpdate):
            ident, previous = message.last_id, message.previous_id
        else:
            ident = message.update_id if isinstance(message, Ticker) else message.exch_ns // NS_PER_MS
        self._pass(self.merge.on_message(number, key, ident, previous, message, recv_ns), recv_ns)

    def _pass(self, passed: Sequence[Passed], now_ns: int) -> None:
        for _, item, gap in passed:
            index = self._index[item.symbol]
            sink = self._sinks[index]
            sink.extra_quality = _GAP if gap else 0
            self.fates[self._handlers[index][_KINDS[type(item)]](now_ns, item)] += 1
            sink.extra_quality = 0

    def account(self) -> dict[str, int]:
        """Return messages by what became of them; the values add up to ``message_count``, copies, those that
        wait and snapshots aside. For status and benchmarks."""
        duplicates = sum(self.merge.duplicates.values())
        return {
            "messages": self.message_count,
            "taken": self.fates[TAKEN],
            "duplicates": self.fates[DUPLICATE] + duplicates,
            "late": self.fates[LATE],
            "rejects": sum(self.rejects.values()),
            "gaps": self.merge.gap_count,
            "off_tick": self.off_tick_count,
        }
