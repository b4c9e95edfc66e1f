"""``gpuscalp backtest``: run one; show and compare finished ones."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gpuscalp.cli.app import backtest_app
from gpuscalp.cli.output import JsonFlag, emit, plain_table, progress
from gpuscalp.cli.words import (
    MODEL_HELP,
    BacktestConfigOption,
    BundleVenueOption,
    FromOption,
    RunDirOption,
    ToOption,
    TrialsOption,
    parse_model,
)

if TYPE_CHECKING:
    from rich.console import Group
    from rich.table import Table

RunArgument = Annotated[Path, typer.Argument(help="Directory written by `gpuscalp backtest`.")]


@backtest_app.command("run")
def backtest(
    archive: Annotated[Path, typer.Argument(help="Archive made by `gpuscalp data import`.")],
    model: Annotated[
        Path | None,
        typer.Option(
            "--model", parser=parse_model, metavar="MODEL", help=f"{MODEL_HELP} Default: that of --like."
        ),
    ] = None,
    config: BacktestConfigOption = None,
    out: RunDirOption = None,
    venue: BundleVenueOption = None,
    start_ns: FromOption = None,
    end_ns: ToOption = None,
    trials: TrialsOption = None,
    band: Annotated[
        bool,
        typer.Option("--band", help="Trade a grid of assumptions too: how much of the result is theirs?"),
    ] = False,
    processes: Annotated[
        int | None, typer.Option("--processes", min=1, help="Processes for --band; default: one per core.")
    ] = None,
    like: Annotated[
        Path | None,
        typer.Option("--like", help="Session whose journal is ARCHIVE: decide when it did."),
    ] = None,
    threads: Annotated[int, typer.Option("--threads", min=1, help="Threads for features and model.")] = 2,
    json: JsonFlag = False,
) -> None:
    """Trade an archive with a bundle and write a report.

    The word `run` may be left out: gpuscalp backtest ARCHIVE --model BUNDLE.

    Orders are filled from the recorded book after a latency; nothing is sent anywhere.
    """
    from gpuscalp.backtest import backtest_archive
    from gpuscalp.device import core_count

    with progress("Backtest") as advance:
        result = backtest_archive(
            archive,
            model,
            config=config,
            overrides={"trials": trials},
            out=out,
            venue=venue,
            start_ns=start_ns,
            end_ns=end_ns,
            threads=threads,
            band_processes=(processes or core_count()) if band else None,
            like=like,
            on_progress=advance,
        )
    emit(result.summary, json=json, text=lambda: result_text(result.summary))


@backtest_app.command("show")
def show(
    run: RunArgument,
    trade: Annotated[
        int | None,
        typer.Option("--trade", min=0, help="One trade in full: fills, parts, members, all columns."),
    ] = None,
    trades: Annotated[
        int, typer.Option("--trades", min=0, help="How many trades to list, those with the largest P&L.")
    ] = 20,
    json: JsonFlag = False,
) -> None:
    """Show settings and results of a finished run."""
    from gpuscalp.backtest.show import show_run, show_trade

    if trade is None:
        answer = show_run(run, trades=trades)
        emit(answer, json=json, text=lambda: _shown_run(answer))
    else:
        told = show_trade(run, trade)
        emit(told, json=json, text=lambda: _shown_trade(told))


@backtest_app.command("compare")
def compare(
    runs: Annotated[list[Path], typer.Argument(help="Two to six run directories; the first is the base.")],
    out: Annotated[
        Path | None, typer.Option("--out", help="Also write a page of tables and pictures to this file.")
    ] = None,
    any_market: Annotated[
        bool, typer.Option("--any-market", help="Compare also runs over other data or another time.")
    ] = False,
    json: JsonFlag = False,
) -> None:
    """Compare finished runs with the first of them.

    Shows which settings and results differ, how sure that is, and which trades they share.
    """
    from gpuscalp.backtest.compare import compare_runs

    comparison = compare_runs(runs, any_market=any_market)
    if out is not None:
        from gpuscalp.backtest.compare_report import write_comparison

        comparison.answer["report"] = str(write_comparison(out, comparison))
    emit(comparison.answer, json=json, text=lambda: _compared(comparison.answer))


def result_text(summary: dict[str, Any]) -> Group:
    """Return the figures of a run as they are printed."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(style="dim")
    table.add_column(justify="right", overflow="fold")

    def shown(key: str, digits: int) -> str:
        value = summary[key]
        return "not known" if value is None else f"{value:,.{digits}f}"

    def between(key: str, low: str, high: str, digits: int, scale: float = 1.0) -> str:
        known = [summary[name] for name in (key, low, high) if summary[name] is not None]
        told = [f"{scale * value:,.{digits}f}" for value in known]
        return f"{told[0]} (95 %: {told[1]} to {told[2]})" if len(told) == 3 else shown(key, digits)

    left_open = summary["unclosed_usdt"]
    rows = (
        ("time", f"{summary['start']} to {summary['end']} UTC"),
        ("trades", f"{summary['trades']:,}"),
        ("net P&L, USDT", shown("pnl_usdt", 4)),
        ("  gross (mid to mid)", shown("gross_usdt", 4)),
        ("  delay", shown("delay_usdt", 4)),
        ("  spread", shown("spread_usdt", 4)),
        ("  impact (levels walked)", shown("impact_usdt", 4)),
        ("  fees", f"{0.0 - summary['fees_usdt']:,.4f}"),  # as all parts: the sum of them is the net P&L
        ("  funding received", shown("funding_usdt", 4)),
        *([("  positions left open", f"{left_open:,.4f}")] if left_open else ()),
        ("trades with a profit, %", between("hit_rate", "hit_rate_low", "hit_rate_high", 1, 100.0)),
        (
            "mean P&L per trade, USDT",
            between("mean_pnl_usdt", "mean_pnl_low_usdt", "mean_pnl_high_usdt", 4),
        ),
        ("largest drawdown, %", shown("max_drawdown_pct", 4)),
        (f"Sharpe per {summary['sharpe_interval_s']} s", shown("sharpe", 4)),
        ("  standard error", shown("sharpe_error", 4)),
        (f"deflated Sharpe, {summary['trials']} trial(s)", shown("deflated_sharpe", 3)),
        *_like(summary.get("like")),
        ("report", summary["report"]),
    )
    for row in rows:
        table.add_row(*row)
    told = [*summary.get("band", {}).get("warnings", ()), *summary["warnings"]]
    warnings = [Text(f"! {warning}", style="bold yellow") for warning in told]
    # A result is judged by the least kind assumptions, so these come first.
    band: list[Any] = [_band(summary["band"]), ""] if "band" in summary else []
    return Group(*warnings, *band, table)


def _like(like: dict[str, Any] | None) -> tuple[tuple[str, str], ...]:
    if like is None:
        return ()
    compared = f"{like['frames']:,} of {like['session_frames']:,}, {like['frames_differing']:,} differ"
    return ((f"frames compared with session {like['session']}", compared),)


def _band(band: dict[str, Any]) -> Table:
    from rich.table import Table

    title = f"{band['cells']} combinations of assumptions, {band['earning_cells']} with a profit"
    table = Table(title=title, title_justify="left", box=None, pad_edge=False, collapse_padding=True)
    names = ("net P&L,\nUSDT", "trades", "drawdown,\n%", "queue", "latency", "compute", "maker /\ntaker")
    for name in ("", *names):
        table.add_column(name, justify="right" if name else "left", overflow="fold")
    for name in ("worst", "hardest", "base", "best"):
        row = band[name]
        if name == "hardest" and row == band["worst"]:
            continue
        if name == "base":
            titles = ("queue model", "latency quantile", "compute latency", "fee tier")
            held = [row["levels"][title] for title in titles]
        else:
            held = [
                row["queue"],
                f"{row['request_ms']:.4g} + {row['reply_ms']:.4g} ms",
                f"{row['compute_ms']:g} ms",
                f"{row['maker_fee_bps']:g} / {row['taker_fee_bps']:g} bps",
            ]
        pnl, drawdown = f"{row['pnl_usdt']:,.4f}", f"{row['max_drawdown_pct']:.4f}"
        table.add_row(name, pnl, f"{row['trades']:,}", drawdown, *held)
    return table


def _shown_run(answer: dict[str, Any]) -> Group:
    from rich.console import Group

    from gpuscalp.backtest.metrics import COMPONENTS

    result = answer["result"]
    parts = plain_table("USDT", "closed", *COMPONENTS, "net P&L")
    for name, row in answer["attribution"].items():
        money = (f"{row[f'{part}_usdt']:+,.2f}" for part in (*COMPONENTS, "pnl"))
        parts.add_row(name, f"{row['trades']:,}", *money)
    counts = plain_table("decisions and orders", "count")
    for kind in ("no_intent", "intents", "refusals", "orders", "rejections"):
        for name, count in sorted(result[kind].items()):
            if count:
                counts.add_row(f"{kind.replace('_', ' ')}: {name}", f"{count:,}")
    trades = plain_table(
        "trade", "decided, UTC", "symbol", "side", "quantity", "in at", "out at", "P&L, USDT"
    )
    for row in answer["trades"]:
        trades.add_row(
            str(row["trade_index"]),
            row["entry_decided"][:-6],
            row["symbol"],
            row["side"],
            *(f"{row[name]:.8g}" for name in ("qty", "entry_price", "exit_price")),
            f"{row['pnl_usdt']:+,.4f}",
        )
    listed: list[str | Table] = ["", trades] if answer["trades"] else []
    return Group(result_text(result), "", parts, "", counts, *listed)


def _shown_trade(answer: dict[str, Any]) -> Group:
    from rich.console import Group

    from gpuscalp.backtest.metrics import COMPONENTS

    head = plain_table("trade", "")
    for name, value in answer["trade"].items():
        head.add_row(name.replace("_", " "), f"{value:.10g}" if isinstance(value, float) else str(value))
    parts = plain_table("where it came from", "USDT")
    for part, label in {**COMPONENTS, "pnl": "net P&L"}.items():
        parts.add_row(label, f"{answer['attribution'][f'{part}_usdt']:+.8f}")
    names = ("leg", "side", "filled", "qty", "price", "touch", "arrival_mid", "decision_mid", "maker")
    fills = plain_table("fill", *(str(index) for index in range(len(answer["fills"]))))
    for name in names:
        shown = (row[name] for row in answer["fills"])
        fills.add_row(
            name.replace("_", " "),
            *(f"{each:.10g}" if isinstance(each, float) else str(each) for each in shown),
        )
    fills.add_row("fee, USDT", *(f"{row['fees_usdt']:.8f}" for row in answer["fills"]))
    found: list[str | Table] = [head, "", parts, "", fills]
    if answer["members"] is not None:
        answers = plain_table("answer at the entry", *answer["probability"])
        for name, row in (("ensemble", answer["probability"]), *enumerate(answer["members"])):
            answers.add_row(str(name), *(f"{value:.4f}" for value in row.values()))
        columns = plain_table("column at the entry", "value", "unit", "median", "from it, IQR", "rank")
        for row in answer["features"]:
            numbers = (f"{row[name]:.5g}" for name in ("value", "median", "distance"))
            value, median, distance = numbers
            columns.add_row(
                row["name"], value, row["unit"], median, distance, str(row["importance_rank"] or "–")
            )
        found += ["", answers, "", columns]
    return Group(*found)


def _compared(answer: dict[str, Any]) -> Group:
    from rich.console import Group
    from rich.text import Text

    from gpuscalp.backtest.compare_report import figure_table, setting_rows

    runs = plain_table("run", "directory")
    for run in answer["runs"]:
        runs.add_row(run["label"], run["run_dir"])
    settings = plain_table("setting", *(run["label"] for run in answer["runs"]))
    for row in setting_rows(answer):
        settings.add_row(*row)
    header, rows = figure_table(answer)
    figures = plain_table(*header)
    for cells in rows:
        figures.add_row(*(str(cell) for cell in cells))
    matches = plain_table(
        "trades", "in both", "only first", "only other", "P&L of those in both differs by, USDT"
    )
    for match in answer["trades"]:
        matches.add_row(
            f"{match['of']} and {match['with']}",
            f"{match['in_both']:,}",
            f"{match['only_first']['count']:,}",
            f"{match['only_other']['count']:,}",
            f"{match['difference_usdt']['pnl']:+,.4f}",
        )
    told = [] if answer["same_market"] else ["these runs are over different data or time"]
    told += answer["warnings"]
    warnings: list[Any] = [Text(f"! {each}", style="bold yellow") for each in told]
    page = ["", f"report {answer['report']}"] if "report" in answer else []
    return Group(*warnings, *([""] if told else []), runs, "", settings, "", figures, "", matches, *page)
