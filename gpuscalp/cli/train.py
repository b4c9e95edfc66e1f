"""``gpuscalp train``."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gpuscalp.cli.app import DeviceOption, app
from gpuscalp.cli.output import JsonFlag, emit, progress
from gpuscalp.cli.words import (
    MODEL_HELP,
    ExperimentOption,
    FromOption,
    RegistryOption,
    ToOption,
    TrackingOption,
)
from gpuscalp.errors import UsageError

if TYPE_CHECKING:
    from gpuscalp.train import TrainResult


@app.command("train")
def train(
    archive: Annotated[Path, typer.Argument(help="Archive made by `gpuscalp data import`.")],
    out: Annotated[Path, typer.Option("--out", help="Directory of the bundle to write.")],
    config: Annotated[
        Path | None, typer.Option("--config", help="TOML file, such as configs/train.toml.")
    ] = None,
    device: DeviceOption = "auto",
    venue: Annotated[
        str | None, typer.Option("--venue", help="Venue of the archive; overrides the file.")
    ] = None,
    symbols: Annotated[
        str | None, typer.Option("--symbols", help="Comma-separated symbols; overrides the file.")
    ] = None,
    start_ns: FromOption = None,
    end_ns: ToOption = None,
    seed: Annotated[
        int | None, typer.Option("--seed", min=0, help="Seed of the ensemble; overrides the file.")
    ] = None,
    threads: Annotated[
        int | None, typer.Option("--threads", min=1, help="Threads, of each worker; default: all cores.")
    ] = None,
    warm_start: Annotated[
        str | None,
        typer.Option("--warm-start", metavar="MODEL", help=f"Go on from a model: {MODEL_HELP}"),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a bundle at --out.")] = False,
    register: Annotated[
        bool, typer.Option("--register", help="Also add the bundle to the registry (docs/models.md).")
    ] = False,
    registry: RegistryOption = None,
    track: Annotated[
        bool, typer.Option("--track", help="Also make a run of MLflow and send the bundle (docs/mlflow.md).")
    ] = False,
    tracking: TrackingOption = None,
    experiment: ExperimentOption = None,
    workers: Annotated[
        int | None,
        typer.Option("--workers", min=1, help="Workers on Ray that train together (docs/distributed.md)."),
    ] = None,
    address: Annotated[
        str | None,
        typer.Option(
            "--address", help="Ray cluster, as HOST:PORT or auto; default: one on this machine, for this run."
        ),
    ] = None,
    json: JsonFlag = False,
) -> None:
    """Train an ensemble on an archive.

    Writes a bundle; its report.html has the figures on held-out rows.
    """
    from gpuscalp.registry import Registry, model_path, registry_path
    from gpuscalp.tracking import target_of, track_training

    if address is not None and workers is None:
        raise UsageError("--address is of use with --workers only", where="--address", value=address)
    if experiment is not None and not (track or tracking):
        raise UsageError("--experiment is of use with --track only", where="--experiment", value=experiment)
    if warm_start is not None and workers is not None:
        raise UsageError(
            "a training goes on from a model in one process", where="--warm-start", value=f"{workers} workers"
        )
    more = {} if warm_start is None else {"warm_start": model_path(warm_start, registry=registry)}
    models = Registry(registry or registry_path())
    target = target_of(tracking, experiment) if track or tracking else None
    if register:
        models.check_writable()
    with progress("Training") as advance:
        result = _trainer(workers, address)(
            archive,
            out,
            config=config,
            overrides={
                "venue": venue,
                "symbols": symbols.split(",") if symbols else None,
                "ensemble.seed": seed,
            },
            start_ns=start_ns,
            end_ns=end_ns,
            device=device,
            threads=threads,
            overwrite=overwrite,
            on_progress=advance,
            **more,
        )
    digest = None
    if register:
        with models.writing() as writer:
            digest, _ = writer.add(result.bundle)
    run = None if target is None else track_training(result.bundle, target, registry=models)
    answer = result.to_dict() | {"registered": digest, "tracked": run}
    emit(answer, json=json, text=lambda: _table(result, digest, run))


def _trainer(workers: int | None, address: str | None) -> Callable[..., TrainResult]:
    """Return what trains: this process, or workers on Ray."""
    if workers is None:
        from gpuscalp.train import train_archive

        return train_archive
    from gpuscalp.distributed import train_on_ray

    return partial(train_on_ray, workers=workers, address=address)


def _table(result: TrainResult, digest: str | None, run: dict[str, Any] | None) -> Any:
    from rich.console import Group
    from rich.table import Table

    table = Table(
        "fold", "train rows", "held-out rows", "rounds", "log loss", "base rate", "IC", "95 % interval"
    )
    parts = [(str(item.fold.index + 1), item.trained.rows, item.score, item.rounds) for item in result.folds]
    parts.append(("all", result.training.rows, result.overall, result.rounds))
    for name, rows, score, rounds in parts:
        table.add_row(
            name,
            f"{rows:,}",
            f"{score.rows:,}",
            f"{min(rounds)}–{max(rounds)}",
            f"{score.log_loss:.4f}",
            f"{score.base_log_loss:.4f}",
            *(
                (f"{score.ic.value:+.3f}", f"{score.ic.low:+.3f} … {score.ic.high:+.3f}")
                if score.ic.known
                else ("not known", "")
            ),
        )
    return Group(
        table,
        *(f"Warning: {text}" for text in result.warnings),
        f"Rows: {result.training.rows:,}; {result.unlabelled}",
        f"Bundle: {result.bundle}",
        f"Report: {result.bundle / 'report.html'}",
        *([] if digest is None else [f"Registered: {digest}"]),
        *([] if run is None else [_tracked(run)]),
        f"Device: {result.training.device} ({result.device_reason})",
        f"{result.seconds:.1f} s, peak memory {result.peak_rss_mb:.0f} MB",
    )


def _tracked(run: dict[str, Any]) -> str:
    """Return what became of the run; a warning is all that a server that is down costs."""
    error = run["error"]
    if error is None:
        return f"Tracked: {run['url'] or run['run_id']}, version {run['version']} of {run['model']}"
    parts = [error["what"], error["value"], error["fix"]]
    return f"Warning: not tracked at {error['where']}: {'; '.join(part for part in parts if part)}"
