"""The GPU benchmark of batches is wired right: its CUDA side runs on the host here, bits first."""

from __future__ import annotations

import sys
import time

import numpy as np
import pytest

from benchmarks import bench_gpu_batch, gpu_training
from benchmarks.gpu_training import PeakMemory, SyntheticRows
from gpuscalp.errors import ParityError
from gpuscalp.ops import cuda_ladder
from gpuscalp.ops.by_device import ops_for
from gpuscalp.train.dataset import labelled_chunks
from tests.host_shim.build import compiler
from tests.host_shim.gpu_on_host import gpu_on_host
from tests.train.test_device import trained_on_host

needs_compiler = pytest.mark.skipif(compiler() is None, reason="there is no g++ to build kernels with")


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(bench_gpu_batch, "COPY_BYTES", 1 << 16)
    monkeypatch.setattr(bench_gpu_batch, "card", lambda _: bench_gpu_batch.Card(132, 128, 1.98e9))


@pytest.mark.thorough
@needs_compiler
@pytest.mark.usefixtures("small")
def test_features_are_compared_and_held_against_a_ceiling():
    with gpu_on_host():
        found = bench_gpu_batch.features(400, symbols=2, frames=100)
    assert found["symbol_frames"] == 400
    assert found["columns"] == 214
    assert found["binds"] in ("memory", "arithmetic")
    assert found["written_bytes"] == 4 * 214
    assert 0 < found["share_of_ceiling"] < 1
    assert found["ratio_cpu"] > 0


@needs_compiler
@pytest.mark.usefixtures("small")
def test_features_that_differ_in_a_bit_are_not_timed(monkeypatch):
    batch = cuda_ladder.batch

    def wrong(program, channels, first, last, tile, scratch, out):
        batch(program, channels, first, last, tile, scratch, out)
        out[-1, 0, -1] = 0.5

    monkeypatch.setattr(cuda_ladder, "batch", wrong)
    with gpu_on_host(), pytest.raises(ParityError, match="features of the two devices differ"):
        bench_gpu_batch.features(100, symbols=1, frames=100)


@needs_compiler
def test_ticks_to_features_gives_the_same_on_both_devices():
    with gpu_on_host():
        found = bench_gpu_batch.ticks_to_features(symbols=3, frames=12, per_frame=3)
    assert found["ticks"] == 3 * 3 * 12
    assert found["ratio_cpu"] > 0


CUDF = """
import pandas
class DataFrame(pandas.DataFrame):
    __slots__ = ()
"""
CUPY = """
class cuda:
    class runtime:
        deviceSynchronize = staticmethod(lambda: None)
"""


@pytest.fixture
def other_python(tmp_path, monkeypatch):
    """An interpreter of its own, where ``cudf`` is what a test writes into its file."""
    (tmp_path / "cudf.py").write_text(CUDF)
    (tmp_path / "cupy.py").write_text(CUPY)
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nPYTHONPATH={tmp_path} exec {sys.executable} "$@"\n')
    python.chmod(0o755)
    monkeypatch.setenv("GPUSCALP_CUDF_PYTHON", str(python))
    monkeypatch.setattr(bench_gpu_batch.shared_set, "largest_error", lambda *_: 0.0)
    return tmp_path / "cudf.py"


@needs_compiler
def test_cudf_is_run_by_another_interpreter_and_its_columns_are_checked(other_python):
    with gpu_on_host():
        found = bench_gpu_batch.against_cudf(frames=600, repeats=1)
        assert found["ratio_cudf"] == found["cudf_s"] / found["gpuscalp_s"] > 0
        other_python.write_text(CUDF + "    def rolling(self, window): return super().rolling(window + 1)\n")
        with pytest.raises(ParityError, match="not ours") as caught:
            bench_gpu_batch.against_cudf(frames=600, repeats=1)
    assert caught.value.where == "mean.8"


@needs_compiler
def test_cudf_is_skipped_with_its_reason_where_it_cannot_be_used(other_python, monkeypatch):
    """It imports without a GPU and fails at its first use."""
    other_python.write_text("def DataFrame(_): raise RuntimeError('libcudart.so was not found')\n")
    with gpu_on_host():
        found = bench_gpu_batch.against_cudf(frames=600, repeats=1)
        monkeypatch.delenv("GPUSCALP_CUDF_PYTHON")
        unnamed = bench_gpu_batch.against_cudf(frames=600, repeats=1)
    assert found["cudf"] == "skipped: RuntimeError: libcudart.so was not found"
    assert unnamed["cudf"].startswith("skipped: GPUSCALP_CUDF_PYTHON names no interpreter")
    assert "ratio_cudf" not in found | unnamed


def test_peak_is_the_largest_above_what_was_there_before():
    used = iter([100, 110, 170, 130, *[120] * 10_000])
    with PeakMemory(lambda: next(used), every_s=0.001) as memory:
        time.sleep(0.1)
    assert memory.peak_bytes == 70


def test_synthetic_rows_have_all_classes_and_join_without_a_jump():
    source = SyntheticRows(ops_for("cpu"), symbols=5, frames=400, chunks=3)
    config = gpu_training.training_config()
    chunks = list(labelled_chunks(source.chunks(), config))
    direction = np.concatenate([chunk.labels.direction[chunk.taken] for chunk in chunks])
    share = np.bincount(direction.astype(int), minlength=3) / len(direction)
    assert (share > 0.1).all()
    # All rows but those whose label would run past the end.
    assert len(direction) == 5 * (3 * 400 - 5)
    times = np.concatenate([chunk.end_ns for chunk in chunks])
    assert set(np.diff(times)) == {100_000_000}
    missing = np.isnan(chunks[0].chunk.features)
    assert (missing.sum(axis=1) == 1).all()  # of every row one column, each column in its turn
    assert missing.any(axis=2).all()
    assert len(chunks[0].chunk.features) == 5


@pytest.mark.thorough
@needs_compiler
def test_training_tells_memory_as_a_share_of_the_float_matrix(monkeypatch, capsys):
    monkeypatch.setattr(gpu_training, "ROUNDS", 2)
    with trained_on_host():
        found = gpu_training.run(2_400, symbols=2, frames=400)
    assert found["rows"] == 2_400 - 2 * 5
    assert found["float_matrix_mb"] == round(4 * found["rows"] * 214 / 1e6)
    assert found["device_comparison"]["forest_margins_differing"] == 0
    told = capsys.readouterr().err.splitlines()
    assert "peak" in told[0]
    assert told[0].endswith("counting rows")
    for phase in ("walk 4 over the rows", "final members, member 1 of 1", "predicting held-out rows"):
        assert any(phase in line for line in told), phase
