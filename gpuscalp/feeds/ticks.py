"""Rows of a live market as ticks, packed as they come.

Owns: the bytes of the ticks that have not been taken. Gives the bits that the archive gives for the same rows
(``gpuscalp.archive.streams.ticks_of``).
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from itertools import accumulate
from typing import Final, final

import numpy as np

from gpuscalp.feeds.messages import MarkPrice, Trade
from gpuscalp.schema import BOOK_LEVELS, E8, NS_PER_MS, TICK, Instrument, TickKind, Ticks

_TICK: Final = struct.Struct("<qqiiddddiBbH")
assert _TICK.size == TICK.itemsize
_SIZE: Final = _TICK.size
_PX_MAX: Final = 2**31 - 1
_NAN: Final = float("nan")
_TRADE, _QUOTE, _BOOK, _MARK = (int(TickKind(kind)) for kind in range(4))


@final
class TickBuffer:
    """Ticks of all symbols in the order in which they were made.

    Attributes
    ----------
    off_tick_count : rows left out because a price is no multiple of the tick size or too large
    """

    def __init__(self, tick_count: int = 1 << 14) -> None:
        self._bytes = bytearray(tick_count * _SIZE)
        self._used = 0
        self.off_tick_count = 0

    def __len__(self) -> int:
        return self._used // _SIZE

    def put(self, *fields: float) -> None:
        """Append one tick, fields in the order of TICK."""
        if self._used == len(self._bytes):
            self._bytes += bytes(len(self._bytes))
        _TICK.pack_into(self._bytes, self._used, *fields)
        self._used += _SIZE

    def take(self) -> Ticks:
        """Return all ticks, TICK[N], and forget them."""
        ticks: Ticks = np.frombuffer(bytes(memoryview(self._bytes)[: self._used]), TICK)
        self._used = 0
        return ticks


@final
class TickSink:
    """The sink of one symbol (``gpuscalp.feeds.market.RowSink``).

    Attributes
    ----------
    extra_quality : bits that the running message bears on top of its row's
    gaps : (kind, from_ns, to_ns, first_id, last_id) of what is known to be missing; the owner empties it
    """

    def __init__(self, buffer: TickBuffer, instrument: Instrument, symbol: int) -> None:
        self._buffer, self._put = buffer, buffer.put
        self._tick_e8, self._symbol = instrument.tick_size_e8, symbol
        self.extra_quality = 0
        self.gaps: list[tuple[str, int, int, int, int]] = []

    def trade(self, recv_ns: int, exch_ns: int, quality: int, trade: Trade) -> None:
        px, rest = divmod(trade.price_e8, self._tick_e8)
        if rest or px > _PX_MAX:
            self._buffer.off_tick_count += 1
            return
        quality |= self.extra_quality
        quantity = trade.qty_e8 / E8
        self._put(exch_ns, recv_ns, px, 0, quantity, 0, 0, 0, self._symbol, _TRADE, trade.side, quality)

    def quote(self, recv_ns: int, exch_ns: int, quality: int, update_id: int, best: Sequence[int]) -> None:  # noqa: ARG002
        bid, bid_qty, ask, ask_qty = best
        px0, rest0 = divmod(bid, self._tick_e8)
        px1, rest1 = divmod(ask, self._tick_e8)
        if rest0 or rest1 or px0 > _PX_MAX or px1 > _PX_MAX:
            self._buffer.off_tick_count += 1
            return
        quality |= self.extra_quality
        self._put(
            exch_ns, recv_ns, px0, px1, bid_qty / E8, ask_qty / E8, 0, 0, self._symbol, _QUOTE, 0, quality
        )

    def book(
        self,
        recv_ns: int,
        exch_ns: int,
        quality: int,
        update_id: int,  # noqa: ARG002  # a tick has no room for it
        top: Sequence[Sequence[int]],
    ) -> None:
        bids, bid_qty, asks, ask_qty = top
        px0, rest0 = divmod(bids[0], self._tick_e8)
        px1, rest1 = divmod(asks[0], self._tick_e8)
        if rest0 or rest1 or px0 > _PX_MAX or px1 > _PX_MAX:
            self._buffer.off_tick_count += 1
            return
        # Added from the best level outwards, in float64, as the archive does.
        bid_sums = list(accumulate([quantity / E8 for quantity in bid_qty]))
        ask_sums = list(accumulate([quantity / E8 for quantity in ask_qty]))
        last = BOOK_LEVELS - 1
        self._put(
            *(exch_ns, recv_ns, px0, px1, bid_sums[4], ask_sums[4], bid_sums[last], ask_sums[last]),
            *(self._symbol, _BOOK, 0, quality | self.extra_quality),
        )

    def mark(self, recv_ns: int, exch_ns: int, quality: int, mark: MarkPrice) -> None:
        price, index, funding_ns = mark.mark_price_e8, mark.index_price_e8, mark.next_funding_ns
        self._put(
            *(exch_ns, recv_ns, 0, 0, price / E8 if price else _NAN, index / E8 if index else _NAN),
            *(mark.funding_rate_e8 / E8, float(funding_ns // NS_PER_MS) if funding_ns else _NAN),
            *(self._symbol, _MARK, 0, quality | self.extra_quality),
        )

    def gap(self, kind: str, from_ns: int, to_ns: int, first_id: int, last_id: int) -> None:
        self.gaps.append((kind, from_ns, to_ns, first_id, last_id))
