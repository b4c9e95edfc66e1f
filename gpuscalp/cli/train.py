"""``gpuscalp train``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gpuscalp.cli.app import DeviceOption, app
from gpuscalp.cli.output import JsonFlag, emit, progress
from gpuscalp.cli.words import RegistryOption

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
    start: Annotated[
        str | None, typer.Option("--from", help="First instant, UTC, as 2024-07-18T12:00.")
    ] = None,
    end: Annotated[str | None, typer.Option("--to", help="End, UTC, not included.")] = None,
    seed: Annotated[
        int | None, typer.Option("--seed", help="Seed of the ensemble; overrides the file.")
    ] = None,
    threads: Annotated[
        int | None, typer.Option("--threads", min=1, help="Threads; default: all cores.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a bundle at --out.")] = False,
    register: Annotated[
        bool, typer.Option("--register", help="Also add the bundle to the registry (docs/models.md).")
    ] = False,
    registry: RegistryOption = None,
    json: JsonFlag = False,
) -> None:
    """Train an ensemble on an archive.

    Written are a bundle and in it report.html with the figures on held-out rows.
    """
    from gpuscalp.registry import Registry, registry_path
    from gpuscalp.train import train_archive

    with progress("Training") as advance:
        result = train_archive(
            archive,
            out,
            config=config,
            overrides={
                "venue": venue,
                "symbols": symbols.split(",") if symbols else None,
                "ensemble.seed": seed,
            },
            start=start,
            end=end,
            device=device,
            threads=threads,
            overwrite=overwrite,
            on_progress=advance,
        )
    digest = None
    if register:
        with Registry(registry or registry_path()).writing() as writer:
            digest, _ = writer.add(result.bundle)
    emit(result.to_dict() | {"registered": digest}, json=json, text=lambda: _table(result, digest))


def _table(result: TrainResult, digest: str | None) -> Any:
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
            f"{score.ic.value:+.3f}",
            f"{score.ic.low:+.3f} … {score.ic.high:+.3f}",
        )
    return Group(
        table,
        *(f"Warning: {text}" for text in result.warnings),
        f"Bundle: {result.bundle}",
        f"Report: {result.bundle / 'report.html'}",
        *([] if digest is None else [f"Registered: {digest}"]),
        f"Device: {result.training.device} ({result.device_reason})",
        f"{result.seconds:.1f} s, peak memory {result.peak_rss_mb:.0f} MB",
    )
