"""Shared memory: what is written by one is read by the other, and nothing lies on top of anything."""

from __future__ import annotations

import os

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuscalp.frames import ClosedFrames
from gpuscalp.schema import TICK
from gpuscalp.worker.memory import (
    Ring,
    anonymous,
    frame_bytes,
    mapped,
    pack_frame,
    read_state,
    unpack_frame,
    write_state,
)
from tests.random_ticks import random_ticks


@given(
    size=st.integers(1, 300),
    steps=st.lists(st.tuples(st.integers(1, 120), st.integers(0, 3)), max_size=80),
)
def test_ring_never_gives_away_bytes_that_are_still_read(size, steps):
    ring, memory = Ring(size), bytearray(size)
    live: dict[int, tuple[int, int]] = {}
    for index, (length, finished) in enumerate(steps):
        at = ring.place(index, length)
        if at is None:
            assert live or length > size, "an empty ring refuses only what is larger than it"
        else:
            assert 0 <= at <= at + length <= size
            memory[at : at + length] = bytes([index % 251]) * length
            live[index] = (at, length)
        for other, (start, count) in live.items():
            assert memory[start : start + count] == bytes([other % 251]) * count
        for oldest in sorted(live)[:finished]:
            del live[oldest]
        ring.release(min(live, default=index + 1))


@given(st.lists(st.integers(1, 50), min_size=1, max_size=100))
def test_ring_has_room_for_what_fits_twice(sizes):
    ring = Ring(100)
    for index, size in enumerate(sizes):
        ring.release(index)  # nobody reads any more
        assert ring.place(index, size) == 0
    ring = Ring(200)
    for index, size in enumerate(sizes):
        ring.release(index - 1)  # the one before is still read
        assert ring.place(index, size) is not None


@pytest.mark.parametrize("count", [0, 1, 500])
def test_frame_arrives_as_it_was_and_only_its_own_ticks_are_sent(count):
    ticks, symbols = random_ticks(3, count + 20, 4), 4
    # Ten ticks of frames before it, and ten behind.
    offsets = 10 + np.linspace(0, count, symbols + 1).astype(np.int64)
    sent = ClosedFrames(np.array([123_456_789], np.int64), ticks, offsets, True)
    descriptor = anonymous(frame_bytes(sent) + 128)
    written, read = mapped(descriptor), mapped(descriptor)
    os.close(descriptor)
    assert pack_frame(sent, written[64 : 64 + frame_bytes(sent)]) == count
    found = unpack_frame(read, 64, count, symbols, restart=True)
    assert found.restart
    np.testing.assert_array_equal(found.end_ns, sent.end_ns)
    np.testing.assert_array_equal(found.offsets, offsets - 10)
    assert found.ticks.dtype == TICK
    assert found.ticks.tobytes() == ticks[10 : 10 + count].tobytes()
    assert not written[:64].any()
    assert not written[64 + frame_bytes(sent) :].any()


def test_state_arrives_as_it_was(truth, closed):
    stream = truth.pipeline.stream()
    for item in closed[:200]:
        stream.step(item)
    saved = stream.checkpoint() | {"ticks": random_ticks(1, 3, 2), "none": np.empty((0, 4), np.int64)}
    descriptor, layout = write_state(saved)
    found = read_state(descriptor, layout)
    os.close(descriptor)
    assert list(found) == list(saved)
    for key, array in saved.items():
        assert found[key].dtype == array.dtype
        assert found[key].shape == array.shape
        assert found[key].tobytes() == np.ascontiguousarray(array).tobytes()
