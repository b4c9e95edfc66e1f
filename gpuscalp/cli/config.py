"""``gpuscalp config``: commented files to begin with, and what a configuration comes to."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from gpuscalp.cli.app import config_app
from gpuscalp.cli.output import JsonFlag, emit
from gpuscalp.errors import UsageError

Name = Literal["train", "backtest", "walkforward", "tune", "paper", "embedded", "nautilus"]
NameArgument = Annotated[Name, typer.Argument(help="Which: of a command, or of a kind of session.")]


@config_app.command("init")
def init(
    name: NameArgument,
    out: Annotated[Path | None, typer.Option("--out", help="New file; default: print it.")] = None,
    json: JsonFlag = False,
) -> None:
    """Write a commented configuration to begin with.

    Its values are the defaults, except where its comments say otherwise.
    """
    from gpuscalp.config.examples import example_text

    text = example_text(name)
    if out is not None:
        try:
            with out.open("x", encoding="utf-8") as file:
                file.write(text)
        except FileExistsError:
            raise UsageError("there is a file already", where=str(out), fix="name another one") from None
    answer = {"name": name, "out": out, "text": text}
    emit(answer, json=json, text=lambda: text if out is None else f"Wrote {out}.")


@config_app.command("show")
def show(
    name: NameArgument,
    config: Annotated[Path | None, typer.Option("--config", help="TOML file to check and show.")] = None,
    json: JsonFlag = False,
) -> None:
    """Show every value of a configuration, and its source.

    Exit code 4 where the file or the environment has a key that is not known, or a value out of range; and
    for a session's, where the environment has values and no file is named, as `live` refuses them. What
    `live --embedded` takes without a file is not shown here, but by `gpuscalp config init embedded`.
    """
    import os

    from gpuscalp.config.examples import resolved

    values = resolved(name, config, env=os.environ)
    answer = {"name": name, "config": config, "values": values}
    emit(answer, json=json, text=lambda: _table(values))


def _table(values: Sequence[dict[str, Any]]) -> object:
    import msgspec
    from rich.table import Table

    table = Table("key", "value", "from")
    for each in values:
        value = "" if each["value"] is None else msgspec.json.encode(each["value"]).decode()
        table.add_row(each["key"], value, each["source"])
    return table
