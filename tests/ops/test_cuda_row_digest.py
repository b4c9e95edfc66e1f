"""``kernels/row_digest.cu`` against its Numba twin: on the host in every run, on a GPU if asked."""

from __future__ import annotations

import numpy as np
import pytest

from gpuscalp.errors import ShapeError
from gpuscalp.ops import cuda_row_digest, row_digest
from tests.host_shim.build import compiler
from tests.host_shim.cuda_on_host import cuda_on_host
from tests.host_shim.same_bits import assert_same_bits
from tests.ops.device_case import garbage, up

needs_compiler = pytest.mark.skipif(compiler() is None, reason="there is no g++ to build kernels with")

SEEDS = (None, 1, 2)
# Rows and columns around those of a block, a stretch and the four chains.
SIZES = ((1, 1), (7, 3), (8, 4), (9, 127), (3, 128), (5, 129), (17, 214), (2, 515), (4, 0))


def check_digest(rng, row_count, column_count, more):
    """The last axis of length 1 is that of the stream's chunks."""
    rows = rng.standard_normal((row_count, column_count, 1)).astype(np.float32)
    words = rows.view(np.uint32)
    words[rng.random(rows.shape) < 0.2] = 0x7FC00000
    words[rng.random(rows.shape) < 0.1] = 0xFFC12345  # another NaN
    words[rng.random(rows.shape) < 0.1] = 0x80000000  # -0
    words[rng.random(rows.shape) < 0.1] = 0x7F800000  # an infinity is none
    further = [
        rng.integers(0, 2**32, row_count, np.uint32),
        rng.integers(-(2**31), 2**31, row_count, np.int32),
        rng.standard_normal(row_count).astype(np.float32),
    ][:more]
    wanted = row_digest.digest_rows(rows, *further)
    on_device, out, *columns = up([rows, garbage(row_count, np.uint64), *further])
    assert cuda_row_digest.digest_rows(on_device, *columns, out=out) is out
    import cupy

    for got in (out, cuda_row_digest.digest_rows(on_device, *columns)):
        assert_same_bits(cupy.asnumpy(got), wanted, "digests")


@needs_compiler
@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_digests_on_the_host(rng, size, seed):
    with cuda_on_host(seed=seed):
        for more in range(4):
            check_digest(rng, *size, more)


@pytest.mark.gpu
@pytest.mark.parametrize("size", [*SIZES, (512, 214), (100_000, 33)], ids=str)
def test_digests_on_a_gpu(rng, size):
    for more in range(4):
        check_digest(rng, *size, more)


@needs_compiler
def test_no_rows_and_wrong_arguments():
    with cuda_on_host():
        (rows, column) = up((np.zeros((3, 5), np.float32), np.zeros(3, np.int32)))
        assert len(cuda_row_digest.digest_rows(rows[:0])) == 0
        with pytest.raises(ShapeError, match="too many"):
            cuda_row_digest.digest_rows(rows, *[column] * 4)
        for wrong in (rows.T, up([np.zeros((3, 5))])[0]):
            with pytest.raises(ShapeError, match="rows"):
                cuda_row_digest.digest_rows(wrong)
        with pytest.raises(ShapeError, match=r"more\[0\]"):
            cuda_row_digest.digest_rows(rows, column[:2])
