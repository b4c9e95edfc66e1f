"""A comparison as a page.

Owns: wording and order. Never: computes a figure (compare.py does).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from gpuscalp.backtest import figures
from gpuscalp.backtest.compare import Comparison
from gpuscalp.backtest.metrics import COMPONENTS
from gpuscalp.report import Section, Table, write_report
from gpuscalp.report.html import Cell

# How a figure is printed; all others are in USDT or ratios.
_FORMS: Final = {"trades": ",.0f", "share of trades with a profit": ".1%"}


def write_comparison(path: Path, comparison: Comparison) -> Path:
    """Write one self-contained page and return its path."""
    directories = " · ".join(f"{run['label']}: {run['run_dir']}" for run in comparison.answer["runs"])
    return write_report(path, "Backtests side by side", sections(comparison), subtitle=directories)


def sections(comparison: Comparison) -> list[Section]:
    """Return the page of a comparison, in its order."""
    return [_settings(comparison), _figures(comparison), _equity(comparison), *_trades(comparison)]


def _settings(comparison: Comparison) -> Section:
    answer, labels = comparison.answer, comparison.labels
    runs = [(run["label"], run["run_dir"], run["config_hash"][:12]) for run in answer["runs"]]
    rows = setting_rows(answer)
    warnings = answer["warnings"] + [
        f"{label}: {warning}"
        for label, run in zip(labels, comparison.runs, strict=True)
        for warning in run.result["warnings"]
    ]
    if not answer["same_market"]:
        warnings.insert(
            0,
            "OTHER MARKET: these runs are over different data or time. What differs between the results may "
            "come from that alone; only the time that they have in common is compared.",
        )
    return Section(
        "What differs in the settings",
        warnings=warnings,
        paragraphs=[] if rows else ["Nothing: the settings, the data and the model are the same."],
        tables=[
            Table(("run", "directory", "hash"), runs),
            Table(("setting", *labels), rows, caption="Only what is not equal in all runs."),
        ],
    )


def setting_rows(answer: dict[str, Any]) -> list[tuple[str, ...]]:
    """Return what differs in the settings: name, then the value of every run."""
    labels = [run["label"] for run in answer["runs"]]
    return [(row["setting"], *(_text(row[label]) for label in labels)) for row in answer["config"]]


def figure_table(answer: dict[str, Any]) -> tuple[list[str], list[tuple[Cell, ...]]]:
    """Return header and rows: every figure by run, and the differences with their intervals."""
    labels = [run["label"] for run in answer["runs"]]
    header = ["figure", *labels]
    for label in labels[1:]:
        header += [f"{label} − {labels[0]}", "95 % interval"]
    rows: list[tuple[Cell, ...]] = []
    for row in answer["figures"]:
        name = f"{row['figure']}, {row['unit']}" if row["unit"] else row["figure"]
        form = _FORMS.get(row["figure"], ",.4f")
        cells: list[Cell] = [name, *(_number(row["values"][label], form) for label in labels)]
        for found in row["differences"]:
            known = found["low"] is not None
            interval = f"{_number(found['low'], form)} … {_number(found['high'], form)}" if known else "–"
            cells += [_number(found["difference"], form), interval]
        rows.append(tuple(cells))
    return header, rows


def _figures(comparison: Comparison) -> Section:
    blocks = comparison.answer["blocks"]
    header, rows = figure_table(comparison.answer)
    return Section(
        "What differs in the results",
        paragraphs=[
            f"Over the time that the runs have in common, cut into {blocks['count']:,} blocks of "
            f"{blocks['seconds']:,} s. A trade counts in the block in which it was closed. The intervals are "
            "of the paired difference: stretches of blocks are drawn for both runs at once (moving-block "
            "bootstrap), so what the market did to both alike cancels out. They say how much of the "
            "difference is chance in this stretch of time; they say nothing about another one, nor about "
            "settings that were tried and are not shown.",
        ],
        tables=[Table(header, rows, caption="Costs are negative, so that the parts add up to the net P&L.")],
    )


def _equity(comparison: Comparison) -> Section:
    lines = [(label, *run.equity) for label, run in zip(comparison.labels, comparison.runs, strict=True)]
    return Section("Equity of the runs", figures=[figures.overlay(lines)])


def _trades(comparison: Comparison) -> list[Section]:
    found = []
    for match in comparison.answer["trades"]:
        first, other = match["of"], match["with"]
        gap = match["difference_usdt"]
        counts = [
            ("in both", match["in_both"], f"{gap['pnl']:+.4f}"),
            (f"only in {first}", match["only_first"]["count"], f"{-match['only_first']['pnl_usdt']:+.4f}"),
            (f"only in {other}", match["only_other"]["count"], f"{match['only_other']['pnl_usdt']:+.4f}"),
        ]
        largest = [
            (
                row["symbol"], _moment(row["decided"]), str(row["first_trade"]), str(row["other_trade"]),
                *(f"{row[f'{part}_usdt']:+.4f}" for part in (*COMPONENTS, "pnl")),
            )
            for row in match["largest"]
        ]  # fmt: skip
        found.append(
            Section(
                f"Trades of {first} and {other}",
                paragraphs=[
                    "Trades are the same where symbol and time of the decision to enter are. Of those in "
                    f"both, {match['same_side']:,} went the same way and {match['equal_pnl']:,} made the "
                    "same to the unit."
                ],
                tables=[
                    Table(
                        ("trades", "count", f"adds to {other} − {first}, USDT"),
                        counts,
                        caption="The three add up to the difference of all these trades.",
                    ),
                    Table(
                        (*COMPONENTS.values(), "net P&L"),
                        [tuple(f"{gap[part]:+.4f}" for part in (*COMPONENTS, "pnl"))],
                        caption=f"Trades in both: {other} − {first}, USDT, by part.",
                    ),
                    Table(
                        (
                            "symbol",
                            "decided, UTC",
                            f"trade of {first}",
                            f"of {other}",
                            *COMPONENTS.values(),
                            "net P&L",
                        ),
                        largest,
                        caption=f"Trades in both with the largest differences: {other} − {first}, USDT.",
                    ),
                    _lone(first, match["only_first"]),
                    _lone(other, match["only_other"]),
                ],
            )
        )
    return found


def _lone(label: str, lone: dict[str, Any]) -> Table:
    rows = [
        (str(row["trade"]), row["symbol"], _moment(row["decided"]), f"{row['pnl_usdt']:+.4f}")
        for row in lone["largest"]
    ]
    return Table(
        ("trade", "symbol", "decided, UTC", "net P&L"),
        rows,
        caption=f"Only in {label}: {lone['count']:,} trades; the largest are listed.",
    )


def _number(value: float | None, form: str) -> str:
    """Return a figure with the decimals of its row: those of one row can be compared at a glance."""
    return "–" if value is None else f"{value:{form}}"


def _moment(exact: str) -> str:
    """Return a time of the answer, which has nanoseconds, in milliseconds."""
    return exact[:-6]


def _text(value: object) -> str:
    if value is None:
        return "–"
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
