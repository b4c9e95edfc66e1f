"""Small recordings made by hand for the tests of this folder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from gpuscalp.archive import BookSeries
from gpuscalp.orders import Intent, IntentKind, Order
from gpuscalp.schema import BOOK_LEVELS, F64, I64, TICK, Instrument, TickKind, Ticks

E8 = 10**8
MS = 1_000_000
NOW = 1_700_000_000 * 10**9

# Tick 0.01, step 0.001: a price of 10,000 ticks is 100.00.
COIN = Instrument("COINUSDT", "synthetic", 1_000_000, 100_000, 100_000, 5 * E8, "synthetic")

QuoteRow = tuple[float, int, int, float, float]  # at ms, bid, ask, bid quantity, ask quantity
Level = tuple[int, float]


@dataclass(frozen=True, slots=True)
class MarkSeries:
    """Mark prices and funding of one symbol in order of arrival, received at the time they bear."""

    exch_ns: I64
    mark: F64
    funding_rate: F64
    next_funding_ns: I64


def quotes(rows: Sequence[QuoteRow], *, delay_ms: float = 0.0, quality: int = 0) -> BookSeries:
    at = np.array([NOW + round(row[0] * MS) for row in rows], np.int64)
    return BookSeries(
        recv_ns=at + round(delay_ms * MS),
        exch_ns=at,
        bid_px=np.array([row[1] for row in rows], np.int32),
        ask_px=np.array([row[2] for row in rows], np.int32),
        bid_qty=np.array([row[3] for row in rows], np.float64),
        ask_qty=np.array([row[4] for row in rows], np.float64),
        quality=np.full(len(rows), quality, np.uint16),
    )


def books(rows: Sequence[tuple[float, Sequence[Level], Sequence[Level]]]) -> BookSeries:
    at = np.array([NOW + round(row[0] * MS) for row in rows], np.int64)
    px = np.zeros((2, len(rows), BOOK_LEVELS), np.int32)
    qty = np.zeros((2, len(rows), BOOK_LEVELS))
    for index, (_, *sides) in enumerate(rows):
        for side, levels in enumerate(sides):
            for depth, (price, amount) in enumerate(levels):
                px[side, index, depth], qty[side, index, depth] = price, amount
    return BookSeries(at, at, px[0], px[1], qty[0], qty[1], np.zeros(len(rows), np.uint16))


def marks(rows: Sequence[tuple[float, float, float, float]]) -> MarkSeries:
    """Rows of (at ms, mark price, funding rate, next funding at ms)."""
    at = np.array([NOW + round(row[0] * MS) for row in rows], np.int64)
    return MarkSeries(
        exch_ns=at,
        mark=np.array([row[1] for row in rows], np.float64),
        funding_rate=np.array([row[2] for row in rows], np.float64),
        next_funding_ns=np.array([NOW + round(row[3] * MS) for row in rows], np.int64),
    )


def ticks_of(quotes_of: Sequence[BookSeries], marks_of: Sequence[MarkSeries] = ()) -> Ticks:
    """Merge quotes and marks of some symbols into ticks in the order of arrival."""
    parts = []
    for symbol, rows in enumerate(quotes_of):
        ticks = np.zeros(len(rows), TICK)
        ticks["symbol"], ticks["kind"] = symbol, TickKind.QUOTE
        ticks["recv_ns"], ticks["exch_ns"], ticks["quality"] = rows.recv_ns, rows.exch_ns, rows.quality
        ticks["px0"], ticks["px1"], ticks["q0"], ticks["q1"] = (
            rows.bid_px, rows.ask_px, rows.bid_qty, rows.ask_qty,
        )  # fmt: skip
        parts.append(ticks)
    for symbol, marked in enumerate(marks_of):
        ticks = np.zeros(len(marked.mark), TICK)
        ticks["symbol"], ticks["kind"] = symbol, TickKind.MARK
        ticks["recv_ns"], ticks["exch_ns"] = marked.exch_ns, marked.exch_ns
        ticks["q0"], ticks["q1"], ticks["q2"] = marked.mark, np.nan, marked.funding_rate
        ticks["q3"] = np.where(marked.next_funding_ns == 0, np.nan, marked.next_funding_ns // MS)
        parts.append(ticks)
    joined = np.concatenate(parts)
    return joined[np.argsort(joined["recv_ns"], kind="stable")]


def order(
    side: int,
    qty: float,
    *,
    order_id: int = 1,
    symbol_index: int = 0,
    mid: float = 100.0,
    decided_ms: float = 0.0,
    reduce_only: bool = False,
) -> Order:
    kind = IntentKind.EXIT if reduce_only else IntentKind.ENTER
    return Order(
        order_id=order_id,
        symbol_index=symbol_index,
        side=side,
        qty_e8=round(qty * E8),
        reduce_only=reduce_only,
        decided_ns=NOW + round(decided_ms * MS),
        mid2_e8=round(2 * mid * E8),
        intent=Intent(symbol_index, side, kind, 100.0, "edge", 0.6, 1.0, 5.0 * side, 1.0),
    )
