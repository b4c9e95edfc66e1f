"""Every fault, and what must happen under it; of orders in test_order_faults, of a session in tests/live."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import aiohttp
import pytest

from gpuscalp.errors import UsageError
from gpuscalp.exchange.embedded import Exchange
from gpuscalp.exchange.faults import KINDS, Fault, Faults, make_fault, parse_fault
from gpuscalp.exchange.server import ServeSpec
from gpuscalp.exchange.session import Session
from gpuscalp.feeds.binance import Decoder
from gpuscalp.feeds.book import BookEvent, LocalBook
from tests.exchange.scripted import ScriptedSource, silence, take, talking


def _through(fault: str, count: int = 6) -> tuple[list[bytes], Faults]:
    """Send numbered messages under a fault; return what arrives."""
    arrived: list[bytes] = []
    faults = Faults(seed=1)
    faults.add(parse_fault(fault))
    session = Session(1, "/public/ws", "", lenient=False, send=arrived.append)
    for number in range(count):
        faults(session, "btcusdt@depth", b"%d" % number)
    return arrived, faults


@pytest.mark.parametrize(
    ("fault", "arrived"),
    [
        ("drop:count=2", b"2345"),
        ("drop:streams=eth*", b"012345"),
        ("drop:connection=2", b"012345"),
        ("duplicate:count=2", b"00112345"),
        ("reorder:count=1", b"102345"),
        ("gap", b"12345"),
        ("gap:streams=ethusdt@depth*", b"012345"),
        ("silent", b""),
        ("half_open:connection=1", b""),
    ],
)
def test_stream_faults_do_what_they_say(fault: str, arrived: bytes) -> None:
    assert b"".join(_through(fault)[0]) == arrived


def test_a_gap_without_a_number_is_one_difference_however_it_was_made() -> None:
    """Made in Python and not of words it once never ended: the book was silent and had no hole."""
    arrived: list[bytes] = []
    faults = Faults()
    faults.add(Fault("gap"))
    session = Session(1, "/public/ws", "", lenient=False, send=arrived.append)
    for number in range(3):
        faults(session, "btcusdt@trade", b"t%d" % number)
        faults(session, "btcusdt@depth", b"d%d" % number)
    assert arrived == [b"t0", b"t1", b"d1", b"t2", b"d2"]


def test_a_probability_is_about_met_and_the_seed_repeats_it() -> None:
    first, second = _through("drop:probability=0.25", 2_000)[0], _through("drop:probability=0.25", 2_000)[0]
    assert 1_400 < len(first) < 1_600
    assert first == second


def test_delayed_messages_come_at_their_time() -> None:
    arrived, faults = _through("delay:delay_ms=50,count=2")
    assert b"".join(arrived) == b"2345"
    faults.release(49_999_999)
    assert len(arrived) == 4
    faults.release(50_000_000)
    assert b"".join(arrived) == b"234501"


@pytest.mark.parametrize(
    "text", ["nonsense", "drop:colour=red", "drop:probability=2", "drop:count=0", "delay:delay_ms=x"]
)
def test_what_is_no_fault_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        parse_fault(text)


def test_a_number_in_words_is_refused_in_json() -> None:
    with pytest.raises(UsageError):
        make_fault({"kind": "drop", "count": "2"})


def test_every_kind_is_in_the_table() -> None:
    import gpuscalp.exchange.faults as module

    for kind in KINDS:
        assert f"\n{kind} " in str(module.__doc__)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_tried_where_it_hurts(kind: str) -> None:
    """Faults of streams and of market calls in a session, those of signed calls on orders."""
    folder = Path(__file__).parent.parent
    names = ("live/test_faults.py", "live/test_exchange_faults.py", "exchange/test_order_faults.py")
    tried = [(folder / name).read_text() for name in names]
    assert any(f'"{kind}"' in text for text in tried)


async def test_gap_breaks_the_chain_and_a_new_snapshot_mends_it(exchange: Exchange) -> None:
    async with talking(exchange) as client:
        decoder, book = Decoder(), LocalBook()

        async def snapshot() -> BookEvent:
            params = {"symbol": "BTCUSDT", "limit": 1000}
            async with client.http.get(f"{client.urls['rest']}/fapi/v1/depth", params=params) as reply:
                return book.on_snapshot(decoder.decode(await reply.read()))

        async with client.stream("/public/ws/btcusdt@depth@100ms") as socket:

            async def difference() -> BookEvent:
                return book.on_diff(decoder.decode((await socket.receive(timeout=30)).data.encode()))

            await difference()
            assert await snapshot() is BookEvent.SYNCED
            await difference()
            assert (await client.control("POST", "faults", kind="gap"))[0] == 200
            # Not among the next few: what was sent before the fault may still be on its way.
            while (event := await difference()) is not BookEvent.GAP:
                assert event in (BookEvent.TOP, BookEvent.APPLIED)
            assert await snapshot() is BookEvent.SYNCED
            assert await difference() in (BookEvent.TOP, BookEvent.APPLIED)


async def test_silent_keeps_the_subscription_and_sends_nothing_until_it_is_cleared(
    exchange: Exchange,
) -> None:
    async with talking(exchange) as client:
        _, answer = await client.control("POST", "faults", kind="silent", streams="btcusdt@trade")
        async with client.stream("/public/stream?streams=btcusdt@trade/btcusdt@bookTicker") as socket:
            assert {item["stream"] for item in await take(socket, 20)} == {"btcusdt@bookTicker"}
            await client.control("DELETE", f"faults/{answer['id']}")
            # Not among the next few: what was sent under the fault may still be on its way.
            while (await take(socket, 1))[0]["stream"] != "btcusdt@trade":
                pass


async def test_half_open_answers_no_ping_and_does_not_close(exchange: Exchange) -> None:
    async with talking(exchange) as client, client.stream("/public/ws/btcusdt@trade") as socket:
        await take(socket, 1)
        await client.control("POST", "faults", kind="half_open")
        await socket.ping()
        await asyncio.sleep(0.2)
        while not await silence(socket):  # what was sent before the fault
            pass
        assert not socket.closed


async def test_cut_closes_the_named_connection_only(exchange: Exchange) -> None:
    async with (
        talking(exchange) as client,
        client.stream("/public/ws/btcusdt@trade") as one,
        client.stream("/public/ws/btcusdt@trade") as two,
    ):
        status = (await client.control("GET", "status"))[1]
        first = min(item["number"] for item in status["connections"])
        await client.control("POST", "faults", kind="cut", connection=first)
        while (message := await one.receive(timeout=30)).type is aiohttp.WSMsgType.TEXT:
            pass
        assert message.type in (aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSED)
        await take(two, 30)


async def test_a_connection_ends_when_its_life_is_over(exchange: Exchange) -> None:
    async with talking(exchange) as client:
        await client.control("POST", "faults", kind="cut", life_s=0.3)
        began = time.monotonic()
        async with client.stream("/public/ws") as socket:
            message = await socket.receive(timeout=30)
        assert message.type in (aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSED)
        assert time.monotonic() - began >= 0.3


@pytest.mark.parametrize(
    ("kind", "status", "code"),
    [
        ("too_many", 429, -1003),
        ("banned", 418, -1003),
        ("timestamp", 400, -1021),
        ("unknown_lost", 503, -1000),
        ("maintenance", 503, -1016),
    ],
)
async def test_requests_are_refused_as_often_as_asked_and_not_carried_out(
    exchange: Exchange, kind: str, status: int, code: int
) -> None:
    async with talking(exchange) as client:
        await client.control("POST", "faults", kind=kind, count=1, path="/fapi/v1/order")
        refused, answer = await client.order(newClientOrderId=f"id-{kind}")
        assert (refused, answer["code"]) == (status, code)
        _, found = await client.signed(
            "GET", "/fapi/v1/order", symbol="BTCUSDT", origClientOrderId=f"id-{kind}"
        )
        assert found["code"] == -2013


async def test_maintenance_closes_connections_and_refuses_new_ones(exchange: Exchange) -> None:
    async with talking(exchange) as client:
        async with client.stream("/public/ws") as socket:
            await client.control("POST", "faults", kind="maintenance")
            message = await socket.receive(timeout=30)
            assert message.type in (aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSED)
        with pytest.raises(aiohttp.WSServerHandshakeError):
            await client.stream("/public/ws")


async def test_listen_keys_expire_at_once_and_the_stream_says_so(exchange: Exchange) -> None:
    async with talking(exchange) as client:
        _, key = await client.signed("POST", "/fapi/v1/listenKey")
        async with client.stream(f"/private/ws/{key['listenKey']}") as socket:
            await client.control("POST", "faults", kind="listen_key")
            assert (await take(socket, 1))[0]["e"] == "listenKeyExpired"
        assert (await client.signed("PUT", "/fapi/v1/listenKey"))[1]["code"] == -1125


async def test_clock_skew_shows_in_the_server_time_and_refuses_timestamps(exchange: Exchange) -> None:
    async with talking(exchange) as client:
        await client.control("POST", "faults", kind="clock_skew", skew_ms=7_000)
        before_ms = time.time() * 1_000
        skewed_ms = (await client.get("/fapi/v1/time"))["serverTime"] - 7_000
        assert before_ms - 2 <= skewed_ms <= time.time() * 1_000 + 2
        assert (await client.order())[1]["code"] == -1021


async def test_faults_of_the_start_are_in_force() -> None:
    fault = Fault("too_many", path="/fapi/v1/time", count=1)
    with Exchange(ScriptedSource(), ServeSpec(faults=(fault,))) as served:
        async with talking(served) as client:
            assert (await client.get("/fapi/v1/time"))["code"] == -1003
            assert "serverTime" in await client.get("/fapi/v1/time")
