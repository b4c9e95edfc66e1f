"""The strategy of a live session as a strategy of NautilusTrader.

Owns: what is subscribed to, when the desk is asked, and how orders are sent. Never: decides: the desk's
engine does, the very one of ``gpuscalp live``.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Final, Protocol

from nautilus_trader.config import StrategyConfig
from nautilus_trader.model.data import DataType
from nautilus_trader.model.enums import BookType, TimeInForce
from nautilus_trader.model.identifiers import ClientId, ClientOrderId, InstrumentId
from nautilus_trader.model.objects import FIXED_PRECISION
from nautilus_trader.trading.strategy import Strategy

from gpuscalp.execution.booking import in_turn
from gpuscalp.live.engine import Outcome
from gpuscalp.live.market import Work
from gpuscalp.live.records import client_id
from gpuscalp.nautilus.custom import BELLS, CLIENT, DOUBTS, Bell, Doubt
from gpuscalp.nautilus.desk import Desk, make_desk
from gpuscalp.nautilus.funding import Funding
from gpuscalp.nautilus.instruments import from_nautilus
from gpuscalp.nautilus.names import instrument_name
from gpuscalp.nautilus.orders import order_of
from gpuscalp.nautilus.reports import Reporter
from gpuscalp.nautilus.rows import EventRows
from gpuscalp.orders import Order

# So many rows wait at most for the one that ends their frame.
_ROWS_MAX: Final = 512
_BINANCE: Final = "BINANCE"


class Witness(Protocol):
    """Writes down what happens at the desk, or looks on."""

    def given(self, work: Work) -> None:
        """Take the next Work, before the engine is given it."""

    def decided(self, work: Work, outcome: Outcome) -> None:
        """Take what the engine made of it, before anything is sent."""


class GpuScalpStrategyConfig(StrategyConfig, frozen=True):  # type: ignore[misc, call-arg]
    """What the strategy is made of.

    Attributes
    ----------
    model : path of the bundle, @champion or a digest of the registry; not needed where a desk is handed over
    settings : path of a TOML file such as configs/backtest.toml; None: the defaults
    venue : of an archive, as the bundle names it; None: the bundle's
    session_id : goes into the ids of the orders; a session that goes on keeps it, another one has another
    told : the market comes from an archive, and its doubts are told (gpuscalp.nautilus.rows)
    feed_ns : how much later than Nautilus's clock events and reports are here; 0 in a live session
    compute_ns : from hearing to sending, where no clock runs meanwhile; 0 in a live session
    """

    model: str = ""
    settings: str | None = None
    venue: str | None = None
    session_id: str = "nautilus"
    told: bool = False
    feed_ns: int = 0
    compute_ns: int = 0


class GpuScalpStrategy(Strategy):  # type: ignore[misc]
    """Trades all symbols of a bundle.

    Parameters
    ----------
    config : see there
    desk : None: it is made when the strategy starts, of the bundle and of the instruments in the cache
    witness : told of every Work and Outcome

    Attributes
    ----------
    desk, rows, reports : the parts, to be read; the last two from the start on
    funding : pays funding in a backtest; None where the exchange does
    ended : the recording has ended, and nothing is decided any more
    """

    def __init__(
        self, config: GpuScalpStrategyConfig, desk: Desk | None = None, witness: Witness | None = None
    ) -> None:
        super().__init__(config)
        self.desk = desk
        self.funding: Funding | None = None
        self.ended = False
        self._settings = config
        self._witness = witness
        self._busy = False
        self._closes_ns = 0

    def on_start(self) -> None:
        config = self._settings
        desk = self.desk = self.desk or self._make_desk()
        instruments = desk.engine.trader.instruments
        self._ids = [InstrumentId.from_str(instrument_name(each.venue, each.symbol)) for each in instruments]
        self._index = {name: index for index, name in enumerate(self._ids)}
        self._instruments = []
        for name in self._ids:
            found = self.cache.instrument(name)
            if found is None:
                self.log.error(f"There is no instrument {name} in the cache: the strategy stops")
                self.stop()
                return
            self._instruments.append(found)
        self.rows = EventRows(instruments, precision=FIXED_PRECISION, told=config.told)
        self.reports = Reporter(
            config.session_id,
            [str(name) for name in self._ids],
            precision=FIXED_PRECISION,
            best=self.rows.best,
            delay_ns=config.feed_ns,
        )
        self._subscribe()

    def poke(self) -> None:
        """Hand the desk what has come, let the engine decide where something is due, and send its orders."""
        desk = self.desk
        if self._busy or desk is None or self.ended:
            return
        self._busy = True
        try:
            now_ns = self.clock.timestamp_ns() + self._settings.feed_ns
            desk.unsynced = self.rows.unsynced()
            desk.push(self.rows.take(), now_ns)
            while (work := desk.take(now_ns)) is not None:
                if self._witness is not None:
                    self._witness.given(work)
                outcome = desk.engine.step(work, self._decision_ns)
                if self._witness is not None:
                    self._witness.decided(work, outcome)
                self._send(outcome)
        finally:
            self._busy = False
        self._closes_ns = desk.closes_ns

    # The market

    def on_trade_tick(self, tick: Any) -> None:
        self.rows.trade(self._index[tick.instrument_id], tick)
        self._turn(tick.ts_event)

    def on_quote_tick(self, tick: Any) -> None:
        self.rows.quote(self._index[tick.instrument_id], tick)
        self._turn(tick.ts_event)

    def on_order_book_deltas(self, deltas: Any) -> None:
        self.rows.deltas(self._index[deltas.instrument_id], deltas)
        self._turn(deltas.ts_event)

    def on_index_price(self, update: Any) -> None:
        self._mark_part(update, index_price_e8=update.value.as_decimal())

    def on_funding_rate(self, update: Any) -> None:
        self._mark_part(update, funding_rate_e8=update.rate)
        if update.next_funding_ns:
            index = self._index[update.instrument_id]
            self.rows.mark_part(
                index, "next_funding_ns", update.next_funding_ns, update.ts_event, update.ts_init
            )

    def on_mark_price(self, update: Any) -> None:
        self._mark_part(update, mark_price_e8=update.value.as_decimal())
        self._fund(update)
        self.rows.end_marks()
        self._turn(update.ts_event)

    def on_data(self, data: Any) -> None:
        if isinstance(data, Doubt):
            self.rows.doubt(self._index[data.about], data.bits)
        elif isinstance(data, Bell):
            self._ring(data)
        else:  # BinanceFuturesMarkPriceUpdate
            self.rows.mark(self._index[data.instrument_id], data)
            self._turn(data.ts_event)

    # Our orders

    def on_order_event(self, event: Any) -> None:
        desk = self.desk
        if desk is None:
            return
        desk.tell(self.reports.told(event, self.clock.timestamp_ns()))
        self.poke()

    def _fund(self, update: Any) -> None:
        if self.funding is None or self.desk is None:
            return
        index, parts = self._index[update.instrument_id], self.rows.mark_parts
        received = self.funding.on_mark(
            index,
            update.ts_event,
            parts["mark_price_e8"],
            parts.get("funding_rate_e8"),
            parts.get("next_funding_ns", 0),
            self.desk.engine.trader.account,
        )
        now_ns = self.clock.timestamp_ns()
        self.desk.tell(self.reports.funding(index, money_e8, due_ns, now_ns) for due_ns, money_e8 in received)

    def _decision_ns(self) -> int:
        now_ns: int = self.clock.timestamp_ns()
        return now_ns + self._settings.feed_ns + self._settings.compute_ns

    def _turn(self, exch_ns: int) -> None:
        """Go to the desk where a row ends a frame, or enough have come."""
        if exch_ns >= self._closes_ns or len(self.rows) >= _ROWS_MAX:
            self.poke()

    def _mark_part(self, update: Any, **parts: Any) -> None:
        index = self._index[update.instrument_id]
        for name, value in parts.items():
            self.rows.mark_part(index, name, int(value.scaleb(8)), update.ts_event, update.ts_init)

    def _make_desk(self) -> Desk:
        from gpuscalp.bundle import load_bundle, read_contract
        from gpuscalp.config import BacktestConfig, load
        from gpuscalp.pipeline import FeaturePipeline
        from gpuscalp.registry import model_path

        config = self._settings
        path = model_path(config.model)
        training = read_contract(path).training
        venue = config.venue or training.venue
        found = [
            self.cache.instrument(InstrumentId.from_str(instrument_name(venue, symbol)))
            for symbol in training.symbols
        ]
        instruments = [from_nautilus(each) for each in found]
        pipeline = FeaturePipeline(
            grid=training.config.grid, features=training.config.features, instruments=instruments, threads=1
        )
        settings = load(BacktestConfig, Path(config.settings) if config.settings else None, env=os.environ)
        bundle = load_bundle(path, graph=pipeline.graph)
        return make_desk(bundle, pipeline, instruments, settings, session_id=config.session_id)

    def _subscribe(self) -> None:
        for name in self._ids:
            self.subscribe_trade_ticks(name)
            self.subscribe_quote_ticks(name)
            self.subscribe_order_book_deltas(name, BookType.L2_MBP, managed=False)
            if self._settings.told or str(name.venue) != _BINANCE:
                self.subscribe_mark_prices(name)
                self.subscribe_index_prices(name)
                self.subscribe_funding_rates(name)
            else:
                # Its adapter tells index price and funding in a type of its own only.
                from nautilus_trader.adapters.binance import BinanceFuturesMarkPriceUpdate

                marks = DataType(BinanceFuturesMarkPriceUpdate, metadata={"instrument_id": name})
                self.subscribe_data(marks, client_id=ClientId(_BINANCE))
        if self._settings.told:
            self.subscribe_data(DOUBTS, client_id=CLIENT)
            self.subscribe_data(BELLS, client_id=CLIENT)

    def _send(self, outcome: Outcome) -> None:
        for what, _ in in_turn(outcome.orders, outcome.cancels):
            if not isinstance(what, int):
                self._submit(what)
            elif self.reports.cancelling(what):
                self.cancel_order(self.cache.order(self._client_order_id(what)))

    def _submit(self, order: Order) -> None:
        self.reports.sent(order.order_id, order.symbol_index, order.qty_e8)
        name, instrument = self._client_order_id(order.order_id), self._instruments[order.symbol_index]
        self.submit_order(order_of(self.order_factory, order, instrument, name, market=TimeInForce.IOC))

    def _client_order_id(self, order_id: int) -> Any:
        return ClientOrderId(client_id(self._settings.session_id, order_id))

    def _ring(self, bell: Bell) -> None:
        """End a backtest: let the last orders arrive, cancel the rest, close what is held."""
        desk = self.desk
        if desk is None or bell.ring == 0:
            return
        if bell.ring == 1:
            self.poke()
        self.ended = True
        self._hear(desk)
        trader, market = desk.engine.trader, desk.engine.market
        if bell.ring == 1:
            for order_id in tuple(trader.open_orders):
                if self.reports.cancelling(order_id):
                    self.cancel_order(self.cache.order(self._client_order_id(order_id)))
        elif bell.ring == 2 and market is not None:
            for order in trader.flatten(market, "end_of_data"):
                self._submit(order)

    def _hear(self, desk: Desk) -> None:
        """Let the engine hear all that is known to Nautilus, without a frame."""
        work = desk.take(1 << 62, force=True)
        if work is not None and (work.reports or len(work.ticks)):
            desk.engine.step(work, self._decision_ns)
