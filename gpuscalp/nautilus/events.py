"""Rows of an archive as events of NautilusTrader.

Owns: which row makes which events. ``gpuscalp.nautilus.rows`` makes the rows again.

A row makes one event, with two exceptions. A row that is doubtful comes behind a ``Doubt``. A mark price
makes up to three: index price, funding and, last, mark price; what is unknown makes none. A book makes the
changes to the book before it, so that Nautilus's book is the 20 levels of the row, no more; the first one of
each day begins with a clear.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Any, Final, final

from nautilus_trader.model.data import (
    BookOrder,
    FundingRateUpdate,
    IndexPriceUpdate,
    MarkPriceUpdate,
    OrderBookDelta,
    OrderBookDeltas,
    QuoteTick,
    TradeTick,
)
from nautilus_trader.model.enums import AggressorSide, BookAction, OrderSide, RecordFlag
from nautilus_trader.model.identifiers import InstrumentId, TradeId

from gpuscalp.backtest.delay import LeastDelay
from gpuscalp.nautilus.arrivals import Row
from gpuscalp.nautilus.custom import Doubt, wrapped
from gpuscalp.nautilus.instruments import price_of, quantity_of
from gpuscalp.nautilus.names import instrument_name
from gpuscalp.schema import NS_PER_DAY, Instrument, TickKind

# (recv_ns, exch_ns) → ts_init
Clock = Callable[[int, int], int]

_SIDES: Final = {1: AggressorSide.BUYER, -1: AggressorSide.SELLER, 0: AggressorSide.NO_AGGRESSOR}
_LAST: Final = int(RecordFlag.F_LAST)
_SNAPSHOT: Final = int(RecordFlag.F_SNAPSHOT)
_MARK_PLACES: Final = 8


def as_received(recv_ns: int, exch_ns: int) -> int:  # noqa: ARG001  # a Clock
    """Return the receive time as it was recorded."""
    return recv_ns


@final
class FastestWay:
    """The clock of a backtest: receive times as if the fastest message of the last minute had taken no time.

    The recorder's clock may be seconds off; only differences of delays mean something (docs/backtest.md,
    Time). Rows must come in the order of arrival; times never go back: where the recorder's clock was set
    forward this one waits, once that is known.
    """

    def __init__(self) -> None:
        self.delay = LeastDelay()
        self._now_ns = -1

    def __call__(self, recv_ns: int, exch_ns: int) -> int:
        self._now_ns = max(self._now_ns, recv_ns - self.delay.after(recv_ns, exch_ns))
        return self._now_ns


@final
class EventMaker:
    """Makes the events of S symbols.

    Parameters
    ----------
    instruments : S
    perpetuals : Nautilus's of the same
    clock : gives ``ts_init``
    """

    def __init__(self, instruments: Sequence[Instrument], perpetuals: Sequence[Any], clock: Clock) -> None:
        self._clock = clock
        self._ids = [InstrumentId.from_str(instrument_name(each.venue, each.symbol)) for each in instruments]
        self._places = [(each.price_precision, each.size_precision) for each in perpetuals]
        # Of each symbol: day of the newest book, then bids and asks, quantity by price.
        self._books: list[tuple[int, dict[int, int], dict[int, int]]] = [(-1, {}, {}) for _ in instruments]

    def make(self, row: Row, out: list[Any]) -> None:
        """Append the events of a row; doubts come wrapped, for the engine."""
        table, symbol, values = row
        recv_ns, exch_ns, _, quality = values[:4]
        ts_init = self._clock(recv_ns, exch_ns)
        if quality:
            out.append(wrapped(Doubt(self._ids[symbol], quality, exch_ns, ts_init)))
        _MAKERS[table.kind](self, symbol, values[4:], exch_ns, ts_init, out)

    def _trade(self, symbol: int, values: Sequence[Any], exch_ns: int, ts_init: int, out: list[Any]) -> None:
        trade_id, price_e8, qty_e8, side = values
        price_places, qty_places = self._places[symbol]
        price, size = price_of(price_e8, price_places), quantity_of(qty_e8, qty_places)
        number = TradeId(str(trade_id))
        out.append(TradeTick(self._ids[symbol], price, size, _SIDES[side], number, exch_ns, ts_init))

    def _quote(self, symbol: int, values: Sequence[Any], exch_ns: int, ts_init: int, out: list[Any]) -> None:
        _, bid, bid_qty, ask, ask_qty = values
        price_places, qty_places = self._places[symbol]
        out.append(
            QuoteTick(
                self._ids[symbol],
                price_of(bid, price_places),
                price_of(ask, price_places),
                quantity_of(bid_qty, qty_places),
                quantity_of(ask_qty, qty_places),
                exch_ns,
                ts_init,
            )
        )

    def _mark(self, symbol: int, values: Sequence[Any], exch_ns: int, ts_init: int, out: list[Any]) -> None:
        mark, index, rate_e8, funding_ns = values
        name = self._ids[symbol]
        if index:
            out.append(IndexPriceUpdate(name, price_of(index, _MARK_PLACES), exch_ns, ts_init))
        rate = Decimal(rate_e8).scaleb(-8)
        out.append(FundingRateUpdate(name, rate, exch_ns, ts_init, next_funding_ns=funding_ns or None))
        if mark:
            out.append(MarkPriceUpdate(name, price_of(mark, _MARK_PLACES), exch_ns, ts_init))

    def _book(self, symbol: int, values: Sequence[Any], exch_ns: int, ts_init: int, out: list[Any]) -> None:
        update_id, bid_px, bid_qty, ask_px, ask_qty = values
        day, bids_before, asks_before = self._books[symbol]
        bids = {price: qty for price, qty in zip(bid_px, bid_qty, strict=True) if price}
        asks = {price: qty for price, qty in zip(ask_px, ask_qty, strict=True) if price}
        name, begins = self._ids[symbol], exch_ns // NS_PER_DAY != day
        self._books[symbol] = exch_ns // NS_PER_DAY, bids, asks
        if begins:
            bids_before, asks_before = {}, {}
        changes = [*_changes(OrderSide.BUY, bids_before, bids), *_changes(OrderSide.SELL, asks_before, asks)]
        changes = changes or [_unchanged(bids, asks)]
        price_places, qty_places = self._places[symbol]
        flags = _SNAPSHOT if begins else 0
        deltas = []
        if begins:
            deltas.append(OrderBookDelta.clear(name, update_id, exch_ns, ts_init))
        for place, (action, side, price_e8, qty_e8) in enumerate(changes, 1):
            price, size = price_of(price_e8, price_places), quantity_of(qty_e8, qty_places)
            deltas.append(
                OrderBookDelta(
                    name,
                    action,
                    BookOrder(side, price, size, 0),
                    flags | (_LAST if place == len(changes) else 0),
                    update_id,
                    exch_ns,
                    ts_init,
                )
            )
        out.append(OrderBookDeltas(name, deltas))


_MAKERS: Final = {
    TickKind.TRADE: EventMaker._trade,
    TickKind.QUOTE: EventMaker._quote,
    TickKind.BOOK: EventMaker._book,
    TickKind.MARK: EventMaker._mark,
}


def _changes(side: Any, before: dict[int, int], after: dict[int, int]) -> list[tuple[Any, Any, int, int]]:
    gone = [(BookAction.DELETE, side, price, 0) for price in before if price not in after]
    set_to = [
        (BookAction.UPDATE if price in before else BookAction.ADD, side, price, qty)
        for price, qty in after.items()
        if before.get(price) != qty
    ]
    return gone + set_to


def _unchanged(bids: dict[int, int], asks: dict[int, int]) -> tuple[Any, Any, int, int]:
    """Return a change that changes nothing: Nautilus has no event without one."""
    for side, levels in ((OrderSide.BUY, bids), (OrderSide.SELL, asks)):
        for price, qty in levels.items():
            return BookAction.UPDATE, side, price, qty
    return BookAction.DELETE, OrderSide.BUY, 0, 0
