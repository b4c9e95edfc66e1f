"""``gpuscalp drift``: whether data still look like those that a model was trained on."""

from __future__ import annotations

from math import isnan
from pathlib import Path
from typing import Annotated, Any

import typer

from gpuscalp.cli.app import app
from gpuscalp.cli.output import JsonFlag, emit, progress
from gpuscalp.cli.words import MODEL_HELP, FromOption, RegistryOption, ToOption


@app.command("drift")
def drift(
    model: Annotated[str, typer.Argument(metavar="MODEL", help=MODEL_HELP)],
    source: Annotated[Path, typer.Argument(help="Archive, or the directory of a session.")],
    venue: Annotated[
        str | None, typer.Option("--venue", help="May be left out where the archive has the model's own.")
    ] = None,
    start_ns: FromOption = None,
    end_ns: ToOption = None,
    out: Annotated[Path | None, typer.Option("--out", help="Picture to write: .png, .svg or .pdf.")] = None,
    registry: RegistryOption = None,
    json: JsonFlag = False,
) -> None:
    """Compare data with those that a model was trained on.

    For each group of features the stability index, and how well its rows can be told from training rows.
    """
    from gpuscalp.drift_report import drift as compared
    from gpuscalp.registry import model_path

    with progress("Comparing") as advance:
        answer = compared(
            model_path(model, registry=registry),
            source,
            venue=venue,
            start_ns=start_ns,
            end_ns=end_ns,
            out=out,
            on_progress=advance,
        )
    emit(answer, json=json, text=lambda: _shown(answer))


def _shown(answer: dict[str, Any]) -> Any:
    from rich.console import Group
    from rich.table import Table

    table = Table("group", "PSI", "95 %", "largest", "column", "AUC", "95 %", "in the training", "stands out")
    for name, each in answer["groups"].items():
        auc = each["auc"]
        told = ["", "", "", ""]
        if auc is not None:
            told = [
                f"{auc['auc']:.3f}",
                f"{auc['low']:.3f} … {auc['high']:.3f}",
                f"{auc['floor']:.3f}, at most {auc['floor_max']:.3f}",
                "yes" if auc["stands_out"] else "",
            ]
        table.add_row(
            name,
            f"{each['psi']:.3f}",
            "" if isnan(each["psi_low"]) else f"{each['psi_low']:.3f} … {each['psi_high']:.3f}",
            f"{each['psi_largest']:.3f}",
            each["column"],
            *told,
        )
    outliers, alarm = answer["outliers"], answer["alarm"]
    lines = [f"{answer['rows']:,} rows"]
    if outliers is not None:
        lines.append(f"Outliers: {outliers:.2%} of them")
    if alarm is None:
        lines.append("The training was too short for a drift flag")
    else:
        flagged = "up" if alarm["flagged_ns"] is not None else "down"
        lines.append(
            f"Drift flag: {flagged}, after {alarm['blocks']} blocks of {alarm['block_s']:g} s against "
            f"{alarm['training_blocks']} of the training"
        )
    if answer["picture"]:
        lines.append(f"Picture: {answer['picture']}")
    return Group(table, *lines)
