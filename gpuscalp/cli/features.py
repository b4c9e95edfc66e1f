"""``gpuscalp features``: list, compute, plot, parity, leakage."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gpuscalp.cli.app import DeviceOption, features_app
from gpuscalp.cli.output import JsonFlag, emit, progress
from gpuscalp.cli.words import FromOption, SymbolsOption, ToOption, VenueOption, split, words

if TYPE_CHECKING:
    from gpuscalp.config import TrainConfig

ArchiveArgument = Annotated[Path, typer.Argument(help="Directory of the archive.")]
ConfigOption = Annotated[
    Path | None, typer.Option("--config", help="TOML file with [grid] and [features], as for train.")
]
ColumnsOption = Annotated[
    list[str] | None, typer.Option("--columns", help="Shell patterns, comma-separated; repeatable.")
]
SeedOption = Annotated[int, typer.Option("--seed", min=0, help="Seed of everything random.")]
MaxTicksOption = Annotated[
    int, typer.Option("--max-ticks", min=1, help="Ticks from the beginning of the archive that are used.")
]


@features_app.command("list")
def list_(config: ConfigOption = None, columns: ColumnsOption = None, json: JsonFlag = False) -> None:
    """List every column with its unit, window, warm-up and source."""
    from msgspec import structs

    from gpuscalp.features import FeatureGraph

    configured = _config(config)
    graph = FeatureGraph(configured.grid, configured.features)
    answer = {
        "features": [structs.asdict(column) for column in graph.matching(words(columns))],
        "hash": graph.hash,
        "frame_ms": configured.grid.frame_ms,
        "warm_up_frames": graph.warm_up_frames,
    }
    emit(answer, json=json, text=lambda: _columns_table(answer))


@features_app.command("compute")
def compute(
    archive: ArchiveArgument,
    out: Annotated[Path, typer.Option("--out", help="Parquet file to write.")],
    columns: ColumnsOption = None,
    symbols: SymbolsOption = None,
    venue: VenueOption = None,
    config: ConfigOption = None,
    device: DeviceOption = "auto",
    json: JsonFlag = False,
) -> None:
    """Write the features of an archive as Parquet.

    One row for each symbol and frame.
    """
    from gpuscalp.device import resolve
    from gpuscalp.feature_table import write_features

    configured = _config(config)
    choice = resolve(device)
    with progress("Computing") as advance:
        answer = write_features(
            archive,
            out,
            venue=venue,
            symbols=split(symbols),
            columns=words(columns),
            grid=configured.grid,
            features=configured.features,
            device=choice.name,
            on_progress=advance,
        )
    answer["device"] = choice.name
    emit(answer, json=json, text=lambda: f"{answer['rows']:,} rows of {answer['columns']} columns in {out}")


@features_app.command("plot")
def plot(
    archive: ArchiveArgument,
    out: Annotated[Path, typer.Option("--out", help="Picture to write: .png, .svg or .pdf.")],
    columns: Annotated[
        list[str], typer.Option("--columns", help="Shell patterns, comma-separated; repeatable.")
    ],
    symbol: Annotated[str | None, typer.Option("--symbol", help="Default: the leader.")] = None,
    start_ns: FromOption = None,
    end_ns: ToOption = None,
    venue: VenueOption = None,
    config: ConfigOption = None,
    json: JsonFlag = False,
) -> None:
    """Draw chosen columns under the price of one symbol."""
    from gpuscalp.feature_plot import plot_features

    configured = _config(config)
    answer = plot_features(
        archive,
        out,
        columns=words(columns),
        venue=venue,
        symbol=symbol,
        start_ns=start_ns,
        end_ns=end_ns,
        grid=configured.grid,
        features=configured.features,
    )
    emit(answer, json=json, text=lambda: f"{out}: {answer['frames']:,} frames of {answer['symbol']}")


@features_app.command("parity")
def parity(
    archive: ArchiveArgument,
    splits: Annotated[int, typer.Option("--splits", min=1, help="Random splits into batches.")] = 100,
    symbols: SymbolsOption = None,
    venue: VenueOption = None,
    config: ConfigOption = None,
    max_ticks: MaxTicksOption = 250_000,
    seed: SeedOption = 7,
    json: JsonFlag = False,
) -> None:
    """Compare the bits of every way to compute the features.

    Exit code 7 if any differ.
    """
    from gpuscalp.errors import ParityError
    from gpuscalp.excerpt import read_excerpt
    from gpuscalp.parity import check_parity

    configured = _config(config)
    excerpt = read_excerpt(archive, venue=venue, symbols=split(symbols), max_ticks=max_ticks)
    with progress("Comparing") as advance:
        report = check_parity(
            excerpt,
            splits=splits,
            grid=configured.grid,
            features=configured.features,
            seed=seed,
            on_progress=advance,
        )
    answer = report.to_dict()
    emit(answer, json=json, text=lambda: _parity_text(answer))
    if report.differing:
        raise typer.Exit(ParityError.exit_code)


@features_app.command("leakage")
def leakage(
    archive: ArchiveArgument,
    cuts: Annotated[
        int, typer.Option("--cuts", min=1, help="Random times after which the future is changed.")
    ] = 20,
    symbols: SymbolsOption = None,
    venue: VenueOption = None,
    config: ConfigOption = None,
    max_ticks: MaxTicksOption = 250_000,
    seed: SeedOption = 7,
    json: JsonFlag = False,
) -> None:
    """Change the future and see whether the past changes.

    Exit code 7 if it does, or if one of the deliberately planted leaks is missed.
    """
    from gpuscalp.errors import ParityError
    from gpuscalp.excerpt import read_excerpt
    from gpuscalp.leakage import check_leakage

    configured = _config(config)
    excerpt = read_excerpt(archive, venue=venue, symbols=split(symbols), max_ticks=max_ticks)
    with progress("Changing the future") as advance:
        report = check_leakage(excerpt, config=configured, cuts=cuts, seed=seed, on_progress=advance)
    answer = report.to_dict()
    emit(answer, json=json, text=lambda: _leakage_text(answer))
    if not report.clean:
        raise typer.Exit(ParityError.exit_code)


def _config(path: Path | None) -> TrainConfig:
    import os

    from gpuscalp.config import TrainConfig, load

    return load(TrainConfig, path, env=os.environ)


def _columns_table(answer: Mapping[str, Any]) -> Any:
    from rich.table import Table

    table = Table(
        title=f"{len(answer['features'])} columns, hash {answer['hash'][:16]}", title_justify="left"
    )
    for heading in ("name", "unit"):
        table.add_column(heading, no_wrap=True)
    for heading in ("window", "warm-up"):
        table.add_column(heading, justify="right")
    table.add_column("source")
    for row in answer["features"]:
        table.add_row(row["name"], row["unit"], str(row["window"]), str(row["warm_up"]), row["source"])
    return table


def _parity_text(answer: Mapping[str, Any]) -> Any:
    from rich.console import Group
    from rich.table import Table

    table = Table("check", "what was run")
    for heading in ("passes", "values compared", "bits differ"):
        table.add_column(heading, justify="right")
    for check in answer["checks"]:
        differing = f"{check['differing']:,}" + (f" (first: {check['first']})" if check["first"] else "")
        table.add_row(check["name"], check["note"], str(check["runs"]), f"{check['values']:,}", differing)
    for name, reason in answer["skipped"].items():
        table.add_row(name, f"not run: {reason}", "0", "0", "")
    whole = "all" if answer["complete"] else "the first"
    over = f"{whole} {answer['ticks']:,} ticks, {answer['frames']:,} frames of {', '.join(answer['symbols'])}"
    verdict = "the same bits" if not answer["differing"] else "DIFFERENT BITS"
    return Group(
        table, f"{verdict}: {answer['values']:,} values compared, {answer['differing']:,} differ; {over}"
    )


def _leakage_text(answer: Mapping[str, Any]) -> Any:
    from rich.console import Group
    from rich.table import Table

    checked = Table("checked", "", title_justify="left")
    for heading in ("columns", "values compared", "alarms"):
        checked.add_column(heading, justify="right")
    for probe in answer["probes"]:
        kind = "shipped" if probe["shipped"] else "honest twin of a leak"
        name = probe["name"].removeprefix("honest: ")
        checked.add_row(name, kind, str(probe["columns"]), f"{probe['values']:,}", str(len(probe["leaks"])))
    planted = Table("planted leak", "caught by")
    for name, evidence in answer["leaks"].items():
        planted.add_row(name, evidence or "MISSED")
    lines = [f"{alarm['probe']}, {alarm['column']}: {alarm['evidence']}" for alarm in answer["alarms"]]
    summary = (
        f"{answer['caught']} of {answer['planted']} planted leaks caught; {answer['false_alarms']} alarms on "
        f"{answer['checked']} honest columns; {answer['cuts']} cuts, {answer['futures']} futures each, over "
        f"{'all' if answer['complete'] else 'the first'} {answer['ticks']:,} ticks"
    )
    if answer["folds"] < answer["folds_configured"]:
        lines.append(
            f"Training rows of {answer['folds']} folds instead of {answer['folds_configured']}: "
            "the ticks are too few for more"
        )
    return Group(checked, planted, *lines, summary)
