"""The served exchange: one port, real sockets."""

from __future__ import annotations

import asyncio
import time

import aiohttp
import pytest

from gpuscalp.errors import DataError
from gpuscalp.exchange.embedded import Exchange
from gpuscalp.exchange.server import ServeSpec
from gpuscalp.feeds.binance import Decoder
from gpuscalp.feeds.book import BookState, LocalBook
from tests.exchange.scripted import START_MS, ScriptedSource, silence, take, talking


async def test_server_time_is_the_wall_clock_at_speed_one(exchange: Exchange) -> None:
    async with talking(exchange) as client:
        before_ms = time.time() * 1_000
        answer = await client.get("/fapi/v1/time")
        assert before_ms - 2 <= answer["serverTime"] <= time.time() * 1_000 + 2


async def test_raw_and_combined_streams_come_on_their_routes(exchange: Exchange) -> None:
    async with talking(exchange) as client:
        async with client.stream("/public/ws/btcusdt@bookTicker") as raw:
            assert (await take(raw, 1))[0]["e"] == "bookTicker"
        async with client.stream("/market/stream?streams=btcusdt@aggTrade") as combined:
            message = (await take(combined, 1))[0]
            assert (message["stream"], message["data"]["e"]) == ("btcusdt@aggTrade", "aggTrade")
        async with client.stream("/ws/btcusdt@aggTrade") as unrouted:
            assert await silence(unrouted)


async def test_subscribe_is_acknowledged_and_unsubscribe_ends_the_stream(exchange: Exchange) -> None:
    async with talking(exchange) as client, client.stream("/public/ws") as socket:
        await socket.send_json({"method": "SUBSCRIBE", "params": ["btcusdt@trade"], "id": "x"})
        assert (await take(socket, 1))[0] == {"result": None, "id": "x"}
        assert {item["e"] for item in await take(socket, 3)} == {"trade"}
        await socket.send_json({"method": "UNSUBSCRIBE", "params": ["btcusdt@trade"], "id": 2})
        while "result" not in (await take(socket, 1))[0]:
            pass
        assert await silence(socket)


async def test_a_local_book_is_built_by_the_documented_procedure(exchange: Exchange) -> None:
    async with talking(exchange) as client:
        decoder, book = Decoder(), LocalBook()
        async with client.stream("/public/ws/btcusdt@depth@100ms") as socket:
            book.on_diff(decoder.decode((await socket.receive(timeout=30)).data.encode()))
            url = f"{client.urls['rest']}/fapi/v1/depth"
            async with client.http.get(url, params={"symbol": "BTCUSDT", "limit": 1000}) as reply:
                book.on_snapshot(decoder.decode(await reply.read()))
            for _ in range(5):
                book.on_diff(decoder.decode((await socket.receive(timeout=30)).data.encode()))
            assert book.state is BookState.SYNCED
            assert not book.crossed


async def test_an_order_is_placed_and_its_fill_heard(exchange: Exchange) -> None:
    async with talking(exchange) as client:
        _, key = await client.signed("POST", "/fapi/v1/listenKey")
        async with client.stream(f"/private/ws?listenKey={key['listenKey']}") as socket:
            status, order = await client.order(newOrderRespType="RESULT")
            assert (status, order["status"]) == (200, "FILLED")
            heard = await take(socket, 4)
            assert [item["e"] for item in heard] == [
                *("ORDER_TRADE_UPDATE", "TRADE_LITE", "ACCOUNT_UPDATE", "ORDER_TRADE_UPDATE")
            ]
            assert heard[-1]["o"]["i"] == order["orderId"]


async def test_the_websocket_api_answers(exchange: Exchange) -> None:
    async with talking(exchange) as client, client.http.ws_connect(client.urls["ws_api"]) as socket:
        await socket.send_json({"id": "t", "method": "time"})
        answer = (await take(socket, 1))[0]
        assert (answer["id"], answer["status"]) == ("t", 200)


async def test_an_eleventh_message_in_a_second_closes_the_connection(exchange: Exchange) -> None:
    async with talking(exchange) as client, client.stream("/public/ws") as socket:
        for number in range(11):
            await socket.send_json({"method": "LIST_SUBSCRIPTIONS", "id": number})
        kinds = [(await socket.receive(timeout=30)).type for _ in range(11)]
        assert kinds[-1] in (aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSED)


async def test_control_needs_the_token(exchange: Exchange) -> None:
    async with talking(exchange) as client:
        assert (await client.control("GET", "status"))[1]["symbols"] == ["BTCUSDT"]
        client.token = "wrong"
        assert (await client.control("GET", "status"))[0] == 401
        assert (await client.control("POST", "faults", kind="drop"))[0] == 401


async def test_the_fastest_replay_loses_nothing_and_keeps_its_own_times() -> None:
    source = ScriptedSource(20_000)
    with Exchange(source, ServeSpec(speed=None, wait=True, recorded=True)) as served:
        async with talking(served) as client:
            async with client.stream("/public/ws/btcusdt@trade") as socket:
                trades = await take(socket, 999)
                assert [item["t"] for item in trades] == list(range(1, 1_000))
                assert trades[0]["E"] == START_MS + 20
                assert await silence(socket)
            assert served.status()["ended"]


async def test_lenient_serves_everything_on_the_old_paths() -> None:
    with Exchange(ScriptedSource(), ServeSpec(lenient=True)) as served:
        path = "/stream?streams=btcusdt@aggTrade/btcusdt@depth@0ms"
        async with talking(served) as client, client.stream(path) as socket:
            names = {item["stream"] for item in await take(socket, 12)}
            assert names == {"btcusdt@aggTrade", "btcusdt@depth@0ms"}


async def test_the_venue_pings_and_closes_who_does_not_answer() -> None:
    with Exchange(ScriptedSource(), ServeSpec(ping_s=0.1, pong_s=3.0)) as served:
        async with talking(served) as client:
            url = client.urls["stream"] + "/public/ws"
            async with client.http.ws_connect(url, autoping=False) as socket:
                kinds = []
                while not kinds or kinds[-1] is aiohttp.WSMsgType.PING:
                    kinds.append((await socket.receive(timeout=30)).type)
                assert kinds[0] is aiohttp.WSMsgType.PING
            async with client.http.ws_connect(url) as socket:
                assert await silence(socket, 4.0)


def test_an_empty_source_is_refused_at_the_start() -> None:
    class Nothing(ScriptedSource):
        def messages(self):  # type: ignore[no-untyped-def]
            return iter(())

    with pytest.raises(DataError, match="no messages"):
        Exchange(Nothing()).start()


def test_stopping_ends_the_thread_and_the_port() -> None:
    served = Exchange(ScriptedSource())
    served.start()
    port = served.server.port
    served.stop()
    assert not served.running

    async def connect() -> None:
        await asyncio.open_connection("127.0.0.1", port)

    with pytest.raises(OSError, match=str(port)):
        asyncio.run(connect())
