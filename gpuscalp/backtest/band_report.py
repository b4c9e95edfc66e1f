"""The section on the band: its headline, its words and its picture.

Owns: wording and drawing. Never: computes a cell.
"""

from __future__ import annotations

from typing import Any, Final

from gpuscalp.backtest.band import DIMENSIONS, Assumptions, Band, Figures, level_name
from gpuscalp.backtest.metrics import TOO_FEW_TRADES
from gpuscalp.report import Section, Table
from gpuscalp.report.figures import INK, SERIES, draw
from gpuscalp.report.html import Cell as TableCell

_HEADER: Final = (
    "case",
    *DIMENSIONS,
    "net P&L, USDT",
    "fees paid, USDT",
    "trades",
    "orders filled whole",
    "Sharpe ratio (95 %)",
    "drawdown, %",
)
_DEEPEST: Final = 0.75  # opacity of the largest result


def band_section(band: Band) -> Section:
    """Return the section; it comes first on the page, and its first row is the least kind result."""
    worst, best, hardest = band.worst, band.best, band.hardest
    rows = [
        ("worst", *_levels(worst.assumptions), *_cells(worst.figures)),
        ("base: as configured", *band.base_levels, *_cells(band.base)),
        ("best", *_levels(best.assumptions), *_cells(best.figures)),
    ]
    if hardest != worst:
        rows.insert(
            1, ("every assumption at its hardest", *_levels(hardest.assumptions), *_cells(hardest.figures))
        )
    effects = [
        (title, level, f"{mean:+,.4f}")
        for title, levels in band.effects().items()
        for level, mean in levels.items()
    ]
    means = Table(
        ("assumption", "level", "mean net P&L, USDT"),
        effects,
        caption="Mean over all levels of the other assumptions.",
    )
    return Section(
        "How much of it is assumption",
        warnings=band_warnings(band),
        paragraphs=band_words(band),
        tables=[Table(_HEADER, rows), *([] if band.idle else [means])],
        figures=[] if band.idle else [_picture(band)],
    )


def band_warnings(band: Band) -> list[str]:
    """Return what makes the grid say less than it seems to, in sentences."""
    found, count = [], len(band.cells)
    if not band.base_inside:
        worst, best = band.worst.figures.pnl_usdt, band.best.figures.pnl_usdt
        there = f"end between {worst:+,.4f} and {best:+,.4f}" if worst < best else f"all end at {best:+,.4f}"
        found.append(
            f"The configuration as it is ends at {band.base.pnl_usdt:+,.4f} USDT and lies outside of the "
            f"grid, whose {count} combinations {there}: the section "
            "[band] does not surround it, so nothing here says how much of this result is assumption."
        )
    if band.idle:
        found.append(f"No combination trades: none of the {count} has filled an order.")
    closed = sum(cell.figures.risk_state != "active" for cell in band.cells)
    if closed:
        found.append(
            f"In {closed} combinations the risk gate closed before the end. What they would have lost after "
            "that is not in the figures, so the band is narrower than the assumptions alone would make it."
        )
    return found


def band_words(band: Band) -> list[str]:
    """Return what the grid says, in sentences; nothing where nothing was traded."""
    if band.idle:
        return []
    worst, best, base = band.worst.figures.pnl_usdt, band.best.figures.pnl_usdt, band.base.pnl_usdt
    count, width = len(band.cells), best - worst
    words = [
        f"The worst of {count} combinations of assumptions ends at {worst:+,.4f} USDT, the configuration as "
        f"it is at {base:+,.4f}, the best at {best:+,.4f}. The model and its predictions are the same in all "
        "of them; what differs is only what nobody knows for sure about the way to the exchange and back. "
        "Judge the strategy by the worst.",
    ]
    # Beside a result that the grid does not surround its width is no measure.
    told = base and band.base_inside
    share = f", {width / abs(base):.1f} times the size of the result itself" if told else ""
    decided = (
        f"{band.earning_count} combinations end with a profit and {count - band.earning_count} do not: "
        "whether this earns or loses is decided by assumptions, not by the data."
        if 0 < band.earning_count < count
        else f"{'All' if band.earning_count else 'None'} of the combinations end with a profit."
    )
    words.append(f"From worst to best the assumptions move the result by {width:,.4f} USDT{share}. {decided}")
    spans = {title: max(means.values()) - min(means.values()) for title, means in band.effects().items()}
    largest = max(spans, key=lambda title: spans[title])
    if spans[largest]:
        words.append(
            f"Most of it is the {largest}: its levels are up to {spans[largest]:,.4f} USDT apart on average. "
            "A strategy knows its fees: under a dearer tier it also trades less."
        )
    if not band.queue_matters:
        words.append("No order rested in a queue, so the models of the queue make no difference here.")
    return words


def _levels(assumptions: Assumptions) -> list[str]:
    return [level_name(assumptions, name) for name in DIMENSIONS.values()]


def _cells(figures: Figures) -> list[TableCell]:
    ratio, sharpe = figures.fill_ratio, "not known"
    if figures.sharpe is not None:
        known = figures.sharpe_low is not None and figures.sharpe_high is not None
        between = f"{figures.sharpe_low:+.4f} to {figures.sharpe_high:+.4f}" if known else TOO_FEW_TRADES
        sharpe = f"{figures.sharpe:+.4f} ({between})"
    return [
        f"{figures.pnl_usdt:+,.4f}",
        f"{figures.fees_usdt:,.4f}",
        figures.trades,
        "no orders" if ratio is None else f"{ratio:.1%}",
        sharpe,
        f"{figures.max_drawdown_pct:.3f}",
    ]


def _picture(band: Band) -> str:
    """Draw one panel for each fee tier (and queue model, if it matters): latency across, computing up."""
    queues = list(dict.fromkeys(cell.assumptions.queue for cell in band.cells))
    shown = queues if band.queue_matters else [band.hardest.assumptions.queue]
    fees, latencies, computes = (
        list(dict.fromkeys(level_name(cell.assumptions, name) for cell in band.cells))
        for name in ("taker_fee_bps", "latency_quantile", "compute_ms")
    )
    largest = max(abs(cell.figures.pnl_usdt) for cell in band.cells) or 1.0
    marks = {id(band.best): "best"}
    marks[id(band.worst)] = "worst, best" if band.worst is band.best else "worst"

    def paint(figure: Any) -> None:
        grid = figure.subplots(len(shown), len(fees), sharex=True, sharey=True, squeeze=False)
        for cell in band.cells:
            if cell.assumptions.queue not in shown:
                continue
            x, y, column = (
                levels.index(level_name(cell.assumptions, name))
                for levels, name in (
                    (latencies, "latency_quantile"),
                    (computes, "compute_ms"),
                    (fees, "taker_fee_bps"),
                )
            )
            axes = grid[shown.index(cell.assumptions.queue), column]
            _tile(axes, x, y, cell.figures.pnl_usdt, largest, marks.get(id(cell), ""))
        for row, queue in zip(grid, shown, strict=True):
            for axes, fee in zip(row, fees, strict=True):
                axes.set_title(fee if len(shown) == 1 else f"{queue}, {fee}", fontsize=10.5)
                axes.grid(visible=False)
                axes.set_xlim(-0.5, len(latencies) - 0.5)
                axes.set_ylim(-0.5, len(computes) - 0.5)
                axes.set_xticks(range(len(latencies)), [name.replace(": ", "\n") for name in latencies])
                axes.tick_params(axis="x", labelsize=8.5)
                axes.set_yticks(range(len(computes)), computes)
            row[0].set_ylabel("computing")
        figure.suptitle("Net P&L, USDT, by maker / taker fee", x=0.01, ha="left", fontsize=12, color=INK)

    return draw(
        paint,
        name="band",
        alt="Net P&L under each combination of fees, latencies and computing times",
        height_in=0.8 + (0.5 + 0.45 * len(computes)) * len(shown) + 0.4,
        width_in=max(9.0, 0.4 + 1.05 * len(latencies) * len(fees)),
    )


def _tile(axes: Any, x: int, y: int, pnl: float, largest: float, mark: str) -> None:
    from matplotlib.patches import Rectangle

    color = SERIES[2 if pnl > 0 else 1]
    digits = 1 if largest >= 100 else 2 if largest >= 10 else 4
    alpha = _DEEPEST * abs(pnl) / largest
    axes.add_patch(Rectangle((x - 0.48, y - 0.48), 0.96, 0.96, facecolor=color, alpha=alpha, linewidth=0))
    if mark:
        axes.add_patch(Rectangle((x - 0.48, y - 0.48), 0.96, 0.96, fill=False, edgecolor=INK, linewidth=1.4))
    axes.text(x, y, f"{pnl:+,.{digits}f}", ha="center", va="center", fontsize=9)
    if mark:
        axes.text(x, y - 0.32, mark, ha="center", va="center", fontsize=7.5)
