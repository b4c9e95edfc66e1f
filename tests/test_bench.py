"""The benchmarks run, and check what they time."""

from __future__ import annotations

import numpy as np
import pytest

from gpuscalp.bench import batch, stream, timing
from gpuscalp.errors import ParityError


def test_batch_benchmark_gives_ratios_and_errors() -> None:
    answer = batch.run(frames=30_000, repeats=1)
    assert answer["shared_columns"] == 8 * 7 * 4
    assert answer["ratio_polars"] > 0
    assert answer["ratio_pandas"] > 0
    assert answer["rows_per_s"] > 0
    assert answer["largest_relative_error"]["gpuscalp"] < batch.TOLERANCE


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
