"""``gpuscalp model push`` and ``gpuscalp model pull``: to and from MLflow."""

from __future__ import annotations

from typing import Annotated, Any, Final

import typer

from gpuscalp.cli.app import model_app
from gpuscalp.cli.output import JsonFlag, emit
from gpuscalp.cli.words import MODEL_HELP, ExperimentOption, RegistryOption, TrackingOption

_SHORT: Final = 12


@model_app.command("push")
def push(
    model: Annotated[str, typer.Argument(metavar="MODEL", help=MODEL_HELP)],
    tracking: TrackingOption = None,
    experiment: ExperimentOption = None,
    registry: RegistryOption = None,
    json: JsonFlag = False,
) -> None:
    """Send a bundle to MLflow, as a run and a model version.

    What is there already is not sent again. Aliases that the registry gives the bundle are set.
    """
    from gpuscalp.registry import Registry, model_path, registry_path
    from gpuscalp.tracking import push as send
    from gpuscalp.tracking import target_of

    models = Registry(registry or registry_path())
    answer = send(model_path(model, registry=models.path), target_of(tracking, experiment), registry=models)
    emit(answer, json=json, text=lambda: _pushed(answer))


@model_app.command("pull")
def pull(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help="@champion, NAME@champion, NAME/3, NAME (the newest version), or the beginning of a digest.",
        ),
    ],
    tracking: TrackingOption = None,
    experiment: ExperimentOption = None,
    registry: RegistryOption = None,
    json: JsonFlag = False,
) -> None:
    """Add a model version of MLflow to the registry.

    Digest, files and stored answers are checked before. No alias of the registry is moved.
    """
    from gpuscalp.registry import Registry, registry_path
    from gpuscalp.tracking import pull as fetch
    from gpuscalp.tracking import target_of

    answer = fetch(model, target_of(tracking, experiment), registry=Registry(registry or registry_path()))
    emit(answer, json=json, text=lambda: _pulled(answer))


def _pushed(answer: dict[str, Any]) -> str:
    digest, version = answer["digest"][:_SHORT], f"{answer['model']} version {answer['version']}"
    aliases = "".join(f", @{alias}" for alias in answer["aliases"])
    lines = [f"{digest}: {'now' if answer['new'] else 'already'} {version}{aliases}"]
    return "\n".join([*lines, f"MLflow: {answer['url'] or answer['tracking']}"])


def _pulled(answer: dict[str, Any]) -> str:
    digest, version = answer["digest"], f"{answer['model']} version {answer['version']}"
    return f"{digest}: {version}, {'added' if answer['new'] else 'was there already'}"
