"""The GPU benchmark is wired right: all of it runs here on what stands in for a GPU, on a tiny market.

Its times mean nothing here; that it compares before it times, and counts right, is what is tested.
"""

from __future__ import annotations

import dataclasses
import json
import time

import numpy as np
import pytest

from benchmarks import __main__ as command
from benchmarks import bench_gpu, bench_gpu_batch, gpu_forest, gpu_recordings, gpu_stream
from benchmarks.bars import PARTS
from gpuscalp import cuda_inference
from gpuscalp.bench.model import made_up_forest
from gpuscalp.errors import ParityError
from tests.test_cuda_inference import gpu_on_host, needs_compiler

SYMBOLS = 2


def setup(members=None):
    frames = gpu_stream.closed_frames(SYMBOLS)
    sample = gpu_stream.feature_rows(SYMBOLS, frames, warm_up=513, count=20)
    forest = made_up_forest(sample, members=2, rounds=2, depth=3, seed=1)
    return gpu_stream.Setup(SYMBOLS, frames, forest, members), sample


# NumPy's, of the peer's means and quotients while its windows are cold.
@pytest.mark.thorough
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@needs_compiler
def test_all_figures_are_there(tmp_path, monkeypatch, capsys):
    with gpu_on_host():
        result = bench_gpu.run(
            minutes=0, symbols=SYMBOLS, steps=6, warm_up=4, ledger_steps=70, rounds=2, rows=(1, 3)
        )
    assert result["parity"] == {"frames": 4, "differing_digests": 0, "differing_margins": 0}
    assert set(result) == {"parity", *PARTS["gpu"]}
    assert result["stream"]["features"] == 214
    assert result["stream"]["trees"] == 5 * 2 * 3
    stream = result["stream"]
    assert stream["steps"] == {"cuda": 6, "cpu": 1, "paced": 2}
    assert set(stream["paced"]) == {"asleep", "spinning", "beating"}
    for taken in (stream["cpu"], stream["cuda"], stream["unpaced"], *stream["paced"].values()):
        assert 0 < taken["p50_us"] <= taken["p99_us"]
    for taken in (stream["unpaced"], *stream["paced"].values()):
        assert taken["graph"]["p99_us"] == 0.0, "no time passes on the card here"
        assert 0 < taken["host"]["p50_us"] < taken["p99_us"]
        assert set(taken["slowest"]) == {"host_us", "graph_us", "rest_us"}
    assert result["peer"]["features"]["p50_us"] > 0
    assert "whole" in result["peer"] or result["peer"]["skipped"]
    assert result["ledger"]["host_to_device"] == {"copies": 70, "bytes": 70 * (64 + 64 + 8 * 64)}
    assert result["ledger"]["device_to_host"]["copies"] == 70
    assert result["memory"]["frames"] >= 256
    assert [row["rows"] for row in result["forest"]["table"]] == [1, 3]
    assert set(result["forest"]["skipped"]) >= {"nvforest"}
    monkeypatch.setattr(bench_gpu, "run", lambda *, minutes, only, keep: {"minutes": minutes, "only": only})
    monkeypatch.setattr("sys.argv", ["benchmarks", "gpu", "--minutes", "30", "--out", str(tmp_path)])
    assert command.main() == 0
    capsys.readouterr()
    (file,) = tmp_path.iterdir()
    written = json.loads(file.read_text())
    assert written["gpu"] == {"minutes": 30.0, "only": []}
    assert written["environment"].keys() >= {"commit", "versions", "cuda"}


def test_one_that_fails_does_not_take_the_others_with_it(tmp_path, monkeypatch, capsys):
    def fails(**_):
        raise ParityError("bits differ", value=3)

    monkeypatch.setitem(command.BENCHMARKS, "gpu_batch", fails)
    monkeypatch.setitem(command.BENCHMARKS, "crossover", lambda: {"points": 2})
    out = tmp_path / "found.json"
    monkeypatch.setattr("sys.argv", ["benchmarks", "gpu_batch", "crossover", "--out", str(out)])
    assert command.main() == 1
    assert "bits differ" in capsys.readouterr().err
    written = json.loads(out.read_text())
    assert written["gpu_batch"]["failed"].startswith("ParityError: bits differ")
    assert written["crossover"] == {"points": 2}


def test_benchmark_that_is_ended_in_a_part_keeps_those_before_it(tmp_path, monkeypatch):
    """Two trainings on 1e8 rows were ended, and took what had been measured before them along."""

    def ended(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(bench_gpu_batch, "ops_for", lambda _: None)
    for name in ("features", "ticks_to_features", "against_cudf"):
        monkeypatch.setattr(bench_gpu_batch, name, lambda *_, name=name, **__: {"by": name})
    monkeypatch.setattr(bench_gpu_batch.gpu_training, "run", ended)
    out = tmp_path / "found.json"
    monkeypatch.setattr("sys.argv", ["benchmarks", "gpu_batch", "--out", str(out)])
    with pytest.raises(KeyboardInterrupt):
        command.main()
    parts = json.loads(out.read_text())["gpu_batch"]
    assert {name: part["by"] for name, part in parts.items()} == {
        "features": "features",
        "ticks_to_features": "ticks_to_features",
        "shared_set": "against_cudf",
    }
    monkeypatch.setattr(bench_gpu_batch.gpu_training, "run", lambda *_, **__: {"by": "training"})
    monkeypatch.setattr("sys.argv", ["benchmarks", "gpu_batch.training", "--add", "--out", str(out)])
    assert command.main() == 0
    added = json.loads(out.read_text())
    assert added["gpu_batch"] == {**parts, "training": {"by": "training"}}
    assert set(added["gpu_batch"]) == set(PARTS["gpu_batch"])
    assert set(added["commits"]) == {"gpu_batch.training"}


def test_part_that_fails_is_told_until_it_has_been_measured(tmp_path, monkeypatch):
    out = tmp_path / "found.json"
    out.write_text(json.dumps({"gpu": {"failed": "DeviceError: no GPU"}, "gpu_worker": {"failed": "x"}}))
    monkeypatch.setattr(bench_gpu, "run", lambda *, only, **_: {part: {"value": 1} for part in only})
    named = ["gpu.stream", "gpu.ledger", "--add", "--out", str(out)]
    monkeypatch.setattr("sys.argv", ["benchmarks", *named])
    assert command.main() == 0  # of what has run now
    written = json.loads(out.read_text())
    assert written["gpu"] == {"stream": {"value": 1}, "ledger": {"value": 1}}
    assert written["gpu_worker"] == {"failed": "x"}


@pytest.mark.thorough
@needs_compiler
def test_recordings_are_compared_in_batch_and_in_stream(recordings, tmp_path, monkeypatch):
    monkeypatch.setenv("GPUSCALP_RECORDINGS", str(tmp_path))
    name = "trxusdt_merged_20250414.csv.gz"
    for folder in ("usdm", "spot"):
        (tmp_path / folder).mkdir()
    (tmp_path / "usdm" / name).symlink_to(recordings / "usdm" / name)
    monkeypatch.setattr(gpu_recordings, "FOLDERS", {"usdm": "binance_usdm"})
    with gpu_on_host():
        found = gpu_recordings.run(members=2, rounds=2)["usdm"]
    assert found["files"] == 1
    assert found["frames"] == found["stream_frames"] > 100
    assert found["rows"] == found["symbols"] * found["frames"]
    assert found["margins"] == 2 * 3 * found["rows"]


def test_result_is_named_by_card_and_day():
    found = {"cuda": {"usable": True, "name": "NVIDIA H100 80GB HBM3"}, "date": "2026-11-25T21:00:00+00:00"}
    assert command.result_name(found) == "nvidia-h100-80gb-hbm3-2026-11-25.json"
    found["cuda"] = {"usable": False}
    assert command.result_name(found) == "cpu-2026-11-25.json"


@needs_compiler
@pytest.mark.parametrize("what", ["digests", "margins"])
def test_nothing_is_timed_where_a_bit_differs(monkeypatch, what):
    step = cuda_inference.CudaInference.step

    def wrong(self, closed):
        answer = step(self, closed)
        changed = getattr(answer, what).copy()
        changed.view(np.uint8).reshape(-1)[0] ^= 1
        return dataclasses.replace(answer, **{what: changed})

    monkeypatch.setattr(cuda_inference.CudaInference, "step", wrong)
    with gpu_on_host(), pytest.raises(ParityError, match=f"{what} of the two devices") as caught:
        gpu_stream.parity(setup()[0], 2)
    assert caught.value.where == "frame 0"


@needs_compiler
def test_a_copy_too_many_is_found(monkeypatch):
    step = cuda_inference.CudaInference.step

    def copies_more(self, closed):
        cuda_inference.to_device(np.zeros(1))
        return step(self, closed)

    monkeypatch.setattr(cuda_inference.CudaInference, "step", copies_more)
    with gpu_on_host(), pytest.raises(ParityError, match="other copies") as caught:
        gpu_stream.ledger(setup()[0], 3)
    assert caught.value.where == "host_to_device"


@needs_compiler
def test_forest_is_not_timed_where_a_bit_differs(monkeypatch):
    with gpu_on_host():
        made, sample = setup()
        predict = gpu_forest.cuda_forest.predict_margins

        def wrong(forest, x, *, out, scratch):
            predict(forest, x, out=out, scratch=scratch)
            out[0, 0, 0] += 1

        monkeypatch.setattr(gpu_forest.cuda_forest, "predict_margins", wrong)
        with pytest.raises(ParityError, match="margins"):
            gpu_forest.run(made.forest, None, sample, rows=(3,))


def test_each_pace_waits_until_the_step_is_due_and_the_beating_one_predicts_meanwhile():
    predicted = []

    class Engine:
        def margins(self, rows):
            predicted.append(rows.shape)

    for wait in (gpu_stream._sleep, gpu_stream._spin, gpu_stream._beat(Engine(), 7)):
        assert not predicted
        due_s = time.perf_counter() + 5 * gpu_stream.BEAT_S
        wait(due_s)
        assert time.perf_counter() >= due_s
    # One beat is left for the step itself; a machine that stands still may miss some.
    assert set(predicted) == {(gpu_stream.BEAT_ROWS, 7)}
    assert len(predicted) <= 4


def test_memory_slope_is_that_of_the_card(monkeypatch):
    class Runtime:
        free = 1 << 30

        def memGetInfo(self):  # noqa: N802
            self.free -= 1_000_000
            return self.free, 1 << 31

    class Engine:
        def __init__(self, *_):
            pass

        def step(self, _):
            pass

    class Cupy:
        class cuda:  # noqa: N801
            runtime = Runtime()

    class Market:
        frames = (None,)
        forest = None

        def pipeline(self, _):
            pass

    clock = iter(range(10**9))
    monkeypatch.setattr(gpu_stream, "import_cupy", Cupy)
    monkeypatch.setattr(gpu_stream, "CudaInference", Engine)
    monkeypatch.setattr(gpu_stream.time, "perf_counter", lambda: next(clock) * 0.01)
    found = gpu_stream.memory(Market(), 0.5)
    # A megabyte for each sample, and 257 readings of the clock of 10 ms each from one to the next.
    assert found["slope_bytes_per_hour"] == pytest.approx(1_000_000 / 2.57 * 3_600, rel=1e-3)
