"""``gpuscalp doctor``: would a session run here, and what has to be mended?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gpuscalp.cli.app import DeviceOption, app
from gpuscalp.cli.output import JsonFlag, emit
from gpuscalp.cli.words import MODEL_HELP, parse_model_to_check
from gpuscalp.redaction import redact
from gpuscalp.terminal import visible

if TYPE_CHECKING:
    from gpuscalp.doctor import Diagnosis

_STYLES = {"ok": "green", "warn": "yellow", "fail": "bold red", "skip": "dim"}
_ENDINGS = {
    "ok": "A session would run here.",
    "warn": "A session would run here; what is marked warn makes it worse than it could be.",
    "fail": "A session would not run here: mend what is marked fail.",
    "skip": "Nothing could be checked.",
}


@app.command("doctor")
def doctor(
    config: Annotated[Path | None, typer.Option("--config", help="TOML file of the session.")] = None,
    model: Annotated[
        Path | None, typer.Option("--model", parser=parse_model_to_check, metavar="MODEL", help=MODEL_HELP)
    ] = None,
    session: Annotated[Path | None, typer.Option("--session", help="Directory of the session.")] = None,
    device: DeviceOption = "auto",
    offline: Annotated[bool, typer.Option("--offline", help="Send nothing to the exchange.")] = False,
    json: JsonFlag = False,
) -> int:
    """Say whether a live session would run here.

    What is wrong comes with the way to mend it. Sends no order and changes nothing; the exchange is asked for
    its time, its symbols and a few seconds of market data. Exit code: that of the worst failure, else 0.
    """
    from gpuscalp.doctor import examine

    found = examine(config=config, model=model, session_dir=session, device=device, offline=offline)
    emit(found.to_dict(), json=json, text=lambda: _table(found))
    return found.exit_code


def _table(found: Diagnosis) -> Any:
    from rich import box
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for title in ("", "check", "what was found, and how to mend it"):
        table.add_column(title, overflow="fold", no_wrap=title == "check")
    for check in found.checks:
        what = Text(visible(redact(check.what)), style="dim" if check.status == "skip" else "")
        if check.fix is not None:
            what.append(f"\n→ {visible(redact(check.fix))}", style=_STYLES[check.status])
        table.add_row(Text(check.status, style=_STYLES[check.status]), check.name, what)
    return Group(table, Text(_ENDINGS[found.status], style=_STYLES[found.status]))
