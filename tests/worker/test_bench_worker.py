"""The benchmark of a worker runs, and checks what it times."""

from __future__ import annotations

import pytest

from benchmarks import bench_worker
from gpuscalp.errors import DeviceError


@pytest.mark.thorough
def test_benchmark_times_every_part_and_both_takeovers():
    result = bench_worker.run(symbols=3, ticks_per_frame=30, frames=20)
    assert result["frames"] == 20
    for part in ("begin", "own_step", "wait", "begin_to_finish"):
        assert 0 < result[part]["p50_us"] <= result[part]["p99_us"]
    assert result["takeover_killed_ms"] < 1_000
    assert 250 <= result["takeover_hang_ms"] < 1_000


def test_worker_that_never_leads_ends_the_benchmark(monkeypatch):
    """With a driver that did not start it waited for ever, and with it every other benchmark of the card."""

    class Stuck:
        def status(self):
            return {"workers": [{"state": "starting"}], "why": "cpu: worker 0: no driver"}

    bench = bench_worker._Bench(Stuck(), None, None, iter(()))
    seconds = iter(range(1_000))
    monkeypatch.setattr(bench, "_frame", lambda: (0.0,) * 4)
    monkeypatch.setattr(bench_worker.time, "sleep", lambda _: None)
    monkeypatch.setattr(bench_worker.time, "monotonic", lambda: float(next(seconds)))
    with pytest.raises(DeviceError, match="does not lead after 60 s") as caught:
        bench.run(10)
    assert caught.value.value == "cpu: worker 0: no driver"
