"""What the words of options mean: numbers, lists, times, models.

Owns: the options and the parsing that several commands share. Never: looks into an archive.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer

MODEL_HELP = "@champion, the beginning of a digest in the registry, or a path."


def _from(text: str) -> int | None:
    from gpuscalp.times import parse_time

    return parse_time(text, "--from")


def _to(text: str) -> int | None:
    from gpuscalp.times import parse_time

    return parse_time(text, "--to")


FromOption = Annotated[
    int | None, typer.Option("--from", parser=_from, help="First instant, UTC, as 2024-07-18T12:00.")
]
ToOption = Annotated[int | None, typer.Option("--to", parser=_to, help="End, UTC, not included.")]
VenueOption = Annotated[
    str | None, typer.Option("--venue", help="May be left out where the archive has only one.")
]
BundleVenueOption = Annotated[
    str | None, typer.Option("--venue", help="Venue of the archive; default: the bundle's.")
]
SymbolsOption = Annotated[str | None, typer.Option("--symbols", help="Comma-separated; default: all.")]

BacktestConfigOption = Annotated[
    Path | None, typer.Option("--config", help="TOML file, such as configs/backtest.toml.")
]
RunDirOption = Annotated[
    Path | None, typer.Option("--out", help="New directory for the run; default runs/<time>-<hash>.")
]
TrialsOption = Annotated[
    int | None,
    typer.Option("--trials", help="Configurations tried so far, this one included; overrides the file."),
]

RegistryOption = Annotated[
    Path | None,
    typer.Option(
        "--registry",
        help="Folder of the registry; default: $GPUSCALP_REGISTRY, else gpuscalp/models of $XDG_DATA_HOME.",
    ),
]

TrackingOption = Annotated[
    str | None,
    typer.Option(
        "--tracking",
        metavar="URI",
        help="MLflow's server or store; default: $MLFLOW_TRACKING_URI, else a SQLite file of this user.",
    ),
]
ExperimentOption = Annotated[
    str | None,
    typer.Option(
        "--experiment",
        help="MLflow's experiment, and registered model; default: $MLFLOW_EXPERIMENT_NAME, else gpuscalp.",
    ),
]


def split(text: str | None) -> tuple[str, ...]:
    """Return the parts of a comma-separated list."""
    return tuple(text.split(",")) if text else ()


def words(values: Iterable[str] | None) -> tuple[str, ...]:
    """Return the parts of comma-separated lists, without empty ones."""
    return tuple(word for value in values or () for word in value.split(",") if word)


def nanoseconds(text: str) -> int:
    """Return a whole number of nanoseconds.

    Raises
    ------
    UsageError
        it is none
    """
    from gpuscalp.errors import UsageError

    try:
        return int(text)
    except ValueError:
        raise UsageError(
            "not a number of nanoseconds", value=text, fix="a whole number, such as 1500000 for 1.5 ms"
        ) from None


def counts(text: str) -> tuple[int, ...]:
    """Return positive whole numbers that are separated by commas.

    Raises
    ------
    UsageError
        one of them is none
    """
    from gpuscalp.errors import UsageError

    found = []
    for word in text.split(","):
        if not (word.isascii() and word.isdecimal() and int(word)):
            raise UsageError("not a positive whole number", value=word, fix="write them as 1,8,64")
        found.append(int(word))
    return tuple(found)


def parse_model(text: str) -> Path:
    """Return the path of the model that a word means (gpuscalp.registry.names)."""
    from gpuscalp.registry.names import model_path

    return model_path(text)


def parse_model_to_check(text: str) -> Path:
    """Return the path of the model that a word means; that nothing is there is for the check to tell."""
    from gpuscalp.registry.names import model_path

    return model_path(text, must_exist=False)


def model_of_session(word: str | None, session: Path) -> Path | None:
    """Return the path of the model that a new session begins with.

    One that goes on keeps its own model. An alias that has moved since must not keep it from starting again.
    """
    if word is None or (word.startswith("@") and (session / "session.json").exists()):
        return None
    return parse_model(word)
