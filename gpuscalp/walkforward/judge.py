"""The figures of a finished walk-forward: by step, pooled, against luck, costs and size.

Owns: the judgement of recorded runs. Never: draws, or words a conclusion.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from gpuscalp.backtest.metrics import COMPONENTS, Performance, number, performance
from gpuscalp.config import WalkForwardConfig
from gpuscalp.errors import DataError
from gpuscalp.leakage import Finding
from gpuscalp.overfitting import Overfitting, backtest_overfitting
from gpuscalp.schema import F64, I64
from gpuscalp.stats import (
    OBSERVATIONS_MIN,
    UNKNOWN,
    Interval,
    block_length,
    deflated_sharpe,
    sharpe,
    stationary_bootstrap,
    wilson,
)
from gpuscalp.times import utc
from gpuscalp.walkforward.plan import Plan, Run, Step
from gpuscalp.walkforward.random_entries import RandomEntries
from gpuscalp.walkforward.recorded import Recorded, Trades, returns_of

_DAY_S: Final = 86_400.0


@dataclass(frozen=True, slots=True)
class Judged:
    """What was found, for the report and for ``result.json``.

    Attributes
    ----------
    steps : one row per step: P&L by equity, components of the trades that it entered
    performance : of the base run, its deflation counting every configuration tried
    trials : configurations tried, also before and elsewhere
    deflated_measured : the same with the variance that was measured between the configurations; NaN where
        there is only one
    pnl : P&L of the whole time with its interval, USDT; doing nothing earns 0
    overfitting : None where there is nothing to choose from, or too little time; ``no_overfitting`` says why
    break_even_bps : fee per side at which the same trades would have earned nothing, with its interval; as
        that of the P&L it is not known below ``OBSERVATIONS_MIN`` trades held apart
    costs : float64[len(fees), len(slippages)]   P&L of the same trades, USDT
    """

    steps: list[dict[str, Any]]
    performance: Performance
    trials: int
    deflated_measured: float
    pnl: tuple[float, Interval]
    runs: list[dict[str, Any]]
    overfitting: Overfitting | None
    no_overfitting: str
    random: RandomEntries | None
    break_even_bps: tuple[float, Interval]
    costs: F64
    capacity: list[dict[str, Any]]
    turnover_per_day: float


def judge(plan: Plan, recorded: Sequence[tuple[Run, Recorded]], random: RandomEntries | None) -> Judged:
    """Judge the runs of a plan; the first one is the base."""
    config, base = plan.config, recorded[0][1]
    tried = [(run, found) for run, found in recorded if run.kind != "size"]
    trials = plan.trials
    start_usdt = base.summary["start_usdt"]
    result = performance(
        base.time_ns, base.equity_usdt, start_usdt=start_usdt, trials=trials, results=len(base.trades.groups)
    )
    returns = returns_of([found for _, found in tried], result.interval_s)
    overfitting, why = _overfitting(returns, config.judge.blocks)
    # 0 for a configuration that did nothing.
    ratios = np.nan_to_num([sharpe(each).value for each in returns.T])
    variance = float(np.var(ratios, ddof=1)) if len(ratios) > 1 else math.nan
    measured = (
        deflated_sharpe(result.sharpe, trials=trials, variance=variance) if len(ratios) > 1 else math.nan
    )
    days = result.recorded_s / _DAY_S
    turnover = base.summary["turnover_usdt"]
    rng = np.random.default_rng(config.judge.seed)
    resamples = config.judge.resamples
    total = UNKNOWN
    if result.results >= OBSERVATIONS_MIN:
        total = stationary_bootstrap(
            result.returns, lambda x: float(x.sum()) * start_usdt, rng=rng, resamples=resamples
        )
    return Judged(
        steps=[_step(step, base, last=step is plan.steps[-1]) for step in plan.steps],
        performance=result,
        trials=trials,
        deflated_measured=measured,
        pnl=(base.summary["pnl_usdt"], total),
        runs=[_run(run, found, ratio) for (run, found), ratio in zip(tried, ratios.tolist(), strict=True)],
        overfitting=overfitting,
        no_overfitting=why,
        random=random,
        break_even_bps=break_even_bps(base.trades, resamples=resamples, rng=rng),
        costs=cost_table(base.trades, config.judge.fees_bps, config.judge.slippages_bps),
        capacity=[_size(run, found) for run, found in recorded if run.kind != "tried"],
        turnover_per_day=turnover / start_usdt / days if days > 0 else math.nan,
    )


def cost_table(trades: Trades, fees_bps: Sequence[float], slippages_bps: Sequence[float]) -> F64:
    """Return float64[fees, slippages], USDT: what the same trades would have made at other costs.

    Exact for the same trades and linear in both: P&L before fees less turnover times (fee + slippage), per
    side. At another fee the strategy would have entered at other times; that is a run of its own.
    """
    per_side = np.add.outer(np.array(fees_bps), np.array(slippages_bps))
    return np.asarray(float(trades.before_fees.sum()) - per_side / 1e4 * float(trades.turnover.sum()))


def break_even_bps(trades: Trades, *, resamples: int, rng: np.random.Generator) -> tuple[float, Interval]:
    """Return the fee per side at which the trades earn nothing, with a 95 % interval; NaN without trades."""
    if not len(trades):
        return math.nan, UNKNOWN
    sample = np.add.reduceat(np.stack([trades.before_fees, trades.turnover], axis=1), trades.groups)

    def statistic(rows: F64) -> float:
        return 1e4 * float(rows[:, 0].sum() / rows[:, 1].sum())

    length = block_length(np.add.reduceat(trades.pnl, trades.groups))
    interval = stationary_bootstrap(sample, statistic, rng=rng, length=length, resamples=resamples)
    return statistic(sample), interval


def _overfitting(returns: F64, blocks: int) -> tuple[Overfitting | None, str]:
    try:
        return backtest_overfitting(returns, blocks=blocks), ""
    except DataError as error:
        return None, f"{error.what} ({error.where}: {error.value})"


def _step(step: Step, base: Recorded, *, last: bool) -> dict[str, Any]:
    trades = base.trades
    inside = (trades.entry_ns > step.test_start_ns) & (trades.entry_ns <= step.test_end_ns)
    entered = trades.chosen(inside)
    edges: I64 = np.array([step.test_start_ns, step.test_end_ns], np.int64)
    before, after = base.equity_at(edges).tolist()
    if last:
        # What is still held at the end is closed after the last frame, which may be after the border.
        after = float(base.equity_usdt[-1])
    won = int((entered.pnl > 0).sum())
    share = wilson(won, len(entered), results=len(entered.groups))
    return {
        "step": step.index + 1,
        "train_start": utc(step.train_start_ns),
        "train_end": utc(step.train_end_ns),
        "test_start": utc(step.test_start_ns),
        "test_end": utc(step.test_end_ns),
        "trades": len(entered),
        "pnl_usdt": after - before,
        **{f"{name}_usdt": float(getattr(entered, name).sum()) for name in COMPONENTS},
        "hit_rate": won / len(entered) if len(entered) else None,
        "hit_rate_low": share.low,
        "hit_rate_high": share.high,
    }


def _run(run: Run, found: Recorded, ratio: float) -> dict[str, Any]:
    strategy = run.config.strategy
    return {
        "name": run.name,
        "seed": run.seed,
        "min_edge_bps": strategy.min_edge_bps,
        "min_confidence": strategy.min_confidence,
        "min_agreement": strategy.min_agreement,
        "hold_ms": strategy.hold_ms,
        "trades": found.summary["trades"],
        "pnl_usdt": found.summary["pnl_usdt"],
        "sharpe": ratio,
    }


def _size(run: Run, found: Recorded) -> dict[str, Any]:
    turnover = found.summary["turnover_usdt"]
    wanted = turnover + found.summary["cancelled_usdt"]
    # Of an order that rested it says nothing about the book: the market did not come, or its time was over.
    takes = run.config.orders.entry == "taker"
    return {
        "size": run.size,
        "order_usdt": run.config.strategy.order_usdt,
        "trades": found.summary["trades"],
        "turnover_usdt": turnover,
        "pnl_usdt": found.summary["pnl_usdt"],
        "pnl_bps": 1e4 * found.summary["pnl_usdt"] / turnover if turnover else None,
        **{
            f"{name}_bps": 1e4 * float(getattr(found.trades, name).sum()) / turnover if turnover else None
            for name in ("spread", "impact")
        },
        "cancelled_share": found.summary["cancelled_usdt"] / wanted if wanted and takes else None,
    }


def overfitting_dict(found: Overfitting, names: Sequence[str]) -> dict[str, Any]:
    """Return what ``--json`` prints of a cross-validation."""
    return {
        "probability": found.probability,
        "combinations": len(found.logits),
        "configurations": len(names),
        "slope": number(found.slope),
        "loss": found.loss,
        "median_logit": float(np.median(found.logits)),
        "median_sharpe_inside": float(np.median(found.inside)),
        "median_sharpe_outside": float(np.median(found.outside)),
        "chosen": {name: int(count) for name, count in zip(names, found.chosen, strict=True) if count},
    }


def to_dict(judged: Judged, config: WalkForwardConfig) -> dict[str, Any]:
    """Return what ``result.json`` says of the judgement."""
    estimate, random = judged.performance.sharpe, judged.random
    names = [run["name"] for run in judged.runs]
    return {
        "steps": judged.steps,
        "pnl_usdt": judged.pnl[0],
        "pnl_low_usdt": number(judged.pnl[1].low),
        "pnl_high_usdt": number(judged.pnl[1].high),
        "trials": judged.trials,
        "sharpe": number(estimate.value),
        "sharpe_error": number(estimate.error),
        "sharpe_interval_s": judged.performance.interval_s,
        "deflated_sharpe": number(judged.performance.deflated),
        "deflated_sharpe_measured": number(judged.deflated_measured),
        "turnover_per_day": number(judged.turnover_per_day),
        "runs": judged.runs,
        "overfitting": None if judged.overfitting is None else overfitting_dict(judged.overfitting, names),
        "no_overfitting": judged.no_overfitting,
        "random_entries": None
        if random is None
        else {
            "run_usdt": random.run,
            "draws": len(random.totals),
            "mean_usdt": float(random.totals.mean()),
            "low_usdt": random.interval.low,
            "high_usdt": random.interval.high,
            "gross_usdt": random.gross,
            "costs_usdt": random.costs,
            "p_value": random.p_value,
            "trades": random.compared,
            "left_out": random.left_out,
        },
        "break_even_bps": number(judged.break_even_bps[0]),
        "break_even_low_bps": number(judged.break_even_bps[1].low),
        "break_even_high_bps": number(judged.break_even_bps[1].high),
        "cost_sensitivity": [
            {"fee_bps": fee, "slippage_bps": slippage, "pnl_usdt": float(judged.costs[row, column])}
            for row, fee in enumerate(config.judge.fees_bps)
            for column, slippage in enumerate(config.judge.slippages_bps)
        ],
        "capacity": judged.capacity,
    }


def warnings_of(judged: Judged, base: Recorded, examined: Mapping[str, Finding]) -> list[str]:
    """Return what a reader must not overlook; ``examined``: what the look-ahead of each step gave."""
    found = [
        f"LOOK-AHEAD: in {step} {len(one.leaks)} column(s) or signals change when the future does, first "
        f"{next(iter(one.leaks))} ({next(iter(one.leaks.values()))}). Nothing below means anything."
        for step, one in examined.items()
        if one.leaks
    ]
    found += [
        f"In {step} {len(one.unseen)} of {len(one.columns)} columns and signals had no value where other "
        f"futures were tried, first {one.unseen[0]}: of them nobody knows whether they look ahead."
        for step, one in examined.items()
        if one.unseen
    ]
    found += base.summary["warnings"]
    if judged.no_overfitting:
        found.append(f"The probability of backtest overfitting is not known: {judged.no_overfitting}.")
    if judged.random is not None and judged.random.left_out:
        found.append(
            f"{judged.random.left_out} trades found no fresh quote to enter on, or none to leave on, and "
            "are left out of the comparison with random entries."
        )
    return found
