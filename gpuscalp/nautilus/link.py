"""A strategy of NautilusTrader that passes everything on: the market and what becomes of orders.

Owns: subscriptions, and the way of our orders into Nautilus. Never: decides, or keeps anything that a restart
would need.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol, final

from nautilus_trader.adapters.binance import BINANCE, BinanceFuturesMarkPriceUpdate
from nautilus_trader.config import StrategyConfig
from nautilus_trader.model.data import DataType
from nautilus_trader.model.enums import BookType, RecordFlag
from nautilus_trader.model.identifiers import ClientId, ClientOrderId
from nautilus_trader.model.objects import FIXED_PRECISION, Currency
from nautilus_trader.trading.strategy import Strategy

from gpuscalp.errors import DecodeError
from gpuscalp.execution.messages import OrderRequest
from gpuscalp.feeds.lead import Lead
from gpuscalp.nautilus.instruments import RAW_PER_E8
from gpuscalp.nautilus.orders import order_of
from gpuscalp.nautilus.rows import EventRows
from gpuscalp.schema import BOOK_LEVELS, NS_PER_MS, Instrument, TickKind

_BOOK_MS: Final = 100


class Hearer(Protocol):
    """Who gets it."""

    def on_started(self) -> None:
        """Connected, instruments loaded, reconciled by Nautilus, subscribed."""

    def on_rows(self, symbol: int, kind: TickKind) -> None:
        """A stream has brought something; there may be rows to be taken."""

    def on_order_event(self, event: Any) -> None: ...


@final
class Link(Strategy):  # type: ignore[misc]
    """Between a node and a session.

    Parameters
    ----------
    names : Nautilus's ids, in the order of the symbols
    instruments : ours
    hearer : is told

    Attributes
    ----------
    rows : what has come of the market
    rejects : events that made no row, because their time cannot be, by reason
    """

    def __init__(self, names: Sequence[Any], instruments: Sequence[Instrument], hearer: Hearer) -> None:
        # Orders of ours that were open before this process are ours, and so are a stranger's: it is told.
        config = StrategyConfig(
            strategy_id="GPUSCALP-000", oms_type="NETTING", external_order_claims=list(names)
        )
        super().__init__(config)
        self.rows = EventRows(instruments, precision=FIXED_PRECISION, told=False, exch_unit_ns=NS_PER_MS)
        self.rejects: Counter[str] = Counter()
        self._lead = Lead()
        self._names, self._hearer = tuple(names), hearer
        self._index = {name: index for index, name in enumerate(names)}
        self._found: list[Any] = []

    def on_start(self) -> None:
        self._found = [self.cache.instrument(name) for name in self._names]
        for name in self._names:
            self.subscribe_trade_ticks(name)
            self.subscribe_quote_ticks(name)
            # The best levels whole, each time: of a difference that is lost Nautilus does not tell.
            self.subscribe_order_book_deltas(
                name, BookType.L2_MBP, depth=BOOK_LEVELS, managed=False, params={"update_speed": _BOOK_MS}
            )
            marks = DataType(BinanceFuturesMarkPriceUpdate, metadata={"instrument_id": name})
            self.subscribe_data(marks, client_id=ClientId(BINANCE))
        self._hearer.on_started()

    @property
    def complete(self) -> bool:
        """Whether every instrument was found."""
        return bool(self._found) and all(each is not None for each in self._found)

    def on_trade_tick(self, tick: Any) -> None:
        self._pass(tick, self.rows.trade, TickKind.TRADE)

    def on_quote_tick(self, tick: Any) -> None:
        self._pass(tick, self.rows.quote, TickKind.QUOTE)

    def on_order_book_deltas(self, deltas: Any) -> None:
        # What the adapter fetches beside the stream is dated by our clock, and the next message says as much.
        if deltas.flags & RecordFlag.F_SNAPSHOT:
            self._pass(deltas, self.rows.best_levels, TickKind.BOOK)

    def on_data(self, data: Any) -> None:
        self._pass(data, self.rows.mark, TickKind.MARK)

    def on_order_event(self, event: Any) -> None:
        self._hearer.on_order_event(event)

    def send(self, asked: OrderRequest, name: str) -> None:
        """Submit an order under a name that the exchange will know it by."""
        instrument = self._found[asked.symbol_index]
        self.submit_order(order_of(self.order_factory, asked, instrument, ClientOrderId(name)))

    def end(self, name: str) -> bool:
        """Ask for the end of an order; False where Nautilus would not ask the exchange.

        It does not know the order as open, or has asked before: it never asks twice, even if that has failed.
        """
        order = self.cache.order(ClientOrderId(name))
        if order is None or order.is_closed or order.is_pending_cancel:
            return False
        self.cancel_order(order)
        return True

    def filled_e8(self, name: Any) -> int:
        """Return how much of an order Nautilus counts as filled."""
        order = self.cache.order(name)
        return 0 if order is None else int(order.filled_qty.raw) // RAW_PER_E8

    def is_closed(self, name: Any) -> bool:
        order = self.cache.order(name)
        return order is not None and bool(order.is_closed)

    def held_e8(self) -> list[int]:
        """Return the net positions, by symbol, as Nautilus counts them."""
        held = []
        for name in self._names:
            net = sum(each.signed_decimal_qty() for each in self.cache.positions_open(instrument_id=name))
            held.append(int(net * 10**8))
        return held

    def balance_e8(self, quote: str) -> int | None:
        """Return the balance as Nautilus counts it; None before it knows one."""
        account = self.cache.account_for_venue(self._names[0].venue)
        total = None if account is None else account.balance_total(Currency.from_str(quote))
        return None if total is None else int(total.as_decimal() * 10**8)

    def _pass(self, event: Any, take: Callable[[int, Any], None], kind: TickKind) -> None:
        symbol = self._index.get(event.instrument_id)
        if symbol is None:
            return
        try:
            self._lead.check(event.ts_init, event.ts_event)
        except DecodeError as error:
            self.rejects[error.what] += 1
            return
        take(symbol, event)
        self._hearer.on_rows(symbol, kind)
