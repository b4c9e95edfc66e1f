"""``gpuscalp walkforward``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from gpuscalp.cli.app import DeviceOption, walkforward_app
from gpuscalp.cli.output import JsonFlag, emit, plain_table, progress


@walkforward_app.command("run")
def run(
    archive: Annotated[Path, typer.Argument(help="Archive made by `gpuscalp data import`.")],
    out: Annotated[Path, typer.Option("--out", help="Directory for models, runs and report.")],
    config: Annotated[
        Path | None, typer.Option("--config", help="TOML file, such as configs/walkforward.toml.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on in --out; finished parts are verified and kept.")
    ] = False,
    device: DeviceOption = "auto",
    processes: Annotated[
        int | None,
        typer.Option("--processes", min=1, help="Models or runs at the same time; default: one per core."),
    ] = None,
    json: JsonFlag = False,
) -> None:
    """Train on the past and trade what follows, step by step.

    Writes the models, one run directory per configuration, result.json and report.html.
    """
    import os

    from gpuscalp.config import WalkForwardConfig, load
    from gpuscalp.walkforward import walk_forward_archive

    with progress("Walk-forward") as advance:
        result = walk_forward_archive(
            archive,
            config=load(WalkForwardConfig, config, env=os.environ),
            out=out,
            resume=resume,
            device=device,
            processes=processes,
            on_progress=advance,
        )
    emit(result.summary, json=json, text=lambda: _text(result.summary))


@walkforward_app.command("pbo")
def pbo(
    runs: Annotated[list[Path], typer.Argument(help="Run directories over the same data.")],
    blocks: Annotated[
        int, typer.Option("--blocks", min=2, max=20, help="Blocks of time; an even number.")
    ] = 16,
    json: JsonFlag = False,
) -> None:
    """Estimate how likely the best of some runs is overfitted.

    The probability of backtest overfitting, by combinatorially symmetric cross-validation.
    """
    from gpuscalp.walkforward import compare_runs

    answer = compare_runs(runs, blocks=blocks)
    emit(answer, json=json, text=lambda: _pbo_text(answer))


def _text(summary: dict[str, Any]) -> Any:
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    steps = plain_table("step", "from, UTC", "to, UTC", "trades", "P&L, USDT", "gross", "fees")
    for row in summary["steps"]:
        steps.add_row(
            str(row["step"]),
            row["test_start"],
            row["test_end"],
            f"{row['trades']:,}",
            *(f"{row[name]:+,.4f}" for name in ("pnl_usdt", "gross_usdt")),
            f"{-row['fees_usdt']:+,.4f}",
        )
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(style="dim")
    table.add_column(justify="right")
    found, random = summary["overfitting"], summary["random_entries"]
    rows = (
        ("net P&L, USDT", _shown(summary["pnl_usdt"], 4)),
        ("  95 % interval", _between(summary["pnl_low_usdt"], summary["pnl_high_usdt"])),
        ("trades", f"{summary['trades']:,}"),
        (f"deflated Sharpe, {summary['trials']} trial(s)", _shown(summary["deflated_sharpe"], 3)),
        ("probability of overfitting", _shown(found["probability"] if found else None, 3)),
        ("p-value against random entries", _shown(random["p_value"] if random else None, 4)),
        ("break-even fee per side, bps", _shown(summary["break_even_bps"], 3)),
        ("report", summary["report"]),
    )
    for row in rows:
        table.add_row(*row)
    warnings = [Text(f"! {warning}", style="bold yellow") for warning in summary["warnings"]]
    return Group(*warnings, steps, "", table)


def _pbo_text(answer: dict[str, Any]) -> Any:
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    table = Table("run", "trades", "P&L, USDT", "Sharpe", "chosen")
    found = answer["overfitting"]
    for row in answer["runs"]:
        share = found["chosen"].get(row["run"], 0) / found["combinations"]
        table.add_row(
            row["run"],
            f"{row['trades']:,}",
            f"{row['pnl_usdt']:+,.4f}",
            _shown(row["sharpe"], 4),
            f"{share:.0%}",
        )
    warnings = [Text(f"! {warning}", style="bold yellow") for warning in answer["warnings"]]
    return Group(
        *warnings,
        table,
        f"Probability of backtest overfitting: {found['probability']:.3f} "
        f"({found['combinations']:,} combinations, returns per {answer['interval_s']} s)",
        f"The chosen one loses when it counts: {found['loss']:.1%}",
    )


def _shown(value: float | None, digits: int) -> str:
    return "not known" if value is None else f"{value:,.{digits}f}"


def _between(low: float | None, high: float | None) -> str:
    return "not known" if low is None or high is None else f"{low:+,.4f} to {high:+,.4f}"
