"""Finished runs side by side: what was set differently, what came out differently, and how surely.

Owns: pairing. Never: runs a backtest, or draws (compare_report.py does).

Two runs over the same market see the same weather, so their difference is known better than either result.
The common time is cut into blocks; every figure of a run is a sum over blocks, or a ratio of such sums; whole
blocks of both runs are drawn together (moving blocks, Künsch 1989), which keeps the pairing and the
dependence between neighbours.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, final

import numpy as np

from gpuscalp.backtest.metrics import COMPONENTS, number, recorded_s, return_edges, return_interval_s
from gpuscalp.backtest.saved import SavedRun, exact_utc, times, units
from gpuscalp.config import flat
from gpuscalp.errors import UsageError
from gpuscalp.schema import E8, F64, I64
from gpuscalp.stats import OBSERVATIONS_MIN, UNKNOWN, block_bootstrap, held_apart

RUNS_MAX: Final = 6  # as many as there are colours that can be told apart
TRADES_LISTED_MAX: Final = 20
# What must be equal for two results to be about the same market.
_MARKET: Final = ("venue", "symbols", "start_ns", "end_ns", "data_digest")

# Columns of a run's blocks.
_BLOCK_COLUMNS: Final = ("equity", "trades", "apart", "won", *COMPONENTS, "pnl")
_AT: Final = {name: index for index, name in enumerate(_BLOCK_COLUMNS)}
# Rows of the result: name, unit, and what it is of one run's blocks float64[n, columns].
_Figure = Callable[[F64], float]


@final
@dataclass(frozen=True, slots=True)
class Blocks:
    """Common time in blocks.

    Attributes
    ----------
    seconds : recorded time in each of them, and a little more in the last
    edges_ns : int64[n + 1]
    values : float64[R, n, columns]  by run, block and ``_BLOCK_COLUMNS``; a trade counts where it was closed
    """

    seconds: int
    edges_ns: I64
    values: F64


@final
@dataclass(frozen=True, slots=True)
class Comparison:
    """Runs and what ``--json`` prints of them; the first run is the one that the others are held against."""

    runs: tuple[SavedRun, ...]
    labels: tuple[str, ...]
    answer: dict[str, Any]


def compare_runs(paths: Sequence[Path], *, any_market: bool = False) -> Comparison:
    """Compare two to six runs with the first of them.

    Parameters
    ----------
    paths : directories of finished runs
    any_market : compare also runs over other data or another time

    Returns
    -------
    Comparison; ``answer`` has the keys ``runs, same_market, warnings, config, blocks, figures, trades``

    Raises
    ------
    UsageError
        too few or too many runs; runs over different data or time, unless ``any_market``
    """
    if not 2 <= len(paths) <= RUNS_MAX:
        raise UsageError(f"two to {RUNS_MAX} runs can be compared", value=len(paths))
    runs = tuple(SavedRun.open(path) for path in paths)
    apart = [name for name in _MARKET if any(run.scope[name] != runs[0].scope[name] for run in runs)]
    if apart and not any_market:
        _refuse(runs, apart)
    labels = tuple("ABCDEF"[: len(runs)])
    blocks = _blocks(runs, whole=not apart)
    others = range(1, len(runs))
    # Of runs over other times only those trades can be shared that both could have entered.
    edges = blocks.edges_ns.tolist()
    span = (0, 1 << 62) if not apart else (edges[0], edges[-1]) if edges else (0, 0)
    answer = {
        "runs": [
            {"label": label, "run_dir": str(run.path), "config_hash": run.frozen["hash"]}
            for label, run in zip(labels, runs, strict=True)
        ],
        "same_market": not apart,
        "warnings": _warnings(blocks, labels),
        "config": _differences(runs, labels),
        "blocks": {
            "count": blocks.values.shape[1],
            "seconds": blocks.seconds,
            "start": exact_utc(int(blocks.edges_ns[0])) if len(blocks.edges_ns) else None,
            "end": exact_utc(int(blocks.edges_ns[-1])) if len(blocks.edges_ns) else None,
        },
        "figures": [_figure(name, unit, of, blocks, labels) for name, unit, of in FIGURES],
        "trades": [
            {"of": labels[0], "with": labels[index], **_matched(runs[0], runs[index], span)}
            for index in others
        ],
    }
    return Comparison(runs, labels, answer)


def _refuse(runs: Sequence[SavedRun], apart: Sequence[str]) -> None:
    first = runs[0]
    other = next(run for run in runs if any(run.scope[name] != first.scope[name] for name in apart))
    name = next(name for name in apart if other.scope[name] != first.scope[name])
    shown = exact_utc if name.endswith("_ns") else str
    raise UsageError(
        f"the runs are not over the same market: {', '.join(apart)} differ",
        where=f"{first.path} and {other.path}",
        value=f"{name}: {shown(first.scope[name])} and {shown(other.scope[name])}",
        fix="compare runs over the same data and time, or ask for it with --any-market",
    )


def _warnings(blocks: Blocks, labels: Sequence[str]) -> list[str]:
    """Return why intervals are left out."""
    count = blocks.values.shape[1]
    if count < OBSERVATIONS_MIN:
        return [
            f"The time that is compared has {count} block(s): with fewer than {OBSERVATIONS_MIN} no interval "
            "of a difference is known (docs/backtest.md, How sure)."
        ]
    apart = blocks.values[:, :, _AT["apart"]].sum(axis=1)
    return [
        f"{label} closed {closed:.0f} trade(s) held apart in the time that is compared: with fewer "
        f"than {OBSERVATIONS_MIN} no interval of a difference is known (docs/backtest.md, How sure)."
        for label, closed in zip(labels, apart.tolist(), strict=True)
        if closed < OBSERVATIONS_MIN
    ]


def _differences(runs: Sequence[SavedRun], labels: Sequence[str]) -> list[dict[str, Any]]:
    """Return the settings that are not equal in all runs, and only these."""
    settings = [
        {
            **dict(flat(run.frozen["backtest"])),
            **dict(flat(run.scope, "scope.")),
            **dict(flat(run.frozen.get("executor", {"name": "paper broker"}), "executor.")),
            "version": run.frozen["version"],
        }
        for run in runs
    ]
    names = sorted(set().union(*settings))
    rows = [(name, [each.get(name) for each in settings]) for name in names]
    return [
        {"setting": name, **dict(zip(labels, values, strict=True))}
        for name, values in rows
        if any(value != values[0] for value in values)
    ]


def _blocks(runs: Sequence[SavedRun], *, whole: bool) -> Blocks:
    """Cut the recorded time that all runs have equity of into blocks; none where they have no common time.

    Runs over the same market end within milliseconds of each other, when the last report has come: there the
    ``whole`` time of all of them counts.
    """
    spans = [run.equity[0] for run in runs]
    known = all(len(at) for at in spans)
    starts, ends = ([int(at[place]) for at in spans] if known else [0] for place in (0, -1))
    start, end = (min(starts), max(ends)) if whole else (max(starts), min(ends))
    at = np.unique(np.concatenate(spans))
    at = at[(at >= start) & (at <= end)]
    seconds = return_interval_s(recorded_s(at))
    edges = return_edges(at, seconds)
    if len(edges) < 2:
        return Blocks(0, np.empty(0, np.int64), np.zeros((len(runs), 0, len(_BLOCK_COLUMNS))))
    return Blocks(seconds, edges, np.stack([_block_values(run, edges) for run in runs]))


def _block_values(run: SavedRun, edges: I64) -> F64:
    at, equity = run.equity
    values = np.zeros((len(edges) - 1, len(_BLOCK_COLUMNS)))
    values[:, _AT["equity"]] = np.diff(equity[np.maximum(0, np.searchsorted(at, edges, side="right") - 1)])
    # (start, end]: what is closed at the very end counts.
    closed = np.searchsorted(edges, times(run.trades, "exit_filled")) - 1
    inside = (closed >= 0) & (closed < len(values))
    pnl = units(run.trades, "pnl_usdt")
    columns = {"trades": np.ones(len(pnl)), "apart": np.zeros(len(pnl)), "won": pnl > 0, "pnl": pnl / E8}
    columns["apart"][held_apart(times(run.trades, "entry_decided"), times(run.trades, "exit_decided"))] = 1
    for part in COMPONENTS:
        columns[part] = units(run.trades, f"{part}_usdt") / E8 * (-1 if part == "fees" else 1)
    for name, column in columns.items():
        values[:, _AT[name]] = np.bincount(closed[inside], column[inside], minlength=len(values))
    return values


def _sum_of(name: str) -> _Figure:
    return lambda values: float(values[:, _AT[name]].sum())


def _per_trade(name: str) -> _Figure:
    def ratio(values: F64) -> float:
        trades = values[:, _AT["trades"]].sum()
        return float(values[:, _AT[name]].sum() / trades) if trades else math.nan

    return ratio


def _sharpe(values: F64) -> float:
    changes = values[:, _AT["equity"]]
    return float(np.mean(changes) / np.std(changes, ddof=1)) if np.ptp(changes) > 0 else math.nan


def _drawdown(values: F64) -> float:
    level = np.concatenate([[0.0], np.cumsum(values[:, _AT["equity"]])])
    return float(np.max(np.maximum.accumulate(level) - level))


FIGURES: Final[tuple[tuple[str, str, _Figure], ...]] = (
    ("net P&L", "USDT", _sum_of("equity")),
    ("trades", "", _sum_of("trades")),
    *((f"closed trades, {label}", "USDT", _sum_of(part)) for part, label in COMPONENTS.items()),
    ("closed trades, net P&L", "USDT", _sum_of("pnl")),
    ("mean P&L per trade", "USDT", _per_trade("pnl")),
    ("share of trades with a profit", "", _per_trade("won")),
    ("Sharpe ratio per block", "", _sharpe),
    ("largest drawdown between blocks", "USDT", _drawdown),
)


def _figure(name: str, unit: str, of: _Figure, blocks: Blocks, labels: Sequence[str]) -> dict[str, Any]:
    """Return one figure of every run, and its difference to the first with a 95 % interval.

    Of fewer trades held apart than ``OBSERVATIONS_MIN`` in one of the two the interval is not known.
    """
    values = [of(each) if len(each) else math.nan for each in blocks.values]
    apart = blocks.values[:, :, _AT["apart"]].sum(axis=1)
    # Of the order of blocks in time a resample keeps only runs: a drawdown of it means nothing.
    paired = of is not _drawdown
    differences = []
    for index in range(1, len(values)):
        pair = np.stack([blocks.values[0], blocks.values[index]], axis=1)
        block = max(1, round(len(pair) ** (1 / 3)))
        interval = UNKNOWN
        if paired and min(apart[0], apart[index]) >= OBSERVATIONS_MIN:
            interval = block_bootstrap(
                pair,
                lambda both: of(both[:, 1]) - of(both[:, 0]),
                block=block,
                rng=np.random.default_rng(7),
            )
        differences.append(
            {
                "with": labels[index],
                "difference": number(values[index] - values[0]),
                "low": number(interval.low),
                "high": number(interval.high),
            }
        )
    shown = dict(zip(labels, map(number, values), strict=True))
    return {"figure": name, "unit": unit, "values": shown, "differences": differences}


def _matched(first: SavedRun, other: SavedRun, span_ns: tuple[int, int]) -> dict[str, Any]:
    """Match trades by symbol and time of the entry's decision, and split what differs."""
    keys = [_keys(run, *span_ns) for run in (first, other)]
    both = sorted(keys[0].keys() & keys[1].keys(), key=lambda key: (key[1], key[0]))
    places = [np.array([each[key] for key in both], np.int64) for each in keys]
    alone = [
        np.array([place for key, place in mine.items() if key not in theirs], np.int64)
        for mine, theirs in (keys, keys[::-1])
    ]
    parts = {
        part: (
            units(other.trades, f"{part}_usdt")[places[1]] - units(first.trades, f"{part}_usdt")[places[0]]
        )
        * (-1 if part == "fees" else 1)
        for part in (*COMPONENTS, "pnl")
    }
    change = parts["pnl"]
    largest = np.argsort(-np.abs(change), kind="stable")[:TRADES_LISTED_MAX]
    return {
        "in_both": len(both),
        "same_side": int(np.count_nonzero(_sides(first)[places[0]] == _sides(other)[places[1]])),
        "equal_pnl": int(np.count_nonzero(change == 0)),
        "difference_usdt": {part: int(values.sum()) / E8 for part, values in parts.items()},
        "only_first": _lone(first, alone[0]),
        "only_other": _lone(other, alone[1]),
        "largest": [
            {
                "symbol": both[index][0],
                "decided": exact_utc(both[index][1]),
                "first_trade": int(places[0][index]),
                "other_trade": int(places[1][index]),
                **{f"{part}_usdt": int(values[index]) / E8 for part, values in parts.items()},
            }
            for index in largest.tolist()
            if change[index]
        ],
    }


def _keys(run: SavedRun, start_ns: int, end_ns: int) -> dict[tuple[str, int], int]:
    """Return the places of the trades that were decided on in [start, end], by symbol and that time."""
    decided = times(run.trades, "entry_decided").tolist()
    keys = zip(run.trades["symbol"].to_pylist(), decided, strict=True)
    return {key: place for place, key in enumerate(keys) if start_ns <= key[1] <= end_ns}


def _sides(run: SavedRun) -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]]:
    return np.array([side == "long" for side in run.trades["side"].to_pylist()], np.bool_)


def _lone(run: SavedRun, places: I64) -> dict[str, Any]:
    """Sum up trades that the other run does not have, and list the largest."""
    pnl = units(run.trades, "pnl_usdt")[places]
    decided, symbols = times(run.trades, "entry_decided"), run.trades["symbol"].to_pylist()
    largest = np.argsort(-np.abs(pnl), kind="stable")[:TRADES_LISTED_MAX].tolist()
    return {
        "count": len(places),
        "pnl_usdt": int(pnl.sum()) / E8,
        "largest": [
            {
                "trade": int(places[index]),
                "symbol": symbols[places[index]],
                "decided": exact_utc(int(decided[places[index]])),
                "pnl_usdt": int(pnl[index]) / E8,
            }
            for index in largest
        ],
    }
