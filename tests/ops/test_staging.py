"""The way between host and device: whole, in order, and never overwritten while somebody still needs it.

The streams of the shim run their work as late as they may (tests/host_shim/host_device.py).
"""

from __future__ import annotations

import numpy as np
import pytest

from gpuscalp.ops import staging
from gpuscalp.ops.staging import HostStaging, PinnedStaging
from tests.host_shim.cuda_on_host import cuda_on_host
from tests.random_ticks import random_ticks


def blocks(count, symbols=2):
    """Ticks, offsets and ends of frames, each block of another size; offsets begin anywhere."""
    rng = np.random.default_rng(1)
    made = []
    for index in range(count):
        ticks = random_ticks(index, int(rng.integers(5, 400)), symbols)
        frames = int(rng.integers(1, 9))
        cuts = np.sort(rng.integers(0, len(ticks), frames * symbols + 1)).astype(np.int64)
        made.append((ticks, cuts, np.arange(frames, dtype=np.int64) + index))
    return made


def stream_of_its_own():
    """A stream that is the current one inside ``with``: what is put into it is late."""
    import cupy

    return cupy.cuda.Stream(non_blocking=True)


def stream_of_kernels():
    import cupy

    return cupy.cuda.get_current_stream()


def same(found, block):
    ticks, offsets, end_ns = block
    found = [np.asarray(each) for each in found]  # as they lie: to compute with them would wait
    return (
        found[0].tobytes() == ticks[offsets[0] : offsets[-1]].tobytes()
        and np.array_equal(found[1], offsets - offsets[0])
        and np.array_equal(found[2], end_ns)
    )


def test_blocks_arrive_as_they_were_sent():
    with cuda_on_host():
        way = PinnedStaging()
        for block in blocks(20):
            found = way.upload(*block)
            stream_of_kernels().synchronize()
            assert same(found, block)


def test_kernel_that_is_late_still_finds_its_block():
    """Kernels as late, copies as early as the events allow: a slot is not filled while a kernel reads it."""
    with cuda_on_host(), stream_of_its_own() as current:
        way = PinnedStaging()
        seen = []
        for block in blocks(12):
            found = way.upload(*block)
            current.put(lambda found=found, block=block: seen.append(same(found, block)))
            way._in.synchronize()
        # Two blocks are on their way; a slot was freed only when its kernel had run.
        assert len(seen) == 10
        current.synchronize()
    assert seen == [True] * 12


def test_host_waits_before_it_packs_over_a_copy_that_has_not_been_made():
    with cuda_on_host(), stream_of_its_own() as current:
        way = PinnedStaging()
        seen = []
        for block in blocks(12):
            found = way.upload(*block)
            current.put(lambda found=found, block=block: seen.append(same(found, block)))
        current.synchronize()
    assert seen == [True] * 12


def test_fetched_arrays_hold_what_the_device_held_when_they_were_asked_for():
    with cuda_on_host():
        import cupy

        way = PinnedStaging()
        arrays = [np.arange(7.0), np.arange(6, dtype=np.int32).reshape(2, 3), np.empty((0, 3))]
        fetched = way.fetch([cupy.array(each) for each in arrays])
        found = fetched()
        for got, wanted in zip(found, arrays, strict=True):
            assert got.dtype == wanted.dtype
            assert np.array_equal(got, wanted)
            assert not np.shares_memory(got, wanted)


def test_fetch_waits_for_the_kernels_that_were_queued_before_it():
    with cuda_on_host(), stream_of_its_own():
        import cupy

        result = cupy.zeros(5)
        result[:] = 3.0
        fetched = PinnedStaging().fetch([result])
        result[:] = 4.0
        assert (fetched()[0] == 3.0).all()


def test_buffers_grow_to_the_largest_block_and_are_not_made_again(monkeypatch):
    made = []
    pinned = staging.pinned
    monkeypatch.setattr(staging, "pinned", lambda size: made.append(size) or pinned(size))
    with cuda_on_host():
        way = PinnedStaging()
        for block in (*blocks(20), *blocks(20)):
            way.upload(*block)
        first = len(made)
        for block in blocks(20):
            way.upload(*block)
    assert len(made) == first
    assert all(size & (size - 1) == 0 for size in made)


def test_way_that_is_closed_leaves_no_copy_under_way():
    """Its pinned memory goes back to CuPy's pool and is given out again, whatever still writes into it."""
    with cuda_on_host(), stream_of_its_own():
        import cupy

        way = PinnedStaging()
        forgotten = way.fetch([cupy.zeros(5)])
        for block in blocks(2):
            way.upload(*block)
        assert way._in.queue
        assert way._out.queue
        way.close()
        assert not way._in.queue
        assert not way._out.queue
        assert (forgotten()[0] == 0.0).all()


def test_on_the_host_nothing_is_copied():
    block = blocks(1)[0]
    way = HostStaging()
    assert way.upload(*block) == block
    array = np.arange(3)
    assert way.fetch([array])()[0] is array
    way.close()


@pytest.mark.gpu
def test_blocks_arrive_as_they_were_sent_on_a_gpu():
    import cupy

    way = PinnedStaging()
    sums = []
    for block in blocks(200):
        found = way.upload(*block)
        sums.append((found[0].sum(dtype=np.int64), block[0][block[1][0] : block[1][-1]]))
        assert way.fetch([found[2]])()[0].tolist() == block[2].tolist()
    for found, ticks in sums:
        assert int(cupy.asnumpy(found)) == int(ticks.view(np.uint8).sum(dtype=np.int64))
