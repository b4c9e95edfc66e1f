"""``kernels/forest.cu`` against its Numba twin, bit for bit: on the host in every run, on a GPU if asked."""

from __future__ import annotations

import numpy as np
import pytest

from gpuscalp.errors import ShapeError
from gpuscalp.ops import cuda_forest, forest
from tests.host_shim.build import compiler
from tests.host_shim.cuda_on_host import cuda_on_host
from tests.host_shim.same_bits import assert_same_bits
from tests.ops.device_case import garbage, up
from tests.ops.forests import random_forest, random_rows

needs_compiler = pytest.mark.skipif(compiler() is None, reason="there is no g++ to build kernels with")

SEEDS = (None, 1, 2)
# Around the shapes of a block: one row, a few, a warp of them, more than one block.
ROW_COUNTS = (1, 2, 3, 31, 32, 33, 65)
DEPTHS = {
    "every depth": [0, 1, 2, 3, 4, 6, 8, 9, 11],
    # More trees in a group than a block of one row walks at a time.
    "many trees": [2, 3] * 300,
    "none": [],
}


def check(rng, depths, row_count, **options):
    """Both twins on the same rows; the device is whatever ``cupy`` is."""
    import cupy

    members = 1 if len(depths) > 100 else 2
    trees = random_forest(rng, depths=depths, member_count=members, class_count=members, **options)
    x = random_rows(rng, row_count, trees)
    shape = (trees.member_count, row_count, trees.class_count)
    wanted = garbage(shape, np.float32)
    forest.predict_margins(trees, x, out=wanted, scratch=forest.ForestScratch.of(trees))
    on_device, out = up([x, garbage(shape, np.float32)])
    cuda_forest.predict_margins(trees, on_device, out=out, scratch=cuda_forest.ForestScratch.of(trees))
    assert_same_bits(cupy.asnumpy(out), wanted, "margins")


@needs_compiler
@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("row_count", ROW_COUNTS)
def test_margins_on_the_host(rng, row_count, seed):
    with cuda_on_host(seed=seed):
        check(rng, DEPTHS["every depth"], row_count)


@needs_compiler
@pytest.mark.parametrize("kind", ["many trees", "none"])
@pytest.mark.parametrize("row_count", [1, 33])
def test_margins_of_few_and_many_trees_on_the_host(rng, row_count, kind):
    with cuda_on_host(seed=3):
        check(rng, DEPTHS[kind], row_count)


@needs_compiler
@pytest.mark.parametrize("columns", [4, 1_000, 12_287])
def test_margins_of_narrow_and_wide_rows_on_the_host(rng, columns):
    """The wider a row, the fewer of them a block has."""
    with cuda_on_host(seed=1):
        check(rng, DEPTHS["every depth"], 35, feature_count=columns)


@needs_compiler
def test_margins_of_several_slabs_and_rounds_on_the_host(rng, monkeypatch):
    monkeypatch.setattr(cuda_forest, "SLAB_ROWS", 40)
    monkeypatch.setattr(cuda_forest, "_LEAF_BLOCKS", 2)
    with cuda_on_host(seed=4):
        check(rng, DEPTHS["every depth"] * 5, 100)


@needs_compiler
def test_rows_too_wide_for_a_block_are_refused(rng):
    with cuda_on_host(), pytest.raises(ShapeError, match="shared memory") as caught:
        cuda_forest.ForestScratch.of(random_forest(rng, depths=[2], feature_count=12_288))
    assert caught.value.value == 12_288


@pytest.mark.gpu
@pytest.mark.parametrize("kind", DEPTHS)
@pytest.mark.parametrize("row_count", [*ROW_COUNTS, 1000, 2500])
@pytest.mark.parametrize("columns", [5, 214, 3_000])
def test_margins_on_a_gpu(rng, row_count, kind, columns):
    check(rng, DEPTHS[kind], row_count, feature_count=columns)


@needs_compiler
def test_wrong_arguments_and_no_rows(rng):
    trees = random_forest(rng, depths=[2, 3])
    with cuda_on_host():
        scratch = cuda_forest.ForestScratch.of(trees)
        empty = np.zeros((0, 5), np.float32)
        cuda_forest.predict_margins(trees, empty, out=np.zeros((2, 0, 3), np.float32), scratch=scratch)
        out = np.zeros((2, 3, 3), np.float32)
        for x in (np.zeros((3, 4), np.float32), np.zeros((3, 5)), np.zeros((5, 3), np.float32).T):
            with pytest.raises(ShapeError):
                cuda_forest.predict_margins(trees, x, out=out, scratch=scratch)
        x = np.zeros((3, 5), np.float32)
        with pytest.raises(ShapeError):
            cuda_forest.predict_margins(trees, x, out=out[:, :2], scratch=scratch)
        other = random_forest(rng, depths=[2, 3])
        with pytest.raises(ShapeError, match="another forest"):
            cuda_forest.predict_margins(other, x, out=out, scratch=scratch)
