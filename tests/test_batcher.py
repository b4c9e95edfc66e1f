"""Batches lose nothing, close in time, and in an overload only what may give way does."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuscalp.batcher import Batcher
from gpuscalp.config import BatchConfig
from gpuscalp.errors import DeadlineError, ShapeError
from gpuscalp.schema import NS_PER_MS, TICK, Quality, TickKind

FRAME_NS = 100 * NS_PER_MS
START_NS = 1_700_000_000_000_000_000


def _ticks(kinds, *, symbol=0, exch_ns=START_NS, first=0):
    ticks = np.zeros(len(kinds), TICK)
    ticks["kind"], ticks["symbol"], ticks["exch_ns"] = kinds, symbol, exch_ns
    ticks["recv_ns"] = np.arange(first, first + len(kinds))  # who is who
    return ticks


def _batcher(**options):
    return Batcher(BatchConfig(**options), frame_ns=FRAME_NS)


def test_batch_closes_at_its_count():
    batcher = _batcher(max_ticks=3, max_age_ms=1_000)
    batcher.push(_ticks([1, 1]), 0)
    assert batcher.take(0) is None
    batcher.push(_ticks([1, 1]), 0)
    batch = batcher.take(0)
    assert len(batch) == 4
    assert batcher.take(10**12) is None


def test_batch_closes_at_the_age_of_its_oldest_tick():
    batcher = _batcher(max_ticks=100, max_age_ms=10)
    batcher.push(_ticks([1]), 5)
    batcher.push(_ticks([1]), 9 * NS_PER_MS)
    assert batcher.take(5 + 10 * NS_PER_MS - 1) is None
    batch = batcher.take(5 + 10 * NS_PER_MS)
    assert len(batch) == 2


def test_batch_closes_when_a_frame_has_ended():
    batcher = Batcher(BatchConfig(max_age_ms=1_000), frame_ns=FRAME_NS, lateness_ns=20 * NS_PER_MS)
    batcher.push(_ticks([1]), 0)
    batcher.push(_ticks([1], exch_ns=START_NS + FRAME_NS), 0)
    assert batcher.take(0) is not None  # the first tick was 20 ms before the end of a frame
    batcher.push(_ticks([1], exch_ns=START_NS + FRAME_NS + 19 * NS_PER_MS), 0)
    assert batcher.take(0) is None
    batcher.push(_ticks([4], symbol=-1, exch_ns=START_NS + FRAME_NS + 20 * NS_PER_MS), 0)
    assert batcher.take(0) is not None


def test_batch_can_be_asked_for():
    batcher = _batcher()
    assert batcher.take(0, force=True) is None
    batcher.push(_ticks([0]), 0)
    assert batcher.take(0, force=True) is not None


pushes = st.lists(
    st.tuples(
        st.lists(st.sampled_from([0, 1, 2, 3]), max_size=12),  # kinds
        st.integers(0, 2),  # symbol
        st.integers(0, 300),  # ms
        st.booleans(),  # take after it
    ),
    max_size=25,
)


@given(pushes=pushes, conflate_above=st.integers(1, 40))
def test_trades_always_come_out_and_the_rest_gives_way_only_to_newer_ones(pushes, conflate_above):
    batcher = _batcher(max_ticks=1, conflate_above=conflate_above, hard_limit=1 << 12)
    pushed, taken, waiting, number, given_way = [], [], 0, 0, 0
    for kinds, symbol, ms, take in [*pushes, ([], 0, 0, True)]:
        ticks = _ticks(kinds, symbol=symbol, exch_ns=START_NS + ms * NS_PER_MS, first=number)
        number += len(ticks)
        waiting += len(ticks)
        pushed.append(ticks)
        batcher.push(ticks, 0)
        if take:
            batch = batcher.take(0)
            assert (batch is None) == (waiting == 0)
            if batch is not None:
                assert len(batch) + batcher.conflated_count - given_way == waiting
                assert batcher.pushed_count == number
                taken.append(batch.copy())
                waiting, given_way = 0, batcher.conflated_count
    pushed = np.concatenate(pushed)
    taken = np.concatenate([*taken, np.zeros(0, TICK)])
    assert (np.diff(taken["recv_ns"]) > 0).all()
    assert len(taken) + batcher.conflated_count == len(pushed)
    kept = set(taken["recv_ns"].tolist())
    by_id = {int(tick["recv_ns"]): tick for tick in taken}
    for tick in pushed:
        if int(tick["recv_ns"]) in kept:
            continue
        assert tick["kind"] != TickKind.TRADE
        heirs = [
            other
            for other in by_id.values()
            if other["recv_ns"] > tick["recv_ns"]
            and other["symbol"] == tick["symbol"]
            and other["kind"] == tick["kind"]
            and other["exch_ns"] // FRAME_NS == tick["exch_ns"] // FRAME_NS
        ]
        assert heirs
        assert heirs[0]["quality"] & Quality.GAP


def test_overload_is_counted_and_bounded():
    batcher = _batcher(conflate_above=100, hard_limit=1_000)
    for number in range(50):
        batcher.push(_ticks([1, 2, 3, 0] * 10, first=number * 40), 0)
    assert 503 <= len(batcher) <= 1_000
    assert len(batcher) + batcher.conflated_count == 2_000
    assert 0 < batcher.overload_count < 20
    assert batcher.largest_count <= 1_040


def test_conflation_goes_over_frames_before_the_hard_limit():
    batcher = _batcher(conflate_above=10, hard_limit=20)
    for frame in range(200):
        batcher.push(_ticks([1], exch_ns=START_NS + frame * FRAME_NS, first=frame), 0)
    batch = batcher.take(0)
    assert len(batch) <= 20
    assert batch["recv_ns"][-1] == 199


def test_trades_beyond_the_hard_limit_are_an_error_not_a_loss():
    batcher = _batcher(conflate_above=10, hard_limit=20)
    batcher.push(_ticks([0] * 20), 0)
    with pytest.raises(DeadlineError, match="engine has stopped"):
        batcher.push(_ticks([0]), 0)
    assert len(batcher.take(0, force=True)) == 21


def test_batch_stays_readable_while_the_next_one_fills():
    batcher = _batcher(max_ticks=1)
    batcher.push(_ticks([0, 1], first=0), 0)
    batch = batcher.take(0)
    batcher.push(_ticks([0] * 5_000, first=100), 0)
    assert batch["recv_ns"].tolist() == [0, 1]


def test_wrong_arrays_and_limits_are_refused():
    with pytest.raises(ShapeError):
        _batcher().push(np.zeros(3), 0)
    with pytest.raises(ShapeError):
        _batcher(conflate_above=10, hard_limit=5)
