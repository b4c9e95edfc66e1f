"""The numbers of a finished backtest, each with what limits it.

Owns: the summary that ``result.json`` and ``--json`` print. Never: draws, or words a conclusion.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from gpuscalp.backtest.ledger import Trade
from gpuscalp.schema import E8, F64, I64, NS_PER_S
from gpuscalp.stats import (
    OBSERVATIONS_MIN,
    UNKNOWN,
    Interval,
    Sharpe,
    annual_factor,
    block_bootstrap,
    deflated_sharpe,
    held_apart,
    sharpe,
    wilson,
)

# The return interval is the longest of these that still leaves so many returns.
INTERVALS_S: Final = (86_400, 3_600, 300, 60, 10, 1)
MIN_RETURNS: Final = 200
# The equity is sampled at every frame, or once a second: a longer step is a hole in what was recorded. It is
# the longest frame that there is, and the default of grid.max_gap_ms, at which a run of frames ends.
HOLE_NS: Final = 60 * NS_PER_S
# Below this many trades a share or a mean per trade says nearly nothing.
FEW_TRADES: Final = 100
# How reports word an interval, an error or a probability that is left out.
TOO_FEW_TRADES: Final = f"not known: fewer than {OBSERVATIONS_MIN} trades held apart, or returns"

# What the profit is made of, and how reports call it. Delay and impact are the slippage.
COMPONENTS: Final = {
    "gross": "signal (gross)",
    "delay": "slippage: delay",
    "impact": "slippage: impact",
    "spread": "spread",
    "fees": "fees",
    "funding": "funding",
}


@dataclass(frozen=True, slots=True)
class Group:
    """Summed components of some trades, USDT. Costs are negative here, so that the columns add up."""

    key: str
    count: int
    gross: float
    delay: float
    spread: float
    impact: float
    fees: float
    funding: float
    pnl: float


@dataclass(frozen=True, slots=True)
class Performance:
    """Returns and their Sharpe ratio on one sampling interval.

    Attributes
    ----------
    recorded_s : seconds from the first sample to the last, without the holes between
    interval_s : recorded seconds between the equities that returns were taken from
    results : closed trades of which no two were held at the same time, at most
    sharpe, deflated : without error and NaN below ``OBSERVATIONS_MIN`` results or returns
    annual : ratio per year; None where the sample is too short to say it, or the error is not known
    """

    recorded_s: float
    interval_s: int
    returns: F64
    results: int
    sharpe: Sharpe
    deflated: float
    annual: float | None

    @property
    def few(self) -> bool:
        """Whether too little is behind the returns to say how sure anything is."""
        return min(self.results, self.sharpe.count) < OBSERVATIONS_MIN


def recorded_s(time_ns: I64) -> float:
    """Return the seconds from the first of P samples to the last, without the holes between.

    Parameters
    ----------
    time_ns : int64[P]  ascending; more than ``HOLE_NS`` between two samples is a hole
    """
    return float(_recorded_clock(time_ns)[-1]) / NS_PER_S if len(time_ns) else 0.0


def return_interval_s(seconds: float) -> int:
    """Return the longest interval that leaves ``MIN_RETURNS`` in so much recorded time, or the shortest."""
    return next((s for s in INTERVALS_S if seconds / s >= MIN_RETURNS), INTERVALS_S[-1])


def return_edges(time_ns: I64, interval_s: int) -> I64:
    """Return int64[T + 1], ns: the borders of T intervals with the same recorded time in each.

    Holes do not count: nobody traded in them, and as returns of zero they would make of minutes that lie a
    year apart a year of evidence. An interval goes on behind a hole, so what an open position makes over it
    is in the returns. The last interval takes what is left over, so nothing that happens is outside of all of
    them. T is 0 where the recorded time is shorter than one.

    Parameters
    ----------
    time_ns : int64[P]  samples, ascending, from the first border to the last one
    """
    if not len(time_ns):
        return np.empty(0, np.int64)
    clock_ns, length_ns = _recorded_clock(time_ns), interval_s * NS_PER_S
    count = int(clock_ns[-1]) // length_ns
    due_ns = np.arange(count + 1, dtype=np.int64) * length_ns
    last = np.searchsorted(clock_ns, due_ns, side="right") - 1
    edges = time_ns[last] + due_ns - clock_ns[last]
    edges[0] = time_ns[0]
    if count:
        edges[-1] = time_ns[-1]
    return np.asarray(edges)


def performance(time_ns: I64, equity: F64, *, start_usdt: float, trials: int, results: int) -> Performance:
    """Estimate the Sharpe ratio from equity samples.

    The equity is read at the ``return_edges`` (last sample at or before each), over all recorded time: also
    where nothing was held, with a return of zero.

    Parameters
    ----------
    time_ns, equity : int64[P], float64[P]   samples
    trials : configurations tried
    results : trades closed in that time and held apart; returns say no more than these do
    """
    recorded = recorded_s(time_ns)
    interval = return_interval_s(recorded)
    returns = np.empty(0)
    if len(time_ns):
        edges = return_edges(time_ns, interval)
        at = equity[np.searchsorted(time_ns, edges, side="right") - 1]
        # Relative to the start: sizes do not grow with the account, so neither should the yardstick shrink.
        returns = np.diff(at) / start_usdt
    estimate = sharpe(returns, results=results)
    factor = annual_factor(interval, recorded)
    return Performance(
        recorded_s=recorded,
        interval_s=interval,
        returns=returns,
        results=results,
        sharpe=estimate,
        deflated=deflated_sharpe(estimate, trials=trials),
        annual=None if factor is None or not estimate.known else factor * estimate.value,
    )


def grouped(trades: Sequence[Trade], key: Callable[[Trade], Hashable]) -> list[Group]:
    """Sum the components of trades by a key, in the order of the keys."""
    buckets: dict[Any, list[Trade]] = {}
    for trade in trades:
        buckets.setdefault(key(trade), []).append(trade)
    return [total(buckets[name], str(name)) for name in sorted(buckets)]


def total(trades: Sequence[Trade], key: str = "all") -> Group:
    """Sum the components of trades: in integers first, so that the sums are exact."""
    return Group(
        key=key,
        count=len(trades),
        gross=sum(trade.gross_e8 for trade in trades) / E8,
        delay=sum(trade.delay_e8 for trade in trades) / E8,
        spread=sum(trade.spread_e8 for trade in trades) / E8,
        impact=sum(trade.impact_e8 for trade in trades) / E8,
        fees=-sum(trade.fees_e8 for trade in trades) / E8,
        funding=sum(trade.funding_e8 for trade in trades) / E8,
        pnl=sum(trade.pnl_e8 for trade in trades) / E8,
    )


def groups_of(trades: Sequence[Trade]) -> I64:
    """Return where groups of trades that were held together begin; see ``gpuscalp.stats.held_apart``."""
    entry_ns = np.array([trade.entry_decided_ns for trade in trades], np.int64)
    return held_apart(entry_ns, np.array([trade.exit_decided_ns for trade in trades], np.int64))


def mean_pnl_interval(trades: Sequence[Trade]) -> Interval:
    """Return a 95 % interval of the mean profit per trade, USDT, by moving-block bootstrap.

    What is drawn are groups of trades that were held together, in the order of their exits; blocks of n^⅓ of
    them keep their dependence. NaN below ``OBSERVATIONS_MIN`` groups.
    """
    if not trades:
        return UNKNOWN
    sample = np.array([(trade.pnl_e8 / E8, 1.0) for trade in trades])
    sums = np.add.reduceat(sample, groups_of(trades))
    block = max(1, round(len(sums) ** (1 / 3)))
    return block_bootstrap(
        sums, lambda x: float(x[:, 0].sum() / x[:, 1].sum()), block=block, rng=np.random.default_rng(7)
    )


def hits(trades: Sequence[Trade]) -> tuple[int, Interval]:
    """Return how many trades earned something after all costs, and Wilson's interval of their share."""
    won = sum(trade.pnl_e8 > 0 for trade in trades)
    return won, wilson(won, len(trades), results=len(groups_of(trades)))


def number(value: float) -> float | None:
    """Return a finite number, or None: JSON has no NaN."""
    return value if math.isfinite(value) else None


def _recorded_clock(time_ns: I64) -> I64:
    """Return int64[P], ns since the first sample, by a clock that stands still in holes."""
    steps = np.diff(time_ns, prepend=time_ns[:1])
    return np.cumsum(np.where(steps > HOLE_NS, 0, steps), dtype=np.int64)
