"""The pictures of a walk-forward's report."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from gpuscalp.backtest.figures import thinned, time_axis
from gpuscalp.overfitting import Overfitting
from gpuscalp.report.figures import INK, SERIES, SOFT, draw
from gpuscalp.schema import F64, I64
from gpuscalp.walkforward.random_entries import RandomEntries


def equity(time_ns: I64, equity_usdt: F64, bounds_ns: Sequence[int]) -> str:
    """Draw equity over all steps, each border marked."""
    at, level = thinned(time_ns, equity_usdt)

    def paint(figure: Any) -> None:
        axes = figure.subplots()
        axes.plot(at, level, color=SERIES[0])
        axes.axhline(level[0], color=SOFT, linewidth=0.8)
        for index, bound in enumerate(bounds_ns):
            when = np.datetime64(bound, "ns").astype("datetime64[ms]")
            axes.axvline(when, color=SERIES[3], linewidth=0.9, linestyle=":")
            axes.annotate(
                f"step {index + 1}", (when, 1.0), xycoords=("data", "axes fraction"), xytext=(3, -10),
                textcoords="offset points", color=SOFT, fontsize=9,
            )  # fmt: skip
        axes.set_title("Equity, USDT; dotted: a new model takes over")
        axes.ticklabel_format(axis="y", useOffset=False)
        time_axis(axes)

    return draw(paint, name="walk-equity", alt="Equity over all steps, with the steps marked", height_in=3.4)


def steps(rows: Sequence[dict[str, Any]]) -> str:
    """Draw what each step made, before and after fees."""

    def paint(figure: Any) -> None:
        axes = figure.subplots()
        at = np.arange(len(rows))
        before = [sum(row[f"{name}_usdt"] for name in ("gross", "delay", "impact", "spread")) for row in rows]
        net = [row["pnl_usdt"] for row in rows]
        axes.bar(at - 0.2, before, width=0.38, color=SERIES[5], label="before fees")
        axes.bar(at + 0.2, net, width=0.38, color=SERIES[0], label="net")
        axes.axhline(0, color=SOFT, linewidth=0.8)
        axes.set_xticks(at, [str(row["step"]) for row in rows])
        axes.set_xlabel("step")
        axes.set_title("P&L by step, USDT")
        axes.legend()

    return draw(paint, name="walk-steps", alt="P&L of each step before and after fees", height_in=2.8)


def logits(found: Overfitting) -> str:
    """Draw how the rank of the chosen configuration is spread out of sample."""

    def paint(figure: Any) -> None:
        axes = figure.subplots()
        # One bar per rank: ranks are few, and bins between them would stay empty.
        values, counts = np.unique(np.round(found.logits, 9), return_counts=True)
        width = 0.8 * (float(np.diff(values).min()) if len(values) > 1 else 1.0)
        colors = [SERIES[2] if value > 0 else SERIES[1] if value < 0 else SOFT for value in values.tolist()]
        axes.bar(values, counts / len(found.logits), width=width, color=colors)
        axes.axvline(0, color=INK, linewidth=0.9, linestyle="--")
        axes.set_title("Where the chosen configuration ranks when it counts: share of combinations")
        axes.set_xlabel("logit of its rank out of sample; 0 is the median")

    return draw(
        paint, name="walk-logits", alt="Histogram of the logits of the cross-validation", height_in=2.8
    )


def costs(table: F64, fees_bps: Sequence[float], slippages_bps: Sequence[float], fee_bps: float) -> str:
    """Draw P&L over the fee, one line for each slippage."""

    def paint(figure: Any) -> None:
        axes = figure.subplots()
        for column, slippage in enumerate(slippages_bps[:6]):
            axes.plot(
                fees_bps, table[:, column], marker="o", markersize=3, color=SERIES[column],
                label=f"slippage {slippage:g} bps",
            )  # fmt: skip
        axes.axhline(0, color=SOFT, linewidth=0.8)
        axes.axvline(fee_bps, color=INK, linewidth=0.9, linestyle="--")
        axes.set_title("P&L of the same trades at other costs, USDT; dashed: the mean fee that was charged")
        axes.set_xlabel("fee per side, bps")
        axes.legend()

    return draw(paint, name="walk-costs", alt="P&L over fee and slippage", height_in=3.0)


def random(found: RandomEntries) -> str:
    """Draw what random entries earn, and the run among them."""

    def paint(figure: Any) -> None:
        axes = figure.subplots()
        axes.hist(found.totals, bins=40, color=SERIES[5], alpha=0.7)
        axes.axvline(found.run, color=SERIES[0], linewidth=2.0, label="the run, priced the same way")
        axes.axvline(0.0, color=SOFT, linewidth=0.9, linestyle="--", label="doing nothing")
        axes.set_title("P&L of random entries with the same exposure, USDT: number of draws")
        axes.legend(loc="upper center")

    return draw(
        paint, name="walk-random", alt="Distribution of random entries with the run marked", height_in=2.8
    )
