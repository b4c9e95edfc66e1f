"""``kernels/context.cu`` against its Numba twin, bit for bit: on the host in every run, on a GPU if asked."""

from __future__ import annotations

import numpy as np
import pytest

from gpuscalp.config import FeatureConfig, GridConfig
from gpuscalp.errors import ShapeError
from gpuscalp.features import FeatureGraph
from gpuscalp.ops import context, cuda_context
from gpuscalp.ops.kernel_source import load_kernel_source
from tests.host_shim.build import compiler
from tests.host_shim.cuda_on_host import cuda_on_host
from tests.ops.device_case import assert_twins, garbage, up, up_tuple

needs_compiler = pytest.mark.skipif(compiler() is None, reason="there is no g++ to build kernels with")

SEEDS = (None, 1, 2)
# Symbols and frames; T = 1 is the stream.
SIZES = ((1, 1), (33, 1), (300, 1), (2, 33), (3, 31), (31, 32), (5, 257))
FRAME_NS = 100_000_000
DROPS = {"all": (), "no leader": ("leader.*",), "time alone": ("leader.*", "market.*", "relative.*"),
         "no time": ("time.*",)}  # fmt: skip


def check_context(
    rng, symbol_count, frame_count, *, drop=(), leader="BTCUSDT", start_ns=1_721_260_799_900_000_000
):
    """The time runs over the end of a day, of a funding interval and of a second."""
    symbols = [f"S{index}" for index in range(symbol_count)]
    symbols[symbol_count // 2] = "BTCUSDT"
    graph = FeatureGraph(GridConfig(), FeatureConfig(leader=leader, drop=drop), symbols)
    features = rng.standard_normal((symbol_count, len(graph), frame_count)).astype(np.float32)
    features[rng.random(features.shape) < 0.1] = np.nan
    features[:, :, -1] = np.nan  # nobody has a value: the mean has none either
    features[:, 0::2, frame_count // 2] = np.float32(3e38)  # a sum that overflows
    end_ns = start_ns + np.arange(frame_count, dtype=np.int64) * FRAME_NS
    (cuda_features, cuda_end_ns) = up((features, end_ns))
    cuda_context.context(up_tuple(graph.context), cuda_end_ns, cuda_features)
    context.context(graph.context, end_ns, features)
    assert_twins([cuda_features], [features], ["features"])


def check_transpose(rng, feature_count, symbol_count):
    rows = rng.standard_normal((feature_count, symbol_count)).astype(np.float32)
    out = garbage((symbol_count, feature_count), np.float32)
    cuda_rows, cuda_out = up((rows, out))
    cuda_context.transpose(cuda_rows, cuda_out)
    context.transpose(rows, out)
    assert_twins([cuda_rows, cuda_out], [rows, out], ["rows", "out"])


@needs_compiler
@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_context_gives_the_bits_of_the_cpu(rng, size, seed):
    with cuda_on_host(seed=seed):
        check_context(rng, *size)


@needs_compiler
@pytest.mark.parametrize("drop", DROPS, ids=str)
def test_context_gives_the_bits_of_the_cpu_for_fewer_columns(rng, drop):
    with cuda_on_host(seed=1):
        check_context(rng, 3, 40, drop=DROPS[drop])


@needs_compiler
def test_context_without_its_leader_is_nan(rng):
    with cuda_on_host():
        check_context(rng, 3, 5, leader="ABSENT")


@needs_compiler
def test_context_rounds_times_before_1970_down(rng):
    with cuda_on_host():
        check_context(rng, 1, 50, start_ns=-86_400_000_000_000 - 2_000_000_000)


@needs_compiler
@pytest.mark.parametrize("threads", [1, 7, 32, 64])
def test_context_does_not_depend_on_the_block(rng, threads, monkeypatch):
    monkeypatch.setattr(cuda_context, "THREADS", threads)
    with cuda_on_host(seed=2):
        check_context(rng, 5, 70)


@needs_compiler
def test_context_without_columns_launches_nothing():
    with cuda_on_host():
        drop = ("leader.*", "market.*", "relative.*", "time.*")
        graph = FeatureGraph(GridConfig(), FeatureConfig(drop=drop))
        features = garbage((2, len(graph), 3), np.float32)
        cuda_context.context(graph.context, np.zeros(3, np.int64), features)
        assert (features == 77).all()


@needs_compiler
@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("size", [(1, 1), (31, 33), (32, 32), (33, 31), (203, 7), (5, 129)], ids=str)
def test_transpose_gives_the_bits_of_the_cpu(rng, size, seed):
    with cuda_on_host(seed=seed):
        check_transpose(rng, *size)


@needs_compiler
def test_transpose_refuses_a_target_of_another_shape():
    with cuda_on_host(), pytest.raises(ShapeError, match="out"):
        cuda_context.transpose(np.zeros((3, 2), np.float32), np.zeros((3, 2), np.float32))


@pytest.mark.gpu
@pytest.mark.parametrize("size", [*SIZES, (500, 1), (10, 8192)], ids=str)
def test_context_gives_the_bits_of_the_cpu_on_a_gpu(rng, size):
    check_context(rng, *size)
    check_context(rng, *size, leader="ABSENT")


@pytest.mark.gpu
def test_transpose_gives_the_bits_of_the_cpu_on_a_gpu(rng):
    for size in ((1, 1), (31, 33), (203, 500)):
        check_transpose(rng, *size)


def test_constants_of_the_launcher_are_those_of_the_kernel():
    source = load_kernel_source("context")
    assert f"#define CONTEXT_THREADS {cuda_context.THREADS}\n" in source
    assert f"#define TRANSPOSE_TILE {cuda_context.TILE}\n" in source
