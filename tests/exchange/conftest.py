"""A small market by hand: one or two symbols, a few levels, users with money."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Iterator, Sequence
from typing import Any
from urllib.parse import urlencode

import msgspec
import pytest

from gpuscalp.exchange.embedded import Exchange
from gpuscalp.exchange.gateway import Gateway, Request
from gpuscalp.exchange.limits import Limits
from gpuscalp.exchange.server import ServeSpec
from gpuscalp.exchange.session import Session
from gpuscalp.exchange.source import SourceMessage, WholeBook
from gpuscalp.exchange.venue import Account, Venue
from gpuscalp.feeds.messages import MarkPrice, Trade
from gpuscalp.schema import E8, Instrument
from tests.exchange.scripted import ScriptedSource

START_MS = 1_700_000_000_000
SECRETS = {"alice": "a-secret", "bob": "b-secret"}


def e8(value: float) -> int:
    return round(value * E8)


class Bench:
    """A venue, its door, and what its users hear."""

    def __init__(self, symbols: Sequence[str] = ("BTCUSDT",)) -> None:
        instruments = [
            Instrument(name, "binance_usdm", e8(0.1), e8(0.001), e8(0.001), e8(5), "synthetic")
            for name in symbols
        ]
        accounts = [Account(key, secret, e8(100_000)) for key, secret in SECRETS.items()]
        self.venue = Venue(instruments, accounts)
        self.gateway = Gateway(self.venue, Limits())
        self.heard: dict[str, list[dict[str, Any]]] = {key: [] for key in SECRETS}
        self.venue.advance(START_MS)
        for user in self.venue.users:
            user.start_listening(START_MS)
            self.listen(f"/private/ws/{user.listen_key}", self.heard[user.api_key].append)
        for name in symbols:
            self.mark(100.0, symbol=name)
            self.book(
                [(100.0, 1.0), (99.9, 2.0), (99.8, 3.0)], [(100.1, 1.0), (100.2, 2.0), (100.3, 3.0)], name
            )

    def listen(
        self, path: str, hear: Callable[[Any], None], *, query: str = "", lenient: bool = False
    ) -> Session:
        number = len(self.venue.hub.sessions)
        session = Session(
            number, path, query, lenient=lenient, send=lambda raw: hear(msgspec.json.decode(raw))
        )
        self.venue.hub.open(session)
        return session

    def send(self, message: SourceMessage) -> None:
        self.venue.on_message(message, 0)

    def book(
        self,
        bids: Sequence[tuple[float, float]],
        asks: Sequence[tuple[float, float]],
        symbol: str = "BTCUSDT",
        update_id: int = 1,
    ) -> None:
        levels = ([(e8(price), e8(qty)) for price, qty in side] for side in (bids, asks))
        self.send(WholeBook(symbol, 0, update_id, *levels))

    def trade(self, price: float, qty: float, side: int, symbol: str = "BTCUSDT") -> None:
        self.send(Trade(symbol, 0, 1, e8(price), e8(qty), side, False, True))

    def mark(self, price: float, symbol: str = "BTCUSDT", rate: float = 0.0001) -> None:
        self.send(MarkPrice(symbol, 0, e8(price), e8(price), e8(rate), 0))

    def call(self, method: str, path: str, key: str = "alice", **params: Any) -> Any:
        """Send a signed request and return the answer's body."""
        return msgspec.json.decode(self.reply(method, path, key, **params).body)

    def reply(self, method: str, path: str, key: str = "alice", **params: Any) -> Any:
        payload = urlencode({"timestamp": self.venue.now_ms, **params})
        signature = hmac.new(SECRETS[key].encode(), payload.encode(), hashlib.sha256).hexdigest()
        request = Request(method, path, f"{payload}&signature={signature}", api_key=key)
        return self.gateway.handle(request, (self.venue.now_ms,))

    def order(
        self, side: str, qty: float, price: float | None = None, key: str = "alice", **more: Any
    ) -> Any:
        """Place an order; with a price a limit order, good till cancelled unless said otherwise."""
        params: dict[str, Any] = {"symbol": "BTCUSDT", "side": side, "quantity": f"{qty:.3f}"}
        if price is None:
            params["type"] = "MARKET"
        else:
            params |= {"type": "LIMIT", "timeInForce": "GTC", "price": f"{price:.1f}"}
        return self.call("POST", "/fapi/v1/order", key, **(params | more))

    def events(self, key: str = "alice", kind: str = "ORDER_TRADE_UPDATE") -> list[dict[str, Any]]:
        """Return the user events of a kind, oldest first, and forget all events heard so far."""
        found = [event for event in self.heard[key] if event["e"] == kind]
        self.heard[key].clear()
        return found


@pytest.fixture(scope="module")
def served() -> Iterator[Exchange]:
    with Exchange(ScriptedSource(), ServeSpec(loop=True)) as running:
        yield running


@pytest.fixture
def exchange(served: Exchange) -> Iterator[Exchange]:
    """Return the exchange of a file's tests, without the faults of the one before."""
    yield served
    served.clear_faults()


@pytest.fixture
def bench() -> Bench:
    return Bench()
