"""NautilusTrader's Binance adapter, with what has to be another way for a session.

Owns: every change of its clients, made on those that the adapter's own factories return. Each is made sure of
when a client is made: an adapter that reads in another way than those that were tried (1.221, 1.231) is
refused, because what it would do instead shows nowhere.

* Market messages are dated by their event time ``E``, as everywhere here (``gpuscalp.feeds.binance``). The
  adapter takes the transaction time ``T``, which lies before it: 154 ms for half of the trades recorded in
  April 2021, 4 ms for quotes. So dated, more than half of the trades came after their frame had closed.
* Of the exchange's list only the symbols that are traded are read: it is decoded strictly, and one symbol
  anywhere in a state that the adapter does not know (``BREAK``) kept every session from starting.
* Nautilus is told of no order that ended before it began.
* The stream of the account's events is kept by ``gpuscalp.nautilus.user_stream``.
"""

from __future__ import annotations

from collections.abc import Iterable
from importlib import metadata
from types import SimpleNamespace
from typing import Any, Final, final

import msgspec
from msgspec import Struct
from msgspec.structs import force_setattr
from nautilus_trader.adapters.binance import BinanceLiveDataClientFactory, BinanceLiveExecClientFactory
from nautilus_trader.adapters.binance.common.schemas.market import (
    BinanceAggregatedTradeData,
    BinanceOrderBookData,
    BinanceQuoteData,
)
from nautilus_trader.adapters.binance.common.symbol import BinanceSymbol
from nautilus_trader.adapters.binance.futures.enums import BinanceFuturesEventType
from nautilus_trader.adapters.binance.futures.schemas.market import BinanceFuturesExchangeInfo

from gpuscalp.errors import ConfigError
from gpuscalp.nautilus.user_stream import REPLACED, UserStream
from gpuscalp.schema import NS_PER_MS


@final
class DataClients(BinanceLiveDataClientFactory):  # type: ignore[misc]
    """Makes the adapter's client of the market."""

    @staticmethod
    def create(**parts: Any) -> Any:
        client = BinanceLiveDataClientFactory.create(**parts)
        _date_by_event_time(client)
        _read_traded(client, parts["config"])
        return client


def exec_clients(stream: UserStream) -> type[Any]:
    """Return what makes the adapter's client of the account; its events come by a stream that is kept.

    Nautilus would make its positions again of the account's last 1,000 orders and 500 trades, at every start
    and after every cut: half a second for each symbol in which nothing else happens (2 cores, November 2026),
    with fills that it invents where the orders reach further back than the trades. What was filled while
    nobody looked is booked here, from the exchange's trades; Nautilus begins with what is open now.
    """

    @final
    class ExecClients(BinanceLiveExecClientFactory):  # type: ignore[misc]
        @staticmethod
        def create(**parts: Any) -> Any:
            client, cache = BinanceLiveExecClientFactory.create(**parts), parts["cache"]
            orders_of, fills_of = client.generate_order_status_reports, client.generate_fill_reports

            async def orders(command: Any) -> list[Any]:
                reports = await orders_of(command)
                known = cache.order
                return [each for each in reports if each.is_open or known(each.client_order_id) is not None]

            async def fills(command: Any) -> list[Any]:
                reports = await fills_of(command)
                return [each for each in reports if cache.client_order_id(each.venue_order_id) is not None]

            client.generate_order_status_reports = orders
            client.generate_fill_reports = fills
            _read_traded(client, parts["config"])
            _keep(client, stream)
            return client

    return ExecClients


# The event time


def _by_event_time(message: Any) -> None:
    """Put the event time where the adapter looks for the time."""
    force_setattr(message, "T", message.E)


class _Trade(BinanceAggregatedTradeData, frozen=True):  # type: ignore[misc, call-arg]
    __post_init__ = _by_event_time


class _Quote(BinanceQuoteData, frozen=True, kw_only=True):  # type: ignore[misc, call-arg]
    E: int  # the adapter does not read it

    __post_init__ = _by_event_time


class _Book(BinanceOrderBookData, frozen=True):  # type: ignore[misc, call-arg]
    __post_init__ = _by_event_time


class _TradeMessage(Struct, frozen=True):
    stream: str
    data: _Trade


class _QuoteMessage(Struct, frozen=True):
    stream: str
    data: _Quote


class _BookMessage(Struct, frozen=True):
    stream: str
    data: _Book


_EVENT_MS: Final = 2
# One message of each stream that is subscribed to, with an event time of 2 ms and a transaction time of 1 ms.
_PROBES: Final = (
    b'{"stream":"btcusdt@aggTrade","data":{"e":"aggTrade","E":2,"s":"BTCUSDT","a":1,"p":"1","q":"1","f":1,'
    b'"l":1,"T":1,"m":true}}',
    b'{"stream":"btcusdt@bookTicker","data":{"e":"bookTicker","u":1,"E":2,"T":1,"s":"BTCUSDT","b":"1","B":"1",'
    b'"a":"2","A":"1"}}',
    b'{"stream":"btcusdt@depth20@100ms","data":{"e":"depthUpdate","E":2,"T":1,"s":"BTCUSDT","U":1,"u":1,"pu":0,'
    b'"b":[["1","1"]],"a":[["2","1"]]}}',
    b'{"stream":"btcusdt@markPrice@1s","data":{"e":"markPriceUpdate","E":2,"s":"BTCUSDT","p":"1","i":"1",'
    b'"P":"1","r":"0","T":1}}',
)


def _date_by_event_time(client: Any) -> None:
    """Let a client date what it hands on by the event time.

    Raises
    ------
    ConfigError    it dates something by another time all the same
    """
    client._decoder_agg_trade_msg = msgspec.json.Decoder(_TradeMessage)
    client._decoder_quote_msg = msgspec.json.Decoder(_QuoteMessage)
    client._decoder_order_book_msg = msgspec.json.Decoder(_BookMessage)
    made: list[Any] = []
    client._handle_data = made.append
    try:
        for probe in _PROBES:
            made.clear()
            client._handle_ws_message(probe)
            if {each.ts_event for each in made} != {_EVENT_MS * NS_PER_MS}:
                raise _other_adapter(f"a message of {msgspec.json.decode(probe)['stream']}")
    except AttributeError as error:
        raise _other_adapter(str(error)) from None
    finally:
        del client._handle_data


# The list of symbols


@final
class _Listing:
    """Decodes the exchange's list, of the symbols that are traded."""

    type = BinanceFuturesExchangeInfo

    def __init__(self, symbols: Iterable[str]) -> None:
        self._symbols = frozenset(symbols)

    def decode(self, raw: bytes) -> Any:
        found = msgspec.json.decode(raw)
        found["symbols"] = [each for each in found["symbols"] if each["symbol"] in self._symbols]
        return msgspec.convert(found, self.type)


def _read_traded(client: Any, config: Any) -> None:
    """Let a client read of the exchange's list only what it is to load.

    Raises
    ------
    ConfigError    it reads the list in another way
    """
    symbols = [str(BinanceSymbol(each.symbol.value)) for each in config.instrument_provider.load_ids]
    try:
        endpoint = client._instrument_provider._http_market._endpoint_futures_exchange_info
        known = endpoint._get_resp_decoder.type is BinanceFuturesExchangeInfo
    except AttributeError as error:
        raise _other_adapter(str(error)) from None
    if not known:
        raise _other_adapter("GET /fapi/v1/exchangeInfo")
    endpoint._get_resp_decoder = _Listing(symbols)


# The stream of the account

_ORDER: Final = BinanceFuturesEventType.ORDER_TRADE_UPDATE


def _keep(client: Any, stream: UserStream) -> None:
    """Let a stream be kept by its keeper and nobody else, and be told when it has told of an order.

    The adapter logs what it cannot read, and goes on: nobody has heard of that order then.

    Raises
    ------
    ConfigError    the adapter would do it in another way
    """
    told: list[Any] = []
    try:
        user, handlers = client._ws_client, client._futures_user_ws_handlers
        loop, hand_on, handle = user._loop, user._handler, handlers[_ORDER]

        def handle_and_count(raw: bytes) -> None:
            handle(raw)
            stream.on_event()

        user._loop, user._handler = SimpleNamespace(create_task=lambda _: None), told.append
        handlers[_ORDER] = told.append
        for name in REPLACED:
            setattr(user, name, lambda: told.append("again"))
        for what, happens in {
            "an event of the account": lambda: user._handle_stream_message(b"{}"),
            "an event of an order": lambda: hand_on(b'{"e":"ORDER_TRADE_UPDATE"}'),
            "a listen key that has expired": lambda: user._handle_stream_message(b'{"e":"listenKeyExpired"}'),
            "a stream that was cut": user._handle_stream_reconnect,
            "a session that was cut": user._handle_reconnect,
        }.items():
            told.clear()
            happens()
            if len(told) != 1:
                raise _other_adapter(what)
        user._loop, user._handler, handlers[_ORDER] = loop, hand_on, handle_and_count
        stream.take(user)
    except (AttributeError, KeyError) as error:
        raise _other_adapter(str(error)) from None


def _other_adapter(value: str) -> ConfigError:
    return ConfigError(
        "the Binance adapter of this NautilusTrader reads in another way than those that were tried",
        where=f"NautilusTrader {metadata.version('nautilus_trader')}",
        value=value,
        fix="install the version in constraints.txt   (docs/nautilus_live.md)",
    )
