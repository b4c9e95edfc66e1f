"""The benchmarks run, and check what they time."""

from __future__ import annotations

import io
import sys
import time
from importlib import import_module

import numpy as np
import pytest

from gpuscalp.bench import batch, ingest, stream, timing
from gpuscalp.cli import run
from gpuscalp.cli.app import bench_app
from gpuscalp.errors import ParityError, UsageError
from gpuscalp.progress import Progress


@pytest.mark.thorough
def test_batch_benchmark_gives_ratios_and_errors() -> None:
    answer = batch.run(frames=30_000, repeats=1)
    assert answer["shared_columns"] == 8 * 7 * 4
    assert answer["ratio_polars"] > 0
    assert answer["ratio_pandas"] > 0
    assert answer["rows_per_s"] > 0
    assert answer["largest_relative_error"]["gpuscalp"] < batch.TOLERANCE


@pytest.mark.thorough
def test_benchmarks_tell_how_far_they_are_and_reach_their_end() -> None:
    """A minute of silence."""
    seen: list[tuple[float, float | None, str]] = []

    def told(done: float, total: float | None = None, note: str = "") -> None:
        seen.append((done, total, note))

    batch.run(frames=30_000, repeats=2, told=told)
    assert [done for done, _, _ in seen] == list(range(len(seen)))
    assert {total for _, total, _ in seen} == {len(seen)}
    assert {"polars", "pandas", "gpuscalp", "spectrum, strided_rfft"} <= {note for _, _, note in seen}
    seen.clear()
    stream.run(symbols=4, ticks_per_frame=16, steps=100, warm_up=200, told=told)
    assert [done for done, _, _ in seen] == [0, 0, 100, 200, 300]
    seen.clear()
    ingest.run(messages=1_000, symbols=2, rounds=2, told=told)
    assert [(done, total) for done, total, _ in seen] == [(step, 4) for step in range(4)]


@pytest.mark.parametrize("name", [command.name for command in bench_app.registered_commands])
def test_command_shows_on_a_terminal_what_its_benchmark_tells(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def measure(*_: object, told: Progress, **__: object) -> None:
        told(1, 2, "half way")
        drawn.append(terminal.getvalue())
        time.sleep(0.3)
        drawn.append(terminal.getvalue())
        raise UsageError("enough")

    drawn: list[str] = []
    terminal = io.StringIO()
    monkeypatch.setattr(terminal, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    module = import_module(f"gpuscalp.bench.{name}")
    for function in ("run", "measure", "write"):
        monkeypatch.setattr(module, function, measure, raising=False)
    assert run(["bench", str(name)]) == UsageError.exit_code
    assert "half way" in drawn[0], "it is not drawn at once"
    assert drawn[0] == drawn[1], "it is drawn while times are taken"


def test_batch_benchmark_refuses_to_time_wrong_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    right = batch.compute

    def wrong(*args: object) -> object:
        out = right(*args)  # type: ignore[arg-type]
        out[0] += 1.0
        return out

    monkeypatch.setattr(batch, "compute", wrong)
    with pytest.raises(ParityError):
        batch.run(frames=30_000, repeats=1)


def test_stream_benchmark_allocates_a_fixed_small_amount() -> None:
    answer = stream.run(symbols=20, ticks_per_frame=80, steps=150, warm_up=20)
    assert answer["features"] > 200
    assert 0 < answer["p50_us"] <= answer["p99_us"] <= answer["max_us"]
    # The ticks of the step are copied and sorted: a few times 64 bytes each, and a few Python objects.
    assert answer["heap_peak_bytes_per_step"] < 80 * 64 * 2 + 16_384


def test_market_of_the_stream_benchmark_is_in_order_and_covers_all_symbols() -> None:
    ticks = stream.market(10, 40, 3)
    assert (np.diff(ticks["exch_ns"]) >= 0).all()
    assert set(ticks["symbol"]) == set(range(10))


def test_interleaved_takes_every_task_in_every_round() -> None:
    calls: list[str] = []
    times = timing.interleaved({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, repeats=2)
    assert calls == ["a", "b"] * 3
    assert set(times) == {"a", "b"}
