"""``gpuscalp demo``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gpuscalp.cli.app import DeviceOption, app
from gpuscalp.cli.output import JsonFlag, emit, progress

if TYPE_CHECKING:
    from gpuscalp.demo import DemoResult


@app.command("demo")
def demo(
    recording: Annotated[
        list[Path] | None,
        typer.Option("--recording", help="Use this recording instead of a synthetic market; repeatable."),
    ] = None,
    out: Annotated[
        Path, typer.Option("--out", help="Directory to work in; an earlier demo in it is replaced.")
    ] = Path("gpuscalp-demo"),
    seed: Annotated[
        int, typer.Option("--seed", min=0, max=1_000_000, help="Seed of the market and the model.")
    ] = 7,
    device: DeviceOption = "auto",
    json: JsonFlag = False,
) -> None:
    """See everything at work, without network or files.

    A synthetic market (or recordings), a model trained on it, a backtest of the rest, a report.
    """
    from gpuscalp.demo import demo as run_demo

    with progress("Demo") as advance:
        result = run_demo(out, recordings=recording or (), seed=seed, device=device, on_progress=advance)
    emit(result.to_dict(), json=json, text=lambda: _summary(result))


def _summary(result: DemoResult) -> Any:
    from rich.console import Group
    from rich.table import Table

    traded, ic = result.backtest.summary, result.train.overall.ic
    table = Table("", "", show_header=False)
    table.add_row("market", f"{result.venue}: {', '.join(result.symbols)}; {result.rows:,} rows")
    table.add_row("trained on", f"{result.train.training.rows:,} rows, {len(result.train.folds)} folds")
    table.add_row(
        "found",
        f"information coefficient {ic.value:+.3f} on held-out rows, "
        f"95 % interval {ic.low:+.3f} … {ic.high:+.3f}"
        if ic.known
        else "no information coefficient: every held-out row had the same edge",
    )
    span = f"{traded['start']} … {traded['end']} UTC"
    table.add_row("backtest", f"{span}, which was not trained on; {traded['trades']} trades")
    table.add_row(
        "result",
        f"{traded['pnl_usdt']:+.2f} USDT = moves {traded['gross_usdt']:+.2f}, "
        f"delay {traded['delay_usdt']:+.2f}, spread {traded['spread_usdt']:+.2f}, "
        f"impact {traded['impact_usdt']:+.2f}, "
        f"fees {-traded['fees_usdt']:+.2f}, "
        f"funding {traded['funding_usdt']:+.2f}",
    )
    if result.synthetic:
        table.add_row("same trades, Binance's fee", f"{result.pnl_at_regular_fee_usdt:+.2f} USDT")
    table.add_row("time", ", ".join(f"{name} {spent:.0f} s" for name, spent in result.stage_seconds.items()))
    return Group(
        *(f"• {note}" for note in result.notes),
        table,
        f"Model:  {result.bundle / 'report.html'}",
        f"Report: {result.report}",
        f"{result.seconds:.0f} s",
    )
