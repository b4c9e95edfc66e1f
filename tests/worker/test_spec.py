"""Which worker has which symbols and which GPU."""

from __future__ import annotations

import sys

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuscalp.errors import UsageError
from gpuscalp.worker import WorkerFault, WorkerSpec, shard
from gpuscalp.worker.faults import Fault
from gpuscalp.worker.process import environment_of
from tests.random_ticks import instruments


@given(st.integers(1, 600), st.integers(1, 64))
def test_shards_cover_every_symbol_once_and_are_equal(symbols, workers):
    if workers > symbols:
        with pytest.raises(UsageError):
            shard(symbols, workers)
        return
    shards = shard(symbols, workers)
    assert [row for rows in shards for row in rows] == list(range(symbols))
    assert len(shards) == workers
    assert max(map(len, shards)) - min(map(len, shards)) <= 1


def _spec(device: str = "cuda", gpu: int = 0, rows: tuple[int, int] = (0, 2)) -> WorkerSpec:
    faults = (WorkerFault(Fault.HANG, at_frame=3),)
    return WorkerSpec("bundle", instruments(3), device, gpu, rows, "forest", 1_000, faults)


def test_spec_survives_the_way_to_the_process():
    assert msgspec.json.decode(msgspec.json.encode(_spec()), type=WorkerSpec) == _spec()


@pytest.mark.parametrize(
    ("ours", "gpu", "theirs"),
    [
        (None, 0, "0"),
        (None, 3, "3"),
        ("2,5", 1, "5"),
        ("GPU-aa, GPU-bb", 1, "GPU-bb"),
        ("2,5", 2, ""),  # not one that somebody else may use
        ("", 0, ""),
    ],
)
def test_a_worker_sees_its_own_gpu_alone_counted_as_the_session_counts(ours, gpu, theirs):
    environment = {"PATH": "/bin"} | ({} if ours is None else {"CUDA_VISIBLE_DEVICES": ours})
    found = environment_of(_spec(gpu=gpu), environment)
    assert found["CUDA_VISIBLE_DEVICES"] == theirs
    assert found["PATH"] == "/bin"
    assert found["OMP_NUM_THREADS"] == found["NUMBA_NUM_THREADS"] == "1"
    assert found["PYTHONPATH"].split(":") == sys.path
    assert "CUDA_VISIBLE_DEVICES" not in environment_of(_spec("cpu"), {"PATH": "/bin"})
