"""One symbol as the exchange lists it: the replayed book, trades, mark price, and their wire forms.

Owns: the state that market streams and market calls read, and the payloads of both. Never: knows who
listens, or an account. Payload shapes: Binance documentation, USD-M market streams and market data, 2026.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Any, Final

from gpuscalp.account import notional_e8
from gpuscalp.exchange.bars import Bars
from gpuscalp.exchange.book import BookChange, ReplayBook
from gpuscalp.exchange.matching import Matcher
from gpuscalp.exchange.rules import SymbolRules, text
from gpuscalp.exchange.source import SourceMessage, WholeBook
from gpuscalp.feeds.messages import DepthUpdate, Levels, MarkPrice, Ticker, Trade
from gpuscalp.schema import NS_PER_MS

_TRADES_KEPT: Final = 1_000
_AGGREGATE_MS: Final = 100
_FUNDING_MS: Final = 8 * 3_600_000
# Where the source has no marks: the venue's interest of 0.01 % for eight hours.
_FUNDING_E8: Final = 10_000


@dataclass(slots=True)
class Aggregate:
    """Trades of one taker side and price within 100 ms."""

    number: int
    price_e8: int
    qty_e8: int
    side: int
    first_id: int
    last_id: int
    first_ms: int
    last_ms: int

    def row(self, rules: SymbolRules) -> dict[str, Any]:
        """Return the form of GET /fapi/v1/aggTrades."""
        qty = rules.qty(self.qty_e8)
        return {
            "a": self.number,
            "p": rules.price(self.price_e8),
            "q": qty,
            "nq": qty,
            "f": self.first_id,
            "l": self.last_id,
            "T": self.last_ms,
            "m": self.side < 0,
        }


@dataclass(frozen=True, slots=True)
class Update:
    """What one message of the source changed."""

    trade: Trade | None = None
    book: BookChange | None = None
    best_changed: bool = False
    mark: bool = False
    closed: Aggregate | None = None


class Listing:
    """State of one symbol.

    Parameters
    ----------
    rules : of the symbol
    first_id : trades and changes of the book are numbered from there on
    """

    def __init__(self, rules: SymbolRules, first_id: int = 0) -> None:
        self.rules = rules
        self.symbol = rules.symbol
        self.book = ReplayBook(1_000 + first_id)
        self.matcher = Matcher(self.book)
        self.bars = Bars(rules)
        self.trades: deque[tuple[int, int, int, int, int]] = deque(maxlen=_TRADES_KEPT)
        self.aggregates: deque[Aggregate] = deque(maxlen=_TRADES_KEPT)
        self._open_aggregate: Aggregate | None = None
        self._aggregate_count = self._trade_count = first_id
        self.mark_source_e8 = self.index_e8 = 0
        self.funding_e8 = _FUNDING_E8
        self.next_funding_ms = 0
        self.mark_ms = 0

    @property
    def ready(self) -> bool:
        """Whether there is a bid and an ask."""
        return bool(self.book.bids.keys and self.book.asks.keys)

    def mark_e8(self) -> int:
        """Return the mark price: the source's, else the mid, else the last trade; 0 before all of them."""
        if self.mark_source_e8:
            return self.mark_source_e8
        bid, ask = self.book.bids.best()[0], self.book.asks.best()[0]
        if bid and ask:
            return (bid + ask) // 2
        return self.trades[-1][1] if self.trades else bid or ask

    def on_message(self, message: SourceMessage, now_ms: int, shift_ms: int) -> Update:
        """Take one message of the source. Trade ids are the exchange's own, so that they go on over a
        restart of the source."""
        if isinstance(message, Trade):
            return self._on_trade(message, now_ms)
        if isinstance(message, MarkPrice):
            self.mark_source_e8, self.index_e8 = message.mark_price_e8, message.index_price_e8
            self.funding_e8, self.mark_ms = message.funding_rate_e8, now_ms
            if message.next_funding_ns:
                self.next_funding_ms = message.next_funding_ns // NS_PER_MS + shift_ms
            return Update(mark=True)
        before = (self.book.bids.best(), self.book.asks.best())
        if isinstance(message, Ticker):
            change = self.book.quote(
                message.bid_price_e8,
                message.bid_qty_e8,
                message.ask_price_e8,
                message.ask_qty_e8,
                message.update_id,
            )
        elif isinstance(message, WholeBook):
            change = self.book.replace(message.bids, message.asks, message.update_id)
        else:
            assert isinstance(message, DepthUpdate)
            change = self.book.apply(message.bids, message.asks, message.last_id)
        best = (self.book.bids.best(), self.book.asks.best())
        return Update(book=change, best_changed=best != before and self.ready)

    def close_aggregate(self, now_ms: int | None = None) -> Aggregate | None:
        """Return the aggregate that is due (all of it is due where no time is given)."""
        found = self._open_aggregate
        if found is None or (now_ms is not None and now_ms - found.first_ms < _AGGREGATE_MS):
            return None
        self._open_aggregate = None
        self.aggregates.append(found)
        return found

    def _on_trade(self, trade: Trade, now_ms: int) -> Update:
        self._trade_count += 1
        number, price, qty, side = self._trade_count, trade.price_e8, trade.qty_e8, trade.side
        self.trades.append((number, price, qty, side, now_ms))
        self.bars.on_trade(now_ms, number, price, qty, side)
        closed = None
        pending = self._open_aggregate
        if (
            pending is not None
            and (pending.price_e8, pending.side) == (price, side)
            and now_ms - pending.first_ms < _AGGREGATE_MS
        ):
            pending.qty_e8 += qty
            pending.last_id, pending.last_ms = number, now_ms
        else:
            closed = self.close_aggregate()
            self._aggregate_count += 1
            self._open_aggregate = Aggregate(
                self._aggregate_count, price, qty, side, number, number, now_ms, now_ms
            )
        return Update(trade=trade, closed=closed)

    # What follows are wire forms.

    def trade_event(self, now_ms: int) -> dict[str, Any]:
        """Return the newest trade as ``<symbol>@trade`` sends it."""
        number, price, qty, side, at_ms = self.trades[-1]
        return {
            "e": "trade",
            "E": now_ms,
            "T": at_ms,
            "s": self.symbol,
            "t": number,
            "p": self.rules.price(price),
            "q": self.rules.qty(qty),
            "X": "MARKET",
            "m": side < 0,
            "st": 1,
        }

    def aggregate_event(self, aggregate: Aggregate, now_ms: int) -> dict[str, Any]:
        return {"e": "aggTrade", "E": now_ms, "s": self.symbol, **aggregate.row(self.rules), "st": 1}

    def ticker_event(self, now_ms: int) -> dict[str, Any]:
        """Return ``<symbol>@bookTicker``."""
        (bid, bid_qty), (ask, ask_qty) = self.book.bids.best(), self.book.asks.best()
        return {
            "e": "bookTicker",
            "u": self.book.last_id,
            "s": self.symbol,
            "ps": self.symbol,
            "b": self.rules.price(bid),
            "B": self.rules.qty(bid_qty),
            "a": self.rules.price(ask),
            "A": self.rules.qty(ask_qty),
            "T": now_ms,
            "E": now_ms,
            "st": 1,
        }

    def depth_event(self, change: BookChange, now_ms: int) -> dict[str, Any]:
        """Return one difference (or, for partial books, whole top levels) as the depth streams send it."""
        return {
            "e": "depthUpdate",
            "E": now_ms,
            "T": now_ms,
            "s": self.symbol,
            "U": change.first_id,
            "u": change.last_id,
            "pu": change.previous_id,
            "b": self.pairs(change.bids),
            "a": self.pairs(change.asks),
            "ps": self.symbol,
            "st": 1,
        }

    def snapshot(self, limit: int, now_ms: int) -> dict[str, Any]:
        """Return the answer of GET /fapi/v1/depth."""
        return {
            "lastUpdateId": self.book.last_id,
            "E": now_ms,
            "T": now_ms,
            "bids": self.pairs(self.book.bids.levels(limit)),
            "asks": self.pairs(self.book.asks.levels(limit)),
        }

    def mark_event(self, now_ms: int) -> dict[str, Any]:
        """Return ``<symbol>@markPrice``."""
        mark = self.mark_e8()
        return {
            "e": "markPriceUpdate",
            "E": now_ms,
            "s": self.symbol,
            "p": text(mark, 8),
            "i": text(self.index_e8 or mark, 8),
            "P": text(mark, 8),
            "r": text(self.funding_e8, 8),
            "ap": text(mark, 8),
            "T": self.funding_due_ms(now_ms),
            "st": 1,
        }

    def premium(self, now_ms: int) -> dict[str, Any]:
        """Return the answer of GET /fapi/v1/premiumIndex for the symbol."""
        mark = self.mark_e8()
        return {
            "symbol": self.symbol,
            "markPrice": text(mark, 8),
            "indexPrice": text(self.index_e8 or mark, 8),
            "estimatedSettlePrice": text(mark, 8),
            "lastFundingRate": text(self.funding_e8, 8),
            "interestRate": "0.00010000",
            "nextFundingTime": self.funding_due_ms(now_ms),
            "time": now_ms,
        }

    def funding_due_ms(self, now_ms: int) -> int:
        """Return when funding is charged next: what the source says, else the next full eight hours."""
        if self.next_funding_ms > now_ms:
            return self.next_funding_ms
        return (now_ms // _FUNDING_MS + 1) * _FUNDING_MS

    def trade_rows(self, limit: int) -> list[dict[str, Any]]:
        """Return the answer of GET /fapi/v1/trades."""
        return [
            {
                "id": number,
                "price": self.rules.price(price),
                "qty": self.rules.qty(qty),
                "quoteQty": text(notional_e8(price, qty), 2),
                "time": at_ms,
                "isBuyerMaker": side < 0,
                "isRPITrade": False,
            }
            for number, price, qty, side, at_ms in list(self.trades)[-limit:]
        ]

    def pairs(self, levels: Levels) -> list[list[str]]:
        price, qty = self.rules.price, self.rules.qty
        return [[price(level), qty(amount)] for level, amount in levels]
