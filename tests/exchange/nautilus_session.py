"""A session of NautilusTrader against a served exchange, in a process of its own (its logger and its loop
exist once per process). Prints one line of JSON with what was seen.

Usage: python nautilus_session.py REST_URL STREAM_URL API_KEY SECRET
"""

from __future__ import annotations

import asyncio
import json
import sys
from decimal import Decimal
from typing import Any

from nautilus_trader.adapters.binance import (
    BINANCE,
    BinanceAccountType,
    BinanceDataClientConfig,
    BinanceExecClientConfig,
    BinanceLiveDataClientFactory,
    BinanceLiveExecClientFactory,
)
from nautilus_trader.config import InstrumentProviderConfig, LoggingConfig, StrategyConfig, TradingNodeConfig
from nautilus_trader.live.node import TradingNode
from nautilus_trader.model.enums import BookType, OrderSide, TimeInForce
from nautilus_trader.model.identifiers import InstrumentId
from nautilus_trader.trading.strategy import Strategy

INSTRUMENT = InstrumentId.from_str("BTCUSDT-PERP.BINANCE")


class Session(Strategy):
    """Listens, places, amends and cancels an order, then buys at the market."""

    def __init__(self) -> None:
        super().__init__(StrategyConfig(strategy_id="S-001"))
        self.seen: dict[str, Any] = {"quotes": 0, "trades": 0, "deltas": 0, "events": []}
        self.finished = asyncio.Event()
        self._resting: Any = None

    def on_start(self) -> None:
        self.subscribe_quote_ticks(INSTRUMENT)
        self.subscribe_trade_ticks(INSTRUMENT)
        self.subscribe_order_book_deltas(INSTRUMENT, BookType.L2_MBP)

    def on_quote_tick(self, tick: Any) -> None:
        self.seen["quotes"] += 1
        if self.seen["quotes"] == 20:
            instrument = self.cache.instrument(INSTRUMENT)
            self._resting = self.order_factory.limit(
                INSTRUMENT,
                OrderSide.BUY,
                instrument.make_qty(Decimal("0.010")),
                instrument.make_price(Decimal("59000.0")),
                time_in_force=TimeInForce.GTC,
                post_only=True,
            )
            self.submit_order(self._resting)

    def on_trade_tick(self, tick: Any) -> None:
        self.seen["trades"] += 1

    def on_order_book_deltas(self, deltas: Any) -> None:
        self.seen["deltas"] += 1

    def on_order_event(self, event: Any) -> None:
        self.seen["events"].append(type(event).__name__)
        name, instrument = type(event).__name__, self.cache.instrument(INSTRUMENT)
        resting = self._resting
        if name == "OrderAccepted" and event.client_order_id == resting.client_order_id:
            price = instrument.make_price(Decimal("59100.0"))
            self.modify_order(resting, quantity=instrument.make_qty(Decimal("0.020")), price=price)
        elif name == "OrderUpdated":
            self.seen["amended_price"] = str(resting.price)
            self.cancel_order(resting)
        elif name == "OrderCanceled":
            qty = instrument.make_qty(Decimal("0.010"))
            self.submit_order(self.order_factory.market(INSTRUMENT, OrderSide.BUY, qty))
        elif name == "OrderFilled":
            self.seen["fill"] = {"qty": str(event.last_qty), "commission": str(event.commission)}
            self.finished.set()
        elif name in ("OrderRejected", "OrderDenied", "OrderModifyRejected", "OrderCancelRejected"):
            self.seen["refused"] = str(event.reason)
            self.finished.set()


async def _run(rest: str, stream: str, api_key: str, secret: str) -> dict[str, Any]:
    provider = InstrumentProviderConfig(load_ids=frozenset({INSTRUMENT}))
    common: dict[str, Any] = {
        "api_key": api_key,
        "api_secret": secret,
        "account_type": BinanceAccountType.USDT_FUTURES,
        "base_url_http": rest,
        "instrument_provider": provider,
    }
    config = TradingNodeConfig(
        trader_id="TESTER-001",
        logging=LoggingConfig(log_level="ERROR", log_colors=False),
        data_clients={BINANCE: BinanceDataClientConfig(base_url_ws=stream, **common)},
        exec_clients={
            BINANCE: BinanceExecClientConfig(
                base_url_ws=f"{stream}/ws-fapi/v1", base_url_ws_stream=f"{stream}/private", **common
            )
        },
        timeout_connection=20.0,
        timeout_disconnection=2.0,
        timeout_post_stop=0.5,
    )
    node = TradingNode(config=config, loop=asyncio.get_running_loop())
    session = Session()
    node.trader.add_strategy(session)
    node.add_data_client_factory(BINANCE, BinanceLiveDataClientFactory)
    node.add_exec_client_factory(BINANCE, BinanceLiveExecClientFactory)
    node.build()
    running = asyncio.create_task(node.run_async())
    try:
        await asyncio.wait_for(session.finished.wait(), 40)
    except TimeoutError:
        session.seen["timed_out"] = True
    seen = dict(session.seen)
    await node.stop_async()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    return seen


if __name__ == "__main__":
    print("RESULT " + json.dumps(asyncio.run(_run(*sys.argv[1:5]))), flush=True)
