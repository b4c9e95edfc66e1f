"""Decoding of Binance market messages, USD-M futures and spot: bytes in, one typed message out.

Owns: what messages mean, the venue's quirks. Never: touches a socket or a file, keeps state of a market, or
reads a clock. Used alike by the importer and by a live feed. The field names are ``binance_forms``'s.

Which time becomes ``exch_ns``: the event time ``E``, when the exchange sent the message, not the
transaction time ``T``. Before ``E`` nobody outside could know of the event, and the streams of one symbol
are nearly in order by ``E``: in the recordings of 2023 3 % of the trades lie more than 20 ms (up to 2 s)
behind the newest ``T`` already received, against 0.5 % (up to 0.26 s) by ``E``.

A partial book (``depth20``) has the keys of a diff: only the name of its stream tells it apart, so that a
bare one is taken for a diff.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any, Final, cast

import msgspec
from msgspec import Raw, Struct

from gpuscalp.errors import DecodeError
from gpuscalp.feeds import binance_forms as forms
from gpuscalp.feeds.decimals import DecimalCache, parse_e8
from gpuscalp.feeds.messages import (
    PARTIAL_DEPTHS,
    Batch,
    DepthSnapshot,
    DepthUpdate,
    Ignored,
    Levels,
    Liquidation,
    MarkPrice,
    Message,
    PartialBook,
    Ticker,
    Trade,
)
from gpuscalp.feeds.times import to_ns

_COMBINED: Final = b'{"stream":"'
_ROUTES_MAX: Final = 4_096

# Streams that make no rows. The RPI book counts quantities that a taker by API cannot reach: it may not be
# taken for the book, although its messages look like diffs.
_IGNORED_STREAMS: Final = frozenset(
    (
        *("kline", "continuousKline", "indexPriceKline", "markPriceKline", "miniTicker", "ticker"),
        *("compositeIndex", "contractInfo", "assetIndex", "tradingSession", "rpiDepth"),
        *("avgPrice", "indexPrice"),
    )
)
_IGNORED_EVENTS: Final = frozenset(
    (
        *("kline", "continuous_kline", "indexPrice_kline", "markPrice_kline", "24hrMiniTicker"),
        *("24hrTicker", "1hTicker", "4hTicker", "compositeIndex", "contractInfo", "EquityUpdate"),
        *("assetIndexUpdate", "tradingSession", "avgPrice", "indexPriceUpdate", "serverShutdown"),
    )
)
# A message of COIN-M, which is another market even where its symbol looks like one of ours.
_OTHER_MARGIN: Final = Ignored("other_margin")

# Kinds of trades that are none of the market: the insurance fund, auto-deleveraging, adjustments.
_NO_MARKET: Final = frozenset({"INSURANCE_FUND", "ADL", "NA"})


class Decoder:
    """Decode messages of one venue. Keeps two bounded caches (numbers, stream names) and no other state: what
    is compiled lies in the module, so that an instance is plain data."""

    def __init__(self) -> None:
        self._numbers = DecimalCache(least_e8=0)
        self._positive = DecimalCache(least_e8=1)
        # By name of a stream: its kind, and the symbol that the name promises, or nothing.
        self._routes: dict[bytes, tuple[str, str]] = {}

    def decode(self, message: bytes) -> Message:
        """Decode one message.

        Parameters
        ----------
        message : one JSON document: a combined frame ``{"stream":…,"data":…}``, a bare stream message, or a
            REST depth snapshot

        Returns
        -------
        Message
            ``Ignored`` for well-formed messages that nobody uses: klines, messages of COIN-M, partial books
            of spot (they name no ids), replies to subscriptions, error notices

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
                stem, expected = route
                found = _BY_STREAM.get(stem)
                if found is None:
                    _decode_combined(message)  # it has to be one
                    return Ignored(kind=stem)
                decode, build = found
                made = build(self, decode(message).data)
                if expected and type(made) is not Ignored and made.symbol != expected:
                    raise DecodeError("symbol differs from the stream's", where="s", value=made.symbol)
                return cast(Message, made)
            return self._decode_bare(message)
        except msgspec.ValidationError as error:
            text, _, path = str(error).partition(" - at ")
            raise DecodeError(
                "field missing or of the wrong type", where=path.strip("`") or "$", value=text
            ) from None
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise DecodeError("not JSON", value=str(error)) from None

    def _find_route(self, name: bytes) -> tuple[str, str]:
        """Choose by stream name, and remember."""
        symbol, _, kind = name.decode("utf-8").partition("@")
        expected = symbol.upper()
        if symbol.startswith("!"):
            expected, kind = "", symbol if symbol in _BY_STREAM else symbol[1:]
        stem = re.split("[@_]", kind, maxsplit=1)[0]
        if stem not in _BY_STREAM and stem not in _IGNORED_STREAMS:
            raise DecodeError("stream of an unknown kind", where="stream", value=name[:80].decode())
        if len(self._routes) >= _ROUTES_MAX:
            self._routes.clear()
        self._routes[name] = (stem, expected)
        return stem, expected

    def _decode_bare(self, message: bytes) -> Message:
        if message[:1] == b"[":
            return self._decode_array(message)
        head = _decode_head(message)
        if head.stream is not None:
            # A combined frame with other spacing or order of keys.
            frame = _decode_combined(message)
            return self.decode(
                b'{"stream":"' + frame.stream.encode() + b'","data":' + bytes(frame.data) + b"}"
            )
        if head.e is not None:
            route = _BY_EVENT.get(head.e)
            if route is None:
                if head.e in _IGNORED_EVENTS:
                    return Ignored(kind=head.e)
                raise DecodeError("event of an unknown kind", where="e", value=head.e[:80])
        elif head.last_id is not None:
            route = _BY_EVENT["snapshot"]
        elif head.u is not None:
            route = _BY_EVENT["bookTicker"]
        elif head.code is not None:
            return Ignored(kind="venue_error")
        elif head.id is not None:
            return Ignored(kind="reply")
        else:
            raise DecodeError("message of an unknown shape", value=message[:80].decode("utf-8", "replace"))
        decode, build = route
        return cast(Message, build(self, decode(message)))

    def _decode_array(self, message: bytes) -> Message:
        """Decode a bare array, as a stream over all symbols sends it: of one kind throughout."""
        heads = _decode_heads(message)
        if not heads:
            return Batch(())
        event = heads[0].e or ""
        if event in _IGNORED_EVENTS:
            return Ignored(kind=event)
        route = _BY_ARRAY.get(event)
        if route is None:
            raise DecodeError("event of an unknown kind", where="$[0].e", value=event[:80])
        decode, build = route
        return cast(Message, build(self, decode(message)))

    def _trade(self, wire: forms.WireTrade) -> Trade | Ignored:
        if wire.st != forms.USD_M:
            return _OTHER_MARGIN
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

    def _aggregate(self, wire: forms.WireAggTrade) -> Trade | Ignored:
        if wire.st != forms.USD_M:
            return _OTHER_MARGIN
        try:
            price, qty = self._positive[wire.p], self._positive[wire.q]
        except DecodeError as error:
            raise _named(error, wire, "pq") from None
        return Trade(wire.s, to_ns(wire.E), wire.a, price, qty, -1 if wire.m else 1, True, True)

    def _ticker(self, wire: forms.WireTicker) -> Ticker | Ignored:
        if wire.st != forms.USD_M:
            return _OTHER_MARGIN
        numbers = self._numbers
        try:
            bid, bid_qty, ask, ask_qty = numbers[wire.b], numbers[wire.B], numbers[wire.a], numbers[wire.A]
        except DecodeError as error:
            raise _named(error, wire, "bBaA") from None
        return Ticker(wire.s, to_ns(wire.E) if wire.E else 0, wire.u, bid, bid_qty, ask, ask_qty)

    def _depth(self, wire: forms.WireDepth) -> DepthUpdate | Ignored:
        if wire.st != forms.USD_M:
            return _OTHER_MARGIN
        bids, asks = self._levels(wire.b, "b"), self._levels(wire.a, "a")
        previous = wire.U - 1 if wire.pu is None else wire.pu
        if wire.u < wire.U or previous >= wire.u:
            raise DecodeError(
                "update ids are not in order", where="U, u, pu", value=(wire.U, wire.u, wire.pu)
            )
        return DepthUpdate(wire.s, to_ns(wire.E), wire.U, wire.u, previous, bids, asks)

    def _snapshot(self, wire: forms.WireSnapshot) -> DepthSnapshot:
        bids, asks = self._levels(wire.bids, "bids"), self._levels(wire.asks, "asks")
        return DepthSnapshot("", to_ns(wire.E) if wire.E else 0, wire.last_id, bids, asks)

    def _mark(self, wire: forms.WireMark) -> MarkPrice | Ignored:
        if wire.st != forms.USD_M:
            return _OTHER_MARGIN
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

    def _liquidation(self, wire: forms.WireLiquidation) -> Liquidation | Ignored:
        if wire.st != forms.USD_M:
            return _OTHER_MARGIN
        order, numbers = wire.o, self._numbers
        try:
            price, average, qty = numbers[order.p], numbers[order.ap], self._positive[order.q]
        except DecodeError as error:
            raise _named(error, order, ("p", "ap", "q")) from None
        side = 1 if order.S == "BUY" else -1
        return Liquidation(order.s, to_ns(wire.E), side, price, average, qty, order.X)

    def _levels(self, levels: forms.WireLevels, name: str) -> Levels:
        prices, quantities = self._positive, self._numbers
        try:
            return [(prices[price], quantities[qty]) for price, qty in levels]
        except DecodeError as error:
            raise DecodeError(error.what, where=name, value=error.value) from None


def _named(error: DecodeError, wire: Struct, names: Iterable[str]) -> DecodeError:
    """Return the error with the field that it came from."""
    fields = [name for name in names if str(getattr(wire, name))[:80] == error.value]
    return DecodeError(error.what, where=fields[0] if fields else None, value=error.value)


_Decode = Callable[[bytes | Raw], Any]
_Build = Callable[[Decoder, Any], Any]


def _route(wire: Any, build: _Build) -> tuple[_Decode, _Build]:
    return msgspec.json.Decoder(wire).decode, build


def _of_all(build: _Build) -> _Build:
    """Return what builds one message, or an array of them as a batch."""

    def built(decoder: Decoder, wires: Any) -> Any:
        if type(wires) is list:
            return Batch(tuple(build(decoder, wire) for wire in wires))
        return build(decoder, wires)

    return built


def _partial(depth: int) -> _Build:
    """Return what builds a partial book of so many levels a side."""

    def built(decoder: Decoder, raw: Raw) -> PartialBook | Ignored:
        if b'"lastUpdateId"' in bytes(memoryview(raw)[:32]):
            return Ignored(kind=f"depth{depth}")  # of spot
        made = decoder._depth(_decode_depth(raw))
        if isinstance(made, Ignored):
            return made
        ids = made.first_id, made.last_id, made.previous_id
        return PartialBook(made.symbol, made.exch_ns, depth, *ids, made.bids, made.asks)

    return built


_decode_combined: Final = msgspec.json.Decoder(forms.Combined).decode
_decode_head: Final = msgspec.json.Decoder(forms.Head).decode
_decode_heads: Final = msgspec.json.Decoder(list[forms.Head]).decode
_decode_depth: Final = msgspec.json.Decoder(forms.WireDepth).decode
_BY_STREAM: Final = {
    "trade": _route(forms.Framed[forms.WireTrade], Decoder._trade),
    "aggTrade": _route(forms.Framed[forms.WireAggTrade], Decoder._aggregate),
    "bookTicker": _route(forms.Framed[forms.WireTicker], Decoder._ticker),
    "depth": _route(forms.Framed[forms.WireDepth], Decoder._depth),
    "markPrice": _route(forms.Framed[forms.WireMark], Decoder._mark),
    "forceOrder": _route(forms.Framed[forms.WireLiquidation], Decoder._liquidation),
    "!bookTicker": _route(forms.Framed[forms.WireTicker | list[forms.WireTicker]], _of_all(Decoder._ticker)),
    "!markPrice": _route(forms.Framed[forms.WireMark | list[forms.WireMark]], _of_all(Decoder._mark)),
    "!forceOrder": _route(
        forms.Framed[forms.WireLiquidation | list[forms.WireLiquidation]], _of_all(Decoder._liquidation)
    ),
    **{f"depth{depth}": _route(forms.Framed[Raw], _partial(depth)) for depth in PARTIAL_DEPTHS},
}
_BY_EVENT: Final = {
    "trade": _route(forms.WireTrade, Decoder._trade),
    "aggTrade": _route(forms.WireAggTrade, Decoder._aggregate),
    "bookTicker": _route(forms.WireTicker, Decoder._ticker),
    "depthUpdate": _route(forms.WireDepth, Decoder._depth),
    "markPriceUpdate": _route(forms.WireMark, Decoder._mark),
    "forceOrder": _route(forms.WireLiquidation, Decoder._liquidation),
    "snapshot": _route(forms.WireSnapshot, Decoder._snapshot),
}
_BY_ARRAY: Final = {
    "bookTicker": _route(list[forms.WireTicker], _of_all(Decoder._ticker)),
    "markPriceUpdate": _route(list[forms.WireMark], _of_all(Decoder._mark)),
    "forceOrder": _route(list[forms.WireLiquidation], _of_all(Decoder._liquidation)),
}
