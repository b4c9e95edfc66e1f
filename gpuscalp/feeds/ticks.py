"""Rows of a live market as ticks, packed as they come.

Owns: the bytes of the ticks that have not been taken, and telling an observer of the rows. Gives the bits
that the archive gives for the same rows (``gpuscalp.archive.streams.ticks_of``).
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Final, Protocol, final

import numpy as np

from gpuscalp.feeds.book import LocalBook
from gpuscalp.feeds.messages import MarkPrice, Trade
from gpuscalp.schema import NS_PER_MS, TICK, Instrument, TickKind, Ticks

_TICK: Final = struct.Struct("<qqiiddddiBbH")
assert _TICK.size == TICK.itemsize
_pack: Final = _TICK.pack
_PX_MAX: Final = 2**31 - 1
_NAN: Final = float("nan")
_TRADE, _QUOTE, _BOOK, _MARK = (int(TickKind(kind)) for kind in range(4))
# A float: an integer above 2^53 is rounded before it is divided, as NumPy does it in the archive.
_E8: Final = 1e8


class Observer(Protocol):
    """Who is told of every row of one symbol, in order, after its tick was made; also of rows that made no
    tick because a price is no multiple of the tick size. ``quality`` has all bits of the tick."""

    def trade(self, recv_ns: int, exch_ns: int, quality: int, trade: Trade) -> None: ...

    def quote(self, recv_ns: int, exch_ns: int, quality: int, update_id: int, best: Sequence[int]) -> None:
        """``best``: bid price, bid quantity, ask price, ask quantity, × 1e8."""

    def book(
        self, recv_ns: int, exch_ns: int, quality: int, update_id: int, top: Sequence[Sequence[int]]
    ) -> None:
        """``top``: bid prices, bid quantities, ask prices, ask quantities, 20 each, × 1e8."""

    def mark(self, recv_ns: int, exch_ns: int, quality: int, mark: MarkPrice) -> None: ...


@final
class TickBuffer:
    """Ticks of all symbols in the order in which they were made.

    Attributes
    ----------
    packed : each tick's 64 bytes, which the sinks append
    """

    def __init__(self) -> None:
        self.packed: list[bytes] = []

    def __len__(self) -> int:
        return len(self.packed)

    def take(self) -> Ticks:
        """Return all ticks, TICK[N], and forget them."""
        ticks: Ticks = np.frombuffer(b"".join(self.packed), TICK)
        self.packed.clear()
        return ticks


@final
class TickSink:
    """The sink of one symbol (``gpuscalp.feeds.market.RowSink``).

    Attributes
    ----------
    extra_quality : bits that the running message bears on top of its row's
    off_tick_count : rows left out because a price is no multiple of the tick size or too large
    gaps : (kind, from_ns, to_ns, first_id, last_id) of what is known to be missing; the owner empties it
    """

    def __init__(self, buffer: TickBuffer, instrument: Instrument, symbol: int) -> None:
        self._packed = buffer.packed
        self._tick_e8, self._symbol = instrument.tick_size_e8, symbol
        self.extra_quality = self.off_tick_count = 0
        self.gaps: list[tuple[str, int, int, int, int]] = []

    def trade(self, recv_ns: int, exch_ns: int, quality: int, trade: Trade) -> None:
        px, rest = divmod(trade.price_e8, self._tick_e8)
        if rest or px > _PX_MAX:
            self.off_tick_count += 1
            return
        bits, qty = quality | self.extra_quality, trade.qty_e8 / _E8
        self._packed.append(
            _pack(exch_ns, recv_ns, px, 0, qty, 0.0, 0.0, 0.0, self._symbol, _TRADE, trade.side, bits)
        )

    def quote(self, recv_ns: int, exch_ns: int, quality: int, update_id: int, best: Sequence[int]) -> None:  # noqa: ARG002
        bid, bid_qty, ask, ask_qty = best
        tick_e8 = self._tick_e8
        px0, px1 = bid // tick_e8, ask // tick_e8
        if px0 * tick_e8 != bid or px1 * tick_e8 != ask or px0 > _PX_MAX or px1 > _PX_MAX:
            self.off_tick_count += 1
            return
        bits, q0, q1 = quality | self.extra_quality, bid_qty / _E8, ask_qty / _E8
        self._packed.append(
            _pack(exch_ns, recv_ns, px0, px1, q0, q1, 0.0, 0.0, self._symbol, _QUOTE, 0, bits)
        )

    def book(
        self,
        recv_ns: int,
        exch_ns: int,
        quality: int,
        update_id: int,  # noqa: ARG002  # a tick has no room for it
        book: LocalBook,
    ) -> None:
        bid, ask, q0, q1, q2, q3 = book.summary
        tick_e8 = self._tick_e8
        px0, px1 = bid // tick_e8, ask // tick_e8
        if px0 * tick_e8 != bid or px1 * tick_e8 != ask or px0 > _PX_MAX or px1 > _PX_MAX:
            self.off_tick_count += 1
            return
        bits = quality | self.extra_quality
        self._packed.append(_pack(exch_ns, recv_ns, px0, px1, q0, q1, q2, q3, self._symbol, _BOOK, 0, bits))

    def mark(self, recv_ns: int, exch_ns: int, quality: int, mark: MarkPrice) -> None:
        price, index, funding_ns = mark.mark_price_e8, mark.index_price_e8, mark.next_funding_ns
        self._packed.append(
            _pack(
                *(exch_ns, recv_ns, 0, 0, price / _E8 if price else _NAN, index / _E8 if index else _NAN),
                *(mark.funding_rate_e8 / _E8, float(funding_ns // NS_PER_MS) if funding_ns else _NAN),
                *(self._symbol, _MARK, 0, quality | self.extra_quality),
            )
        )

    def gap(self, kind: str, from_ns: int, to_ns: int, first_id: int, last_id: int) -> None:
        self.gaps.append((kind, from_ns, to_ns, first_id, last_id))


@final
class ObservedSink:
    """A sink that tells an observer of every row after the tick was made.

    Apart from ``TickSink``, so that nobody pays for an observer that is not there.
    """

    def __init__(self, sink: TickSink, observer: Observer) -> None:
        self._sink, self._observer = sink, observer

    def trade(self, recv_ns: int, exch_ns: int, quality: int, trade: Trade) -> None:
        self._sink.trade(recv_ns, exch_ns, quality, trade)
        self._observer.trade(recv_ns, exch_ns, quality | self._sink.extra_quality, trade)

    def quote(self, recv_ns: int, exch_ns: int, quality: int, update_id: int, best: Sequence[int]) -> None:
        self._sink.quote(recv_ns, exch_ns, quality, update_id, best)
        self._observer.quote(recv_ns, exch_ns, quality | self._sink.extra_quality, update_id, best)

    def book(self, recv_ns: int, exch_ns: int, quality: int, update_id: int, book: LocalBook) -> None:
        self._sink.book(recv_ns, exch_ns, quality, update_id, book)
        self._observer.book(recv_ns, exch_ns, quality | self._sink.extra_quality, update_id, book.top())

    def mark(self, recv_ns: int, exch_ns: int, quality: int, mark: MarkPrice) -> None:
        self._sink.mark(recv_ns, exch_ns, quality, mark)
        self._observer.mark(recv_ns, exch_ns, quality | self._sink.extra_quality, mark)

    def gap(self, kind: str, from_ns: int, to_ns: int, first_id: int, last_id: int) -> None:
        self._sink.gap(kind, from_ns, to_ns, first_id, last_id)
