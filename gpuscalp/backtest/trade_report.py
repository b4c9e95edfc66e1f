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
# More of them push the table over the edge of the page, or every row to the height of eight.
COLUMNS_SHOWN: Final = 2
_DATE: Final = len("2024-01-01")

_HEADER = (
    "trade", "decided, UTC", "symbol", "side", "net P&L", "signal", "slippage", "spread", "fees", "funding",
    "held, s", "left because",
)  # fmt: skip
# What is in the table even where it is the same in every row.
_ALWAYS: Final = ("trade", "decided, UTC", "side", "net P&L")


def trade_section(outcome: Outcome) -> Section:
    """Return the trades that decided the result."""
    trades, entries = outcome.recorder.ledger.closed, outcome.recorder.entries
    ranked = sorted(range(len(trades)), key=lambda index: (-abs(trades[index].pnl_e8), index))
    chosen = sorted(ranked[:TRADES_SHOWN_MAX])
    listed = f"The {len(chosen)} largest gains and losses of {len(trades):,} trades"
    if len(chosen) == len(trades):
        listed = f"All {len(trades)} trades" if trades else "No trades"
    days = {utc(trades[index].entry_decided_ns)[:_DATE] for index in chosen}
    rows: list[tuple[Cell, ...]] = []
    for index in chosen:
        trade = trades[index]
        decided, *cells = _cells(trade, outcome.scope.symbols)
        row: tuple[Cell, ...] = (str(index), decided[_DATE + 1 :] if len(days) == 1 else decided, *cells)
        rows.append(row if entries is None else (*row, *_seen(trade, entries)))
    header: tuple[str, ...] = _HEADER if entries is None else (*_HEADER, "members say", "columns")
    header, rows, alike = _without_constants(header, rows)
    if len(days) == 1:
        alike.insert(0, f"decided on {days.pop()}")
    caption = (
        f"{listed}; USDT. Slippage is delay and impact together. "
        f"{'In all of them: ' + ', '.join(alike) + '. ' if alike else ''}Quantity, prices, fills, members "
        "and all columns of one trade: gpuscalp backtest show RUN --trade N."
    )
    return Section(
        "Trades",
        paragraphs=[] if entries is None else [_explained(entries)],
        tables=[Table(header, rows, caption=caption)],
    )


def _without_constants(
    header: tuple[str, ...], rows: list[tuple[Cell, ...]]
) -> tuple[tuple[str, ...], list[tuple[Cell, ...]], list[str]]:
    """Return the table without the columns that say the same in every row, and what these say."""
    alike = {
        index: rows[0][index]
        for index, name in enumerate(header)
        if len(rows) > 1 and name not in _ALWAYS and len({row[index] for row in rows}) == 1
    }
    kept = [index for index in range(len(header)) if index not in alike]
    return (
        tuple(header[index] for index in kept),
        [tuple(row[index] for index in kept) for row in rows],
        [f"{header[index]} {value}" for index, value in alike.items()],
    )


def _cells(trade: Trade, symbols: tuple[str, ...]) -> tuple[str, ...]:
    slippage = trade.delay_e8 + trade.impact_e8
    parts = (trade.pnl_e8, trade.gross_e8, slippage, trade.spread_e8, -trade.fees_e8, trade.funding_e8)
    return (
        f"{utc(trade.entry_decided_ns)}.{trade.entry_decided_ns % NS_PER_S // 1_000_000:03d}",
        symbols[trade.symbol_index],
        "long" if trade.side > 0 else "short",
        *(f"{part / E8:+.4f}" for part in parts),
        f"{(trade.exit_ns - trade.entry_ns) / NS_PER_S:.3f}",
        trade.exit_reason.replace("_", " "),
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
