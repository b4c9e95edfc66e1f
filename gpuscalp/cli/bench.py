"""Speed against other libraries, measured on the user's own machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from gpuscalp.cli.app import bench_app
from gpuscalp.cli.output import JsonFlag, emit, progress
from gpuscalp.cli.words import counts


@bench_app.command("batch")
def batch(
    frames: Annotated[int, typer.Option(min=30_000, max=100_000_000, help="Frames.")] = 1_000_000,
    repeats: Annotated[int, typer.Option(min=1, help="Timed rounds; the median counts.")] = 3,
    json: JsonFlag = False,
) -> None:
    """Compare batch features with Polars, pandas and NumPy."""
    from gpuscalp.bench import batch as bench

    with progress("Measuring", timed=True) as told:
        answer = bench.run(frames=frames, repeats=repeats, told=told)
    emit(answer, json=json, text=lambda: _batch_table(answer))


@bench_app.command("stream")
def stream(
    symbols: Annotated[int, typer.Option(min=1, help="Number of symbols.")] = 500,
    ticks_per_frame: Annotated[
        int, typer.Option(min=1, help="Ticks in each frame, over all symbols.")
    ] = 2_000,
    steps: Annotated[int, typer.Option(min=100, help="Frames that are timed.")] = 3_000,
    json: JsonFlag = False,
) -> None:
    """Time one step of the stream, on one core.

    From the ticks of a frame to all features of all symbols.
    """
    from gpuscalp.bench import stream as bench

    with progress("Measuring", timed=True) as told:
        answer = bench.run(symbols=symbols, ticks_per_frame=ticks_per_frame, steps=steps, told=told)
    emit(answer, json=json, text=lambda: _stream_table(answer))


@bench_app.command("ingest")
def ingest(
    messages: Annotated[int, typer.Option(min=1_000, help="Messages that are sent.")] = 400_000,
    symbols: Annotated[int, typer.Option(min=1, help="Symbols of the made-up market.")] = 20,
    recording: Annotated[
        Path | None, typer.Option(help="Raw recording of one symbol whose messages are sent instead.")
    ] = None,
    connections: Annotated[
        int, typer.Option(min=1, max=8, help="Redundant connections that each bring all messages.")
    ] = 1,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds; the median is reported.")] = 3,
    json: JsonFlag = False,
) -> None:
    """Time messages from a socket to closed frames, on one core.

    The socket is on loopback, and the journal is included.
    """
    from gpuscalp.bench import ingest as bench

    with progress("Measuring", timed=True) as told:
        answer = bench.run(messages, symbols, recording, connections=connections, rounds=rounds, told=told)
    emit(answer, json=json, text=lambda: _ingest_text(answer))


@bench_app.command("live")
def live(
    symbols: Annotated[int, typer.Option(min=1, help="Number of symbols.")] = 200,
    rate: Annotated[int, typer.Option(min=10, help="Messages a second over all symbols.")] = 20_000,
    duration: Annotated[float, typer.Option(min=1, help="Seconds under load.")] = 10.0,
    redundancy: Annotated[
        int, typer.Option(min=1, max=4, help="Connections that each bring all messages.")
    ] = 1,
    json: JsonFlag = False,
) -> None:
    """Time a live session: one frame to its orders, and under load.

    First the close of a frame to written orders, step by step; then all of it with sockets, against a sender.
    """
    from gpuscalp.bench import live as bench

    with progress("Measuring", timed=True) as told:
        answer = bench.run(symbols=symbols, rate=rate, duration_s=duration, redundancy=redundancy, told=told)
    emit(answer, json=json, text=lambda: _live_text(answer))


@bench_app.command("watched")
def watched(
    symbols: Annotated[int, typer.Option(min=1, help="Number of symbols.")] = 50,
    rate: Annotated[int, typer.Option(min=10, help="Messages a second over all symbols.")] = 5_000,
    slice_s: Annotated[
        float, typer.Option("--slice", min=2, help="Seconds that it is watched, or left alone, in one go.")
    ] = 10.0,
    rounds: Annotated[int, typer.Option(min=1, help="Of four slices, two of each kind.")] = 5,
    json: JsonFlag = False,
) -> None:
    """Time a live session with and without being watched.

    Watched: the dashboard is open, metrics are scraped, everything is logged.
    """
    import tempfile

    from gpuscalp.bench import watched as bench

    with tempfile.TemporaryDirectory() as folder, progress("Measuring", timed=True) as told:
        answer = bench.measure(
            Path(folder), symbols=symbols, rate=rate, slice_s=slice_s, rounds=rounds, told=told
        )
    emit(answer, json=json, text=lambda: _watched_text(answer))


@bench_app.command("retraining")
def retraining(
    symbols: Annotated[int, typer.Option(min=1, help="Number of symbols.")] = 20,
    rate: Annotated[int, typer.Option(min=10, help="Messages a second over all symbols.")] = 2_000,
    slice_s: Annotated[
        float, typer.Option("--slice", min=2, help="Seconds that it is retrained, or left alone, in one go.")
    ] = 40.0,
    rounds: Annotated[int, typer.Option(min=1, help="Of four slices, two of each kind.")] = 3,
    before: Annotated[float, typer.Option(min=5, help="Seconds of market before, to train on.")] = 180.0,
    cores: Annotated[int, typer.Option(min=1, help="Cores that the retraining may use.")] = 1,
    memory_mb: Annotated[
        int, typer.Option("--memory-mb", min=256, max=1 << 30, help="Memory that it may use, MiB.")
    ] = 4_096,
    json: JsonFlag = False,
) -> None:
    """Time a live session with and without retraining beside it."""
    import tempfile

    from gpuscalp.bench import retraining as bench

    with tempfile.TemporaryDirectory() as folder, progress("Measuring", timed=True) as told:
        answer = bench.measure(
            Path(folder),
            symbols=symbols,
            rate=rate,
            slice_s=slice_s,
            rounds=rounds,
            before_s=before,
            cores=cores,
            memory_mb=memory_mb,
            told=told,
        )
    emit(answer, json=json, text=lambda: _retraining_text(answer))


@bench_app.command("crossover")
def crossover(
    symbols: Annotated[str, typer.Option(help="Numbers of symbols, separated by commas.")] = "1,8,32,128,512",
    trees: Annotated[
        str, typer.Option(help="Numbers of trees over all members, separated by commas.")
    ] = "300,1500,4500",
    steps: Annotated[int, typer.Option(min=20, help="Steps that are timed at each point.")] = 300,
    out: Annotated[
        Path | None, typer.Option(help="File to write; default: where --device auto looks for it.")
    ] = None,
    json: JsonFlag = False,
) -> None:
    """Time a step on CPU and GPU: the profile of --device auto.

    Writes the profile by which --device auto chooses.
    """
    from gpuscalp.bench import crossover as bench

    with progress("Measuring", timed=True) as told:
        answer = bench.write(counts(symbols), counts(trees), steps=steps, out=out, told=told)
    emit(answer, json=json, text=lambda: _crossover_text(answer))


def _crossover_text(answer: dict[str, Any]) -> Any:
    from rich.console import Group
    from rich.table import Table

    table = Table("trees", "symbols", "CPU, p50/p99, µs", "GPU, p50/p99, µs", "faster")
    for row in answer["table"]:
        times = [
            row[device] and "{p50_us:,.0f} / {p99_us:,.0f}".format(**row[device])
            for device in ("cpu", "cuda")
        ]
        table.add_row(f"{row['trees']:,}", f"{row['symbols']:,}", times[0], times[1] or "–", row["faster"])
    lines = []
    for each in answer["crossover"]:
        start = each["symbols"]
        found = (
            "the CPU is the faster one throughout"
            if start is None
            else f"the GPU is faster from {start} symbols on"
        )
        lines.append(f"{each['trees']:,} trees: {found}")
    if answer["machine"]["gpu"] is None:
        lines = ["Only the CPU was measured: no GPU can be used here (gpuscalp device says why)."]
    return Group(table, *lines, f"Written to {answer['path']}")


def _live_text(answer: dict[str, Any]) -> str:
    stages = ", ".join(
        f"{name} {stage['p50_ms']:.2f}/{stage['p99_ms']:.2f}" for name, stage in answer["stages"].items()
    )
    total, cpu, metrics = answer["tick_to_decision"], answer["cpu_share"], answer["watching"]
    slope, error = answer["rss_slope_mb_per_hour"], answer["rss_slope_error_mb_per_hour"]
    memory = "" if slope is None else f", {slope:+,.1f} ± {error:,.1f} MiB an hour"
    return (
        f"Frame close to orders, {answer['symbols']} symbols, p50/p99 in ms: {answer['p50_ms']:.2f}/"
        f"{answer['p99_ms']:.2f}; without the forest {answer['overhead_p50_ms']:.2f}/"
        f"{answer['overhead_p99_ms']:.2f} ({stages}). Metrics take {metrics['step_p50_us']:.1f}/"
        f"{metrics['step_p99_us']:.1f} µs of it.\n"
        f"Under load: {answer['messages_per_s']:,} messages a second for {answer['seconds']:.0f} s, "
        f"{answer['lost']} lost, {answer['conflated']} ticks conflated; tick to decision "
        f"{_number(total['p50_ms'])}/{_number(total['p99_ms'])} ms; processor: loop {cpu['loop']:.2f}, "
        f"engine {cpu['engine']:.2f} of a core; memory {_number(answer['rss_least_mb'])} MiB{memory}."
    )


def _watched_text(answer: dict[str, Any]) -> str:
    return "\n".join(
        [
            *_slices_lines(answer, "watched"),
            f"The dashboard took {answer['dashboard_cpu_share']:.3f} of a core,"
            f" a scrape {_number(answer['scrape_ms'])} ms.",
        ]
    )


def _retraining_text(answer: dict[str, Any]) -> str:
    return "\n".join(
        [
            *_slices_lines(answer, "retrained"),
            f"{answer['missed']} frames missed, {answer['doubled']} doubled.",
            f"Retrainings: {answer['begun']} begun, {answer['finished']} finished, {answer['failed']} failed;"
            f" they had {answer['cpu_share']:.2f} of a core.",
        ]
    )


def _slices_lines(answer: dict[str, Any], word: str) -> list[str]:
    lines = [
        f"{answer[f'{word}_frames']:,} frames {word}, {answer['bare_frames']:,} bare;"
        f" {answer['symbols']} symbols, {answer['rate']:,} messages a second."
    ]
    for name, words in (("frame_ms", "features to decision"), ("close_ms", "end of the frame to decision")):
        both = answer[name]
        lines.append(
            f"{words}, p50/p99 in ms: {word}"
            f" {_number(both[word]['p50'])}/{_number(both[word]['p99'])},"
            f" bare {_number(both['bare']['p50'])}/{_number(both['bare']['p99'])}:"
            f" p99 by {_number(both['p99_rise_pct'])} % higher (95 %: {both['p99_rise_pct_95']})."
        )
    return lines


def _number(value: float | None) -> str:
    return "unknown" if value is None else f"{value:,.1f}"


def _ingest_text(answer: dict[str, Any]) -> str:
    return (
        f"{answer['messages']:,} messages in {answer['seconds']:.2f} s: {answer['messages_per_s']:,} a second"
        f" ({answer['core_messages_per_s']:,} by processor time), {answer['lost']} lost;"
        f" {answer['ticks']:,} ticks, {answer['frames']:,} frames."
    )


def _batch_table(answer: dict[str, Any]) -> object:
    from rich.table import Table

    table = Table("task", "median, s", "ours is faster by")
    seconds = answer["seconds"]
    ours = seconds["gpuscalp"]
    table.add_row(f"gpuscalp, {answer['shared_columns']} shared columns", f"{ours:.3f}", "")
    for peer in ("polars", "pandas"):
        table.add_row(f"{peer}, the same columns", f"{seconds[peer]:.3f}", f"{seconds[peer] / ours:.1f}x")
    every = seconds["gpuscalp_all_columns"]
    table.add_row(f"gpuscalp, all {answer['all_columns']} columns", f"{every:.3f}", "")
    table.add_row("gpuscalp, one spectrum", f"{seconds['spectrum_gpuscalp']:.3f}", "")
    rfft = seconds["spectrum_strided_rfft"]
    table.add_row("numpy, the same by strided rfft", f"{rfft:.3f}", f"{answer['ratio_strided_rfft']:.1f}x")
    return table


def _stream_table(answer: dict[str, Any]) -> object:
    from rich.table import Table

    table = Table("symbols", "features", "ticks a frame", "p50, µs", "p99, µs", "heap peak a step, bytes")
    table.add_row(
        str(answer["symbols"]),
        str(answer["features"]),
        str(answer["ticks_per_frame"]),
        f"{answer['p50_us']:.0f}",
        f"{answer['p99_us']:.0f}",
        str(answer["heap_peak_bytes_per_step"]),
    )
    return table
