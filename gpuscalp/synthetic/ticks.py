"""The market as packed ticks in memory, for tests and benchmarks that need no files."""

from __future__ import annotations

import numpy as np

from gpuscalp.schema import BOOK_LEVELS, E8, F64, I64, TICK, Instrument, TickKind, Ticks
from gpuscalp.synthetic.market import Columns, SymbolRows, instruments, slices
from gpuscalp.synthetic.spec import MarketSpec


def ticks(spec: MarketSpec) -> Ticks:
    """Return the whole market in arrival order: by receive time, sequence, symbol.

    The symbol of a tick is its index in ``spec.symbols``. The archive of the same spec reads back as these
    ticks, to the bit.

    Returns
    -------
    TICK[N]

    Raises
    ------
    ConfigError, DataError
        as ``slices``
    """
    listed = instruments(spec)
    parts: list[Ticks] = []
    seqs: list[I64] = []
    for pieces in slices(spec):
        for rows in pieces:
            for packed, seq in _pack(rows, listed[rows.index]):
                parts.append(packed)
                seqs.append(seq)
    everything = np.concatenate(parts) if parts else np.empty(0, TICK)
    seq = np.concatenate(seqs) if seqs else np.empty(0, np.int64)
    order = np.lexsort((everything["symbol"], seq, everything["recv_ns"]))
    return everything[order]


def _pack(rows: SymbolRows, instrument: Instrument) -> list[tuple[Ticks, I64]]:
    step_e8 = instrument.step_size_e8

    trades = _stamped(rows.trades, rows.index, TickKind.TRADE)
    trades["px0"], trades["side"] = rows.trades["px"], rows.trades["side"]
    trades["q0"] = _quantity(rows.trades["lots"], step_e8)

    quotes = _stamped(rows.quotes, rows.index, TickKind.QUOTE)
    quotes["px0"], quotes["px1"] = rows.quotes["bid_px"], rows.quotes["ask_px"]
    quotes["q0"] = _quantity(rows.quotes["bid_lots"], step_e8)
    quotes["q1"] = _quantity(rows.quotes["ask_lots"], step_e8)

    books = _stamped(rows.books, rows.index, TickKind.BOOK)
    books["px0"], books["px1"] = rows.books["bid_px"], rows.books["ask_px"]
    for near, far, name in (("q0", "q2", "bid_lots"), ("q1", "q3", "ask_lots")):
        # A running sum adds from the best level outwards, as a tick's definition wants it.
        depth = np.cumsum(_quantity(rows.books[name], step_e8), axis=1)
        books[near], books[far] = depth[:, 4], depth[:, BOOK_LEVELS - 1]

    marks = _stamped(rows.marks, rows.index, TickKind.MARK)
    marks["q0"] = rows.marks["mark_price_e8"] / E8
    marks["q1"] = rows.marks["index_price_e8"] / E8
    marks["q2"] = rows.marks["funding_rate_e8"] / E8
    marks["q3"] = rows.marks["next_funding_ns"] // 1_000_000

    kinds = ((trades, rows.trades), (quotes, rows.quotes), (books, rows.books), (marks, rows.marks))
    return [(packed, columns["seq"]) for packed, columns in kinds]


def _stamped(columns: Columns, symbol_index: int, kind: TickKind) -> Ticks:
    packed = np.zeros(len(columns["seq"]), TICK)
    packed["exch_ns"], packed["recv_ns"] = columns["exch_ns"], columns["recv_ns"]
    packed["symbol"], packed["kind"] = symbol_index, kind
    return packed


def _quantity(lots: I64, step_e8: int) -> F64:
    """Return contracts: one correctly rounded division of the exact decimal, as the archive makes them."""
    return (lots * step_e8) / float(E8)
