"""What a judgement asks of a finished run: its equity and its trades as arrays, its figures.

Owns: the arrays, and returns of several runs on one grid. Never: reads a file, or judges.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gpuscalp.backtest.metrics import COMPONENTS, return_edges
from gpuscalp.backtest.saved import SavedRun, times
from gpuscalp.errors import DataError
from gpuscalp.schema import F64, I64
from gpuscalp.stats import held_apart


@dataclass(frozen=True, slots=True)
class Trades:
    """R round trips in the order of their exits, one array per column.

    Attributes
    ----------
    symbol : int64[R]                     index among the symbols of the run
    side : int64[R]                       +1 long, −1 short
    entry_ns, exit_ns : int64[R]          times of the decisions, exchange time
    entry_usdt, exit_usdt : float64[R]    value that was bought and sold
    gross … funding, pnl : float64[R]     USDT, as ``COMPONENTS``; fees positive, the rest with its sign
    """

    symbol: I64
    side: I64
    entry_ns: I64
    exit_ns: I64
    entry_usdt: F64
    exit_usdt: F64
    gross: F64
    delay: F64
    impact: F64
    spread: F64
    fees: F64
    funding: F64
    pnl: F64

    def __len__(self) -> int:
        return len(self.symbol)

    @property
    def turnover(self) -> F64:
        """float64[R], USDT: both ways."""
        return np.asarray(self.entry_usdt + self.exit_usdt)

    @property
    def before_fees(self) -> F64:
        """float64[R], USDT: what is left of the P&L when no fee is charged."""
        return np.asarray(self.pnl + self.fees)

    @property
    def groups(self) -> I64:
        """int64[K]: where groups of trades that were held together begin; see ``held_apart``."""
        return held_apart(self.entry_ns, self.exit_ns)

    def chosen(self, which: Any) -> Trades:
        """Return some of them, by mask or index."""
        return Trades(*(getattr(self, name)[which] for name in Trades.__slots__))


@dataclass(frozen=True, slots=True)
class Recorded:
    """One run.

    Attributes
    ----------
    time_ns, equity_usdt : int64[P], float64[P]   samples, once a second
    summary : ``result.json``
    """

    path: Path
    time_ns: I64
    equity_usdt: F64
    trades: Trades
    summary: dict[str, Any]

    def equity_at(self, at_ns: I64) -> F64:
        """float64, shape of ``at_ns``: the last sample at or before each; before all, the start capital."""
        place = np.searchsorted(self.time_ns, at_ns, side="right")
        return np.concatenate([[self.summary["start_usdt"]], self.equity_usdt])[place]


def read_run(path: Path) -> Recorded:
    """Read a run directory that ``gpuscalp backtest`` or a walk-forward has written.

    Raises
    ------
    UsageError, DataError
        as ``SavedRun.open`` raises
    """
    run = SavedRun.open(path)
    return Recorded(path, *run.equity, _trades(run.trades, run.result["symbols"]), run.result)


def returns_of(runs: Sequence[Recorded], interval_s: int) -> F64:
    """Return float64[T, N]: the returns of N runs on their start capitals, over the same T intervals.

    Runs over the same data end within milliseconds of each other, when the last report has come: the
    intervals reach from the first sample of any of them to the last, without the holes of the recording.

    Raises
    ------
    DataError
        they are not runs over the same time, venue and symbols
    """
    first = runs[0]
    for other in runs[1:]:
        for name in ("venue", "symbols", "start", "end", "data_digest"):
            if other.summary[name] != first.summary[name]:
                raise DataError(
                    "runs over different data cannot be compared",
                    where=f"{other.path}, {name}",
                    value=other.summary[name],
                    fix=f"{first.path} has {first.summary[name]}",
                )
    start, end = min(run.time_ns[0] for run in runs), max(run.time_ns[-1] for run in runs)
    edges = return_edges(np.concatenate([[start], first.time_ns, [end]]), interval_s)
    return np.stack([np.diff(run.equity_at(edges)) / run.summary["start_usdt"] for run in runs], axis=1)


def _trades(table: Any, symbols: Sequence[str]) -> Trades:
    place = {symbol: index for index, symbol in enumerate(symbols)}
    qty = table["qty"].to_numpy()
    return Trades(
        np.array([place[symbol] for symbol in table["symbol"].to_pylist()], np.int64),
        np.array([1 if side == "long" else -1 for side in table["side"].to_pylist()], np.int64),
        times(table, "entry_decided"),
        times(table, "exit_decided"),
        qty * table["entry_price"].to_numpy(),
        qty * table["exit_price"].to_numpy(),
        *(table[f"{name}_usdt"].to_numpy() for name in (*COMPONENTS, "pnl")),
    )
