"""``gpuscalp model``: look at bundles, check them, and keep them in a registry."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Final

import typer

from gpuscalp.cli.app import DeviceOption, model_app
from gpuscalp.cli.output import JsonFlag, emit
from gpuscalp.cli.words import MODEL_HELP, RegistryOption
from gpuscalp.times import utc

ModelArgument = Annotated[str, typer.Argument(metavar="MODEL", help=MODEL_HELP)]
StoredArgument = Annotated[
    str, typer.Argument(metavar="MODEL", help="@champion or the beginning of a digest in the registry.")
]
AliasOption = Annotated[str, typer.Option("--alias", help="champion, candidate or shadow.")]
WhyOption = Annotated[str, typer.Option("--why", help="For the history.")]

# Enough to tell the models of one machine apart, and to be typed.
_SHORT: Final = 12
_DAY_S: Final = 86_400


@model_app.command("list")
def list_(
    registry: RegistryOption = None,
    history: Annotated[
        int, typer.Option("--history", min=0, help="Also show the last N acts: who, when, what, why.")
    ] = 0,
    json: JsonFlag = False,
) -> None:
    """List the models of the registry: age, digest, aliases, figures."""
    import time

    from gpuscalp.registry.listing import list_models

    answer = list_models(_registry(registry), now_ns=time.time_ns(), acts=history)
    emit(answer, json=json, text=lambda: _listed(answer))


@model_app.command("add")
def add(
    bundle: Annotated[Path, typer.Argument(help="Bundle written by `gpuscalp train`.")],
    registry: RegistryOption = None,
    why: WhyOption = "",
    json: JsonFlag = False,
) -> None:
    """Copy a bundle into the registry, under its digest.

    The copy is checked before it gets its name. A bundle of the registry that is damaged is mended by adding
    it again.
    """
    with _registry(registry).writing() as writer:
        digest, new = writer.add(bundle, why=why)
    answer = {"digest": digest, "new": new, "path": str(_registry(registry).bundle_path(digest))}
    emit(answer, json=json, text=lambda: f"{digest}: {'added' if new else 'was there already'}")


@model_app.command("show")
def show(bundle: ModelArgument, registry: RegistryOption = None, json: JsonFlag = False) -> None:
    """Say what a bundle is, without a check.

    Data, labels, columns, folds, metrics, versions.
    """
    from gpuscalp.registry import model_path
    from gpuscalp.train.verify import describe_bundle

    answer = describe_bundle(model_path(bundle, registry=registry))
    emit(answer, json=json, text=lambda: _shown(answer))


@model_app.command("verify")
def verify(
    bundle: Annotated[
        str | None, typer.Argument(metavar="MODEL", help=f"{MODEL_HELP} None: the whole registry.")
    ] = None,
    registry: RegistryOption = None,
    device: DeviceOption = "auto",
    json: JsonFlag = False,
) -> None:
    """Check a bundle to the bit, or the whole registry.

    Files against digests, columns against this version, stored answers, and the forest against XGBoost. Of a
    registry: its history, its aliases, and files and stored answers of every bundle.
    """
    from gpuscalp.registry import model_path

    if bundle is None:
        from gpuscalp.registry.listing import verify_registry

        whole = verify_registry(_registry(registry), device=device)
        emit(whole, json=json, text=lambda: _verified_registry(whole))
        return
    from gpuscalp.train.verify import verify_bundle

    answer = verify_bundle(model_path(bundle, registry=registry), device=device)
    emit(answer, json=json, text=lambda: _verified(answer))


@model_app.command("compare")
def compare(
    a: ModelArgument,
    b: ModelArgument,
    registry: RegistryOption = None,
    columns: Annotated[
        int, typer.Option("--columns", metavar="N", min=0, help="How many columns of the importance to show.")
    ] = 20,
    json: JsonFlag = False,
) -> None:
    """Show two models side by side, without a check.

    Configuration, data, figures of the folds, calibration, importance.
    """
    from gpuscalp.registry import model_path
    from gpuscalp.registry.comparison import compare_models

    paths = [model_path(word, registry=registry) for word in (a, b)]
    answer = compare_models(paths[0], paths[1], columns=columns)
    emit(answer, json=json, text=lambda: _compared(answer))


@model_app.command("promote")
def promote(
    model: StoredArgument,
    alias: AliasOption = "champion",
    why: WhyOption = "",
    other_columns: Annotated[
        bool,
        typer.Option("--other-columns", help="Also if market or columns differ from the present model's."),
    ] = False,
    registry: RegistryOption = None,
    device: DeviceOption = "auto",
    json: JsonFlag = False,
) -> None:
    """Point an alias to a model that passes every check.

    The checks are made on this machine. Sessions that run keep the model that they have.
    """
    from gpuscalp.registry.names import alias_named, digest_of
    from gpuscalp.registry.promotion import promote as point

    models = _registry(registry)
    name = alias_named(alias)
    answer = point(
        models, digest_of(models, model), name, why=why, device=device, other_columns=other_columns
    )
    emit(answer, json=json, text=lambda: _moved(answer))


@model_app.command("rollback")
def rollback(
    alias: AliasOption = "champion",
    why: WhyOption = "",
    registry: RegistryOption = None,
    device: DeviceOption = "auto",
    json: JsonFlag = False,
) -> None:
    """Point an alias to the model before, which is checked again. Once more goes further back."""
    from gpuscalp.registry.names import alias_named
    from gpuscalp.registry.promotion import rollback as back

    answer = back(_registry(registry), alias_named(alias), why=why, device=device)
    emit(answer, json=json, text=lambda: _moved(answer))


@model_app.command("pin")
def pin(
    model: StoredArgument,
    off: Annotated[bool, typer.Option("--off", help="Take the pin away.")] = False,
    why: WhyOption = "",
    registry: RegistryOption = None,
    json: JsonFlag = False,
) -> None:
    """Keep a model from `prune`."""
    from gpuscalp.registry.names import digest_of

    models = _registry(registry)
    digest = digest_of(models, model)
    with models.writing() as writer:
        (writer.unpin if off else writer.pin)(digest, why=why)
    answer = {"digest": digest, "pinned": not off}
    emit(answer, json=json, text=lambda: f"{digest}: {'no longer pinned' if off else 'pinned'}")


@model_app.command("prune")
def prune(
    yes: Annotated[bool, typer.Option("--yes", help="Remove them; without it, only say which.")] = False,
    registry: RegistryOption = None,
    json: JsonFlag = False,
) -> None:
    """Remove the models that nobody needs.

    Kept is what an alias points to or would go back to, what is pinned, and what sessions took, at their
    beginning or later.
    """
    import time

    from gpuscalp.registry.promotion import prune as remove

    answer = remove(_registry(registry), now_ns=time.time_ns(), really=yes)
    emit(answer, json=json, text=lambda: _pruned(answer))


def _registry(path: Path | None) -> Any:
    from gpuscalp.registry import Registry, registry_path

    return Registry(path or registry_path())


def _shown(answer: dict[str, Any]) -> Any:
    """Return the table of `model show`."""
    from rich.table import Table

    table = Table("what", "value", show_header=False)
    for name in (
        "bundle",
        "venue",
        "symbols",
        "label",
        "trained_from",
        "trained_to",
        "trials",
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
    """Return what `model verify` says of a bundle."""
    return (
        f"{answer['bundle']}: good on {answer['device']} ({answer['device_reason']})\n"
        f"{answer['files']} files have the digest of the contract\n"
        f"{answer['columns']} columns are those of this version\n"
        f"{answer['canary_rows']} canary rows give the stored answers\n"
        f"{answer['differing']} of {answer['margins']:,} margins differ from XGBoost {answer['xgboost']}"
    )


def _listed(answer: dict[str, Any]) -> Any:
    """Return the table of `model list`."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    table = Table("model", "aliases", "age", "venue", "symbols", "rows", "log loss", "base rate", "IC")
    for row in answer["models"]:
        marks = [f"@{alias}" for alias in row["aliases"]] + (["pinned"] if row["pinned"] else [])
        cells = [row["digest"][:_SHORT], " ".join(marks), _age(row["age_s"])]
        if row["damaged"]:
            table.add_row(*cells, f"damaged: {row['damaged']}")
            continue
        metrics = row["metrics"]
        table.add_row(
            *cells,
            row["venue"],
            ", ".join(row["symbols"]),
            f"{row['rows']:,}",
            *(_text(metrics.get(name)) for name in ("log_loss", "base_log_loss", "ic")),
        )
    parts: list[Any] = [table if answer["models"] else "No models yet: gpuscalp model add BUNDLE"]
    if answer["history"]:
        past = Table("when", "who", "what", "alias", "from", "to", "why")
        for act in answer["history"]:
            ends = ((digest or "")[:_SHORT] for digest in (act.old, act.new))
            past.add_row(
                utc(act.time_ns), act.who, act.action, act.alias or "", *ends, act.why or act.session or ""
            )
        parts.append(past)
    return Group(*parts, *map(Text, _strays(answer)), f"Registry: {answer['registry']}")


def _verified_registry(answer: dict[str, Any]) -> str:
    """Return what `model verify` says of a registry."""
    lines = [
        f"{answer['registry']}: good on {answer['device']} ({answer['device_reason']})",
        f"{answer['models']} models have the files of their contracts and give the stored answers",
        f"{answer['acts']} lines of the history follow from each other",
    ]
    lines += [f"{digest[:_SHORT]} cannot be promoted: {why}" for digest, why in answer["unfit"].items()]
    return "\n".join(lines)


def _compared(answer: dict[str, Any]) -> Any:
    """Return the tables of `model compare`."""
    from rich.console import Group
    from rich.table import Table

    ends = [answer[side]["digest"][:_SHORT] for side in ("a", "b")]
    parts: list[Any] = []
    for part in ("configuration", "data", "metrics", "folds", "calibration", "importance"):
        table = Table("", *ends, title=f"{part} (where it differs)" if part == "configuration" else part)
        for row in answer[part]:
            table.add_row(row["name"].replace("_", " "), _text(row["a"]), _text(row["b"]))
        parts.append(table if answer[part] else f"{part}: nothing differs" * (part == "configuration"))
    if not answer["same_data"]:
        parts.append("Trained on different data: the figures are no comparison; backtest both on later data.")
    if not answer["same_columns"]:
        parts.append("The columns differ: one cannot take the place of the other in a session.")
    return Group(*(part for part in parts if part != ""))


def _moved(answer: dict[str, Any]) -> str:
    """Return what `model promote` and `model rollback` say."""
    before, now = answer["from"], answer["to"][:_SHORT]
    if not answer["changed"]:
        return f"@{answer['alias']} is {now} already; it was checked on {answer['device']}."
    came = f"before: {before[:_SHORT]}" if before else "it pointed nowhere before"
    return f"@{answer['alias']} is now {now} ({came}); checked on {answer['device']}."


def _pruned(answer: dict[str, Any]) -> str:
    """Return what `model prune` says."""
    lines = [f"kept     {each['digest'][:_SHORT]}  {each['because']}" for each in answer["kept"]]
    word = "removed" if answer["removed"] else "unused "
    lines += [f"{word}  {digest[:_SHORT]}" for digest in answer["unused"]]
    if answer["unused"] and not answer["removed"]:
        lines.append("Nothing was removed: --yes removes what is unused.")
    return "\n".join((lines or ["The registry is empty."]) + _strays(answer))


def _strays(answer: dict[str, Any]) -> list[str]:
    """Return what `model list` and `model prune` say of what else lies among the bundles."""
    return [f"not of the registry, left alone: bundles/{name}" for name in answer["strays"]]


def _age(seconds: float) -> str:
    for size, unit in ((_DAY_S, "d"), (3_600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(seconds, 0):.0f} s"


def _text(value: object) -> str:
    if value is None:
        return "–"
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))
    if isinstance(value, bool):
        return str(value)
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.4f}" if isinstance(value, float) else str(value)
