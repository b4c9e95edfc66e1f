"""The list of trades in a backtest's report: what each made, out of what, and what the model saw.

Owns: which trades are listed and what of their rows is shown. Never: computes a result.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from gpuscalp.backtest.entries import Entries
from gpuscalp.backtest.ledger import Trade
from gpuscalp.backtest.summary import Outcome
from gpuscalp.labels import Direction
from gpuscalp.report import Section, Table
from gpuscalp.report.html import Cell
from gpuscalp.schema import E8, NS_PER_S
from gpuscalp.times import utc

# A page with every trade of a long run would not open; the files have them all.
TRADES_SHOWN_MAX: Final = 100
COLUMNS_SHOWN: Final = 4

_HEADER = (
    "trade", "decided, UTC", "symbol", "side", "held, s", "quantity", "in at", "out at", "left because",
    "signal", "slippage", "spread", "fees", "funding", "net P&L",
)  # fmt: skip


def trade_section(outcome: Outcome) -> Section:
    """Return the trades that decided the result."""
    trades, entries = outcome.recorder.ledger.closed, outcome.recorder.entries
    ranked = sorted(range(len(trades)), key=lambda index: (-abs(trades[index].pnl_e8), index))
    chosen = sorted(ranked[:TRADES_SHOWN_MAX])
    listed = "All of them" if len(chosen) == len(trades) else f"The {len(chosen)} with the largest P&L"
    rows = []
    for index in chosen:
        trade = trades[index]
        row: tuple[Cell, ...] = (str(index), *_cells(trade, outcome.scope.symbols))
        rows.append(row if entries is None else (*row, *_seen(trade, entries)))
    caption = (
        f"{listed}, of {len(trades):,}; USDT. Slippage is delay and impact together. Fills, parts, members "
        "and all columns of one trade: gpuscalp backtest show RUN --trade N."
    )
    header = _HEADER if entries is None else (*_HEADER, "members say", "columns")
    return Section(
        "Trades",
        paragraphs=[] if entries is None else [_explained(entries)],
        tables=[Table(header, rows, caption=caption)],
    )


def _cells(trade: Trade, symbols: tuple[str, ...]) -> tuple[Cell, ...]:
    slippage = trade.delay_e8 + trade.impact_e8
    parts = (trade.gross_e8, slippage, trade.spread_e8, -trade.fees_e8, trade.funding_e8, trade.pnl_e8)
    return (
        f"{utc(trade.entry_decided_ns)}.{trade.entry_decided_ns % NS_PER_S // 1_000_000:03d}",
        symbols[trade.symbol_index],
        "long" if trade.side > 0 else "short",
        f"{(trade.exit_ns - trade.entry_ns) / NS_PER_S:.3f}",
        f"{trade.qty_e8 / E8:g}",
        f"{trade.entry_price:.8g}",
        f"{trade.exit_price:.8g}",
        trade.exit_reason.replace("_", " "),
        *(f"{part / E8:+.4f}" for part in parts),
    )


def _seen(trade: Trade, entries: Entries) -> tuple[Cell, Cell]:
    """Return the members' probabilities of the side that was taken, and the columns to show first."""
    row = entries.row(trade)
    side = Direction.UP if trade.side > 0 else Direction.DOWN
    of_side = row.members[:, side]
    members = f"{float(np.min(of_side)):.3f} … {float(np.max(of_side)):.3f}"
    distance = entries.usual().distance(row.features)
    shown = [
        f"{entries.columns[i].name} {float(row.features[i]):.4g}{away(float(distance[i]))}"
        for i in entries.strongest(row, COLUMNS_SHOWN)
    ]
    return members, "; ".join(shown)


def away(distance: float) -> str:
    """Return a distance from the median in words, "" where it is not known."""
    return f" ({distance:+.1f})" if np.isfinite(distance) else ""


def _explained(entries: Entries) -> str:
    order = (
        "The columns are those that training found the most important, by what shuffling them costs"
        if entries.ranks
        else "The bundle does not say which columns matter; those farthest from their usual value are shown"
    )
    return (
        f"{order}; in brackets the distance from the column's median among {entries.usual().row_count:,} "
        "rows of this backtest, in units of what lies between its quartiles. That a value is unusual does "
        "not say that the model acted upon it. The members' answers are their probabilities of the side that "
        "was taken, lowest and highest."
    )
