"""A finished run, or one trade of it, as one dictionary.

Owns: what ``gpuscalp backtest show`` answers. Never: runs anything; all of it was written by the run.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import numpy as np

from gpuscalp.backtest.entries import answer_name, strongest
from gpuscalp.backtest.metrics import COMPONENTS
from gpuscalp.backtest.saved import SavedRun, plain_rows, units
from gpuscalp.errors import UsageError
from gpuscalp.labels import CLASSES
from gpuscalp.schema import E8, F64

TRADES_SHOWN: Final = 20


def show_run(path: Path, *, trades: int = TRADES_SHOWN) -> dict[str, Any]:
    """Say what a run was made of and what came out.

    Parameters
    ----------
    path : the run's directory
    trades : so many rows of trades.parquet, those with the largest P&L, in their order; 0 for none

    Returns
    -------
    dict with the keys ``run_dir, version, config, scope, result, attribution, trades``; ``attribution`` has
    the parts of the closed trades, "all" and by symbol, in USDT, costs negative
    """
    run = SavedRun.open(path)
    symbols = np.array(run.trades["symbol"].to_pylist(), object)
    everything = np.ones(run.trades.num_rows, np.bool_)
    groups = {"all": everything, **{str(name): symbols == name for name in sorted(set(symbols.tolist()))}}
    largest = np.argsort(-np.abs(units(run.trades, "pnl_usdt")), kind="stable")[:trades]
    return {
        "run_dir": str(path),
        "version": run.frozen["version"],
        "config": run.frozen["backtest"],
        "scope": run.scope,
        "result": run.result,
        "attribution": {name: attribution(run.trades, chosen) for name, chosen in groups.items()},
        "trades": plain_rows(run.trades.take(np.sort(largest))),
    }


def show_trade(path: Path, number: int) -> dict[str, Any]:
    """Tell one trade in full.

    Parameters
    ----------
    number : ``trade_index`` of trades.parquet

    Returns
    -------
    dict with the keys ``run_dir, trade, attribution, fills, probability, members, features``; the last three
    are None where the run did not keep the rows behind its entries. Features come in the order in which they
    are worth a look; ``distance`` is from the median, in spreads (``gpuscalp.backtest.entries``).

    Raises
    ------
    UsageError
        there is no such trade; and as ``SavedRun.open`` raises
    """
    run = SavedRun.open(path)
    count = run.trades.num_rows
    if not 0 <= number < count:
        raise UsageError(
            "the run has no such trade",
            where=str(path),
            value=number,
            fix=f"give a number from 0 to {count - 1}" if count else "it has closed no trade",
        )
    chosen = np.arange(count) == number
    mine = np.flatnonzero(np.asarray(run.fills["trade_index"]) == number)
    return {
        "run_dir": str(path),
        "trade": plain_rows(run.trades.slice(number, 1))[0],
        "attribution": attribution(run.trades, chosen),
        "fills": plain_rows(run.fills.take(mine)),
        **_seen(run, number),
    }


def attribution(trades: Any, chosen: np.ndarray[tuple[int, ...], np.dtype[np.bool_]]) -> dict[str, Any]:
    """Sum the parts of some trades: in whole units first, so that they add up to the P&L exactly."""
    sums = {part: int(units(trades, f"{part}_usdt")[chosen].sum()) for part in (*COMPONENTS, "pnl")}
    sums["fees"] = -sums["fees"]
    return {"trades": int(chosen.sum()), **{f"{part}_usdt": value / E8 for part, value in sums.items()}}


def _seen(run: SavedRun, number: int) -> dict[str, Any]:
    entries = run.entries
    if entries is None:
        return {"probability": None, "members": None, "features": None}
    row: dict[str, Any] = entries.slice(number, 1).to_pylist()[0]
    member_count = sum(name.endswith(f":{CLASSES[0].lower()}") for name in row) - 1

    def answer(member: int) -> dict[str, float]:
        return {name.lower(): row[answer_name(member, name)] for name in CLASSES}

    return {
        "probability": answer(-1),
        "members": [answer(member) for member in range(member_count)],
        "features": _features(run, row),
    }


def _features(run: SavedRun, row: dict[str, Any]) -> list[dict[str, Any]]:
    columns: list[dict[str, Any]] = run.columns.to_pylist()
    values = np.array([row[column["name"]] for column in columns], np.float64)
    median, spread = (_numbers(columns, name) for name in ("median", "spread"))
    distance = (values - median) / spread
    order = strongest([column["importance_rank"] for column in columns], distance)
    return [
        {
            "name": columns[index]["name"],
            "unit": columns[index]["unit"],
            "value": values[index],
            "median": median[index],
            "spread": spread[index],
            "distance": distance[index],
            "importance_rank": columns[index]["importance_rank"],
        }
        for index in order
    ]


def _numbers(rows: list[dict[str, Any]], name: str) -> F64:
    return np.array([row[name] for row in rows], np.float64)
