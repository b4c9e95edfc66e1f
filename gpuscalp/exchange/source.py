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

from msgspec import Struct

from gpuscalp.archive import Archive
from gpuscalp.archive.formats import SourceFile, recognise
from gpuscalp.archive.recording import RecordingReader
from gpuscalp.archive.source import lines_of
from gpuscalp.archive.streams import PartReader, Rows
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
        venues = self._archive.venues()
        if venue is None and len(venues) != 1:
            raise UsageError(
                "the archive has several venues",
                where=str(path),
                value=", ".join(venues),
                fix="name one with --venue",
            )
        self._venue = venue or venues[0]
        self.instruments = self._archive.instruments(self._venue, symbols)
        self._symbols = tuple(item.symbol for item in self.instruments)

    def messages(self) -> Iterator[SourceMessage]:
        """Yield the rows as messages; memory is about one row group per symbol and table."""
        parts = self._archive.manifest.select(self._venue, self._symbols)
        by_table: dict[tuple[str, str], list[PartReader]] = {}
        for part in sorted(parts, key=lambda part: part.first_recv_ns):
            reader = PartReader(self._archive.path, part, None, None)
            by_table.setdefault((part.symbol, part.table), []).append(reader)
        streams = [_rows(symbol, table, readers) for (symbol, table), readers in sorted(by_table.items())]
        for _, _, _, message in heapq.merge(*streams, key=lambda item: item[:3]):
            yield message


_Row: TypeAlias = tuple[int, int, str, SourceMessage]


def _rows(symbol: str, table: str, readers: Sequence[PartReader]) -> Iterator[_Row]:
    for reader in readers:
        try:
            reader.open()
            while reader.next_recv_ns != 2**63 - 1:
                rows = reader.read()
                make = _MAKERS[table]
                for index, (recv, seq) in enumerate(
                    zip(rows["recv_ns"].tolist(), rows["seq"].tolist(), strict=True)
                ):
                    yield recv, seq, symbol, make(symbol, rows, index)
        finally:
            reader.close()


def _trade(symbol: str, rows: Rows, index: int) -> Trade:
    return Trade(
        symbol,
        int(rows["exch_ns"][index]),
        int(rows["trade_id"][index]),
        int(rows["price_e8"][index]),
        int(rows["qty_e8"][index]),
        int(rows["side"][index]),
        False,
        True,
    )


def _quote(symbol: str, rows: Rows, index: int) -> Ticker:
    names = ("exch_ns", "update_id", "bid_price_e8", "bid_qty_e8", "ask_price_e8", "ask_qty_e8")
    return Ticker(symbol, *(int(rows[name][index]) for name in names))


def _book(symbol: str, rows: Rows, index: int) -> WholeBook:
    bids, asks = (
        [
            (price, qty)
            for price, qty in zip(
                rows[f"{side}_price_e8"][index].tolist(), rows[f"{side}_qty_e8"][index].tolist(), strict=True
            )
            if price and qty
        ]
        for side in ("bid", "ask")
    )
    return WholeBook(symbol, int(rows["exch_ns"][index]), int(rows["update_id"][index]), bids, asks)


def _mark(symbol: str, rows: Rows, index: int) -> MarkPrice:
    names = ("exch_ns", "mark_price_e8", "index_price_e8", "funding_rate_e8", "next_funding_ns")
    return MarkPrice(symbol, *(int(rows[name][index]) for name in names))


_MAKERS: dict[str, Callable[[str, Rows, int], SourceMessage]] = {
    "trades": _trade,
    "quotes": _quote,
    "books": _book,
    "marks": _mark,
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
