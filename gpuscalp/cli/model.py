"""``gpuscalp model``: look at bundles and check them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from gpuscalp.cli.app import DeviceOption, model_app
from gpuscalp.cli.output import JsonFlag, emit

BundleArgument = Annotated[Path, typer.Argument(help="Bundle written by `gpuscalp train`.")]


@model_app.command("show")
def show(bundle: BundleArgument, json: JsonFlag = False) -> None:
    """Say what a bundle is, without a check.

    Data, labels, columns, folds, metrics, versions.
    """
    from gpuscalp.train.verify import describe_bundle

    answer = describe_bundle(bundle)
    emit(answer, json=json, text=lambda: _shown(answer))


@model_app.command("verify")
def verify(
    bundle: BundleArgument,
    device: DeviceOption = "auto",
    json: JsonFlag = False,
) -> None:
    """Check a bundle to the bit.

    Files against digests, columns against this version, stored answers, and the forest against XGBoost.
    """
    from gpuscalp.train.verify import verify_bundle

    answer = verify_bundle(bundle, device=device)
    emit(answer, json=json, text=lambda: _verified(answer))


def _shown(answer: dict[str, Any]) -> Any:
    from rich.table import Table

    table = Table("what", "value", show_header=False)
    for name in (
        "bundle",
        "venue",
        "symbols",
        "label",
        "trained_from",
        "trained_to",
        "rows",
        "members",
        "rounds",
        "columns",
        "leader",
        "device",
        "graph_hash",
        "data_digest",
        "digest",
    ):
        table.add_row(name.replace("_", " "), _text(answer[name]))
    for name, value in answer["metrics"].items():
        table.add_row(f"held out: {name}", _text(value))
    for name, version in answer["versions"].items():
        table.add_row(f"made with {name}", version)
    return table


def _verified(answer: dict[str, Any]) -> str:
    return (
        f"{answer['bundle']}: good on {answer['device']} ({answer['device_reason']})\n"
        f"{answer['files']} files have the digest of the contract\n"
        f"{answer['columns']} columns are those of this version\n"
        f"{answer['canary_rows']} canary rows give the stored answers\n"
        f"{answer['differing']} of {answer['margins']:,} margins differ from XGBoost {answer['xgboost']}"
    )


def _text(value: object) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.4f}" if isinstance(value, float) else str(value)
