"""Folds: no train label ever meets a test interval, and that cannot be turned off."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from gpuscalp.config import SplitConfig
from gpuscalp.errors import ConfigError, DataError
from gpuscalp.splits import Fold, RowCounts, embargo_ns, walk_forward

SECOND = 1_000_000_000


def counts_of(times_ns, bucket_ns=10 * SECOND) -> RowCounts:
    bucket, count = np.unique(times_ns // bucket_ns, return_counts=True)
    return RowCounts(bucket * bucket_ns, count, bucket_ns)


@given(
    folds=st.integers(2, 6),
    mode=st.sampled_from(["expanding", "rolling"]),
    horizon_s=st.integers(1, 8),
    more_embargo_s=st.integers(0, 10),
    fraction=st.floats(0.2, 0.6),
    hole_s=st.integers(0, 100_000),
    seed=st.integers(0, 2**31),
)
def test_no_train_label_meets_the_test_interval_with_its_embargo(
    folds, mode, horizon_s, more_embargo_s, fraction, hole_s, seed
):
    rng = np.random.default_rng(seed)
    entries = np.sort(rng.integers(0, 3_000 * SECOND, 4_000))
    entries = np.where(entries > 1_500 * SECOND, entries + hole_s * SECOND, entries)
    ends = entries + rng.integers(1, horizon_s * SECOND + 1, len(entries))
    config = SplitConfig(
        folds=folds, mode=mode, min_train_fraction=fraction, embargo_ms=1_000 * (horizon_s + more_embargo_s)
    )
    counts = counts_of(entries)
    try:
        cut = walk_forward(counts, config, horizon_ns=horizon_s * SECOND)
    except DataError:
        assume(False)

    seen = np.zeros(len(entries), int)
    for fold in cut:
        for part in (fold, fold.early_stopping(0.15, counts)):
            low, high = part.test_start_ns - part.embargo_ns, part.test_end_ns + part.embargo_ns
            train, test = part.train_rows(entries, ends), part.test_rows(entries, ends)
            # [entry, end] and [low, high] have no instant in common.
            assert np.all((ends[train] < low) | (entries[train] > high))
            assert np.all((entries[test] >= part.test_start_ns) & (ends[test] <= part.test_end_ns))
            assert not np.any(train & test)
        assert fold.early_stopping(0.15, counts).test_end_ns <= fold.test_start_ns - fold.embargo_ns
        assert fold.train_rows(entries, ends).any()
        assert fold.test_rows(entries, ends).any()
        seen += fold.test_rows(entries, ends)
    assert seen.max() == 1, "no row is held out twice"


def test_boundaries_follow_the_rows_over_a_hole_in_time():
    day = 86_400 * SECOND
    entries = np.concatenate([np.arange(0, 1_000), np.arange(0, 1_000) + 400 * 86_400]) * SECOND
    cut = walk_forward(counts_of(entries), SplitConfig(folds=4, min_train_fraction=0.2), horizon_ns=SECOND)
    held_out = [int(fold.test_rows(entries, entries + SECOND).sum()) for fold in cut]
    assert min(held_out) > 350
    assert cut[-1].test_start_ns > 399 * day


@pytest.mark.parametrize("mode", ["expanding", "rolling"])
def test_rows_that_stop_the_training_are_a_share_of_the_rows_and_not_of_the_clock(mode):
    """Of five daily recordings of an hour 33, 16, 8 and 3 % stopped the training, by the clock's 15 %."""
    hours = [np.arange(3_600) + day * 86_400 for day in range(5)]
    entries = np.concatenate(hours) * SECOND
    ends = entries + SECOND
    counts = counts_of(entries)
    for fold in walk_forward(counts, SplitConfig(folds=4, mode=mode), horizon_ns=SECOND):
        inner = fold.early_stopping(0.15, counts)
        train, stopping = inner.train_rows(entries, ends), inner.test_rows(entries, ends)
        assert stopping.sum() / fold.train_rows(entries, ends).sum() == pytest.approx(0.15, abs=0.005)
        # What is neither lies between the two, or ends in the outer embargo.
        assert fold.train_rows(entries, ends).sum() - train.sum() - stopping.sum() <= 4
        assert ends[train].max() < entries[stopping].min() - fold.embargo_ns


def test_train_interval_without_rows_is_stopped_at_its_beginning():
    counts = counts_of(np.array([5, 100_000]) * SECOND)
    fold = Fold(0, 1_000 * SECOND, 2_000 * SECOND, 3_000 * SECOND, SECOND)
    assert fold.early_stopping(0.15, counts).test_start_ns == fold.train_start_ns


def test_rolling_train_intervals_move_and_expanding_ones_do_not():
    entries = np.arange(0, 2_000) * SECOND
    expanding, rolling = (
        walk_forward(counts_of(entries), SplitConfig(folds=3, mode=mode), horizon_ns=SECOND)
        for mode in ("expanding", "rolling")
    )
    assert {fold.train_start_ns for fold in expanding} == {0}, "all rows before are trained on"
    starts = [fold.train_start_ns for fold in rolling]
    assert starts == sorted(set(starts))


def test_embargo_shorter_than_the_horizon_is_refused():
    for asked in (0, 999):
        with pytest.raises(ConfigError, match="embargo is shorter") as caught:
            embargo_ns(SplitConfig(embargo_ms=asked), SECOND)
        assert caught.value.where == "split.embargo_ms"
    assert embargo_ns(SplitConfig(), SECOND) == SECOND


def test_too_little_data_for_the_horizon_is_refused_with_the_fold():
    entries = np.arange(0, 60) * SECOND
    with pytest.raises(DataError, match="too short") as caught:
        walk_forward(counts_of(entries), SplitConfig(), horizon_ns=5 * SECOND)
    assert caught.value.where == "fold 1"


@pytest.mark.parametrize(("part", "folds", "embargo_ms"), [("train", 2, 40_000), ("test", 5, 2_000)])
def test_ten_horizons_are_enough_for_either_part_and_a_nanosecond_less_is_not(part, folds, embargo_ms):
    """One row a second for 100 s: ten of them are left to train on behind 40 s, or to test on in a fifth."""
    rows = RowCounts(np.arange(100) * SECOND, np.ones(100, np.int64), SECOND)
    config = SplitConfig(folds=folds, mode="rolling", min_train_fraction=0.5, embargo_ms=embargo_ms)
    assert len(walk_forward(rows, config, horizon_ns=SECOND)) == folds
    with pytest.raises(DataError, match=f"the {part} interval of a fold is too short"):
        walk_forward(rows, config, horizon_ns=SECOND + 1)


def test_intervals_are_half_open_to_the_nanosecond():
    """Random times never fall on a boundary: off-by-one comparisons passed all other tests."""
    fold = Fold(0, train_start_ns=100, test_start_ns=1_000, test_end_ns=2_000, embargo_ns=50)

    def rows(part, pairs):
        entry, end = np.array(pairs).T
        return part(entry, end).tolist()

    trained = [(99, 200), (100, 200), (900, 949), (900, 950)]
    assert rows(fold.train_rows, trained) == [False, True, True, False]
    held_out = [(999, 1_010), (1_000, 1_010), (1_990, 2_000), (1_990, 2_001), (2_000, 2_000)]
    assert rows(fold.test_rows, held_out) == [False, True, True, False, False]


def test_no_rows_is_refused():
    empty = RowCounts(np.empty(0, np.int64), np.empty(0, np.int64), SECOND)
    with pytest.raises(DataError, match="nothing to split"):
        walk_forward(empty, SplitConfig(), horizon_ns=SECOND)


def test_rows_between_two_instants_are_never_too_few():
    rng = np.random.default_rng(5)
    times = np.sort(rng.integers(0, 1_000, 400))
    buckets, count = np.unique(times // 10, return_counts=True)
    counts = RowCounts(start_ns=buckets * 10, count=count, bucket_ns=10)
    for _ in range(50):
        start, end = np.sort(rng.integers(-20, 1_020, 2))
        inside = int(((times >= start) & (times < end)).sum())
        wide = int(((times > start - 10) & (times < end + 10)).sum())
        assert inside <= counts.between(int(start), int(end)) <= wide
    assert counts.between(0, 1_000) == counts.total == 400


def test_rows_before_an_instant_and_the_instant_of_rows_are_inverse():
    """With a bucket that is left out, and one that is known to be empty."""
    counts = RowCounts(np.array([0, 10, 20, 40]), np.array([4, 0, 5, 2]), bucket_ns=10)
    assert [counts.before(at) for at in (-5, 0, 5, 10, 20, 24, 30, 40, 45, 50, 99)] == [
        0, 0, 2, 4, 4, 6, 9, 9, 10, 11, 11
    ]  # fmt: skip
    assert [counts.instant(rows) for rows in (0, 2, 4, 6, 9, 10, 11)] == [0, 5, 10, 24, 30, 45, 50]
