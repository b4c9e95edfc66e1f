"""``gpuscalp tune``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from gpuscalp.cli.app import DeviceOption, app
from gpuscalp.cli.output import JsonFlag, emit, plain_table, progress
from gpuscalp.cli.words import FromOption, RegistryOption, ToOption

_SHOWN = 15
_UNITS = {"net": "bps/symbol·h", "log_loss": "share of base log loss"}


@app.command("tune")
def tune(
    archive: Annotated[Path, typer.Argument(help="Archive made by `gpuscalp data import`.")],
    trials: Annotated[int, typer.Option("--trials", min=1, help="Configurations to try, in all.")],
    config: Annotated[
        Path | None, typer.Option("--config", help="TOML file, such as configs/tune.toml.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="Directory of the search; default: runs/tune-<hash>.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on in the directory; finished trials are kept.")
    ] = False,
    seed: Annotated[
        int | None, typer.Option("--seed", min=0, help="Seed of the search; overrides the file.")
    ] = None,
    metric: Annotated[
        Literal["net", "log_loss"] | None,
        typer.Option("--metric", help="What a trial is scored by; overrides the file."),
    ] = None,
    start_ns: FromOption = None,
    end_ns: ToOption = None,
    device: DeviceOption = "auto",
    cpus: Annotated[
        int | None, typer.Option("--cpus", min=1, help="CPUs and threads of a trial; overrides the file.")
    ] = None,
    gpus: Annotated[
        float | None, typer.Option("--gpus", help="Share of a GPU for a trial; overrides the file.")
    ] = None,
    concurrent: Annotated[
        int | None, typer.Option("--concurrent", min=1, help="Trials at the same time, at most.")
    ] = None,
    address: Annotated[
        str | None,
        typer.Option("--address", help="Ray cluster: auto, or host:port. Default: one for this call."),
    ] = None,
    register: Annotated[
        bool, typer.Option("--register", help="Also add the bundle to the registry (docs/models.md).")
    ] = False,
    registry: RegistryOption = None,
    json: JsonFlag = False,
) -> None:
    """Search for a configuration on Ray; train the best one.

    Writes the trials as they end, a report, the bundle, and files for the --config of `train` and
    `backtest`.
    """
    import os

    from gpuscalp.config import TuneConfig, load
    from gpuscalp.registry import Registry, registry_path
    from gpuscalp.tuning import tune_archive

    overrides = {
        "search.seed": seed,
        "score.metric": metric,
        "trial.cpus": cpus,
        "trial.gpus": gpus,
    }
    models = Registry(registry or registry_path()) if register else None
    if models is not None:
        models.check_writable()
    with progress("Tuning") as advance:
        result = tune_archive(
            archive,
            config=load(TuneConfig, config, env=os.environ, overrides=overrides),
            trials=trials,
            out=out,
            resume=resume,
            start_ns=start_ns,
            end_ns=end_ns,
            device=device,
            address=address,
            concurrent=concurrent,
            on_progress=advance,
        )
    digest = None
    if models is not None:
        with models.writing() as writer:
            digest, _ = writer.add(result.bundle)
    emit(result.summary | {"registered": digest}, json=json, text=lambda: _text(result.summary, digest))


def _text(summary: dict[str, Any], digest: str | None) -> Any:
    from rich.console import Group
    from rich.text import Text

    best = summary["best"]
    # A column for each parameter would be wider than any terminal: those of the best go below.
    table = plain_table("trial", "state", "rounds", f"score, {_UNITS[summary['metric']]}", "acts")
    ranked = sorted(summary["table"], key=lambda row: (row["state"], -(row["score"] or 0.0), row["trial"]))
    shown = [row for row in ranked if row["state"] != "failed"][:_SHOWN]
    for row in shown:
        table.add_row(
            str(row["trial"]),
            row["state"],
            str(row["rounds"]),
            f"{row['score']:+.4g}",
            f"{sum(fold['acts'] for fold in row['folds']):,}",
        )
    params = plain_table(f"parameter of trial {best['trial']}", "value")
    for name, value in best["params"].items():
        params.add_row(name, _value(value))
    counts = ", ".join(f"{summary[state]} {state}" for state in ("finished", "stopped", "failed"))
    return Group(
        table,
        "",
        params,
        "",
        *(Text(f"! {warning}", style="bold yellow") for warning in summary["warnings"]),
        f"{summary['trials']} trials ({counts}); {len(shown)} are shown; all, with their parameters, "
        "are in the report",
        f"Best: trial {best['trial']}, score {best['score']:+.4g} ({summary['metric']})",
        f"Bundle: {summary['bundle']}",
        f"Report: {summary['report']}",
        *([] if digest is None else [f"Registered: {digest}"]),
        f"{summary['seconds']:.1f} s",
    )


def _value(value: object) -> str:
    if isinstance(value, list | tuple):
        return " ".join(map(str, value)) or "none"
    return f"{value:g}" if isinstance(value, float) else str(value)
