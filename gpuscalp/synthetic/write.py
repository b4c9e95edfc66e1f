"""The market as an archive of the venue ``synthetic``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from gpuscalp.archive import ArchiveWriter
from gpuscalp.archive.tables import BOOKS, MARKS, QUOTES, TRADES
from gpuscalp.schema import BOOK_LEVELS, I64, Instrument
from gpuscalp.synthetic.market import SymbolRows, instruments, slices
from gpuscalp.synthetic.spec import VENUE, MarketSpec


def write(spec: MarketSpec, path: Path, *, on_second: Callable[[int], None] | None = None) -> int:
    """Write the market into a new or empty archive and return the number of rows.

    Parameters
    ----------
    spec : the market
    path : archive directory
    on_second : called with the seconds of market written so far

    Raises
    ------
    UsageError
        the directory is not an archive
    ArchiveError
        somebody else is writing to it
    ConfigError, DataError
        as ``slices``
    """
    listed = instruments(spec)
    trade_counts = [0] * len(listed)
    row_count = 0
    with ArchiveWriter(path, VENUE, instruments=listed) as writer:
        for piece_index, pieces in enumerate(slices(spec)):
            for rows in pieces:
                instrument = listed[rows.index]
                row_count += _write_rows(writer, rows, instrument, trade_counts[rows.index])
                trade_counts[rows.index] += len(rows.trades["seq"])
            if on_second is not None:
                on_second(min((piece_index + 1) * spec.slice_s, spec.duration_s))
        writer.finish()
    return row_count


def _write_rows(writer: ArchiveWriter, rows: SymbolRows, instrument: Instrument, trades_before: int) -> int:
    symbol, tick_e8, step_e8 = instrument.symbol, instrument.tick_size_e8, instrument.step_size_e8
    trades, quotes, books, marks = rows.trades, rows.quotes, rows.books, rows.marks
    writer.write(
        TRADES,
        symbol,
        _stamp(trades)
        | {
            "trade_id": trades_before + 1 + np.arange(len(trades["seq"])),
            "price_e8": trades["px"] * tick_e8,
            "qty_e8": trades["lots"] * step_e8,
            "side": trades["side"],
        },
    )
    writer.write(
        QUOTES,
        symbol,
        _stamp(quotes)
        | {"update_id": quotes["seq"] + 1}
        | {f"{side}_price_e8": quotes[f"{side}_px"] * tick_e8 for side in ("bid", "ask")}
        | {f"{side}_qty_e8": quotes[f"{side}_lots"] * step_e8 for side in ("bid", "ask")},
    )
    away = np.arange(BOOK_LEVELS)
    writer.write(
        BOOKS,
        symbol,
        _stamp(books)
        | {
            "update_id": books["seq"] + 1,
            "bid_price_e8": (books["bid_px"][:, None] - away) * tick_e8,
            "ask_price_e8": (books["ask_px"][:, None] + away) * tick_e8,
            "bid_qty_e8": books["bid_lots"] * step_e8,
            "ask_qty_e8": books["ask_lots"] * step_e8,
        },
    )
    writer.write(MARKS, symbol, marks)
    return sum(len(columns["seq"]) for columns in (trades, quotes, books, marks))


def _stamp(columns: dict[str, I64]) -> dict[str, I64]:
    return {name: columns[name] for name in ("recv_ns", "exch_ns", "seq")}
