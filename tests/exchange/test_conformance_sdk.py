"""Binance's own SDK against the exchange: stream, place, query, amend, cancel, fills on the user stream."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from gpuscalp.exchange.embedded import Exchange
from gpuscalp.exchange.server import DEMO_ACCOUNT

sdk = pytest.importorskip(
    "binance_sdk_derivatives_trading_usds_futures.derivatives_trading_usds_futures",
    reason="Binance's SDK is not installed (extra conformance)",
)
common = pytest.importorskip("binance_common.configuration")
# What the SDK and its event loop leave to the garbage collector is not ours to judge.
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture
def client(exchange: Exchange) -> Any:
    keys = {"api_key": DEMO_ACCOUNT.api_key, "api_secret": DEMO_ACCOUNT.secret}
    urls = exchange.urls
    return sdk.DerivativesTradingUsdsFutures(
        config_rest_api=common.ConfigurationRestAPI(base_path=urls["rest"], timeout=5_000, **keys),
        config_ws_api=common.ConfigurationWebSocketAPI(stream_url=urls["ws_api"], **keys),
        config_ws_streams=common.ConfigurationWebSocketStreams(stream_url=urls["stream"]),
    )


async def _first(count: int, subscribe: Callable[[Callable[[Any], None]], Awaitable[Any]]) -> list[Any]:
    """Return the first messages that a subscription delivers."""
    heard: asyncio.Queue[Any] = asyncio.Queue()
    await subscribe(heard.put_nowait)
    return [await asyncio.wait_for(heard.get(), 30) for _ in range(count)]


def test_market_calls_parse(client: Any) -> None:
    rest = client.rest_api
    assert rest.check_server_time().data().server_time > 0
    info = rest.exchange_information().data()
    assert [item.symbol for item in info.symbols] == ["BTCUSDT"]
    book = rest.order_book(symbol="BTCUSDT", limit=5).data()
    assert len(book.bids) == len(book.asks) == 5
    assert rest.compressed_aggregate_trades_list(symbol="BTCUSDT").data() is not None
    assert rest.mark_price(symbol="BTCUSDT").data() is not None


def test_account_calls_parse(client: Any) -> None:
    rest = client.rest_api
    assert float(rest.account_information_v3().data().total_wallet_balance) == 10_000
    assert rest.futures_account_balance_v3().data()[0].asset == "USDT"
    assert rest.user_commission_rate(symbol="BTCUSDT").data().taker_commission_rate == "0.0005"
    assert rest.notional_and_leverage_brackets(symbol="BTCUSDT").data() is not None
    assert rest.get_current_position_mode().data().dual_side_position is False
    assert rest.get_bnb_burn_status().data().fee_burn is False
    assert rest.change_initial_leverage(symbol="BTCUSDT", leverage=10).data().leverage == 10


def test_an_order_lives_through_rest(client: Any) -> None:
    rest, name = client.rest_api, uuid.uuid4().hex[:20]
    placed = rest.new_order(
        symbol="BTCUSDT",
        side="BUY",
        type="LIMIT",
        time_in_force="GTX",
        quantity=0.01,
        price=59_000.5,
        new_client_order_id=name,
    ).data()
    assert (placed.status, placed.client_order_id) == ("NEW", name)
    found = rest.query_order(symbol="BTCUSDT", orig_client_order_id=name).data()
    assert (found.order_id, found.price) == (placed.order_id, "59000.5")
    changed = rest.modify_order(
        symbol="BTCUSDT", side="BUY", order_id=placed.order_id, quantity=0.02, price=59_100.0
    ).data()
    assert (changed.orig_qty, changed.price) == ("0.020", "59100.0")
    assert len(rest.current_all_open_orders(symbol="BTCUSDT").data()) == 1
    assert rest.cancel_order(symbol="BTCUSDT", order_id=placed.order_id).data().status == "CANCELED"
    with pytest.raises(Exception, match="Unknown order sent"):
        rest.cancel_order(symbol="BTCUSDT", order_id=placed.order_id)


def test_a_conditional_order_lives_through_rest(client: Any) -> None:
    rest = client.rest_api
    placed = rest.new_algo_order(
        algo_type="CONDITIONAL",
        symbol="BTCUSDT",
        side="SELL",
        type="STOP_MARKET",
        quantity=0.01,
        trigger_price=50_000.0,
    ).data()
    assert placed.algo_status == "NEW"
    assert [item.algo_id for item in rest.current_all_algo_open_orders().data()] == [placed.algo_id]
    assert rest.cancel_algo_order(algo_id=placed.algo_id).data().msg == "success"


async def test_streams_and_fills_arrive(client: Any) -> None:
    streams = await client.websocket_streams.create_connection()
    try:

        async def quotes(hear: Callable[[Any], None]) -> None:
            handle = await streams.individual_symbol_book_ticker_streams(symbol="btcusdt")
            handle.on("message", hear)

        async def trades(hear: Callable[[Any], None]) -> None:
            (await streams.aggregate_trade_streams(symbol="btcusdt")).on("message", hear)

        async def depth(hear: Callable[[Any], None]) -> None:
            (await streams.diff_book_depth_streams(symbol="btcusdt")).on("message", hear)

        assert {item.s for item in await _first(3, quotes)} == {"BTCUSDT"}
        assert [item.e for item in await _first(2, trades)] == ["aggTrade"] * 2
        first, second = await _first(2, depth)
        assert second.pu == first.u

        key = client.rest_api.start_user_data_stream().data().listen_key
        heard: asyncio.Queue[Any] = asyncio.Queue()
        (await streams.user_data(key)).on("message", heard.put_nowait)
        await asyncio.sleep(0.2)
        answer = await asyncio.to_thread(
            client.rest_api.new_order, symbol="BTCUSDT", side="BUY", type="MARKET", quantity=0.01
        )
        order = answer.data()
        kinds: list[str] = []
        while kinds.count("OrderTradeUpdate") < 2:
            message = await asyncio.wait_for(heard.get(), 30)
            event = getattr(message, "actual_instance", message)
            kinds.append(type(event).__name__)
        assert kinds == ["OrderTradeUpdate", "TradeLite", "AccountUpdate", "OrderTradeUpdate"]
        assert (event.o.i, event.o.X) == (order.order_id, "FILLED")
    finally:
        await streams.close_connection(close_session=True)


async def test_an_order_lives_through_the_websocket_api(client: Any) -> None:
    connection = await client.websocket_api.create_connection()
    try:
        answer = await connection.new_order(
            symbol="BTCUSDT",
            side="SELL",
            type="LIMIT",
            time_in_force="GTC",
            quantity=0.01,
            price=61_000.0,
        )
        placed = answer.data().result
        assert placed.status == "NEW"
        answer = await connection.query_order(symbol="BTCUSDT", order_id=placed.order_id)
        assert answer.data().result.price == "61000.0"
        answer = await connection.cancel_order(symbol="BTCUSDT", order_id=placed.order_id)
        assert answer.data().result.status == "CANCELED"
    finally:
        await connection.close_connection(close_session=True)
