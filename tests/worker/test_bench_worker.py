"""The benchmark of a worker runs, and checks what it times."""

from __future__ import annotations

from benchmarks import bench_worker


def test_benchmark_times_every_part_and_both_takeovers():
    result = bench_worker.run(symbols=3, ticks_per_frame=30, frames=20)
    assert result["frames"] == 20
    for part in ("begin", "own_step", "wait", "begin_to_finish"):
        assert 0 < result[part]["p50_us"] <= result[part]["p99_us"]
    assert result["takeover_killed_ms"] < 1_000
    assert 250 <= result["takeover_hang_ms"] < 1_000
