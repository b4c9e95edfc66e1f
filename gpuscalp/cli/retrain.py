"""``gpuscalp retrain``."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from gpuscalp.cli.app import DeviceOption, app
from gpuscalp.cli.output import JsonFlag, emit, progress
from gpuscalp.cli.words import MODEL_HELP


@app.command("retrain")
def retrain(
    session: Annotated[Path, typer.Argument(help="Directory of the session; it may be running.")] = Path(
        "gpuscalp-session"
    ),
    train_hours: Annotated[
        float, typer.Option("--train-hours", min=0.01, help="Hours of the market to train on, up to now.")
    ] = 24.0,
    cores: Annotated[
        int, typer.Option("--cores", min=1, help="Cores to use at most, and only idle ones.")
    ] = 1,
    memory_mb: Annotated[
        int, typer.Option("--memory-mb", min=256, max=1 << 30, help="Memory to use at most, MiB.")
    ] = 4_096,
    like: Annotated[
        str | None,
        typer.Option(
            "--like",
            metavar="MODEL",
            help=f"Model whose configuration is taken. {MODEL_HELP} Default: the session's lead.",
        ),
    ] = None,
    registry: Annotated[
        Path | None,
        typer.Option("--registry", help="Also keep the bundle there, as @candidate. Default: nowhere else."),
    ] = None,
    device: DeviceOption = "cpu",
    gpu_memory_mb: Annotated[
        int,
        typer.Option(
            "--gpu-memory-mb",
            min=1_024,
            max=1 << 30,
            help="Memory of a GPU that the training is made to fit into, MiB.",
        ),
    ] = 4_096,
    attended: Annotated[
        bool, typer.Option("--attended", hidden=True, help="End when standard input closes.")
    ] = False,
    json: JsonFlag = False,
) -> None:
    """Train a session's next model from its own journal.

    The session is not disturbed: this takes idle processors only. The result is a candidate in
    SESSION/retraining, and the session keeps its models. One that runs does the same by itself,
    if [retraining] says so (docs/retraining.md).
    """
    # First: threads that are there already would keep their processors.
    from gpuscalp.lifeline import end_with
    from gpuscalp.retrain.caps import confine, fitting

    caps = confine(cores, memory_mb)
    if attended:
        end_with(sys.stdin.fileno())
        # The stop of a service may reach us before the session does: an answer would count as an attempt.
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
    with fitting(caps):
        from gpuscalp.live.directory import lead_of
        from gpuscalp.registry import model_path
        from gpuscalp.retrain.run import retrain as run

        with progress("Retraining") as advance:
            answer = run(
                session,
                like=lead_of(session) if like is None else model_path(like, registry=registry),
                train_hours=train_hours,
                caps=caps,
                device=device,
                gpu_memory_mb=gpu_memory_mb,
                registry=registry,
                attended=attended,
                told=advance,
            )
    emit(answer, json=json, text=lambda: _text(answer))


def _text(answer: dict[str, Any]) -> str:
    metrics = answer["metrics"]
    refusal = answer["not_registered"]
    return (
        f"Candidate {answer['digest'][:12]}: {answer['rows']:,} rows, log loss {metrics['log_loss']:.4f}"
        f" (base rate {metrics['base_log_loss']:.4f}).\n"
        f"{answer['import_s']:.1f} s for the journal, {answer['train_s']:.1f} s for the training,"
        f" peak memory {answer['peak_rss_mb']:.0f} MB.\nBundle: {answer['bundle']}"
        + (f"\nThe registry refused it: {refusal}" if refusal else "")
    )
