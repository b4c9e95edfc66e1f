"""``gpuscalp logs``: what a session says, now or before, and the way of one order."""

from __future__ import annotations

from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from gpuscalp.cli.app import app
from gpuscalp.cli.output import JsonFlag, emit, emit_line
from gpuscalp.errors import UsageError

if TYPE_CHECKING:
    from gpuscalp.logs import Entry

Level = Literal["DEBUG", "INFO", "WARNING", "ERROR"]


@app.command("logs")
def logs(
    session: Annotated[Path, typer.Argument(help="Directory of the session.")] = Path("gpuscalp-session"),
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Keep printing new entries.")] = False,
    lines: Annotated[
        int, typer.Option("--lines", "-n", min=0, max=1 << 30, help="Only the newest N; 0 = all.")
    ] = 0,
    level: Annotated[Level | None, typer.Option("--level", help="This level and above.")] = None,
    logger: Annotated[
        str, typer.Option("--logger", help="Part of the program, such as gpuscalp.orders.")
    ] = "",
    id: Annotated[
        str, typer.Option("--id", help="Of a frame (SYMBOL@END_NS) or an order, with what it came from.")
    ] = "",
    since: Annotated[str | None, typer.Option("--from", help="Not before this instant (ISO, UTC).")] = None,
    until: Annotated[str | None, typer.Option("--to", help="Before this instant.")] = None,
    order: Annotated[
        str, typer.Option("--order", help="The way of one order, from message to fill, out of the journal.")
    ] = "",
    set_level: Annotated[
        Level | None, typer.Option("--set-level", help="What is written from now on; of --logger, or all.")
    ] = None,
    json: JsonFlag = False,
) -> None:
    """Show a session's log, or the way of one order.

    --order tells it from the journal, with the times between its stages.

    With --follow --json every entry is a line of its own.
    """
    from gpuscalp.logs import as_json, as_text
    from gpuscalp.logs import follow as followed

    if sum((bool(order), set_level is not None, follow)) > 1:
        raise UsageError("only one of these can be given", where="--order, --set-level, --follow")
    if order:
        from gpuscalp.live.chain import chain

        found = chain(session, order)
        emit(found, json=json, text=lambda: _way(found))
        return
    if set_level is not None:
        from gpuscalp.live.control import Request, ask

        answer = ask(session, Request("log_level", level=set_level, logger=logger or "gpuscalp"))
        emit(answer, json=json, text=lambda: _levels(answer))
        return
    entries, wanted = _chosen(session, level, logger, id, since, until, lines)
    if not follow:
        emit(entries, json=json, text=lambda: _shown(entries))
        return
    shape = as_json if json else as_text
    for entry in entries[-(lines or 10) :]:
        emit_line(shape(entry))
    for entry in followed(session, wanted):
        emit_line(shape(entry))


def _chosen(
    session: Path, level: str | None, logger: str, name: str, since: str | None, until: str | None, lines: int
) -> tuple[list[Entry], Any]:
    """Return the entries that there are, and what is wanted of those to come."""
    from gpuscalp.logs import Wanted, frames_of, read
    from gpuscalp.times import parse_time

    from_ns, to_ns = parse_time(since, "--from"), parse_time(until, "--to")
    if from_ns is not None and to_ns is not None and to_ns <= from_ns:
        raise UsageError("the range ends before it begins", where="--to", value=f"{since} … {until}")
    wanted = Wanted(
        level=level or "",
        logger=logger,
        ids=(name, *frames_of(session, name)) if name else (),
        from_ns=from_ns,
        to_ns=to_ns,
    )
    return list(deque(read(session, wanted), lines or None)), wanted


def _shown(entries: list[Entry]) -> str:
    from gpuscalp.logs import as_text

    return "\n".join(as_text(entry) for entry in entries) or "Nothing of that kind."


def _levels(answer: dict[str, Any]) -> str:
    return "\n".join(f"{name}: {level}" for name, level in answer["levels"].items())


def _way(found: dict[str, Any]) -> Any:
    from rich import box
    from rich.table import Table

    title = f"{found['order']} {found['symbol'] or ''} {found['frame'] or ''}".rstrip()
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("stage")
    table.add_column("record", justify="right")
    table.add_column("after, ms", justify="right")
    table.add_column("what", overflow="fold")
    for stage in found["stages"]:
        since = "" if stage["since_ms"] is None else f"{stage['since_ms']:,.3f}"
        facts = ", ".join(
            f"{key} {value}" for key, value in stage["facts"].items() if value not in (None, "")
        )
        table.add_row(stage["stage"], str(stage["seq"]), since, facts)
    return table
