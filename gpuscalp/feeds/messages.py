"""What a venue can say, as typed rows. Prices and quantities are int64 multiples of 1e-8, times ns UTC.

Owns: the vocabulary between decoders and the market state. No behaviour.
"""

from __future__ import annotations

from typing import Final, TypeAlias

from msgspec import Struct

Levels: TypeAlias = list[tuple[int, int]]

# Levels a side of the partial books that the venue sends.
PARTIAL_DEPTHS: Final = (5, 10, 20)


class Trade(Struct, frozen=True, gc=False):
    """One trade, or one aggregate of trades of the same taker and price.

    ``side``: +1 the taker bought, -1 the taker sold. ``market`` is false for fills of the insurance fund
    and of auto-deleveraging: they carry ids of the same chain but are no market trades.
    """

    symbol: str
    exch_ns: int
    trade_id: int
    price_e8: int
    qty_e8: int
    side: int
    aggregate: bool
    market: bool


class Ticker(Struct, frozen=True, gc=False):
    """Best bid and ask. ``exch_ns`` is 0 where the venue does not date the message (spot)."""

    symbol: str
    exch_ns: int
    update_id: int
    bid_price_e8: int
    bid_qty_e8: int
    ask_price_e8: int
    ask_qty_e8: int


class DepthUpdate(Struct, frozen=True):
    """A change of the book: absolute quantities by price, 0 removes the level.

    The update covers the ids ``previous_id`` (excluded) to ``last_id`` (included). USD-M names the previous
    id itself (``pu``); on spot it is ``first_id - 1``.
    """

    symbol: str
    exch_ns: int
    first_id: int
    last_id: int
    previous_id: int
    bids: Levels
    asks: Levels


class PartialBook(Struct, frozen=True):
    """The best levels of the book, all of them: a level that is not named is not among the best ``depth``.

    The ids are those of an update; ``previous_id`` is the last one of the message before on the same stream.
    """

    symbol: str
    exch_ns: int
    depth: int
    first_id: int
    last_id: int
    previous_id: int
    bids: Levels
    asks: Levels


class DepthSnapshot(Struct, frozen=True):
    """The book as the REST call gives it. ``symbol`` is empty where the reply does not name it, ``exch_ns``
    0 where it is not dated."""

    symbol: str
    exch_ns: int
    last_id: int
    bids: Levels
    asks: Levels


class MarkPrice(Struct, frozen=True, gc=False):
    """Mark price, index price and the running funding. A price or time of 0 is unknown."""

    symbol: str
    exch_ns: int
    mark_price_e8: int
    index_price_e8: int
    funding_rate_e8: int
    next_funding_ns: int


class Liquidation(Struct, frozen=True, gc=False):
    """An order that closed the position of an account without margin: the largest of its symbol within a
    second, not all of them.

    ``side``: +1 the order bought (a short position was closed), -1 it sold. ``average_price_e8`` is of what
    was filled, 0 where nothing was. ``status`` is the venue's word, such as FILLED.
    """

    symbol: str
    exch_ns: int
    side: int
    price_e8: int
    average_price_e8: int
    qty_e8: int
    status: str


class Ignored(Struct, frozen=True, gc=False):
    """A well-formed message that makes no rows; ``kind`` is what it is counted under."""

    kind: str


class Batch(Struct, frozen=True):
    """Several messages that came as one, such as all mark prices."""

    messages: tuple[MarkPrice | Ticker | Liquidation | Ignored, ...]


Message: TypeAlias = (
    Trade | Ticker | DepthUpdate | PartialBook | DepthSnapshot | MarkPrice | Liquidation | Batch | Ignored
)
