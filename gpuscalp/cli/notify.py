"""``gpuscalp notify``: whether messages reach people, and the alerts as rules for Prometheus."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gpuscalp.cli.app import notify_app
from gpuscalp.cli.output import JsonFlag, emit
from gpuscalp.errors import GpuscalpError


@notify_app.command("test")
def deliver(json: JsonFlag = False) -> None:
    """Send a test message to everybody whom a session would tell.

    Whom: GPUSCALP_NOTIFY_URLS, or the file that GPUSCALP_NOTIFY_FILE names (docs/alerts.md).
    """
    import os

    from gpuscalp.monitoring.try_channels import try_channels

    answer = try_channels(os.environ)
    emit(
        answer,
        json=json,
        text=lambda: "\n".join(
            f"{each['service']}: {'delivered' if each['failure'] is None else each['failure']}"
            for each in answer["channels"]
        ),
    )
    if answer["failed"]:
        raise typer.Exit(GpuscalpError.exit_code)


@notify_app.command("rules")
def rules(
    out: Annotated[Path | None, typer.Option("--out", help="File to write; default: print.")] = None,
    json: JsonFlag = False,
) -> None:
    """Print the rule file for Prometheus.

    It has the alerts that a session judges itself, and those that only somebody outside can.
    """
    from gpuscalp.monitoring.conditions import CONDITIONS
    from gpuscalp.monitoring.rules import rule_file

    text = rule_file()
    if out is not None:
        out.write_text(text, encoding="utf-8")
    alerts = [
        {"alert": each.name, "severity": each.severity, "expr": each.promql(), "for_s": each.hold_s}
        for each in CONDITIONS
    ]
    emit({"alerts": alerts}, json=json, text=lambda: text if out is None else f"Written to {out}.")
