"""``gpuscalp backtest``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gpuscalp.cli.app import app
from gpuscalp.cli.output import JsonFlag, emit, progress

if TYPE_CHECKING:
    from rich.console import Group


@app.command("backtest")
def backtest(
    archive: Annotated[Path, typer.Argument(help="Archive made by `gpuscalp data import`.")],
    model: Annotated[Path, typer.Option("--model", help="Bundle made by `gpuscalp train`.")],
    config: Annotated[
        Path | None, typer.Option("--config", help="TOML file, such as configs/backtest.toml.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="New directory for the run; default runs/<time>-<hash>.")
    ] = None,
    venue: Annotated[
        str | None, typer.Option("--venue", help="Venue of the archive; default: the bundle's.")
    ] = None,
    start: Annotated[
        str | None, typer.Option("--from", help="First instant, UTC, as 2024-07-18T12:00.")
    ] = None,
    end: Annotated[str | None, typer.Option("--to", help="End, UTC, not included.")] = None,
    trials: Annotated[
        int | None,
        typer.Option("--trials", help="Configurations tried so far, this one included; overrides the file."),
    ] = None,
    threads: Annotated[int, typer.Option("--threads", min=1, help="Threads for features and model.")] = 2,
    json: JsonFlag = False,
) -> None:
    """Trade an archive with a bundle and write a report.

    Orders are filled from the recorded book after a latency; nothing is sent anywhere.
    """
    from gpuscalp.backtest import backtest_archive

    with progress("Backtest") as advance:
        result = backtest_archive(
            archive,
            model,
            config=config,
            overrides={"trials": trials},
            out=out,
            venue=venue,
            start=start,
            end=end,
            threads=threads,
            on_progress=advance,
        )
    emit(result.summary, json=json, text=lambda: _text(result.summary))


def _text(summary: dict[str, Any]) -> Group:
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(style="dim")
    table.add_column(justify="right")

    def shown(key: str, digits: int) -> str:
        value = summary[key]
        return "not known" if value is None else f"{value:,.{digits}f}"

    rows = (
        ("time", f"{summary['start']} to {summary['end']} UTC"),
        ("trades", f"{summary['trades']:,}"),
        ("net P&L, USDT", shown("pnl_usdt", 4)),
        ("  gross (mid to mid)", shown("gross_usdt", 4)),
        ("  delay", shown("delay_usdt", 4)),
        ("  spread", shown("spread_usdt", 4)),
        ("  fees paid", shown("fees_usdt", 4)),
        ("  funding received", shown("funding_usdt", 4)),
        ("largest drawdown, %", shown("max_drawdown_pct", 4)),
        (f"Sharpe per {summary['sharpe_interval_s']} s", shown("sharpe", 4)),
        ("  standard error", shown("sharpe_error", 4)),
        (f"deflated Sharpe, {summary['trials']} trial(s)", shown("deflated_sharpe", 3)),
        ("report", summary["report"]),
    )
    for row in rows:
        table.add_row(*row)
    warnings = [Text(f"! {warning}", style="bold yellow") for warning in summary["warnings"]]
    return Group(*warnings, table)
