"""The pictures of a backtest's report."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from gpuscalp.backtest.calibration import CalibrationRow
from gpuscalp.backtest.metrics import COMPONENTS, Group
from gpuscalp.report.figures import SERIES, SOFT, draw
from gpuscalp.schema import F64, I64

# A line of more points than pixels only makes the file larger.
_MAX_POINTS: Final = 1_500
# Symbols in one picture.
_MAX_BARS: Final = 24


def equity(time_ns: I64, equity_usdt: F64) -> str:
    """Draw equity over its drawdown."""
    high = np.maximum.accumulate(equity_usdt) if len(equity_usdt) else equity_usdt
    drawdown = 100 * (equity_usdt - high) / high
    at, level = thinned(time_ns, equity_usdt)
    at_low, low = thinned(time_ns, drawdown)

    def paint(figure: Any) -> None:
        upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(2, 1))
        upper.plot(at, level, color=SERIES[0])
        upper.axhline(equity_usdt[0] if len(equity_usdt) else 0, color=SOFT, linewidth=0.8)
        upper.set_title("Equity, USDT")
        upper.ticklabel_format(axis="y", useOffset=False)
        lower.fill_between(at_low, low, 0, color=SERIES[1], alpha=0.35, linewidth=0)
        lower.plot(at_low, low, color=SERIES[1], linewidth=0.8)
        lower.set_title("Drawdown, %")
        time_axis(lower)

    return draw(paint, name="equity", alt="Equity and drawdown over time", height_in=4.4)


def overlay(runs: Sequence[tuple[str, I64, F64]]) -> str:
    """Draw what several runs have earned, each from its own start: (label, times, equity)."""

    def paint(figure: Any) -> None:
        axes = figure.subplots()
        for index, (label, time_ns, equity_usdt) in enumerate(runs):
            at, level = thinned(time_ns, equity_usdt - equity_usdt[:1])
            axes.plot(at, level, color=SERIES[index], label=label)
        axes.axhline(0, color=SOFT, linewidth=0.8)
        axes.set_title("Equity less that of the start, USDT")
        axes.legend()
        time_axis(axes)

    return draw(paint, name="overlay", alt="Equity of all runs over time", height_in=4.0)


def exposure(time_ns: I64, gross_usdt: F64) -> str:
    """Draw the value of open positions."""
    at, level = thinned(time_ns, gross_usdt)

    def paint(figure: Any) -> None:
        axes = figure.subplots()
        axes.fill_between(at, level, 0, color=SERIES[5], alpha=0.5, linewidth=0, step="post")
        axes.set_title("Value of open positions, USDT")
        axes.set_ylim(bottom=0)
        time_axis(axes)

    return draw(paint, name="exposure", alt="Value of open positions over time", height_in=2.2)


def components(total: Group) -> str:
    """Draw how the gross profit becomes the net one: each bar begins where the one before ended."""
    values = [getattr(total, name) for name in COMPONENTS]

    def paint(figure: Any) -> None:
        axes = figure.subplots()
        start = 0.0
        for index, (name, value) in enumerate(zip(COMPONENTS.values(), values, strict=True)):
            # On one line the two names of slippage run into each other.
            axes.bar(
                name.replace(": ", ":\n"),
                value,
                bottom=start,
                color=SERIES[2 if value >= 0 else 1],
                width=0.6,
            )
            start += value
            axes.plot([index - 0.3, index + 1.3], [start, start], color=SOFT, linewidth=0.8)
        axes.bar("net P&L", total.pnl, color=SERIES[0], width=0.6)
        axes.axhline(0, color=SOFT, linewidth=0.8)
        axes.set_title("From gross to net, USDT")

    return draw(paint, name="components", alt="P&L by cost component", height_in=2.8)


def groups(by_hour: Sequence[Group], by_symbol: Sequence[Group]) -> str:
    """Draw net profit by hour and by symbol."""

    def paint(figure: Any) -> None:
        left, right = figure.subplots(1, 2)
        largest = sorted(by_symbol, key=lambda group: -abs(group.pnl))[:_MAX_BARS]
        symbols = sorted(largest, key=lambda group: group.key)
        named = "symbol" if len(symbols) == len(by_symbol) else f"symbol, the {_MAX_BARS} largest"
        for axes, shown, title in ((left, by_hour, "hour, UTC"), (right, symbols, named)):
            colors = [SERIES[2 if group.pnl >= 0 else 1] for group in shown]
            axes.bar(range(len(shown)), [group.pnl for group in shown], color=colors)
            axes.axhline(0, color=SOFT, linewidth=0.8)
            step = max(1, len(shown) // 6)
            ticks = range(0, len(shown), step)
            axes.set_xticks(list(ticks), [shown[index].key.removesuffix(":00") for index in ticks])
            axes.set_title(f"Net P&L by {title}, USDT")

    return draw(paint, name="groups", alt="Net P&L by hour and by symbol", height_in=2.8)


def calibration(
    rows: Sequence[CalibrationRow], horizon_frames: int, *, name: str, title: str, axis: str
) -> str:
    """Draw mean outcomes over mean predictions, with two standard errors, and the line of perfection.

    ``rows`` must not be empty: an axis without data has a scale that means nothing.
    """
    predicted = np.array([row.predicted for row in rows])
    observed = np.array([row.observed for row in rows])
    error = np.array([2 * row.error(horizon_frames) for row in rows])

    def paint(figure: Any) -> None:
        axes = figure.subplots()
        ends = [predicted.min(), predicted.max()]
        axes.plot(ends, ends, color=SOFT, linewidth=0.9, linestyle="--", label="as predicted")
        axes.errorbar(
            predicted, observed, yerr=error, fmt="o-", color=SERIES[0], markersize=4, label="outcome"
        )
        axes.legend()
        axes.set_title(title)
        axes.set_xlabel(axis)

    return draw(paint, name=name, alt=title, height_in=3.0)


def thinned(time_ns: I64, values: F64) -> tuple[Any, F64]:
    """Keep the lowest and the highest point of each stretch, so that no spike is lost."""
    if len(values) > _MAX_POINTS:
        keep: set[int] = {0, len(values) - 1}
        for stretch in np.array_split(np.arange(len(values)), _MAX_POINTS // 2):
            keep.add(int(stretch[np.argmin(values[stretch])]))
            keep.add(int(stretch[np.argmax(values[stretch])]))
        chosen = np.array(sorted(keep))
        time_ns, values = time_ns[chosen], values[chosen]
    return time_ns.astype("datetime64[ns]").astype("datetime64[ms]"), values


def time_axis(axes: Any) -> None:
    """Label an axis of times, which are UTC."""
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter

    locator = AutoDateLocator(minticks=3, maxticks=8)
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))
    axes.set_xlabel("UTC")
