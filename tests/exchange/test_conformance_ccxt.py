"""ccxt (ccxt.pro) against the exchange: stream, place, query, amend, cancel, fills on the user stream."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from gpuscalp.exchange.embedded import Exchange
from gpuscalp.exchange.server import DEMO_ACCOUNT
from tests.feeds.server import until

ccxt = pytest.importorskip("ccxt", reason="ccxt is not installed (extra conformance)")
pro = pytest.importorskip("ccxt.pro")
pytestmark = pytest.mark.filterwarnings("ignore")

SYMBOL = "BTC/USDT:USDT"


def _run(exchange: Exchange, work: Callable[[Any], Awaitable[None]]) -> None:
    async def run() -> None:
        client = pro.binanceusdm(
            {
                "apiKey": DEMO_ACCOUNT.api_key,
                "secret": DEMO_ACCOUNT.secret,
                "options": {"fetchCurrencies": False, "fetchMargins": False},
            }
        )
        rest, stream = exchange.urls["rest"], exchange.urls["stream"]
        for name, version in (("", "v1"), ("V2", "v2"), ("V3", "v3")):
            client.urls["api"][f"fapiPublic{name}"] = f"{rest}/fapi/{version}"
            client.urls["api"][f"fapiPrivate{name}"] = f"{rest}/fapi/{version}"
        client.urls["api"]["fapiData"] = f"{rest}/futures/data"
        client.urls["api"]["ws"]["linear"] = f"{stream}/ws"
        client.urls["api"]["ws"]["ws-api"]["linear"] = exchange.urls["ws_api"]
        try:
            await asyncio.wait_for(work(client), 30)
        finally:
            await client.close()

    asyncio.run(run())


def test_markets_book_and_balance_parse(exchange: Exchange) -> None:
    async def work(client: Any) -> None:
        market = (await client.load_markets())[SYMBOL]
        assert (market["precision"]["price"], market["limits"]["amount"]["min"]) == (0.1, 0.001)
        book = await client.fetch_order_book(SYMBOL, 5)
        assert book["bids"][0][0] < book["asks"][0][0]
        assert (await client.fetch_balance())["USDT"]["total"] > 9_000
        assert (await client.fetch_ticker(SYMBOL))["last"] > 0
        assert len(await client.fetch_ohlcv(SYMBOL, "1m")) >= 1

    _run(exchange, work)


def test_an_order_is_placed_queried_amended_and_cancelled(exchange: Exchange) -> None:
    async def work(client: Any) -> None:
        order = await client.create_order(SYMBOL, "limit", "buy", 0.01, 59_000.5, {"postOnly": True})
        found = await client.fetch_order(order["id"], SYMBOL)
        assert (found["status"], found["price"], found["amount"]) == ("open", 59_000.5, 0.01)
        changed = await client.edit_order(order["id"], SYMBOL, "limit", "buy", 0.02, 59_100.0)
        assert (changed["price"], changed["amount"]) == (59_100.0, 0.02)
        assert [item["id"] for item in await client.fetch_open_orders(SYMBOL)] == [order["id"]]
        assert (await client.cancel_order(order["id"], SYMBOL))["status"] == "canceled"
        with pytest.raises(ccxt.OrderNotFound):
            await client.cancel_order(order["id"], SYMBOL)
        with pytest.raises(ccxt.BaseError, match="-2019"):
            await client.create_order(SYMBOL, "limit", "buy", 10.0, 59_000.5)
        with pytest.raises(ccxt.InvalidOrder, match="-5022"):
            await client.create_order(SYMBOL, "limit", "buy", 0.01, 60_100.0, {"postOnly": True})

    _run(exchange, work)


def test_a_conditional_order_is_placed_and_cancelled(exchange: Exchange) -> None:
    async def work(client: Any) -> None:
        order = await client.create_order(SYMBOL, "market", "sell", 0.01, None, {"stopLossPrice": 50_000})
        assert order["id"]
        await client.cancel_order(order["id"], SYMBOL, {"trigger": True})

    _run(exchange, work)


def test_books_trades_and_tickers_are_watched(exchange: Exchange) -> None:
    async def work(client: Any) -> None:
        book = await client.watch_order_book(SYMBOL)
        for _ in range(3):
            book = await client.watch_order_book(SYMBOL)
        assert book["bids"][0][0] < book["asks"][0][0]
        assert (await client.watch_trades(SYMBOL))[-1]["price"] in (60_000.0, 60_000.1)
        assert (await client.watch_bids_asks([SYMBOL]))[SYMBOL]["ask"] == 60_000.1

    _run(exchange, work)


def _is_listening(exchange: Exchange) -> bool:
    """Whether somebody hears what becomes of an account."""
    return exchange.ask(lambda server: any(each.route == "private" for each in server.venue.hub.sessions))


def test_fills_and_positions_are_watched(exchange: Exchange) -> None:
    async def work(client: Any) -> None:
        await client.load_markets()
        fills = asyncio.create_task(client.watch_my_trades(SYMBOL))
        orders = asyncio.create_task(client.watch_orders(SYMBOL))
        await until(lambda: _is_listening(exchange))
        await asyncio.sleep(0.3)  # both have said what they want to hear by then: it costs no message
        order = await client.create_order(SYMBOL, "market", "buy", 0.01)
        assert order["status"] == "closed"
        fill = (await fills)[-1]
        assert (fill["order"], fill["amount"], fill["takerOrMaker"]) == (order["id"], 0.01, "taker")
        assert (await orders)[-1]["id"] == order["id"]
        position = (await client.fetch_positions([SYMBOL]))[0]
        assert (position["side"], position["contracts"]) == ("long", 0.01)
        assert len(await client.fetch_my_trades(SYMBOL)) == 1

    _run(exchange, work)
