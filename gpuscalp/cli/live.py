"""``gpuscalp live`` and the commands around a session: status, stops, replay, verify, calibrate."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gpuscalp.cli.app import DeviceOption, app
from gpuscalp.cli.output import JsonFlag, emit, progress
from gpuscalp.cli.session_words import ended, replayed, swapped, verified
from gpuscalp.cli.words import MODEL_HELP, model_of_session, parse_model
from gpuscalp.errors import (
    ConfigError,
    DeadlineError,
    NotRunningError,
    ParityError,
    RiskHaltedError,
    UsageError,
)
from gpuscalp.stop_signals import stopped_as_interrupted

if TYPE_CHECKING:
    from gpuscalp.config import LiveConfig
    from gpuscalp.live.way import Way

SessionArgument = Annotated[Path, typer.Argument(help="Directory of the session.")]


@app.command("live")
@stopped_as_interrupted()  # already while it imports what it needs, which takes a second
def live(
    session: Annotated[
        Path, typer.Option("--session", help="Directory of the session: new, or one to go on with.")
    ] = Path("gpuscalp-session"),
    config: Annotated[
        Path | None, typer.Option("--config", help="TOML file, such as configs/paper.toml.")
    ] = None,
    model: Annotated[
        str | None, typer.Option("--model", metavar="MODEL", help=f"For a new session. {MODEL_HELP}")
    ] = None,
    device: DeviceOption = "auto",
    embedded: Annotated[
        bool,
        typer.Option("--embedded", help="Trade against an exchange in this process; needs nothing else."),
    ] = False,
    archive: Annotated[
        Path | None, typer.Option("--archive", help="Market of the embedded exchange; default: synthetic.")
    ] = None,
    recording: Annotated[
        list[Path] | None, typer.Option("--recording", help="Raw recording as that market; repeatable.")
    ] = None,
    fault: Annotated[
        list[str] | None,
        typer.Option("--fault", help="What goes wrong in the embedded exchange (docs/exchange.md)."),
    ] = None,
    worker_fault: Annotated[
        list[str] | None,
        typer.Option("--worker-fault", help="A failure of the predicting process to rehearse (docs/gpu.md)."),
    ] = None,
    seed: Annotated[
        int, typer.Option("--seed", min=0, help="Seed of the synthetic market and its model.")
    ] = 7,
    duration: Annotated[
        float | None, typer.Option("--duration", min=0.0, help="Seconds to run; default: until stopped.")
    ] = None,
    broker: Annotated[
        str | None, typer.Option("--broker", help="paper, or nautilus: real orders (docs/nautilus_live.md).")
    ] = None,
    confirm_live: Annotated[
        bool,
        typer.Option(
            "--confirm-live",
            help="Send real orders to the account that nautilus.where names (testnet by default).",
        ),
    ] = False,
    json: JsonFlag = False,
) -> None:
    """Trade on a live market, until stopped; on paper by default.

    Orders are filled by the paper broker, and nothing is sent to a venue, unless --broker and --confirm-live
    say otherwise.
    """
    import os
    import sys

    from gpuscalp.config import LiveConfig, load_named
    from gpuscalp.exchange.faults import parse_fault
    from gpuscalp.live.observed import refusal_told
    from gpuscalp.live.run import run_live
    from gpuscalp.live.view import shown
    from gpuscalp.worker import parse_fault as parse_worker_fault

    with refusal_told(session):
        chosen = load_named(LiveConfig, config, env=os.environ)
        chosen, way = _way(session, chosen, broker, confirmed=confirm_live, embedded=embedded)
        known_model = model_of_session(model, session)
    # The bar is gone before the first picture is drawn: the two would write over each other.
    with (
        ExitStack() as preparing,
        shown(sys.stdout.isatty() and not json, before=preparing.close) as on_status,
    ):
        advance = preparing.enter_context(progress("Preparing"))
        status = run_live(
            session,
            chosen,
            model=known_model,
            device=device,
            seconds=duration,
            embedded=embedded,
            archive=archive,
            recordings=tuple(recording or ()),
            faults=tuple(parse_fault(text) for text in fault or ()),
            worker_faults=tuple(parse_worker_fault(text) for text in worker_fault or ()),
            seed=seed,
            told=advance,
            on_status=on_status,
            way=way,
        )
    emit(status, json=json, text=lambda: ended(status))
    if status["state"] == "halted":
        raise typer.Exit(RiskHaltedError.exit_code)


def _way(
    session: Path, config: LiveConfig | None, broker: str | None, *, confirmed: bool, embedded: bool
) -> tuple[LiveConfig | None, Way | None]:
    """Return the configuration and the way to the exchange: paper, unless somebody says otherwise twice."""
    import os

    import msgspec

    from gpuscalp.config import LiveConfig
    from gpuscalp.live.directory import read_about
    from gpuscalp.live.run import refuse_embedded
    from gpuscalp.live.start import begin_anew

    if broker not in (None, "paper", "nautilus"):
        raise UsageError("no such broker", where="--broker", value=broker, fix="paper or nautilus")
    known = read_about(session).config if (session / "session.json").exists() else None
    if known is not None and broker not in (None, known.broker):
        raise ConfigError(
            "the session was begun with another broker",
            where=str(session),
            value=f"{broker}, the session has {known.broker}",
            fix=f"leave out --broker, or {begin_anew(known)}",
        )
    # A file without the key is the one that the session was begun with, and the same words go with it.
    if broker is not None and (config is not None or known is None):
        config = msgspec.structs.replace(config or LiveConfig(), broker=broker)
    used = known or config or LiveConfig()
    if used.broker == "paper":
        if confirmed:
            raise UsageError("nothing to confirm: the broker is paper", where="--confirm-live")
        return config, None
    if embedded:  # before anybody looks for keys
        refuse_embedded(used.broker)
    from gpuscalp.nautilus.keys import permit

    keys = permit(used, os.environ, confirmed=confirmed)
    from gpuscalp.nautilus.way import NautilusWay

    return config, NautilusWay(keys)


@app.command("adopt")
def adopt(
    session: SessionArgument = Path("gpuscalp-session"),
    close: Annotated[bool, typer.Option("--close", help="Close them instead.")] = False,
    json: JsonFlag = False,
) -> None:
    """Take over positions that this session does not know.

    Unknown open orders are cancelled. Afterwards `resume` lets the session open positions again. Exit code 5
    if something is left that it does not know.
    """
    _command(session, "close" if close else "adopt", json)


@app.command("status")
def status(session: SessionArgument = Path("gpuscalp-session"), json: JsonFlag = False) -> None:
    """Show how a session stands; exit code 3 if no process runs it."""
    import time

    from gpuscalp.live.control import Request, ask, read_status
    from gpuscalp.live.view import table

    try:
        answer = ask(session, Request("status"))
    except NotRunningError:
        answer = read_status(session) | {"running": False}
    emit(answer, json=json, text=lambda: table(answer, now_ns=time.time_ns()))
    if not answer["running"]:
        raise typer.Exit(NotRunningError.exit_code)


@app.command("halt")
def halt(
    session: SessionArgument = Path("gpuscalp-session"),
    reduce_only: Annotated[
        bool, typer.Option("--reduce-only", help="Also cancel open orders that would add risk.")
    ] = False,
    json: JsonFlag = False,
) -> None:
    """Open no more positions; held ones run to their exit.

    Survives restarts; only `resume` ends it.
    """
    _command(session, "reduce" if reduce_only else "halt", json)


@app.command("resume")
def resume(session: SessionArgument = Path("gpuscalp-session"), json: JsonFlag = False) -> None:
    """Let a session open positions again: nothing else ends a halt."""
    _command(session, "resume", json)


@app.command("flatten")
def flatten(session: SessionArgument = Path("gpuscalp-session"), json: JsonFlag = False) -> None:
    """Cancel all orders and close all positions now.

    Nothing passes the gate afterwards, until `resume`.
    """
    _command(session, "flatten", json)


@app.command("stop")
def stop(
    session: SessionArgument = Path("gpuscalp-session"),
    flatten: Annotated[bool, typer.Option("--flatten", help="Close all positions first.")] = False,
    json: JsonFlag = False,
) -> None:
    """End the process of a session. Without --flatten positions stay and are there at the next start."""
    _command(session, "stop", json, flatten=flatten)


@app.command("use")
def use(
    session: SessionArgument,
    model: Annotated[str | None, typer.Argument(metavar="MODEL", help=MODEL_HELP)] = None,
    shadow: Annotated[
        bool, typer.Option("--shadow", help="Let the model predict beside the lead, and decide nothing.")
    ] = False,
    no_shadow: Annotated[bool, typer.Option("--no-shadow", help="End the shadow.")] = False,
    back: Annotated[bool, typer.Option("--back", help="Go back to the model that led before.")] = False,
    why: Annotated[str, typer.Option("--why", help="Reason, kept in the journal.")] = "",
    json: JsonFlag = False,
) -> None:
    """Change the model of a session that runs, between two frames.

    The model must have the session's market, symbols, columns, frames and label (exit code 8). Prints the
    last frame that the old model decided.
    """
    from gpuscalp.live.control import Request, ask
    from gpuscalp.user import user_name

    if sum((model is not None, no_shadow, back)) != 1 or (shadow and model is None):
        raise UsageError(
            "give one of a model, --no-shadow and --back; --shadow goes with a model", where="gpuscalp use"
        )
    request = Request(
        "use",
        by=user_name(),
        model="" if model is None else str(parse_model(model).resolve()),
        shadow=shadow or no_shadow,
        back=back,
        why=why,
    )
    answer = ask(session, request, timeout_s=60.0)
    emit(answer, json=json, text=lambda: swapped(answer))


@app.command("replay")
def replay(
    source: Annotated[list[Path], typer.Argument(help="Raw recordings, or the directory of a session.")],
    session: Annotated[Path, typer.Option("--session", help="Directory of the session to make.")],
    model: Annotated[
        Path | None,
        typer.Option(
            "--model", parser=parse_model, metavar="MODEL", help=f"{MODEL_HELP} Default: that of the source."
        ),
    ] = None,
    config: Annotated[
        Path | None, typer.Option("--config", help="TOML file, such as configs/paper.toml.")
    ] = None,
    instruments: Annotated[
        Path | None, typer.Option("--instruments", help="exchangeInfo JSON for recordings.")
    ] = None,
    speed: Annotated[str, typer.Option("--speed", help="1, another factor, or max.")] = "max",
    device: DeviceOption = "auto",
    json: JsonFlag = False,
) -> None:
    """Run recorded messages through the whole live path.

    They make a new session. One that was killed goes on where its journal ends.
    """
    import os

    from gpuscalp.cli.exchange import parse_speed
    from gpuscalp.config import LiveConfig, load_named
    from gpuscalp.live.replay import run_replay

    with progress("Replay") as advance:
        answer = run_replay(
            source,
            session,
            model=model,
            config=load_named(LiveConfig, config, env=os.environ),
            exchange_info=instruments,
            device=device,
            speed=parse_speed(speed),
            told=advance,
        )
    emit(answer, json=json, text=lambda: replayed(answer))


@app.command("verify")
def verify(session: SessionArgument = Path("gpuscalp-session"), json: JsonFlag = False) -> None:
    """Repeat a session from its journal, and compare every bit."""
    from gpuscalp.live.verify import verify as check

    with progress("Verifying") as advance:
        answer = check(session, told=advance)
    emit(answer, json=json, text=lambda: verified(answer))
    if answer["differing"] or answer["verdicts_differing"]:
        raise typer.Exit(ParityError.exit_code)


@app.command("calibrate")
def calibrate(
    session: SessionArgument = Path("gpuscalp-session"),
    out: Annotated[
        Path | None, typer.Option("--out", help="New TOML file for `gpuscalp backtest --config`.")
    ] = None,
    json: JsonFlag = False,
) -> None:
    """Fit latencies to what a session has measured.

    Prints configuration for a backtest; what was simulated is not fitted.
    """
    from gpuscalp.live.calibrate import calibrate as fit

    with progress("Calibrating") as advance:
        answer = fit(session, out=out, told=advance)
    emit(answer, json=json, text=lambda: answer["toml"] if out is None else f"Written to {out}.")


def _command(session: Path, command: str, json: bool, *, flatten: bool = False) -> None:
    from gpuscalp.live.control import Request, ask
    from gpuscalp.user import user_name

    answer = ask(session, Request(command, by=user_name(), flatten=flatten), timeout_s=60.0)
    if not answer.get("flat", True):
        raise DeadlineError(
            "stopped, but not every position could be closed",
            where=str(session),
            fix="the next start goes on closing them, unless it was resumed; gpuscalp status shows them",
        )
    if answer.get("left"):
        raise DeadlineError(
            "the exchange still has what this session does not know",
            where=str(session),
            value=answer["left"],
            fix=f"gpuscalp {'adopt --close' if command == 'close' else command}, then try again",
        )
    emit(answer, json=json, text=lambda: f"{command}: the gate is {answer['state']}.")
