"""Where the market comes from: an archive or raw recordings, as one stream of messages in exchange time.

Owns: the merge, and the form in which every source speaks. Never: a socket, a clock, an order.

A source is an iterable that can be walked again from its start, in bounded memory. Times are those of the
source; the exchange shifts them.
"""

from __future__ import annotations

import heapq
import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Final, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt
from msgspec import Struct

from gpuscalp.archive import Archive, choose_venue
from gpuscalp.archive.formats import SourceFile, recognise
from gpuscalp.archive.recording import RecordingReader
from gpuscalp.archive.source import lines_of
from gpuscalp.archive.streams import Rows
from gpuscalp.archive.tables import Table
from gpuscalp.errors import DecodeError, UsageError
from gpuscalp.feeds.binance import Decoder
from gpuscalp.feeds.book import BUFFER_MAX
from gpuscalp.feeds.messages import Batch, DepthSnapshot, DepthUpdate, Levels, MarkPrice, Ticker, Trade
from gpuscalp.schema import Instrument


class WholeBook(Struct, frozen=True):
    """All levels that the source knows at one moment; levels not named are not known to exist."""

    symbol: str
    exch_ns: int
    update_id: int
    bids: Levels
    asks: Levels


SourceMessage: TypeAlias = Trade | Ticker | DepthUpdate | WholeBook | MarkPrice
_RawMessage: TypeAlias = Trade | Ticker | DepthUpdate | DepthSnapshot | MarkPrice

# Messages from which tick and step of an unknown symbol are observed.
_OBSERVED: Final = 20_000


class Source(Protocol):
    """A market that can be replayed."""

    @property
    def instruments(self) -> tuple[Instrument, ...]:
        """The symbols; messages of others do not occur."""

    def messages(self) -> Iterator[SourceMessage]:
        """Yield everything from the start, in arrival order."""


class ArchiveSource:
    """An archive of ``gpuscalp data import``.

    Parameters
    ----------
    path : directory of the archive
    venue : None = its only venue
    symbols : empty = all

    Raises
    ------
    ArchiveError
        the archive is damaged
    UsageError
        the venue or a symbol is not there, or the archive has several venues and none was named
    """

    def __init__(
        self,
        path: Path,
        *,
        venue: str | None = None,
        symbols: Sequence[str] = (),
    ) -> None:
        self._archive = Archive.open(path)
        self._venue = choose_venue(self._archive, venue)
        self.instruments = self._archive.instruments(self._venue, symbols)
        self._symbols = sorted({item.symbol for item in self.instruments})

    def messages(self) -> Iterator[SourceMessage]:
        """Yield the rows as messages; memory is about one row group per symbol and table."""
        for messages in self._archive.arrivals(self._made, self._venue, self._symbols):
            yield from messages.tolist()

    def _made(self, rows: Rows, table: Table, symbol_index: int) -> npt.NDArray[np.object_]:
        make, names = _MAKERS[table.name]
        symbol = self._symbols[symbol_index]
        columns = (rows[name].tolist() for name in names)
        messages = (make(symbol, *values) for values in zip(*columns, strict=True))
        return np.fromiter(messages, np.object_, len(rows["recv_ns"]))


def _trade(symbol: str, exch_ns: int, trade_id: int, price_e8: int, qty_e8: int, side: int) -> Trade:
    return Trade(symbol, exch_ns, trade_id, price_e8, qty_e8, side, False, True)


def _book(symbol: str, exch_ns: int, update_id: int, *sides: list[int]) -> WholeBook:
    bid_price_e8, bid_qty_e8, ask_price_e8, ask_qty_e8 = sides
    return WholeBook(
        symbol, exch_ns, update_id, _levels(bid_price_e8, bid_qty_e8), _levels(ask_price_e8, ask_qty_e8)
    )


def _levels(price_e8: list[int], qty_e8: list[int]) -> Levels:
    return [(price, qty) for price, qty in zip(price_e8, qty_e8, strict=True) if price and qty]


_SIDES: Final = ("bid_price_e8", "bid_qty_e8", "ask_price_e8", "ask_qty_e8")
# By table: what makes a message, and the columns that it takes after the symbol.
_MAKERS: Final[dict[str, tuple[Callable[..., SourceMessage], tuple[str, ...]]]] = {
    "trades": (_trade, ("exch_ns", "trade_id", "price_e8", "qty_e8", "side")),
    "quotes": (Ticker, ("exch_ns", "update_id", *_SIDES)),
    "books": (_book, ("exch_ns", "update_id", *_SIDES)),
    "marks": (
        MarkPrice,
        ("exch_ns", "mark_price_e8", "index_price_e8", "funding_rate_e8", "next_funding_ns"),
    ),
}


class RecordingSource:
    """Raw recordings of USD-M messages, merged by receive time. Lines that cannot be read are passed over,
    as ``gpuscalp data import`` would set them aside; partial books and klines carry nothing here.

    Parameters
    ----------
    paths : recordings
    instruments : what is known of the symbols (``gpuscalp.archive.instruments``); symbols that it does not
        name are observed: the tick is the greatest common divisor of the first prices
    """

    def __init__(self, paths: Sequence[Path], *, instruments: dict[str, Instrument] | None = None) -> None:
        files = [recognise(Path(path)) for path in paths]
        for file in files:
            if not isinstance(file.reader(), RecordingReader) or file.venue != "binance_usdm":
                raise UsageError(
                    "not a raw recording of USD-M",
                    where=str(file.path),
                    fix="import it with `gpuscalp data import` and serve the archive",
                )
        self._files = files
        known = instruments or {}
        names = sorted({symbol for file in files for symbol in file.symbols})
        observed = _observe(self._raw(), [name for name in names if name not in known])
        self.instruments = tuple(
            known.get(name) or observed[name] for name in names if name in known | observed
        )
        self._names = frozenset(item.symbol for item in self.instruments)

    def messages(self) -> Iterator[SourceMessage]:
        """Yield what the recording shows; of a symbol's book nothing before its first snapshot."""
        joins = {name: _Join() for name in self._names}
        for message in self._raw():
            join = joins.get(message.symbol)
            if join is None:
                continue
            if isinstance(message, DepthSnapshot):
                yield from join.on_snapshot(message)
            elif isinstance(message, DepthUpdate):
                yield from join.on_diff(message)
            else:
                yield message

    def _raw(self) -> Iterator[_RawMessage]:
        streams = [_decoded(file) for file in self._files]
        for _, message in heapq.merge(*streams, key=lambda item: item[0]):
            yield message


class _Join:
    """Joins snapshots and updates of one symbol. Updates after a hole are passed on as they are, and kept,
    so that a snapshot that comes later can be completed by them."""

    def __init__(self) -> None:
        self._last_id: int | None = None
        self._whole = False
        self._kept: deque[DepthUpdate] = deque(maxlen=BUFFER_MAX)

    def on_diff(self, diff: DepthUpdate) -> Iterator[SourceMessage]:
        if self._last_id is not None and diff.last_id <= self._last_id:
            return
        if self._last_id is not None and diff.previous_id > self._last_id:
            self._whole = False
        if not self._whole:
            self._kept.append(diff)
        if self._last_id is not None:
            self._last_id = diff.last_id
            yield diff

    def on_snapshot(self, snapshot: DepthSnapshot) -> Iterator[SourceMessage]:
        if self._whole:
            return
        later = [diff for diff in self._kept if diff.last_id > snapshot.last_id]
        if later and later[0].previous_id > snapshot.last_id:
            return  # too old to join what follows
        yield WholeBook(snapshot.symbol, snapshot.exch_ns, snapshot.last_id, snapshot.bids, snapshot.asks)
        yield from later
        self._kept.clear()
        self._whole, self._last_id = True, later[-1].last_id if later else snapshot.last_id


def _decoded(file: SourceFile) -> Iterator[tuple[int, _RawMessage]]:
    reader, decoder = file.reader(), Decoder()
    newest = 0
    for number, line in enumerate(lines_of(file.path)):
        try:
            record = reader.read(line, number)
            if record is None:
                continue
            newest, body = max(newest, record[0]), record[2]
            message = decoder.decode(body) if isinstance(body, bytes) else body
        except DecodeError:
            continue
        for item in message.messages if isinstance(message, Batch) else (message,):
            if isinstance(item, Trade) and not item.market:
                continue
            if isinstance(item, Trade | Ticker | DepthUpdate | DepthSnapshot | MarkPrice):
                yield newest, item


def _observe(messages: Iterator[_RawMessage], wanted: Sequence[str]) -> dict[str, Instrument]:
    """Return tick and step of symbols as the greatest common divisors of their first prices and quantities.
    A snapshot alone has a thousand levels; the best levels of the quotes alone would do as well."""
    prices, lots = dict.fromkeys(wanted, 0), dict.fromkeys(wanted, 0)
    for message in islice(messages, _OBSERVED if wanted else 0):
        name = message.symbol
        if name not in prices:
            continue
        if isinstance(message, Trade):
            pairs = [(message.price_e8, message.qty_e8)]
        elif isinstance(message, Ticker):
            pairs = [
                (message.bid_price_e8, message.bid_qty_e8),
                (message.ask_price_e8, message.ask_qty_e8),
            ]
        elif isinstance(message, DepthUpdate | DepthSnapshot):
            pairs = [*message.bids, *message.asks]
        else:
            continue
        prices[name] = math.gcd(prices[name], *(price for price, _ in pairs))
        lots[name] = math.gcd(lots[name], *(qty for _, qty in pairs))
    return {
        name: Instrument(name, "binance_usdm", prices[name], lots[name], lots[name], 0, "observed")
        for name in wanted
        if prices[name] and lots[name]
    }
