"""Events of NautilusTrader as the rows that our own decoders make of the same messages.

Owns: which event makes which row, and where its quality comes from. Never: imports NautilusTrader: it reads
events by their attributes; and never packs a tick: the decoders' own sinks do.

There are two sources of the quality bits, because Nautilus's events carry none:

* ``told``: rows of an archive, in its order, one for each event. Doubts come as events of their own
  (``gpuscalp.nautilus.custom.Doubt``), each before the event that it is about.
* found: a live feed. Missing trades show in their ids; a book is doubtful until its snapshot has come. That
  depth updates are missing Nautilus's events do not tell, because they do not name their predecessor.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, final

from gpuscalp.feeds.book import BookState, LocalBook, level_array
from gpuscalp.feeds.market import SymbolMarket
from gpuscalp.feeds.messages import DepthSnapshot, Levels, MarkPrice, Ticker, Trade
from gpuscalp.feeds.ticks import TickBuffer, TickSink
from gpuscalp.schema import BOOK_LEVELS, Instrument, Ticks

# Of Nautilus's enumerations.
_DELETE: Final = 3
_CLEAR: Final = 4
_BUY: Final = 1
_E8_DIGITS: Final = 8


@final
@dataclass(slots=True)
class _Marks:
    """The parts of one mark price that have come: Nautilus tells them apart."""

    symbol: int
    exch_ns: int
    recv_ns: int
    parts: dict[str, int]


@final
class EventRows:
    """Rows of S symbols.

    Parameters
    ----------
    instruments : S
    precision : digits of Nautilus's raw prices and quantities (its ``FIXED_PRECISION``)
    told : whether doubts are told, as above
    exch_unit_ns : exchange times are multiples of it. Nautilus's Binance adapter makes nanoseconds of whole
        milliseconds in floating point: up to 128 ns beside them

    Attributes
    ----------
    best : bid and ask price × 1e8 of each symbol, 0 until known
    """

    def __init__(
        self, instruments: Sequence[Instrument], *, precision: int, told: bool, exch_unit_ns: int = 1
    ) -> None:
        self._exch_unit_ns = exch_unit_ns
        self._raw_per_e8 = 10 ** (precision - _E8_DIGITS)
        self._told = told
        self._buffer = TickBuffer()
        self._names = [each.symbol for each in instruments]
        self._sinks = [TickSink(self._buffer, each, index) for index, each in enumerate(instruments)]
        self._markets = [SymbolMarket(sink) for sink in self._sinks]
        self._books = [_whole_book() for _ in instruments]
        self._sequence = [0] * len(self._names)  # of the last change of each book
        self._quote_count = 0
        self._doubts = [0] * len(self._names)
        self._marks: _Marks | None = None
        self.best: list[tuple[int, int]] = [(0, 0)] * len(self._names)

    def doubt(self, symbol: int, bits: int) -> None:
        """Take the quality bits of the next event of a symbol that makes a row."""
        self.end_marks()
        self._doubts[symbol] = bits

    def trade(self, symbol: int, tick: Any) -> None:
        """Take a TradeTick."""
        self.end_marks()
        unit = self._raw_per_e8
        price_e8, qty_e8 = _e8(tick.price.raw, unit), _e8(tick.size.raw, unit)
        side = 1 if int(tick.aggressor_side) == _BUY else -1
        exch_ns = self._exact(tick.ts_event)
        trade = Trade(self._names[symbol], exch_ns, _id(tick.trade_id), price_e8, qty_e8, side, False, True)
        if self._told:
            self._sinks[symbol].trade(tick.ts_init, exch_ns, self._doubt(symbol), trade)
        else:
            self._markets[symbol].on_trade(tick.ts_init, trade)

    def quote(self, symbol: int, tick: Any) -> None:
        """Take a QuoteTick."""
        self.end_marks()
        unit = self._raw_per_e8
        bid, ask = _e8(tick.bid_price.raw, unit), _e8(tick.ask_price.raw, unit)
        bid_qty, ask_qty = _e8(tick.bid_size.raw, unit), _e8(tick.ask_size.raw, unit)
        exch_ns = self._exact(tick.ts_event)
        self.best[symbol] = bid, ask
        self._quote_count += 1
        if self._told:
            best = (bid, bid_qty, ask, ask_qty)
            self._sinks[symbol].quote(tick.ts_init, exch_ns, self._doubt(symbol), 0, best)
        else:
            # Nautilus drops the update's id: their order is that of arrival.
            ticker = Ticker(self._names[symbol], exch_ns, self._quote_count, bid, bid_qty, ask, ask_qty)
            self._markets[symbol].on_ticker(tick.ts_init, ticker)

    def deltas(self, symbol: int, event: Any) -> None:
        """Take OrderBookDeltas: one change of the book, or a snapshot that begins with a clear."""
        self.end_marks()
        bids, asks, cleared = self._levels(event.deltas)
        recv_ns, exch_ns, sequence = event.ts_init, self._exact(event.ts_event), event.sequence
        if self._told:
            self._told_deltas(symbol, bids, asks, recv_ns, exch_ns, cleared=cleared)
            return
        market = self._markets[symbol]
        before, self._sequence[symbol] = self._sequence[symbol], sequence
        if cleared:
            market.book = LocalBook()
            market.on_snapshot(recv_ns, DepthSnapshot(self._names[symbol], exch_ns, sequence, bids, asks))
        elif market.book.state is not BookState.UNSYNCED:
            levels = level_array(bids, asks)
            market.on_update(*(recv_ns, exch_ns, sequence, sequence, before, levels, 0, len(bids), len(asks)))

    def best_levels(self, symbol: int, event: Any) -> None:
        """Take OrderBookDeltas of a partial book's stream: the best levels whole, each time."""
        self.end_marks()
        bids, asks, _ = self._levels(event.deltas)
        # Nautilus drops the id of the message before, so that a lost one shows nowhere.
        ids = event.sequence, event.sequence, 0
        levels = level_array(bids, asks)
        self._markets[symbol].on_partial(
            *(event.ts_init, self._exact(event.ts_event), BOOK_LEVELS, *ids, levels, 0, len(bids), len(asks))
        )

    def mark(self, symbol: int, data: Any) -> None:
        """Take a mark price of Nautilus's Binance adapter, which tells all parts at once."""
        parts = {
            "index_price_e8": int(data.index.as_decimal().scaleb(8)),
            "funding_rate_e8": int(data.funding_rate.scaleb(8)),
            "next_funding_ns": self._exact(data.next_funding_ns),
            "mark_price_e8": int(data.mark.as_decimal().scaleb(8)),
        }
        for name, value in parts.items():
            self.mark_part(symbol, name, value, self._exact(data.ts_event), data.ts_init)
        self.end_marks()

    def mark_part(self, symbol: int, name: str, value: int, exch_ns: int, recv_ns: int) -> None:
        """Take a part of a mark price; what has the same symbol and times makes one row.

        Parameters
        ----------
        name : "mark_price_e8", "index_price_e8", "funding_rate_e8" or "next_funding_ns"
        """
        marks = self._marks
        if marks is None or (marks.symbol, marks.exch_ns, marks.recv_ns) != (symbol, exch_ns, recv_ns):
            self.end_marks()
            marks = self._marks = _Marks(symbol, exch_ns, recv_ns, {})
        marks.parts[name] = value

    @property
    def mark_parts(self) -> dict[str, int]:
        """The parts of the mark price that is coming, by name."""
        return {} if self._marks is None else self._marks.parts

    def end_marks(self) -> None:
        """Note that the last part of a mark price has come."""
        marks, self._marks = self._marks, None
        if marks is None:
            return
        symbol, parts = marks.symbol, marks.parts
        mark = MarkPrice(
            self._names[symbol],
            marks.exch_ns,
            parts.get("mark_price_e8", 0),
            parts.get("index_price_e8", 0),
            parts.get("funding_rate_e8", 0),
            parts.get("next_funding_ns", 0),
        )
        if self._told:
            self._sinks[symbol].mark(marks.recv_ns, marks.exch_ns, self._doubt(symbol), mark)
        else:
            self._markets[symbol].on_mark(marks.recv_ns, mark)

    def unsynced(self) -> tuple[int, ...]:
        """Return the indices of symbols whose book is not whole; none where doubts are told."""
        if self._told:
            return ()
        return tuple(
            index for index, each in enumerate(self._markets) if each.book.state is not BookState.SYNCED
        )

    def __len__(self) -> int:
        """Rows that have come and were not taken."""
        return len(self._buffer)

    def take(self) -> Ticks:
        """Return the rows that have come, TICK[N], and forget them."""
        return self._buffer.take()

    def off_ticks(self) -> tuple[int, ...]:
        """Return by symbol how many rows were left out because a price is no multiple of the tick size."""
        return tuple(sink.off_tick_count for sink in self._sinks)

    def _exact(self, exch_ns: int) -> int:
        unit = self._exch_unit_ns
        return (exch_ns + unit // 2) // unit * unit

    def _doubt(self, symbol: int) -> int:
        bits, self._doubts[symbol] = self._doubts[symbol], 0
        return bits

    def _levels(self, deltas: Sequence[Any]) -> tuple[Levels, Levels, bool]:
        unit, cleared = self._raw_per_e8, False
        bids: Levels = []
        asks: Levels = []
        for delta in deltas:
            action = int(delta.action)
            if action == _CLEAR:
                cleared = True
                bids.clear()
                asks.clear()
                continue
            order = delta.order
            qty_e8 = 0 if action == _DELETE else _e8(order.size.raw, unit)
            (bids if int(order.side) == _BUY else asks).append((_e8(order.price.raw, unit), qty_e8))
        return bids, asks, cleared

    def _told_deltas(
        self, symbol: int, bids: Levels, asks: Levels, recv_ns: int, exch_ns: int, *, cleared: bool
    ) -> None:
        if cleared:
            self._books[symbol] = _whole_book()
        book = self._books[symbol]
        before = book.last_id or 0
        book.on_update(before + 1, before + 1, before, level_array(bids, asks), 0, len(bids), len(asks))
        bid, ask = book.summary[:2]
        if bid and ask:
            self.best[symbol] = bid, ask
        self._sinks[symbol].book(recv_ns, exch_ns, self._doubt(symbol), before + 1, book)


def _whole_book() -> LocalBook:
    """Return an empty book that waits for nothing."""
    book = LocalBook()
    book.on_snapshot(DepthSnapshot("", 0, 0, [], []))
    return book


def _e8(raw: int, unit: int) -> int:
    """Return a raw price or quantity as a multiple of 1e-8; finer digits are no exchange's."""
    return (raw + unit // 2) // unit


def _id(trade_id: Any) -> int:
    text = str(trade_id)
    return int(text) if text.isascii() and text.isdigit() else 0
