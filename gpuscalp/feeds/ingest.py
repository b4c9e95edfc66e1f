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
from gpuscalp.feeds.market import DUPLICATE, LATE, TAKEN, SymbolMarket
from gpuscalp.feeds.merge import Merge, Passed
from gpuscalp.feeds.messages import (
    Batch,
    DepthSnapshot,
    DepthUpdate,
    Ignored,
    MarkPrice,
    Message,
    Ticker,
    Trade,
)
from gpuscalp.feeds.ticks import TickBuffer, TickSink
from gpuscalp.ops import wire
from gpuscalp.schema import NS_PER_MS, Instrument, Quality, Ticks

_GAP: Final = int(Quality.GAP)
_KINDS: Final[dict[type, int]] = {Trade: 0, Ticker: 1, DepthUpdate: 2, MarkPrice: 3}
_KEYS: Final = 8  # per symbol: four kinds, trades and aggregates apart
_PADDING: Final = bytes(wire.PADDING)
_CHUNK: Final = 4_096


@final
class Ingest:
    """All symbols of one venue.

    Parameters
    ----------
    instruments : the symbols, in the order of axis S
    config : FeedConfig
    book_interval_ns : least exchange time between two book ticks of a symbol

    Attributes
    ----------
    merge : what came twice, by connection
    message_count : messages taken
    fates : what became of them: "taken", "duplicate", "late", "before_snapshot", the kind of one that makes
        no ticks, or the reason why it was set aside
    rejects : messages that cannot be read, by reason
    """

    def __init__(
        self, instruments: Sequence[Instrument], config: FeedConfig, *, book_interval_ns: int = 0
    ) -> None:
        self.merge = Merge(config)
        self.message_count = 0
        self.fates: Counter[str] = Counter()
        self.rejects: Counter[str] = Counter()
        self._buffer = TickBuffer()
        self._names = tuple(instrument.symbol for instrument in instruments)
        self._index = {name: index for index, name in enumerate(self._names)}
        self._sinks = [TickSink(self._buffer, each, index) for index, each in enumerate(instruments)]
        self._markets = [SymbolMarket(sink, book_interval_ns=book_interval_ns) for sink in self._sinks]
        self._handlers: list[tuple[Callable[[int, Any], str], ...]] = [
            (market.on_trade, market.on_ticker, market.on_diff, market.on_mark) for market in self._markets
        ]
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
        return self._buffer.off_tick_count

    def unsynced(self) -> tuple[str, ...]:
        """Return the symbols that need a book snapshot: updates come, and the book is not whole."""
        return tuple(
            name
            for name, market in zip(self._names, self._markets, strict=True)
            if market.book.last_id is not None and market.book.state is not BookState.SYNCED
        )

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
        keys = set()
        for stream in streams:
            symbol, _, kind = stream.partition("@")
            index = self._index.get(symbol.upper())
            place = {"trade": 0, "bookTicker": 1, "depth": 2, "markPrice": 3, "aggTrade": 4}.get(
                kind.partition("@")[0]
            )
            if index is not None and place is not None:
                keys.add(index * _KEYS + place)
        return self.merge.joined(number, keys.__contains__)

    def _take(self, number: int, recv_ns: int, messages: Sequence[bytes]) -> None:
        count = len(messages)
        self.message_count += count
        data = np.frombuffer(b"".join((*messages, _PADDING)), np.uint8)
        ends = np.fromiter(map(len, messages), np.int64, count).cumsum()
        level_count = wire.scan(data, ends, *self._table, self._heads[:count], self._levels)
        # All levels of the chunk at once: a small array for each message would cost more than its levels.
        levels = list(zip(*self._levels[:level_count].T.tolist(), strict=True))
        take, merge, handlers, fates = self._take_other, self.merge.on_message, self._handlers, self.fates
        for place, head in enumerate(self._heads[:count].tolist()):
            kind, symbol, ms, ident, a, b, c, d, e = head
            item: Any
            if kind == wire.QUOTE:
                item = Ticker(self._names[symbol], ms * NS_PER_MS, ident, a, b, c, d)
                passed = merge(number, symbol * _KEYS + 1, ident, None, item, recv_ns)
            elif kind == wire.DEPTH:
                bids, asks = levels[c : c + d], levels[c + d : c + d + e]
                item = DepthUpdate(self._names[symbol], ms * NS_PER_MS, a, ident, b, bids, asks)
                passed = merge(number, symbol * _KEYS + 2, ident, b, item, recv_ns)
            elif kind == wire.TRADE:
                item = Trade(self._names[symbol], ms * NS_PER_MS, ident, a, b, c, d == 1, True)
                passed = merge(number, symbol * _KEYS + 4 * d, ident, ident - 1, item, recv_ns)
            elif kind == wire.MARK:
                item = MarkPrice(self._names[symbol], ms * NS_PER_MS, a, b, c, d * NS_PER_MS)
                passed = merge(number, symbol * _KEYS + 3, ident, None, item, recv_ns)
            else:
                take(number, recv_ns, messages[place])
                continue
            if len(passed) == 1 and not passed[0].gap and passed[0].item is item:
                fates[handlers[symbol][kind](recv_ns, item)] += 1
            else:
                self._pass(passed, recv_ns)

    def _take_other(self, number: int, recv_ns: int, raw: bytes) -> None:
        """Take a message that the bulk reader has left."""
        try:
            message = self._decoder.decode(raw)
        except DecodeError as error:
            self.rejects[error.what] += 1
            return
        if isinstance(message, Batch):
            for mark in message.messages:
                self._merge(number, recv_ns, mark)
        elif isinstance(message, Ignored):
            self.fates[message.kind] += 1
        elif isinstance(message, DepthSnapshot):
            self.fates["snapshot_without_symbol"] += 1
        else:
            self._merge(number, recv_ns, message)

    def _merge(self, number: int, recv_ns: int, message: Message) -> None:
        assert isinstance(message, Trade | Ticker | DepthUpdate | MarkPrice)
        index = self._index.get(message.symbol)
        if index is None:
            self.fates["other_symbol"] += 1
            return
        key = index * _KEYS + _KINDS[type(message)]
        previous: int | None = None
        if isinstance(message, Trade):
            ident, previous = message.trade_id, message.trade_id - 1
            key += 4 * message.aggregate
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
