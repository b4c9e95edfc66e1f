"""What training keeps of a GPU's memory fits into the pool that it is given, however long the recording is.

The iterator, the labels and the sizes are the real ones; arrays take room in a pool that enforces its limit,
and are never written.
"""

from __future__ import annotations

from collections.abc import Iterator
from unittest import mock

import msgspec
import numpy as np
import pytest
import xgboost

from gpuscalp.config.live import RetrainingConfig
from gpuscalp.errors import DeviceError
from gpuscalp.schema import FeatureChunk, FrameBlock
from gpuscalp.train import device as place
from gpuscalp.train.dataset import labelled_chunks
from gpuscalp.train.device import MEMORY_MIN_MB, training_device
from gpuscalp.train.iterator import binned_matrix
from gpuscalp.train.source import chunk_frames
from tests.host_shim.host_device import Pool
from tests.train.market import FRAME_NS, START_NS, quick_config
from tests.train.test_device import trained_on_host

COLUMNS = 214
BLOCK_BYTES = place.GPU_BLOCK_BYTES  # a GPU on the host joins no rows


class Untouched:
    """A GPU's training device; its rows and chunks take room in the pool and are never written."""

    def __init__(self, gpu, pool: Pool) -> None:
        self._gpu, self._pool = gpu, pool

    def __getattr__(self, name):
        return getattr(self._gpu, name)

    def room(self, *shape: int) -> np.ndarray:
        array = np.zeros(shape, np.float32)
        self._pool.hold(array)
        return array

    def gather(self, features, at):
        whole = self.room(features.shape[1], features.shape[0])
        return whole if len(at) == len(whole) else self.room(len(at), whole.shape[1])

    def join(self, blocks):
        return self.room(sum(map(len, blocks)), blocks[0].shape[1])

    def put(self, array):
        return array

    def complete_row(self, block):
        taken = [self.room(*block.shape[:1], COLUMNS // 4) for _ in range(2)]  # missing or not
        assert all(len(part) == len(block) for part in taken)
        return self.room(1, COLUMNS)


class TwoWalks(xgboost.DMatrix):
    """What XGBoost does on a GPU: a walk for the quantiles, one for the bins, and more resets than walks."""

    kept: list[xgboost.DataIter] = []  # noqa: RUF012  until the collector comes, as there

    def __init__(self, walk, **_) -> None:
        for _ in range(2):
            walk._reset_wrapper(None)
            while walk._next_wrapper(None):
                pass
            walk._reset_wrapper(None)
        walk.reraise()
        self.kept[:] = [walk]


def chunks(device: Untouched, symbols: int, frames: int, count: int) -> Iterator[FeatureChunk]:
    """Yield chunks as a pipeline does on a GPU: the next one is under way when one is handed out."""
    steps = np.random.default_rng(3).integers(-40, 41, (frames, symbols))
    bid = (600_000 + steps.cumsum(axis=0)).astype(np.int32)
    under_way = None
    for number in range(count):
        block = FrameBlock(
            end_ns=START_NS + FRAME_NS * (1 + number * frames + np.arange(frames)),
            channels=np.zeros((frames, 0, symbols), np.float32),
            quality=np.zeros((frames, symbols), np.uint32),
            bid_px=bid,
            ask_px=bid + np.int32(1),
            mark=np.full((frames, symbols), np.nan),
        )
        begun = FeatureChunk(block, device.room(symbols, COLUMNS, frames))
        if under_way is not None:
            yield under_way
        under_way = begun
    yield under_way


def walk_twice(memory_mb: int, symbols: int) -> tuple[int, Pool, int]:
    """Return the rows of eight chunks, the pool that they went through, and what it has afterwards."""
    with trained_on_host() as gpu, mock.patch.object(place, "GPU_BLOCK_BYTES", BLOCK_BYTES):
        device = Untouched(training_device("cuda", gpu_memory_mb=memory_mb), gpu.pool)
        frames = chunk_frames(symbols, device.chunk_bytes)

        def stream():
            for chunk in labelled_chunks(chunks(device, symbols, frames, 8), quick_config()):
                yield from chunk.rows(chunk.taken, device)

        with device.session(), mock.patch.object(xgboost, "QuantileDMatrix", TwoWalks):
            _, tally = binned_matrix(stream, device=device, max_bin=16, threads=1, what="rows")
            boosting_bytes = gpu.pool.total_bytes()
        return tally.rows, gpu.pool, boosting_bytes


@pytest.mark.parametrize("memory_mb", [MEMORY_MIN_MB, 2_048, 4_096])
@pytest.mark.parametrize("symbols", [1, 10, 25])
def test_training_fits_the_memory_that_it_is_given(memory_mb, symbols):
    """Blocks had 262,144 rows, whatever the pool, and four of them lived in the walk for the bins."""
    rows, pool, boosting_bytes = walk_twice(memory_mb, symbols)
    chunk_rows = symbols * chunk_frames(symbols, (memory_mb << 20) // 32)
    assert rows == 8 * chunk_rows - 5 * symbols
    # The other quarter is for ticks, frames and channels of the chunk that is computed.
    assert pool.peak_bytes < 0.75 * (memory_mb << 20) / 4
    # It kept all of that while XGBoost boosted: 7.7 GB of a GPU with room for the largest chunks. So did a
    # third walk, which the last reset began.
    assert boosting_bytes < 10 * 4 * COLUMNS


def test_sizes_do_not_follow_what_a_neighbour_takes_of_the_gpu():
    """At 24 and at 22 GiB free the same data gave two models: other blocks are other bins."""
    with trained_on_host() as device, mock.patch.object(place, "GPU_BLOCK_BYTES", BLOCK_BYTES):
        found = {}
        for free_mb in (24 << 10, 22 << 10, 16 << 10, (16 << 10) - 1):
            device.free_bytes = free_mb << 20
            gpu = training_device("cuda")
            found[free_mb] = gpu.chunk_bytes, gpu.page_bytes, gpu.block_bytes
    whole, half = (512 << 20, 1 << 30, BLOCK_BYTES), (256 << 20, 512 << 20, BLOCK_BYTES)
    assert list(found.values()) == [whole, whole, whole, half]


def test_what_the_pool_has_taken_leaves_the_binned_rows_their_share():
    """At the end of a fold it had taken all of its share, and the next matrix went to the host's memory."""
    with trained_on_host() as device:
        gpu = training_device("cuda")
        most = int(0.4 * device.free_bytes) * 8 // (COLUMNS * 9)
        held = device.array(np.zeros(1 << 20))
        device.free_bytes -= held.nbytes
        assert gpu.matrix_type(most, COLUMNS, 256) == "QuantileDMatrix"
        assert gpu.matrix_type(most + 1, COLUMNS, 256) == "ExtMemQuantileDMatrix"


def test_symbols_that_no_chunk_has_room_for_are_said():
    with pytest.raises(DeviceError, match="features do not fit the GPU") as caught:
        walk_twice(MEMORY_MIN_MB, 100)
    assert "fewer symbols" in caught.value.fix


def test_too_little_memory_is_an_error_before_anything_is_read():
    with trained_on_host() as gpu:
        for given, free_mb in ((MEMORY_MIN_MB - 1, 30_000), (None, MEMORY_MIN_MB - 1)):
            gpu.free_bytes = free_mb << 20
            with pytest.raises(DeviceError, match="too little of the GPU's memory is free") as caught:
                training_device("cuda", gpu_memory_mb=given)
            assert caught.value.value == "1023 MiB"
    with pytest.raises(msgspec.ValidationError, match=f">= {MEMORY_MIN_MB}"):
        msgspec.convert({"gpu_memory_mb": MEMORY_MIN_MB - 1}, RetrainingConfig)
