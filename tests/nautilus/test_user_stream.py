# what is imported below needs what is looked for first
"""The stream of the account's events comes back: the adapter's own client over sockets that are told how."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from gpuscalp.nautilus.installed import LIVE
from tests.tools import no_nautilus

if reason := no_nautilus(LIVE):
    pytest.skip(reason, allow_module_level=True)

from nautilus_trader.adapters.binance import BinanceAccountType, BinanceExecClientConfig
from nautilus_trader.adapters.binance.futures.execution import BinanceFuturesExecutionClient
from nautilus_trader.adapters.binance.futures.schemas.user import BinanceFuturesOrderData
from nautilus_trader.adapters.binance.websocket import user as adapter_user
from nautilus_trader.adapters.binance.websocket.user import BinanceUserDataWebSocketClient
from nautilus_trader.cache.cache import Cache
from nautilus_trader.common.component import LiveClock, MessageBus
from nautilus_trader.config import InstrumentProviderConfig
from nautilus_trader.model.identifiers import InstrumentId, TraderId

from gpuscalp.errors import ConfigError
from gpuscalp.nautilus import user_stream
from gpuscalp.nautilus.adapter import exec_clients
from gpuscalp.nautilus.user_stream import UserStream

HMAC = "secret"
ED25519 = base64.b64encode(bytes.fromhex("302e020100300506032b657004220420") + bytes(32)).decode()
EXPIRED = b'{"stream":"1","data":{"e":"listenKeyExpired","E":1,"listenKey":"1"}}'
EVENT = b'{"stream":"2","data":{"e":"ACCOUNT_UPDATE"}}'
ORDER = (
    b'{"e":"ORDER_TRADE_UPDATE","E":1,"T":1,"o":{"s":"BTCUSDT","c":"x","S":"BUY","o":"MARKET","f":"IOC","q":"1",'
    b'"p":"0","ap":"0","x":"NEW","X":"NEW","i":1,"l":"0","z":"0","L":"0","T":1,"t":0,"b":"0","a":"0","m":false,'
    b'"R":false,"wt":"CONTRACT_PRICE","ot":"MARKET","ps":"BOTH","pP":false,"si":0,"ss":0,"rp":"0","gtd":0}}'
)


class Exchange:
    """Gives listen keys after so many errors; keeps every connection that is opened."""

    def __init__(self) -> None:
        self.errors: list[Exception] = []
        self.keys = 0
        self.sockets: list[Socket] = []

    def key(self) -> str:
        if self.errors:
            raise self.errors.pop(0)
        self.keys += 1
        return str(self.keys)

    async def create_listen_key(self) -> Any:
        return SimpleNamespace(listenKey=self.key())

    async def keepalive_listen_key(self) -> None:
        raise ConnectionError("no answer")

    async def connect(self, *, config: Any, handler: Any, post_reconnection: Any, **_: Any) -> Socket:
        self.sockets.append(Socket(self, config.url, handler, post_reconnection))
        return self.sockets[-1]

    @property
    def streams(self) -> list[Socket]:
        return [each for each in self.sockets if "/ws-fapi" not in each.url]


class Socket:
    """A connection: the session's, which answers requests, or a stream."""

    def __init__(self, exchange: Exchange, url: str, handler: Any, reconnected: Any) -> None:
        self._exchange, self.url, self.tell, self.reconnected = exchange, url, handler, reconnected
        self.closed = False

    async def send_text(self, raw: bytes) -> None:
        request = json.loads(raw)
        answer: dict[str, Any] = {"id": request["id"], "result": {}}
        if request["method"] == "userDataStream.start":
            try:
                answer["result"] = {"listenKey": self._exchange.key()}
            except ConnectionError as error:
                answer["error"] = {"msg": str(error)}
        elif request["method"] == "userDataStream.ping":
            answer["error"] = {"msg": "no answer"}
        self.tell(json.dumps(answer).encode())

    async def disconnect(self) -> None:
        self.closed = True

    def is_closed(self) -> bool:
        return self.closed

    is_disconnecting = is_reconnecting = is_closed


class Calls:
    """Takes what a keeper says of its calls."""

    def __init__(self) -> None:
        self.waits: list[float] = []
        self.failures: list[Exception] = []
        self.wanted: list[str] = []

    @property
    def patience_s(self) -> float:
        return self.waits.pop(0) if self.waits else 0.0

    def failed(self, error: Exception) -> None:
        self.failures.append(error)

    def want(self, reason: str) -> None:
        self.wanted.append(reason)


def client_of(stream: UserStream, secret: str = HMAC) -> Any:
    """Return the adapter's client of an account, as a session gets it; needs a loop."""
    clock = LiveClock()
    name = InstrumentId.from_str("BTCUSDT-PERP.BINANCE")
    config = BinanceExecClientConfig(
        account_type=BinanceAccountType.USDT_FUTURES,
        api_key="key",
        api_secret=secret,
        base_url_ws="ws://127.0.0.1:9/ws-fapi/v1",
        base_url_ws_stream="ws://127.0.0.1:9/private",
        instrument_provider=InstrumentProviderConfig(load_ids=frozenset({name})),
    )
    loop, bus = asyncio.get_running_loop(), MessageBus(TraderId("T-001"), clock)
    return exec_clients(stream).create(
        loop=loop, name="BINANCE", config=config, msgbus=bus, cache=Cache(), clock=clock
    )


class Scene:
    """A stream that the adapter has begun, its keeper at work, and an exchange."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.exchange, self.calls, self.stream = Exchange(), Calls(), UserStream()
        self.heard: list[bytes] = []
        self.slept: list[float] = []
        self.reconciled = 0

        async def sleep(seconds: float) -> None:
            self.slept.append(seconds)
            await asyncio.sleep(0)

        usual = {name: getattr(asyncio, name) for name in ("timeout", "Event")}
        monkeypatch.setattr(user_stream, "asyncio", SimpleNamespace(sleep=sleep, **usual))
        monkeypatch.setattr(adapter_user, "WebSocketClient", self.exchange)

    async def begin(self, secret: str) -> None:
        self.user = client_of(self.stream, secret)._ws_client
        self.user._handler = self.heard.append
        if self.user._http_user is not None:
            self.user._http_user = self.exchange
        self.stream._hook = self.reconcile
        await self.user.connect()
        await self.user.session_logon()
        await self.user.subscribe_user_data_stream()
        self.keeping = asyncio.create_task(self.stream.keep(self.calls))
        await asyncio.sleep(0)

    async def reconcile(self) -> None:
        self.reconciled += 1
        self.exchange.streams[-1].tell(EVENT)
        assert self.heard == [], "events wait for it"

    async def settle(self) -> None:
        """Wait until the stream is there again."""
        async with asyncio.timeout(30):
            while not self.calls.wanted:
                await asyncio.sleep(0)

    async def end(self) -> None:
        self.keeping.cancel()
        await asyncio.gather(self.keeping, return_exceptions=True)
        await self.user.disconnect()


def expire(scene: Scene) -> None:
    scene.exchange.streams[-1].tell(EXPIRED)


def cut(scene: Scene) -> None:
    scene.exchange.streams[-1].reconnected()


def cut_session(scene: Scene) -> None:
    scene.exchange.sockets[0].reconnected()


def keep_alive_fails(scene: Scene) -> None:
    scene.user._cancel_keepalive()
    scene.user._KEEPALIVE_INTERVAL_SECS = 0
    scene.user._keepalive_task = asyncio.get_running_loop().create_task(scene.user._keepalive_loop())
    asyncio.get_running_loop().call_later(0, setattr, scene.user, "_KEEPALIVE_INTERVAL_SECS", 1_800)


@pytest.mark.parametrize(
    ("secret", "happens"),
    [
        (HMAC, expire),
        (HMAC, cut),
        (HMAC, keep_alive_fails),
        (ED25519, expire),
        (ED25519, cut),
        (ED25519, cut_session),
        (ED25519, keep_alive_fails),
    ],
    ids=lambda each: getattr(each, "__name__", "hmac" if each == HMAC else "ed25519"),
)
async def test_a_stream_that_was_lost_is_subscribed_to_until_it_is_there(
    secret: str, happens: Callable[[Scene], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One refusal after a cut, and no event came any more: entries filled, and stood without a stop."""
    scene = Scene(monkeypatch)
    await scene.begin(secret)
    assert (scene.stream.lost, len(scene.exchange.streams)) == (False, 1)
    scene.exchange.errors = [ConnectionError("refused") for _ in range(7)]
    happens(scene)
    await scene.settle()
    first, *_, last = scene.exchange.streams
    assert (first.closed, last.closed, scene.stream.lost) == (True, False, False)
    assert scene.exchange.keys == len(scene.exchange.streams) == 2
    assert scene.slept == [1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0]
    assert [str(each).endswith("refused") for each in scene.calls.failures] == [True] * 7
    assert (scene.reconciled, scene.heard) == (1, [EVENT])
    last.tell(EVENT)
    assert scene.heard == [EVENT] * 2
    scene.slept.clear()
    scene.calls.wanted.clear()
    scene.exchange.errors = [ConnectionError("refused")]
    scene.heard.clear()
    cut(scene)
    await scene.settle()
    assert (scene.slept, scene.exchange.keys) == ([1.0], 3), "the next time it begins anew"
    await scene.end()


async def test_no_listen_key_is_asked_for_while_the_exchange_takes_no_calls(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scene = Scene(monkeypatch)
    await scene.begin(HMAC)
    scene.calls.waits = [60.0, 5.0]
    cut(scene)
    await asyncio.sleep(0)
    assert (scene.stream.lost, scene.exchange.keys) == (True, 1)
    await scene.settle()
    assert (scene.slept, scene.exchange.keys, scene.stream.lost) == ([60.0, 5.0], 2, False)
    await scene.end()


@pytest.mark.parametrize("hangs", ["create_listen_key", "disconnect", "reconcile"])
async def test_a_call_that_is_never_answered_is_given_up(hangs: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The adapter limits none in time: into a connection that is half open it would be the last."""
    scene = Scene(monkeypatch)
    limit = {"create_listen_key": "_ALL_S", "disconnect": "_CLOSE_S", "reconcile": "_HOOK_S"}[hangs]
    monkeypatch.setattr(user_stream, limit, 0.1)
    await scene.begin(HMAC)
    owner: Any = {"create_listen_key": scene.exchange, "disconnect": scene.exchange.streams[0]}.get(hangs)
    calls = []

    async def once(*_: Any) -> Any:
        calls.append(hangs)
        if hangs == "reconcile":
            await scene.reconcile()
        elif len(calls) > 1:
            return SimpleNamespace(listenKey=scene.exchange.key())
        return await asyncio.Event().wait()

    if owner is None:
        scene.stream._hook = once
    else:
        setattr(owner, hangs, once)
    cut(scene)
    await scene.settle()
    assert bool(scene.calls.failures) == (hangs == "create_listen_key")
    assert (scene.heard, scene.stream.lost) == ([EVENT], False)
    if hangs == "disconnect":
        scene.exchange.streams[0].disconnect = scene.exchange.streams[1].disconnect  # type: ignore[method-assign]
    await scene.end()


async def test_only_an_order_that_the_adapter_could_read_says_that_the_stream_tells(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What it cannot read it logs: looks found every fill, and the stream was taken for one that tells."""
    told: list[str] = []
    monkeypatch.setattr(
        BinanceFuturesOrderData, "handle_order_trade_update", lambda self, _: told.append(self.s)
    )
    stream = UserStream()
    hand_on = client_of(stream)._ws_client._handle_stream_message
    stream.deaf = True
    unreadable = ORDER.replace(b'"i":1,', b'"i":"one",')
    for raw in (b"{}", unreadable, b'{"e":"NEW_KIND"}', b'{"e":"ACCOUNT_CONFIG_UPDATE"}'):
        hand_on(raw)
        assert stream.deaf, raw
    assert told == []
    hand_on(ORDER)
    assert (told, stream.deaf) == (["BTCUSDT"], False)


def test_an_adapter_that_hands_orders_on_in_another_way_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(BinanceFuturesExecutionClient, "_handle_user_ws_message", lambda *_: None)
    with pytest.raises(ConfigError, match=r"an event of an order.*constraints\.txt"):
        asyncio.run(_made())


@pytest.mark.parametrize(
    ("name", "road"),
    [
        ("_handle_stream_message", "an event of the account"),
        ("_handle_stream_reconnect", "a stream that was cut"),
        ("_handle_reconnect", "a session that was cut"),
    ],
)
def test_an_adapter_that_mends_its_stream_in_another_way_is_refused(
    name: str, road: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(BinanceUserDataWebSocketClient, name, lambda *_: None)
    with pytest.raises(ConfigError, match=rf"{road}.*constraints\.txt"):
        asyncio.run(_made())


@pytest.mark.parametrize(
    "name",
    [
        "_handle_stream_message",
        "_handle_stream_reconnect",
        "_handle_reconnect",
        "session_logon",
        "subscribe_user_data_stream",
        "disconnect",
    ],
)
def test_an_adapter_without_what_mends_its_stream_is_refused(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(BinanceUserDataWebSocketClient, name)
    with pytest.raises(ConfigError, match=rf"{name}.*constraints\.txt"):
        asyncio.run(_made())


async def _made() -> None:
    client_of(UserStream())
