"""The sections of a walk-forward's report: what each number is, and what it is not.

Owns: wording and order. Never: computes a result; nothing here says that anything earns money.
"""

from __future__ import annotations

import math
from typing import Any

from gpuscalp.backtest.report import money, number_text, unknown_word
from gpuscalp.report import Section, Table
from gpuscalp.report.html import Cell
from gpuscalp.walkforward import figures
from gpuscalp.walkforward.judge import Judged
from gpuscalp.walkforward.plan import Plan
from gpuscalp.walkforward.recorded import Recorded


def sections(plan: Plan, judged: Judged, base: Recorded, summary: dict[str, Any]) -> list[Section]:
    """Return the report, in the order of the page."""
    return [
        _pooled(judged, base, summary),
        _steps(plan, judged, base),
        _luck(judged),
        _random(judged),
        _costs(plan, judged, base),
        _capacity(judged),
        _assumptions(plan, summary),
    ]


def _pooled(judged: Judged, base: Recorded, summary: dict[str, Any]) -> Section:
    value, interval = judged.pnl
    estimate, trials = judged.performance.sharpe, judged.trials
    unknown = unknown_word(judged.performance)
    rows: list[tuple[Cell, ...]] = [
        ("Net P&L of all steps, USDT", money(value)),
        ("… its 95 % interval (stationary bootstrap)", _range(interval.low, interval.high, money, unknown)),
        ("Doing nothing, USDT", money(0.0)),
        ("Trades", len(base.trades)),
        (
            f"Sharpe ratio per {judged.performance.interval_s} s ± standard error",
            f"{number_text(estimate.value, 4)} ± {number_text(estimate.error, 4, unknown)}"
            if math.isfinite(estimate.value)
            else "not known: too few returns, or all alike",
        ),
        (f"Deflated Sharpe ratio, {trials} trial(s)", number_text(judged.performance.deflated, 3, unknown)),
        (
            "… with the variance measured between them",
            number_text(judged.deflated_measured, 3, unknown)
            if len(judged.runs) > 1
            else "not known: one configuration was tried",
        ),
        ("Largest drawdown", f"{base.summary['max_drawdown_pct']:.3f} %"),
        ("Turnover per day, times the start capital", number_text(judged.turnover_per_day, 2)),
    ]
    return Section(
        "All steps together",
        warnings=summary["warnings"],
        paragraphs=[
            "At every step a model is trained on the time before it only and trades the stretch that "
            "follows, on the code path of a backtest. One account goes through all steps: positions, the "
            "risk gate and losses are carried over, as if a live session were given new models.",
            "This is one path through one stretch of the past. It is not a forecast, and no figure here "
            "shows that the strategy earns money. Where the interval of the P&L contains zero, doing nothing "
            "cannot be told from it.",
        ],
        tables=[Table(("figure", "value"), rows)],
    )


def _steps(plan: Plan, judged: Judged, base: Recorded) -> Section:
    models = [
        (
            row["step"],
            row["train_start"],
            row["trained_until"],
            row["train_rows"],
            number_text(row["held_out_ic"], 3),
        )
        for row in judged.steps
    ]
    results = [
        (
            row["step"],
            row["test_start"],
            row["test_end"],
            row["trades"],
            *(money(row[f"{name}_usdt"]) for name in ("gross", "delay", "impact", "spread")),
            money(-row["fees_usdt"]),
            money(row["funding_usdt"]),
            money(row["pnl_usdt"]),
            "no trades"
            if row["hit_rate"] is None
            else f"{row['hit_rate']:.0%} ({row['hit_rate_low']:.0%} to {row['hit_rate_high']:.0%})",
        )
        for row in judged.steps
    ]
    return Section(
        "Step by step",
        paragraphs=[
            "P&L by equity between the borders; its components are those of the trades that the step "
            "entered, so a position that is carried over a border makes them differ. A strategy whose result "
            "comes from one step has shown it once.",
        ],
        tables=[
            Table(
                (
                    "step", "from", "to", "trades", "gross", "delay", "impact", "spread", "fees", "funding",
                    "P&L", "profitable trades (95 %)",
                ),
                results,
                caption="USDT; UTC.",
            ),
            Table(
                ("step", "trained from", "trained until", "rows", "held-out IC"),
                models,
                caption="The model of each step. The information coefficient is that of rows held out inside "
                "its own past.",
            ),
        ],
        figures=[
            figures.equity(base.time_ns, base.equity_usdt, [step.test_start_ns for step in plan.steps]),
            figures.steps(judged.steps),
        ],
    )  # fmt: skip


def _luck(judged: Judged) -> Section:
    runs = [
        (
            run["name"], run["min_edge_bps"], run["min_confidence"], run["min_agreement"],
            run["hold_ms"], run["seed"], run["trades"], money(run["pnl_usdt"]), number_text(run["sharpe"], 4),
        )
        for run in judged.runs
    ]  # fmt: skip
    table = Table(
        ("run", "min edge", "confidence", "agreement", "hold ms", "seed", "trades", "P&L", "Sharpe"),
        runs,
        caption="Every configuration that was tried, each with an account of its own over all steps.",
    )
    found = judged.overfitting
    if found is None:
        return Section(
            "Choice and luck",
            paragraphs=[f"The probability of backtest overfitting is not known: {judged.no_overfitting}."],
            tables=[table],
        )
    rows: list[tuple[Cell, ...]] = [
        ("Probability of backtest overfitting", number_text(found.probability, 3)),
        ("Combinations", len(found.logits)),
        ("Chosen one loses when it counts", f"{found.loss:.1%}"),
        ("Slope of its Sharpe ratio, out of sample on in sample", number_text(found.slope, 3)),
    ]
    return Section(
        "Choice and luck",
        paragraphs=[
            "Combinatorially symmetric cross-validation (Bailey, Borwein, López de Prado and Zhu 2015): time "
            "is cut into blocks; for every way to halve them the best configuration of one half is looked up "
            "in the other. The probability of backtest overfitting is the share of ways in which it ranks "
            "below the median there; a rank in the very middle counts half. Near one half the choice is "
            "worth nothing; near zero the same configuration is best again and again, which may still be a "
            "loss. The ways overlap, so the share has no binomial error, and with few configurations it is "
            "coarse. Where one configuration is chosen nearly always, its two halves make up the same whole "
            "and the slope is near −1 by construction.",
        ],
        tables=[Table(("figure", "value"), rows), table],
        figures=[figures.logits(found)],
    )


def _random(judged: Judged) -> Section:
    found = judged.random
    if found is None:
        return Section(
            "Against random entries", paragraphs=["There is no trade to compare with random ones."]
        )
    rows: list[tuple[Cell, ...]] = [
        ("The run, priced the same way, USDT", money(found.run)),
        ("Random entries, mean, USDT", money(float(found.totals.mean()))),
        ("… 95 % of the draws", _range(found.interval.low, found.interval.high, money)),
        ("… of the mean: what the mid did", money(found.gross)),
        ("… of the mean: spreads and fees", money(-found.costs)),
        ("Draws that earn as much as the run or more (p-value)", number_text(found.p_value, 4)),
        ("Draws", len(found.totals)),
        ("Trades compared", found.compared),
    ]
    return Section(
        "Against random entries",
        paragraphs=[
            "Each draw repeats every trade (symbol, side, value, holding time, clock hour), all of an hour "
            "moved by the same random time: entries that came together stay together. Fills are cheap ones, "
            "for the draws and for the run: mid plus half the spread plus fee at the decision, without "
            "delay, depth or refusals. So the run's figure here differs from its P&L above; only the "
            "comparison counts. Random entries lose about their costs. A small p-value says that the moments "
            "were chosen better than by chance, not that they pay.",
        ],
        tables=[Table(("figure", "value"), rows)],
        figures=[figures.random(found)],
    )


def _costs(plan: Plan, judged: Judged, base: Recorded) -> Section:
    config, trades = plan.config.judge, base.trades
    value, interval = judged.break_even_bps
    between = _range(
        interval.low, interval.high, lambda x: number_text(x, 3), unknown_word(judged.performance)
    )
    rows = [
        (f"{fee:g}", *(money(float(cell)) for cell in judged.costs[index]))
        for index, fee in enumerate(config.fees_bps)
    ]
    return Section(
        "Sensitivity to costs",
        paragraphs=[
            "The trades as they were, at other fees and with more slippage on every fill: exact and linear. "
            "At another fee the strategy would have entered at other times; for that, run it again.",
            f"Fee per side at which these trades earn nothing: {number_text(value, 3)} bps, 95 % interval "
            f"{between} (stationary bootstrap over groups of trades that were held together)."
            if len(trades)
            else "There is no trade, so no fee at which they would earn nothing.",
        ],
        tables=[
            Table(
                ("fee, bps", *(f"slippage {slippage:g} bps" for slippage in config.slippages_bps)),
                rows,
                caption="Net P&L, USDT.",
            )
        ],
        figures=[
            figures.costs(
                judged.costs,
                config.fees_bps,
                config.slippages_bps,
                1e4 * float(trades.fees.sum() / trades.turnover.sum()) if len(trades) else math.nan,
            )
        ],
    )


def _capacity(judged: Judged) -> Section:
    rows = [
        (
            f"{row['size']:g}",
            f"{row['order_usdt']:,.0f}",
            row["trades"],
            f"{row['turnover_usdt']:,.0f}",
            money(row["pnl_usdt"]),
            number_text(row["pnl_bps"], 3),
            number_text(row["spread_bps"], 3),
            number_text(row["impact_bps"], 3),
            "–" if row["cancelled_share"] is None else f"{row['cancelled_share']:.1%}",
        )
        for row in judged.capacity
    ]
    return Section(
        "Capacity",
        paragraphs=[
            "The base run again with all amounts of money (orders, limits, account) multiplied: the "
            "decisions are the same as far as fills are, and only the recorded depth stays. What exceeds the "
            "displayed quantity is cancelled and counts as not filled; where entries rest no such share is "
            "told, since their time runs out for other reasons. What such orders would do to the market "
            "beyond the levels that they take is not modelled, so this is an upper bound.",
        ],
        tables=[
            Table(
                (
                    "size", "order, USDT", "trades", "turnover, USDT", "P&L, USDT", "P&L, bps", "spread, bps",
                    "impact, bps", "not filled",
                ),
                rows,
                caption="bps of the turnover.",
            )
        ],
    )  # fmt: skip


def _assumptions(plan: Plan, summary: dict[str, Any]) -> Section:
    split = plan.config.steps
    clean = sum(not columns for columns in summary["look_ahead"].values())
    unseen = max(len(columns) for columns in summary["look_ahead_unseen"].values())
    rows: list[tuple[Cell, ...]] = [
        ("Steps", f"{len(plan.steps)}, {split.mode}"),
        (
            "From the end of training to trading",
            f"{(plan.steps[0].test_start_ns - plan.steps[0].train_end_ns) / 1e6:g} ms",
        ),
        ("Steps examined for look-ahead, clean", f"{clean} of {len(plan.steps)}"),
        ("… columns and signals that had no value there, at most", unseen),
        ("Models trained on", plan.device),
        ("Data", plan.data_digest),
        ("Configuration", summary["config_hash"]),
        ("Base run, with its own report", summary["base"]),
    ]
    return Section(
        "Assumptions",
        paragraphs=[
            "Fills, latencies and fees are those of the backtest; the report of the base run lists them. The "
            "training of a step never reads a tick behind its end. The examination gives the features and "
            "signals at the beginning of each stretch other futures and compares them: it finds a leak in "
            "the columns, not one in how the configuration was chosen. Of a column without a value there it "
            "says nothing.",
        ],
        tables=[Table(("assumption", "value"), rows)],
    )


def _range(low: float, high: float, form: Any, unknown: str = "not known") -> str:
    return unknown if low != low else f"{form(low)} to {form(high)}"
