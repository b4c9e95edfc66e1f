"""The orders of peer_fills.py through NautilusTrader's BacktestEngine, and what its model makes of them.

Its clock is the exchange's here, and an order travels as long as in the other engines.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from nautilus_trader.config import StrategyConfig
from nautilus_trader.model.enums import OrderSide, TimeInForce
from nautilus_trader.model.identifiers import ClientOrderId, InstrumentId
from nautilus_trader.trading.strategy import Strategy

from gpuscalp.archive import Archive
from gpuscalp.config import AccountConfig, BacktestConfig, CostConfig, LegConfig, PaperConfig
from gpuscalp.nautilus.arrivals import arrivals
from gpuscalp.nautilus.events import EventMaker
from gpuscalp.nautilus.instruments import price_of, quantity_of, to_nautilus
from gpuscalp.nautilus.names import instrument_name, venue_name
from gpuscalp.nautilus.venue import make_engine
from gpuscalp.schema import TickKind
from tests.execution.peer_fills import REQUEST_NS, VENUE, Market, Result


class Sender(Strategy):  # type: ignore[misc]
    """Sends and cancels at the given times, and writes down what was filled."""

    def __init__(self, market: Market) -> None:
        super().__init__(StrategyConfig(strategy_id="PEER-001"))
        self._market = market
        self.found: dict[int, Result] = {}

    def on_start(self) -> None:
        instrument = self._market.instrument
        name = InstrumentId.from_str(instrument_name(VENUE, instrument.symbol))
        places = self.cache.instrument(name)
        for number, at_ns, side, price, lots, rests, cancel_ns in self._market.orders.tolist():
            order = self.order_factory.limit(
                name,
                OrderSide.BUY if side > 0 else OrderSide.SELL,
                quantity_of(lots * instrument.step_size_e8, places.size_precision),
                price_of(price * instrument.tick_size_e8, places.price_precision),
                time_in_force=TimeInForce.GTC if rests else TimeInForce.IOC,
                post_only=bool(rests),
                client_order_id=ClientOrderId(str(number)),
            )
            self.clock.set_time_alert_ns(f"send-{number}", at_ns, self._later(self.submit_order, order))
            if cancel_ns:
                self.clock.set_time_alert_ns(f"cancel-{number}", cancel_ns, self._later(self._cancel, order))

    def on_order_filled(self, event: Any) -> None:
        number, instrument = int(str(event.client_order_id)), self._market.instrument
        unit = 10**8
        lots = self.found.get(number, (0,))[0] + event.last_qty.raw // unit // instrument.step_size_e8
        price = event.last_px.raw // unit // instrument.tick_size_e8
        self.found[number] = (lots, price, event.ts_event, int(event.liquidity_side) == 1)

    def _cancel(self, order: Any) -> None:
        if not order.is_closed:
            self.cancel_order(order)

    @staticmethod
    def _later(act: Any, order: Any) -> Any:
        return lambda _event: act(order)


def theirs(market: Market, archive: Path, *, version: str) -> list[Result]:
    """Play the orders through its exchange with the recorded books."""
    paper = PaperConfig(request=LegConfig(low_ms=REQUEST_NS / 1e6), reply=LegConfig(low_ms=0.0), leverage=125)
    config = BacktestConfig(
        paper=paper,
        cost=CostConfig(taker_fee_bps=0.0, maker_fee_bps=0.0, compute=LegConfig(low_ms=0.0)),
        account=AccountConfig(start_usdt=1e6),  # 1.221 reckons in floats, and fails on more
    )
    perpetual = to_nautilus(market.instrument)
    engine, _ = make_engine(config, venue_name(VENUE), [perpetual], book="books", version=version)
    sender = Sender(market)
    engine.add_strategy(sender)
    maker = EventMaker([market.instrument], [perpetual], lambda _recv_ns, exch_ns: exch_ns)

    def events() -> Any:
        for rows in arrivals(Archive.open(archive), VENUE, (market.instrument.symbol,)):
            made: list[Any] = []
            for row in rows:
                maker.make(row, made)
            yield made

    engine.add_data_iterator("archive", events())
    first, last = int(market.ticks["exch_ns"][0]), int(market.ticks["exch_ns"][-1])
    try:
        engine.run(start=first - 1, end=last)
    finally:
        engine.dispose()
    return [sender.found.get(int(number), (0, 0, 0, False)) for number in market.orders[:, 0]]


def taken(market: Market, row: int) -> Result:
    """Return what its model gives an order that takes: the last recorded book at the first event of any kind
    at or after the arrival, that event included, walked as far as the limit."""
    _, at_ns, side, limit, lots, _, _ = market.orders[row].tolist()
    exch_ns, is_book = market.ticks["exch_ns"], market.ticks["kind"] == TickKind.BOOK
    event = int(np.searchsorted(exch_ns, at_ns + REQUEST_NS))
    book = int(is_book[: event + 1].sum()) - 1
    levels = market.books[book]
    prices, sizes = (levels[2], levels[3]) if side > 0 else (levels[0], levels[1])
    tick_e8, step_e8 = market.instrument.tick_size_e8, market.instrument.step_size_e8
    left, last = lots, 0
    for price_e8, size_e8 in zip(prices, sizes, strict=True):
        price = price_e8 // tick_e8
        if not price_e8 or side * (price - limit) > 0 or not left:
            break
        left -= min(left, size_e8 // step_e8)
        last = price
    return (lots - left, last, int(exch_ns[event]), False) if left < lots else (0, 0, 0, False)
