"""A market of known content for the served exchange, and a plain client for it."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlencode

import aiohttp

from gpuscalp.exchange.embedded import Exchange
from gpuscalp.exchange.server import DEMO_ACCOUNT
from gpuscalp.exchange.source import SourceMessage, WholeBook
from gpuscalp.exchange.venue import Account
from gpuscalp.feeds.messages import DepthUpdate, MarkPrice, Ticker, Trade
from gpuscalp.schema import E8, NS_PER_MS, Instrument

START_MS = 1_700_000_000_000
TICK_E8, STEP_E8 = E8 // 10, E8 // 1_000


class ScriptedSource:
    """Quotes, book updates, trades and marks of BTCUSDT around 60,000, one of each every 20 ms."""

    def __init__(self, duration_ms: int = 60_000) -> None:
        self._duration_ms = duration_ms
        self.instruments = (
            Instrument("BTCUSDT", "binance_usdm", TICK_E8, STEP_E8, STEP_E8, 5 * E8, "synthetic"),
        )

    def messages(self) -> Iterator[SourceMessage]:
        symbol, bid = "BTCUSDT", 600_000
        levels = [[(px * TICK_E8, 5 * E8) for px in side] for side in (_below(bid), _above(bid))]
        yield WholeBook(symbol, START_MS * NS_PER_MS, 1, levels[0], levels[1])
        yield MarkPrice(symbol, START_MS * NS_PER_MS, bid * TICK_E8, bid * TICK_E8, 10_000, 0)
        for step in range(1, self._duration_ms // 20):
            at_ns = (START_MS + 20 * step) * NS_PER_MS
            number = 10 * step
            qty = (1 + step % 7) * E8
            yield Ticker(symbol, at_ns, number, bid * TICK_E8, qty, (bid + 1) * TICK_E8, qty)
            deep = [((bid - 5) * TICK_E8, qty)], [((bid + 6) * TICK_E8, qty)]
            yield DepthUpdate(symbol, at_ns, number - 9, number, number - 10, *deep)
            side = 1 if step % 2 else -1
            price = bid + 1 if side > 0 else bid
            yield Trade(symbol, at_ns, step, price * TICK_E8, E8 // 100, side, False, True)
            if step % 50 == 0:
                yield MarkPrice(symbol, at_ns, bid * TICK_E8, bid * TICK_E8, 10_000, 0)


def _below(px: int) -> list[int]:
    return [px - away for away in range(20)]


def _above(px: int) -> list[int]:
    return [px + 1 + away for away in range(20)]


class Client:
    """A client that knows HTTP, WebSocket and the signature, and nothing of the exchange's code.

    Attributes
    ----------
    offset_ms : added to our clock when a request is signed
    """

    def __init__(
        self, exchange: Exchange, http: aiohttp.ClientSession, account: Account = DEMO_ACCOUNT
    ) -> None:
        self.urls, self.http, self._account = exchange.urls, http, account
        self.token = exchange.server.admin_token
        self.offset_ms = 0

    async def get(self, path: str, **params: Any) -> Any:
        async with self.http.get(self.urls["rest"] + path, params=params) as reply:
            return await reply.json()

    async def signed(self, method: str, path: str, **params: Any) -> tuple[int, Any]:
        payload = urlencode({**params, "timestamp": time.time_ns() // 1_000_000 + self.offset_ms})
        secret = self._account.secret.encode()
        signature = hmac.new(secret, payload.encode(), hashlib.sha256).hexdigest()
        url = f"{self.urls['rest']}{path}?{payload}&signature={signature}"
        headers = {"X-MBX-APIKEY": self._account.api_key}
        async with self.http.request(method, url, headers=headers) as reply:
            return reply.status, await reply.json()

    async def order(self, side: str = "BUY", **params: Any) -> tuple[int, Any]:
        wanted = {"symbol": "BTCUSDT", "side": side, "type": "MARKET", "quantity": "0.010"}
        return await self.signed("POST", "/fapi/v1/order", **(wanted | params))

    def stream(self, path: str) -> Any:
        return self.http.ws_connect(self.urls["stream"] + path, autoping=True)

    async def control(self, method: str, what: str, **values: Any) -> tuple[int, Any]:
        headers = {"Authorization": f"Bearer {self.token}"}
        url = f"{self.urls['admin']}/{what}"  # as docs/exchange.md writes it: $ADMIN/faults
        async with self.http.request(method, url, headers=headers, json=values or None) as reply:
            return reply.status, await reply.json()


@asynccontextmanager
async def talking(exchange: Exchange, *, account: Account = DEMO_ACCOUNT) -> AsyncIterator[Client]:
    """A client of an exchange, for twenty seconds at the most."""
    async with asyncio.timeout(20), aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=10)) as http:
        yield Client(exchange, http, account)


async def take(socket: Any, count: int, timeout_s: float = 5.0) -> list[Any]:
    """Return the next messages."""
    return [await socket.receive_json(timeout=timeout_s) for _ in range(count)]


async def silence(socket: Any, seconds: float = 0.4) -> bool:
    """Whether nothing comes for a time; pings do not count."""
    try:
        async with asyncio.timeout(seconds):
            await socket.receive()
    except TimeoutError:
        return True
    return False
