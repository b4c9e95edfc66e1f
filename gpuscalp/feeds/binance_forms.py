"""The venue's field names, as msgspec decodes them: one struct a message.

Owns: names, types, and which fields may be missing. Never: what a message means (``gpuscalp.feeds.binance``).

``st`` is the margin type, which streams over all symbols mix since 2026-06-30: 1 is USD-M, 2 is COIN-M. A
message without it is of the time before, or of spot.

Source of the field names: Binance developer documentation, USD-M futures and spot market streams.
"""

from __future__ import annotations

from typing import Annotated, Generic, Literal, TypeVar

from msgspec import Meta, Raw, Struct, field

T = TypeVar("T")

USD_M = 1

WireLevels = list[tuple[str, str]]
# What is stored is int64; more would be accepted by Python and lost on the way to disk.
_Id = Annotated[int, Meta(ge=-1, le=2**63 - 1)]


class WireTrade(Struct, gc=False):
    e: Literal["trade"]
    E: int
    s: str
    t: _Id
    p: str
    q: str
    m: bool
    X: str = "MARKET"  # spot has no such field
    st: int = USD_M


class WireAggTrade(Struct, gc=False):
    e: Literal["aggTrade"]
    E: int
    s: str
    a: _Id
    p: str
    q: str
    m: bool
    st: int = USD_M


class WireTicker(Struct, gc=False):
    u: _Id
    s: str
    b: str
    B: str
    a: str
    A: str
    E: int = 0
    e: Literal["bookTicker"] = "bookTicker"  # spot has neither event type nor time
    st: int = USD_M


class WireDepth(Struct):
    e: Literal["depthUpdate"]
    E: int
    s: str
    U: _Id
    u: _Id
    b: WireLevels
    a: WireLevels
    pu: _Id | None = None  # spot has no such field
    st: int = USD_M


class WireMark(Struct, gc=False):
    e: Literal["markPriceUpdate"]
    E: int
    s: str
    p: str
    i: str = ""
    r: str = ""  # empty for delivery contracts
    T: int = 0
    st: int = USD_M


class WireLiquidated(Struct, gc=False):
    """The order inside a liquidation."""

    s: str
    S: Literal["BUY", "SELL"]
    q: str
    p: str
    ap: str
    X: str


class WireLiquidation(Struct, gc=False):
    e: Literal["forceOrder"]
    E: int
    o: WireLiquidated
    st: int = USD_M


class WireSnapshot(Struct):
    last_id: _Id = field(name="lastUpdateId")
    bids: WireLevels
    asks: WireLevels
    E: int = 0


class Combined(Struct):
    stream: str
    data: Raw


class Framed(Struct, Generic[T]):
    """What a combined frame holds, without the name of its stream."""

    data: T


class Head(Struct):
    """Enough of a bare message to tell what it is."""

    e: str | None = None
    stream: str | None = None
    last_id: int | None = field(name="lastUpdateId", default=None)
    u: int | None = None
    id: int | str | None = None
    code: int | None = None
