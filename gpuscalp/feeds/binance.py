"""Decoding of Binance market messages, USD-M futures and spot: bytes in, one typed message out.

Owns: the venue's field names and quirks. Never: touches a socket or a file, keeps state of a market, or
reads a clock. Used alike by the importer and by a live feed.

Which time becomes ``exch_ns``: the event time ``E``, when the exchange sent the message, not the
transaction time ``T``. Before ``E`` nobody outside could know of the event, and the streams of one symbol
are nearly in order by ``E``: in the recordings of 2023 3 % of the trades lie more than 20 ms (up to 2 s)
behind the newest ``T`` already received, against 0.5 % (up to 0.26 s) by ``E``.

Source of the field names: Binance developer documentation, USD-M futures and spot market streams.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Annotated, Any, Final, Literal, cast

import msgspec
from msgspec import Meta, Raw, Struct, field

from gpuscalp.errors import DecodeError
from gpuscalp.feeds.decimals import DecimalCache, parse_e8
from gpuscalp.feeds.messages import (
    Batch,
    DepthSnapshot,
    DepthUpdate,
    Ignored,
    Levels,
    MarkPrice,
    Message,
    Ticker,
    Trade,
)
from gpuscalp.feeds.times import to_ns

_COMBINED: Final = b'{"stream":"'
_ROUTES_MAX: Final = 4_096

# Streams that make no rows. Partial books (``depth20``) are no diffs although they look like some, and the
# RPI book counts quantities that a taker by API cannot reach: neither may be taken for the book.
_IGNORED_STREAMS: Final = frozenset(
    (
        *("kline", "continuousKline", "indexPriceKline", "markPriceKline", "miniTicker", "ticker"),
        *("forceOrder", "compositeIndex", "contractInfo", "assetIndex", "tradingSession", "rpiDepth"),
        *("depth5", "depth10", "depth20", "avgPrice", "indexPrice"),
    )
)
_IGNORED_EVENTS: Final = frozenset(
    (
        *("kline", "continuous_kline", "indexPrice_kline", "markPrice_kline", "24hrMiniTicker"),
        *("24hrTicker", "1hTicker", "4hTicker", "forceOrder", "compositeIndex", "contractInfo"),
        *("assetIndexUpdate", "tradingSession", "avgPrice", "indexPriceUpdate", "serverShutdown"),
    )
)

# Kinds of trades that are none of the market: the insurance fund, auto-deleveraging, adjustments.
_NO_MARKET: Final = frozenset({"INSURANCE_FUND", "ADL", "NA"})

_WireLevels = list[tuple[str, str]]
# What is stored is int64; more would be accepted by Python and lost on the way to disk.
_Id = Annotated[int, Meta(ge=-1, le=2**63 - 1)]


class _WireTrade(Struct, gc=False):
    e: Literal["trade"]
    E: int
    s: str
    t: _Id
    p: str
    q: str
    m: bool
    X: str = "MARKET"  # spot has no such field


class _WireAggTrade(Struct, gc=False):
    e: Literal["aggTrade"]
    E: int
    s: str
    a: _Id
    p: str
    q: str
    m: bool


class _WireTicker(Struct, gc=False):
    u: _Id
    s: str
    b: str
    B: str
    a: str
    A: str
    E: int = 0
    e: Literal["bookTicker"] = "bookTicker"  # spot has neither event type nor time


class _WireDepth(Struct):
    e: Literal["depthUpdate"]
    E: int
    s: str
    U: _Id
    u: _Id
    b: _WireLevels
    a: _WireLevels
    pu: _Id | None = None  # spot has no such field


class _WireMark(Struct, gc=False):
    e: Literal["markPriceUpdate"]
    E: int
    s: str
    p: str
    i: str = ""
    r: str = ""  # empty for delivery contracts
    T: int = 0


class _WireSnapshot(Struct):
    last_id: _Id = field(name="lastUpdateId")
    bids: _WireLevels
    asks: _WireLevels
    E: int = 0


class _Combined(Struct):
    stream: str
    data: Raw


class _CombinedTrade(Struct):
    data: _WireTrade


class _CombinedAggTrade(Struct):
    data: _WireAggTrade


class _CombinedTicker(Struct):
    data: _WireTicker


class _CombinedDepth(Struct):
    data: _WireDepth


class _CombinedMark(Struct):
    data: _WireMark


class _CombinedMarks(Struct):
    data: list[_WireMark]


class _Head(Struct):
    """Enough of a bare message to tell what it is."""

    e: str | None = None
    stream: str | None = None
    last_id: int | None = field(name="lastUpdateId", default=None)
    u: int | None = None
    id: int | str | None = None
    code: int | None = None


_Decode = Callable[[bytes | Raw], Any]
_Build = Callable[[Any], Any]
_Route = tuple[_Decode, _Build, str]  # with the symbol that the stream name promises, or nothing


class Decoder:
    """Decode messages of one venue. Keeps two bounded caches (numbers, stream names) and no other state."""

    def __init__(self) -> None:
        self._numbers = DecimalCache(least_e8=0)
        self._positive = DecimalCache(least_e8=1)
        self._routes: dict[bytes, _Route] = {}
        self._combined = msgspec.json.Decoder(_Combined).decode
        self._head = msgspec.json.Decoder(_Head).decode
        self._by_stream: dict[str, tuple[_Decode, _Build]] = {
            "trade": _route(_CombinedTrade, self._trade),
            "aggTrade": _route(_CombinedAggTrade, self._aggregate),
            "bookTicker": _route(_CombinedTicker, self._ticker),
            "depth": _route(_CombinedDepth, self._depth),
            "markPrice": _route(_CombinedMark, self._mark),
            "!markPrice": _route(_CombinedMarks, self._marks),
        }
        self._by_event: dict[str, tuple[_Decode, _Build]] = {
            "trade": _route(_WireTrade, self._trade),
            "aggTrade": _route(_WireAggTrade, self._aggregate),
            "bookTicker": _route(_WireTicker, self._ticker),
            "depthUpdate": _route(_WireDepth, self._depth),
            "markPriceUpdate": _route(_WireMark, self._mark),
            "snapshot": _route(_WireSnapshot, self._snapshot),
            "markPrices": _route(list[_WireMark], self._marks),
        }

    def decode(self, message: bytes) -> Message:
        """Decode one message.

        Parameters
        ----------
        message : one JSON document: a combined frame ``{"stream":…,"data":…}``, a bare stream message, or a
            REST depth snapshot

        Returns
        -------
        Message
            ``Ignored`` for well-formed messages that make no rows: klines, liquidations, partial books,
            replies to subscriptions, error notices

        Raises
        ------
        DecodeError
            not JSON, a field missing or of the wrong type, a number that is not exact in int64 × 1e-8, or a
            time that is no time; names the field and the value
        """
        try:
            if message.startswith(_COMBINED):
                name = message[11 : message.find(b'"', 11)]
                route = self._routes.get(name)
                if route is None:
                    route = self._find_route(name)
                decode, build, expected = route
                made = build(decode(message).data)
                if expected and made.symbol != expected:
                    raise DecodeError("symbol differs from the stream's", where="s", value=made.symbol)
                return cast(Message, made)
            return self._decode_bare(message)
        except msgspec.ValidationError as error:
            text, _, path = str(error).partition(" - at ")
            raise DecodeError(
                "field missing or of the wrong type", where=path.strip("`"), value=text
            ) from None
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise DecodeError("not JSON", value=str(error)) from None

    def _find_route(self, name: bytes) -> _Route:
        """Choose by stream name, and remember."""
        symbol, _, kind = name.decode("utf-8").partition("@")
        expected = symbol.upper()
        if symbol.startswith("!"):
            expected, kind = "", symbol if symbol == "!markPrice" else symbol[1:]
        stem = re.split("[@_]", kind, maxsplit=1)[0]
        found = self._by_stream.get(stem)
        if found is not None:
            route = (*found, expected)
        elif stem in _IGNORED_STREAMS:
            ignored = Ignored(kind=stem)
            route = (self._combined, lambda _: ignored, "")
        else:
            raise DecodeError("stream of an unknown kind", where="stream", value=name[:80].decode())
        if len(self._routes) >= _ROUTES_MAX:
            self._routes.clear()
        self._routes[name] = route
        return route

    def _decode_bare(self, message: bytes) -> Message:
        if message[:1] == b"[":
            decode, build = self._by_event["markPrices"]
            return cast(Message, build(decode(message)))
        head = self._head(message)
        if head.stream is not None:
            # A combined frame with other spacing or order of keys.
            frame = self._combined(message)
            return self.decode(
                b'{"stream":"' + frame.stream.encode() + b'","data":' + bytes(frame.data) + b"}"
            )
        if head.e is not None:
            route = self._by_event.get(head.e)
            if route is None:
                if head.e in _IGNORED_EVENTS:
                    return Ignored(kind=head.e)
                raise DecodeError("event of an unknown kind", where="e", value=head.e[:80])
        elif head.last_id is not None:
            route = self._by_event["snapshot"]
        elif head.u is not None:
            route = self._by_event["bookTicker"]
        elif head.code is not None:
            return Ignored(kind="venue_error")
        elif head.id is not None:
            return Ignored(kind="reply")
        else:
            raise DecodeError("message of an unknown shape", value=message[:80].decode("utf-8", "replace"))
        decode, build = route
        return cast(Message, build(decode(message)))

    def _trade(self, wire: _WireTrade) -> Trade:
        market = wire.X == "MARKET"
        if not market and wire.X not in _NO_MARKET:
            raise DecodeError("trade of an unknown kind", where="X", value=wire.X[:80])
        # Adjustments of the venue itself (X = NA) may have neither price nor quantity.
        numbers = self._positive if market else self._numbers
        try:
            price, qty = numbers[wire.p], numbers[wire.q]
        except DecodeError as error:
            raise _named(error, wire, "pq") from None
        return Trade(wire.s, to_ns(wire.E), wire.t, price, qty, -1 if wire.m else 1, False, market)

    def _aggregate(self, wire: _WireAggTrade) -> Trade:
        try:
            price, qty = self._positive[wire.p], self._positive[wire.q]
        except DecodeError as error:
            raise _named(error, wire, "pq") from None
        return Trade(wire.s, to_ns(wire.E), wire.a, price, qty, -1 if wire.m else 1, True, True)

    def _ticker(self, wire: _WireTicker) -> Ticker:
        numbers = self._numbers
        try:
            bid, bid_qty, ask, ask_qty = numbers[wire.b], numbers[wire.B], numbers[wire.a], numbers[wire.A]
        except DecodeError as error:
            raise _named(error, wire, "bBaA") from None
        return Ticker(wire.s, to_ns(wire.E) if wire.E else 0, wire.u, bid, bid_qty, ask, ask_qty)

    def _depth(self, wire: _WireDepth) -> DepthUpdate:
        bids, asks = self._levels(wire.b, "b"), self._levels(wire.a, "a")
        previous = wire.U - 1 if wire.pu is None else wire.pu
        if wire.u < wire.U or previous >= wire.u:
            raise DecodeError(
                "update ids are not in order", where="U, u, pu", value=(wire.U, wire.u, wire.pu)
            )
        return DepthUpdate(wire.s, to_ns(wire.E), wire.U, wire.u, previous, bids, asks)

    def _snapshot(self, wire: _WireSnapshot) -> DepthSnapshot:
        bids, asks = self._levels(wire.bids, "bids"), self._levels(wire.asks, "asks")
        return DepthSnapshot("", to_ns(wire.E) if wire.E else 0, wire.last_id, bids, asks)

    def _mark(self, wire: _WireMark) -> MarkPrice:
        numbers = self._numbers
        try:
            mark, index = numbers[wire.p], numbers[wire.i] if wire.i else 0
        except DecodeError as error:
            raise _named(error, wire, "pi") from None
        try:
            funding = parse_e8(wire.r) if wire.r else 0
        except DecodeError as error:
            raise DecodeError(error.what, where="r", value=error.value) from None
        return MarkPrice(wire.s, to_ns(wire.E), mark, index, funding, to_ns(wire.T) if wire.T else 0)

    def _marks(self, wires: list[_WireMark]) -> Batch:
        return Batch(tuple(self._mark(wire) for wire in wires))

    def _levels(self, levels: _WireLevels, name: str) -> Levels:
        prices, quantities = self._positive, self._numbers
        try:
            return [(prices[price], quantities[qty]) for price, qty in levels]
        except DecodeError as error:
            raise DecodeError(error.what, where=name, value=error.value) from None


def _named(error: DecodeError, wire: Struct, names: str) -> DecodeError:
    """Return the error with the field that it came from."""
    fields = [name for name in names if str(getattr(wire, name))[:80] == error.value]
    return DecodeError(error.what, where=fields[0] if fields else None, value=error.value)


def _route(wire: Any, build: _Build) -> tuple[_Decode, _Build]:
    return msgspec.json.Decoder(wire).decode, build
