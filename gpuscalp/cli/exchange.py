"""``gpuscalp exchange``."""

from __future__ import annotations

import json as json_text
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gpuscalp.cli.app import app
from gpuscalp.cli.output import JsonFlag, emit
from gpuscalp.errors import UsageError

if TYPE_CHECKING:
    from gpuscalp.exchange.server import ExchangeServer


@app.command("exchange")
def exchange(
    archive: Annotated[Path | None, typer.Option("--archive", help="Replay this archive.")] = None,
    venue: Annotated[str | None, typer.Option("--venue", help="Venue of the archive.")] = None,
    symbols: Annotated[str, typer.Option("--symbols", help="Symbols of the archive, comma-separated.")] = "",
    recording: Annotated[
        list[Path] | None, typer.Option("--recording", help="Replay this raw recording; repeatable.")
    ] = None,
    instruments: Annotated[
        Path | None, typer.Option("--instruments", help="exchangeInfo JSON for recordings.")
    ] = None,
    seed: Annotated[
        int, typer.Option("--seed", min=0, help="Seed of the synthetic market and of random faults.")
    ] = 7,
    speed: Annotated[
        str, typer.Option("--speed", help="1, another factor, or max: as fast as clients read.")
    ] = "1",
    port: Annotated[
        int, typer.Option("--port", min=0, max=65_535, help="Port on 127.0.0.1; 0 picks one.")
    ] = 0,
    recorded_time: Annotated[
        bool,
        typer.Option("--recorded-time", help="Keep the recording's times instead of moving them to now."),
    ] = False,
    loop: Annotated[bool, typer.Option("--loop", help="Begin again at the end of the market.")] = False,
    wait: Annotated[bool, typer.Option("--wait", help="Start with the first subscription.")] = False,
    lenient: Annotated[
        bool, typer.Option("--lenient", help="Every path carries every stream, as before 2026.")
    ] = False,
    accounts: Annotated[
        Path | None, typer.Option("--accounts", help="TOML with the accounts that may trade.")
    ] = None,
    fault: Annotated[
        list[str] | None,
        typer.Option("--fault", help="As drop:probability=0.01; repeatable, docs/exchange.md."),
    ] = None,
    duration: Annotated[
        float | None, typer.Option("--duration", min=0.0, help="Seconds to serve; default: until stopped.")
    ] = None,
    json: JsonFlag = False,
) -> None:
    """Serve a simulated exchange on this machine.

    Binance's USD-M protocol over an archive, a recording or a synthetic market.
    """
    import os

    from gpuscalp.exchange.faults import parse_fault
    from gpuscalp.exchange.server import DEMO_ACCOUNT, ServeSpec
    from gpuscalp.rehearsal import open_source, read_accounts, serve

    spec = ServeSpec(
        speed=parse_speed(speed),
        recorded=recorded_time,
        loop=loop,
        wait=wait,
        lenient=lenient,
        accounts=read_accounts(accounts) if accounts is not None else (DEMO_ACCOUNT,),
        admin_token=os.environ.get("GPUSCALP_EXCHANGE_TOKEN") or None,
        faults=tuple(parse_fault(text) for text in fault or ()),
        seed=seed,
    )
    source = open_source(
        archive=archive,
        venue=venue,
        symbols=tuple(filter(None, symbols.split(","))),
        recordings=tuple(recording or ()),
        exchange_info=instruments,
        seed=seed,
    )

    def announce(server: ExchangeServer) -> None:
        _announce(server, demo=accounts is None, json=json)

    status = serve(source, spec, port=port, seconds=duration, on_ready=announce)
    if not json:
        emit(status, json=False, text=lambda: f"Stopped after {status['messages']:,} messages of the market.")


def parse_speed(text: str) -> float | None:
    if text == "max":
        return None
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0.0 < value <= 10_000.0:
        raise UsageError("no such speed", where="--speed", value=text, fix="a factor up to 10000, or max")
    return value


def _announce(server: ExchangeServer, *, demo: bool, json: bool) -> None:
    """Say where it is, at once: with ``--json`` as one line, the only one of the command."""
    from gpuscalp.exchange.server import DEMO_ACCOUNT

    answer: dict[str, Any] = {
        "urls": server.urls(),
        "port": server.port,
        "symbols": list(server.venue.listings),
        "admin_token": server.admin_token,
    }
    if demo:
        answer["account"] = {"api_key": DEMO_ACCOUNT.api_key, "secret": DEMO_ACCOUNT.secret}
    if json:
        sys.stdout.write(json_text.dumps(answer) + "\n")
    else:
        lines = [f"{name:8} {url}" for name, url in server.urls().items()]
        lines += [f"symbols  {', '.join(answer['symbols'])}", f"token    {server.admin_token}"]
        if demo:
            lines.append(f"account  {DEMO_ACCOUNT.api_key} / {DEMO_ACCOUNT.secret}")
        sys.stdout.write("\n".join(lines) + "\nStop with Ctrl-C.\n")
    sys.stdout.flush()
