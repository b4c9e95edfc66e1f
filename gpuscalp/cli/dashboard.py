"""``gpuscalp dashboard``."""

from __future__ import annotations

import json as json_text
import os
import sys
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from gpuscalp.cli.app import app
from gpuscalp.cli.output import JsonFlag, emit

# Whoever trades comes first where both want the same core; a stop that is pressed still gets its turn.
_NICE: Final = 10


@app.command("dashboard")
def dashboard(
    session: Annotated[Path, typer.Argument(help="Directory of the session.")] = Path("gpuscalp-session"),
    address: Annotated[str, typer.Option("--address", help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[
        int, typer.Option("--port", min=0, max=65_535, help="Port to listen on; 0 picks one.")
    ] = 8722,
    reachable_as: Annotated[
        list[str] | None,
        typer.Option(
            "--reachable-as",
            help="NAME or NAME:PORT under which other machines reach it, behind a proxy with its port (443);"
            " repeatable. Needed where --address is not this machine's own: the line is not encrypted, and"
            " everybody there can look.",
        ),
    ] = None,
    duration: Annotated[
        float | None, typer.Option("--duration", min=0.0, help="Seconds to serve; default: until stopped.")
    ] = None,
    json: JsonFlag = False,
) -> None:
    """Show a session on a page, in a process of its own.

    Everybody on this machine can look; a stop needs the token in SESSION/dashboard.token.
    """
    from gpuscalp.dashboard import serve

    os.nice(_NICE)
    answer = serve(
        session,
        address=address,
        port=port,
        names=tuple(reachable_as or ()),
        seconds=duration,
        on_ready=lambda about: _announce(about, json=json),
    )
    if not json:
        emit(answer, json=False, text=lambda: f"Ended after {answer['stops']} stops.")


def _announce(about: dict[str, Any], *, json: bool) -> None:
    """Say where it is, at once: with ``--json`` as one line, the only one of the command."""
    if json:
        sys.stdout.write(json_text.dumps(about) + "\n")
    else:
        lines = [f"page     {about['url']}", f"token    {about['token_file']}"]
        if sys.stdout.isatty():  # nowhere else: what is not a terminal may be kept
            lines[1] = f"token    {Path(about['token_file']).read_text().strip()}  ({about['token_file']})"
        sys.stdout.write("\n".join(lines) + "\nEnd with Ctrl-C.\n")
    sys.stdout.flush()
