# what is imported below needs what is looked for first
"""How a session leaves an account: what its end does past the session, at a served exchange."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

import pytest

from gpuscalp.nautilus.installed import LIVE
from tests.tools import no_nautilus

if reason := no_nautilus(LIVE):
    pytest.skip(reason, allow_module_level=True)

from nautilus_trader.adapters.binance.http.error import BinanceClientError

from gpuscalp.config import NautilusConfig, OrdersConfig
from gpuscalp.exchange.embedded import Exchange
from gpuscalp.exchange.server import DEMO_ACCOUNT, ServeSpec
from gpuscalp.execution.messages import OrderKind, OrderRequest, ReportKind
from gpuscalp.execution.remote import Heard, RemoteBroker
from gpuscalp.nautilus import ending
from gpuscalp.nautilus.ending import Ending
from gpuscalp.nautilus.keys import Keys
from gpuscalp.nautilus.names import is_guard
from gpuscalp.nautilus.node import open_account
from gpuscalp.schema import E8
from tests.exchange.scripted import Client, ScriptedSource, talking
from tests.nautilus.test_asked import LOT, filled, stop_of
from tests.nautilus.test_source import Scene as Sent
from tests.nautilus.test_source import market

STOP = OrdersConfig(stop_loss_bps=100.0)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ending, "_PAUSE_S", 0.01)
    monkeypatch.setattr(ending, "_SECURE_S", 3.0)


@dataclass
class Scene:
    """An end at an exchange, and a client that knows nothing of either."""

    exchange: Exchange
    client: Client
    end: Ending
    broker: RemoteBroker

    async def stops(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = (await self.client.signed("GET", "/fapi/v1/openAlgoOrders"))[1]
        return found

    async def orders(self) -> list[str]:
        return [each["clientOrderId"] for each in (await self.client.signed("GET", "/fapi/v1/openOrders"))[1]]

    async def position(self) -> tuple[float, float]:
        rows = (await self.client.signed("GET", "/fapi/v3/positionRisk"))[1]
        return next(((float(each["positionAmt"]), float(each["entryPrice"])) for each in rows), (0.0, 0.0))

    async def rest(self, name: str, **more: Any) -> None:
        """Let an order rest far below the market."""
        wanted = {"type": "LIMIT", "price": "58000.0", "timeInForce": "GTX", "newClientOrderId": name}
        status, reply = await self.client.order(**wanted | more)
        assert status == 200, reply


@asynccontextmanager
async def scene(orders: OrdersConfig = STOP) -> AsyncIterator[Scene]:
    source = ScriptedSource()
    with Exchange(source, ServeSpec(loop=True)) as exchange:
        async with talking(exchange) as client:
            place = NautilusConfig(where="local", rest_url=exchange.urls["rest"])
            view = open_account(place, Keys(DEMO_ACCOUNT.api_key, DEMO_ACCOUNT.secret), ["BTCUSDT"])
            broker = RemoteBroker(1_000 * E8, 1)
            broker.submit(OrderRequest(1, 0, 1, LOT, 58_000 * E8), 0)  # an entry: it may have been filled
            yield Scene(exchange, client, Ending(view, "s", source.instruments, orders), broker)


def test_entries_end_and_a_position_gets_its_stop_once() -> None:
    """What was filled while the session failed had no stop until the next start."""

    async def run() -> None:
        async with scene() as at:
            await at.rest("gs-s-1")
            await at.rest("by-hand")
            await at.client.order()
            await at.end.secure(at.broker)
            assert await at.orders() == ["by-hand"], "what others have is left alone"
            qty, entry = await at.position()
            (stop,) = await at.stops()
            assert is_guard("s", stop["clientAlgoId"])
            assert len(stop["clientAlgoId"]) <= 36
            assert (stop["side"], stop["orderType"], stop["reduceOnly"]) == ("SELL", "STOP_MARKET", True)
            assert float(stop["quantity"]) == qty == 0.01
            # 100 bps below the entry price, and the tick of 0.1 is rounded up: a stop never loses more.
            assert 0 <= float(stop["triggerPrice"]) - entry * 0.99 < 0.1
            assert at.end.words() == ""
            assert at.end.status() == [{"symbol": "BTCUSDT", "qty": 0.01, "stopped": 0.01}]
            await at.end.secure(at.broker)
            assert len(await at.stops()) == 1

    asyncio.run(run())


def test_only_what_no_stop_covers_gets_one() -> None:
    async def run() -> None:
        async with scene() as at:
            await at.client.order("SELL", quantity="0.030")
            at.broker.take(filled(0, -3 * LOT))
            own = {"algoType": "CONDITIONAL", "symbol": "BTCUSDT", "side": "BUY", "type": "STOP_MARKET"}
            own |= {
                "quantity": "0.010",
                "triggerPrice": "60600.0",
                "reduceOnly": "true",
                "clientAlgoId": "gs-s-2",
            }
            await at.client.signed("POST", "/fapi/v1/algoOrder", **own)
            await at.end.secure(at.broker)
            found = {is_guard("s", each["clientAlgoId"]): each for each in await at.stops()}
            assert sorted(found) == [False, True]
            assert float(found[True]["quantity"]) == 0.02
            entry = (await at.position())[1]
            assert 0 <= entry * 1.01 - float(found[True]["triggerPrice"]) < 0.1

    asyncio.run(run())


def test_a_position_beyond_its_stop_is_closed() -> None:
    """The exchange refuses a stop that would go off at once."""

    async def run() -> None:
        async with scene(OrdersConfig(stop_loss_bps=0.001)) as at:
            await at.client.order()
            await at.end.secure(at.broker)
            assert await at.position() == (0.0, 0.0)
            assert at.end.words() == ""

    asyncio.run(run())


@pytest.mark.parametrize("why", ["no stop is configured", "a stranger's", "nothing of ours"])
def test_no_stop_is_placed_where_none_is_to_be(why: str) -> None:
    async def run() -> None:
        async with scene(OrdersConfig() if why == "no stop is configured" else STOP) as at:
            await at.client.order()
            broker = RemoteBroker(1_000 * E8, 1) if why == "nothing of ours" else at.broker
            await at.end.secure(broker, {0} if why == "a stranger's" else ())
            assert await at.stops() == []
            assert at.end.status() == [{"symbol": "BTCUSDT", "qty": 0.01, "stopped": 0.0}]
            assert at.end.words() == ("" if why == "no stop is configured" else "BTCUSDT +0.01")

    asyncio.run(run())


@pytest.mark.parametrize("path", ["/fapi/v1/openOrders", "/fapi/v1/algoOrder"])
def test_what_cannot_be_done_is_said(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ending, "_SECURE_S", 0.5)

    async def run() -> None:
        async with scene() as at:
            await at.client.order()
            await at.client.control("POST", "faults", kind="unknown_lost", path=path)
            await at.end.secure(at.broker)
            looked = path == "/fapi/v1/algoOrder"
            assert at.end.words().startswith(
                "BTCUSDT +0.01 (" if looked else "the account could not be looked"
            )
            assert "503" in at.end.words() or "Unknown" in at.end.words()
            assert (at.end.status() is None) != looked

    asyncio.run(run())


def test_an_entry_that_cannot_be_cancelled_keeps_no_position_from_its_stop(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its refusal once ended every round before the positions were looked at."""
    monkeypatch.setattr(ending, "_SECURE_S", 0.5)

    async def run() -> None:
        async with scene() as at:
            await at.rest("gs-s-1")
            await at.client.order()
            await at.client.control("POST", "faults", kind="unknown_lost", path="/fapi/v1/order")
            await at.end.secure(at.broker)
            assert [each["quantity"] for each in await at.stops()] == ["0.010"]
            assert at.end.words().startswith("entry gs-s-1 (Binance")

    asyncio.run(run())


def test_a_stop_that_is_refused_keeps_no_other_position_from_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """The symbols behind it were never tried."""
    monkeypatch.setattr(ending, "_SECURE_S", 0.1)
    first = ScriptedSource().instruments[0]
    symbols = [replace(first, symbol=name) for name in ("AUSDT", "BUSDT", "CUSDT")]
    stops: list[Any] = []

    async def new_algo_order(symbol: str, side: Any, quantity: str, **_: Any) -> None:
        if symbol == "AUSDT":
            raise BinanceClientError(400, {"code": -4140, "msg": "Invalid symbol status"}, {})
        stops.append(
            SimpleNamespace(symbol=symbol, side=side.value, quantity=quantity, orderType="STOP_MARKET",
                            reduceOnly=True, closePosition=False)
        )  # fmt: skip

    async def open_rows() -> tuple[list[Any], list[Any]]:
        return [], list(stops)

    async def positions() -> list[tuple[int, int]]:
        return [(LOT, 60_000 * E8)] * 3

    account: Any = SimpleNamespace(
        api=SimpleNamespace(new_algo_order=new_algo_order), open_rows=open_rows, positions=positions
    )
    broker, end = RemoteBroker(1_000 * E8, 3), Ending(account, "s", symbols, STOP)
    for index in range(3):
        broker.take(filled(index, LOT))
    asyncio.run(end.secure(broker))
    assert [each.symbol for each in stops] == ["BUSDT", "CUSDT"]
    assert end.words().startswith("AUSDT +0.01 (BinanceClientError")


@pytest.mark.parametrize(("side", "stopped"), [("BUY", ["0.010"]), ("SELL", [])])
def test_what_somebody_trades_meanwhile_is_not_guarded(
    side: str, stopped: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two looks have to blame a stranger before a symbol is his, and at a start none has been made: his
    position got our stop, and one beyond it was closed at the market."""
    monkeypatch.setattr(ending, "_SECURE_S", 0.2)

    async def run() -> None:
        async with scene() as at:  # 0.01 are on their way to a long position
            await at.client.order(side, quantity="0.030")
            await at.end.secure(at.broker)
            assert [each["quantity"] for each in await at.stops()] == stopped
            assert abs((await at.position())[0]) == 0.03
            assert at.end.words() == f"BTCUSDT {'+' if side == 'BUY' else '-'}0.03"

    asyncio.run(run())


def test_a_guard_that_the_list_does_not_show_yet_is_not_placed_twice() -> None:
    async def run() -> None:
        async with scene() as at:
            await at.client.order()
            await at.client.control(
                "POST", "faults", kind="unknown_executed", path="/fapi/v1/algoOrder", count=1
            )
            account, looks = at.end._account, 0
            open_rows = account.open_rows

            async def late() -> tuple[list[Any], list[Any]]:
                nonlocal looks
                looks += 1
                orders, stops = await open_rows()
                return orders, stops if looks > 3 else []

            account.open_rows = late  # type: ignore[method-assign]
            await at.end.secure(at.broker)
            assert len(await at.stops()) == 1
            assert at.end.words() == ""
            assert looks == 5

    asyncio.run(run())


def test_a_network_that_is_gone_before_the_second_look_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ending, "_SECURE_S", 0.2)

    async def run() -> None:
        async with scene() as at:
            account, looks = at.end._account, 0
            open_rows = account.open_rows

            async def once() -> tuple[list[Any], list[Any]]:
                nonlocal looks
                looks += 1
                if looks > 1:
                    raise OSError("no way")
                return await open_rows()

            account.open_rows = once  # type: ignore[method-assign]
            await at.end.secure(at.broker)
            assert at.end.words() == "the account could not be looked at to the end: OSError: no way"

    asyncio.run(run())


def test_an_exchange_that_takes_no_calls_is_left_alone() -> None:
    async def run() -> None:
        async with scene() as at:
            await at.client.order()
            await at.client.control("POST", "faults", kind="too_many", count=1, retry_after_s=60)
            await at.end.secure(at.broker)
            assert at.end.words().startswith("the account could not be looked at: ")
            assert await at.stops() == [], "nor was it asked again"

    asyncio.run(run())


def test_an_end_waits_for_the_sessions_own_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    """A quarter of a second after the last entry it was over: in a frame of a second no bracket had left."""
    monkeypatch.setattr(ending, "_AGAIN_S", 0.01)
    source = ScriptedSource()
    broker, end = RemoteBroker(1_000 * E8, 1), Ending(None, "s", source.instruments, STOP)  # type: ignore[arg-type]
    broker.take(Heard(ReportKind.FILL, 1, 1, -1, 0, trade_id=1, side=1, qty_e8=LOT, price_e8=60_000 * E8))
    rounds = 0

    def go_on() -> bool:
        nonlocal rounds
        rounds += 1
        if rounds == 5:
            broker.submit(
                OrderRequest(2, 0, -1, LOT, 59_000 * E8, OrderKind.STOP_MARKET, reduce_only=True), 0
            )
        if rounds == 8:
            broker.take(Heard(ReportKind.ACCEPTED, 1, 1, 2, 0))
        return True

    async def close() -> bool:
        return await end.close(broker, (), lambda *_: None, go_on)

    assert asyncio.run(close())
    assert rounds == 8, "a stop that is on its way does not count"
    assert end.words() == ""


def test_a_stop_that_is_being_cancelled_protects_nothing() -> None:
    """A flattening cancels it, and its market order may be refused: the end saw the stop, and was over."""
    broker = RemoteBroker(1_000 * E8, 1)
    end = Ending(None, "s", ScriptedSource().instruments, STOP)  # type: ignore[arg-type]
    broker.take(filled(0, LOT))
    broker.submit(stop_of(0, LOT), 0)
    assert end.lacking(broker) == [0]
    broker.take(Heard(ReportKind.ACCEPTED, 1, 1, 2, 0))
    assert end.lacking(broker) == []
    broker.cancel(2, 0)
    assert end.lacking(broker) == [0]


def test_a_session_that_has_failed_and_has_nothing_there_asks_nothing() -> None:
    """A lost network would have hidden what it had failed of."""
    sent = Sent()
    sent.source._driver.failure = OSError("a full disk")
    asyncio.run(sent.source._close_entries())
    assert sent.source.unprotected() == ""
    assert sent.source._ending.status() is None


def test_an_end_leaves_no_entry_that_rests(monkeypatch: pytest.MonkeyPatch) -> None:
    sent = Sent(
        OrderRequest(1, 0, 1, E8, 50 * E8),
        OrderRequest(2, 0, -1, E8, 51 * E8, reduce_only=True),
        OrderRequest(3, 0, -1, E8, 49 * E8, OrderKind.STOP_MARKET, reduce_only=True),
        market(4),
    )
    closing = sent.source._ending.close(sent.broker, set(), sent.source._end, lambda: True)
    monkeypatch.setattr(ending, "_LAST_CALLS_S", 0.01)
    monkeypatch.setattr(ending, "_AGAIN_S", 0.02)
    assert not asyncio.run(closing), "two entries have not ended"
    assert sent.ended == ["gs-s-1"], "what protects a position stays"


def test_an_end_sends_no_entry_any_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """A step that was under way, or a frame while the end waits, once left an order without a process."""
    monkeypatch.setattr(ending, "_AGAIN_S", 0.01)
    sent = Sent(OrderRequest(1, 0, 1, E8, 50 * E8))
    source, broker = sent.source, sent.broker
    source.send()

    async def run() -> None:
        closing = asyncio.create_task(source._close_entries())
        async with asyncio.timeout(60.0):
            while sent.ended.count("gs-s-1") < 3:
                await asyncio.sleep(0.001)
        broker.submit(OrderRequest(2, 0, 1, E8, 50 * E8), 0)
        broker.submit(market(3), 0)
        broker.submit(market(4, -1, reduce_only=True), 0)
        broker.cancel(1, 0)
        source.send()
        assert not closing.done(), "the first one still rests"
        sent.hear(Heard(ReportKind.CANCELED, 5, 5, 1, 0))
        await asyncio.wait_for(closing, 60.0)

    asyncio.run(run())
    assert sent.sent == ["gs-s-1", "gs-s-4"], "what reduces a position leaves"
    assert sent.ended.count("gs-s-1") > 3, "asked again until it has come true"
    assert set(sent.ended) == {"gs-s-1"}
    assert broker.unsent() == []
    assert sorted(broker.orders) == [2, 3, 4], "the next start hears that two of them never arrived"
