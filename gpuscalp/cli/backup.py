"""``gpuscalp backup`` and ``gpuscalp restore``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from gpuscalp.cli.app import app
from gpuscalp.cli.output import JsonFlag, emit, progress
from gpuscalp.errors import UsageError


@app.command("backup")
def backup(
    paths: Annotated[
        list[Path],
        typer.Argument(
            metavar="SOURCE… OUT",
            help="Sessions (running or not), registries, bundles, configurations; last, the new file.",
        ),
    ],
    json: JsonFlag = False,
) -> None:
    """Save sessions, models and configurations in one file.

    Models: registries or single bundles. The file has the digest of everything in it. A session may run
    meanwhile.
    """
    from gpuscalp.live.backup import backup as save

    *sources, out = paths
    if not sources:
        raise UsageError("nothing to save", where="gpuscalp backup", fix="gpuscalp backup SESSION OUT.tar")
    with progress("Saving") as advance:
        answer = save(sources, out, told=advance)
    emit(answer, json=json, text=lambda: _saved(answer))


@app.command("restore")
def restore(
    file: Annotated[Path, typer.Argument(help="File made by `gpuscalp backup`.")],
    folder: Annotated[
        Path | None, typer.Argument(help="Folder to restore into; nothing in it is replaced.")
    ] = None,
    check: Annotated[bool, typer.Option("--check", help="Check every byte and restore nothing.")] = False,
    json: JsonFlag = False,
) -> None:
    """Check a backup and lay out what it holds.

    All or nothing, and never over a file that is there.
    """
    from gpuscalp.live.restore import restore as lay_out

    if check == (folder is not None):
        raise UsageError(
            "either a folder or --check",
            where="gpuscalp restore",
            fix="name a folder to restore into, or give --check to restore nothing",
        )
    with progress("Checking") as advance:
        answer = lay_out(file, folder, told=advance)
    emit(answer, json=json, text=lambda: _restored(answer))


def _saved(answer: dict[str, Any]) -> str:
    names = ", ".join(f"{each['kind']} {each['name']}" for each in answer["sources"])
    return f"{answer['file']}: {names}; {answer['files']} files, {answer['bytes']:,} bytes."


def _restored(answer: dict[str, Any]) -> str:
    lines = [f"{answer['files']} files are as they were saved."]
    lines += [f"Restored: {path}" for path in answer["restored"]]
    return "\n".join(lines)
