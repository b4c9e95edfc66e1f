"""Labels against a loop that reads one price path at a time."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuscalp.config import GridConfig, LabelConfig, RiskConfig
from gpuscalp.errors import ConfigError
from gpuscalp.labels import NO_CLASS, Direction, horizon_frames, label_frames, quality_mask, uniqueness
from gpuscalp.schema import FrameBlock, Quality

FRAME_NS = 100_000_000
GRID = GridConfig()
START_NS = 1_700_000_000_000_000_000


def frames_of(mid2, quality=None, end_ns=None) -> FrameBlock:
    """Frames whose bid and ask add up to ``mid2`` [T] or [T, S]."""
    mid2 = np.atleast_2d(np.asarray(mid2, np.int64).T).T
    count, symbols = mid2.shape
    bid = (mid2 // 2).astype(np.int32)
    return FrameBlock(
        end_ns=START_NS + FRAME_NS * np.arange(1, count + 1)
        if end_ns is None
        else np.asarray(end_ns, np.int64),
        channels=np.empty((count, 0, symbols), np.float32),
        quality=np.zeros((count, symbols), np.uint32) if quality is None else np.asarray(quality, np.uint32),
        bid_px=bid,
        ask_px=(mid2 - bid).astype(np.int32),
        mark=np.full((count, symbols), np.nan),
    )


def oracle_forward(mid2, bad, steps, threshold):
    for t in range(len(mid2)):
        if t + steps >= len(mid2) or bad[t] or bad[t + steps]:
            yield NO_CLASS, math.nan, 0
            continue
        value = 1e4 * (mid2[t + steps] - mid2[t]) / mid2[t]
        yield (2 if value > threshold else 0 if value < -threshold else 1), value, steps


def oracle_barrier(mid2, bad, steps, upper, lower):
    for t in range(len(mid2)):
        found = NO_CLASS, math.nan, 0
        if t + steps < len(mid2) and not bad[t]:
            for step in range(1, steps + 1):
                if bad[t + step]:
                    break
                value = 1e4 * (mid2[t + step] - mid2[t]) / mid2[t]
                if value >= upper or value <= -lower or step == steps:
                    found = (2 if value >= upper else 0 if value <= -lower else 1), value, step
                    break
        yield found


@given(
    moves=st.lists(st.integers(-9, 9), min_size=1, max_size=60),
    holes=st.sets(st.integers(0, 59), max_size=4),
    steps=st.integers(1, 12),
    kind=st.sampled_from(["forward", "barrier"]),
)
def test_labels_equal_a_loop_over_one_path(moves, holes, steps, kind):
    mid2 = 20_000 + np.cumsum(moves)
    quality = np.zeros((len(mid2), 1), np.uint32)
    quality[[at for at in holes if at < len(mid2)]] = Quality.GAP
    label = LabelConfig(kind=kind, horizon_ms=100 * steps, threshold_bps=2.0, upper_bps=4.0, lower_bps=3.0)

    labels = label_frames(frames_of(mid2, quality), label, GRID)

    bad = quality[:, 0] != 0
    if kind == "forward":
        wanted = list(oracle_forward(mid2.tolist(), bad, steps, 2.0))
    else:
        wanted = list(oracle_barrier(mid2.tolist(), bad, steps, 4.0, 3.0))
    direction, returns, spans = (np.array(column) for column in zip(*wanted, strict=True))
    np.testing.assert_array_equal(labels.direction[:, 0], direction)
    np.testing.assert_array_equal(labels.return_bps[:, 0], returns)
    np.testing.assert_array_equal(labels.span_frames[:, 0], spans)
    ends = START_NS + FRAME_NS * (1 + np.arange(len(mid2)) + spans)
    np.testing.assert_array_equal(labels.end_ns[:, 0], np.where(direction == NO_CLASS, 0, ends))


@pytest.mark.parametrize(("ticks", "touched"), [(10, Direction.UP), (-10, Direction.DOWN)])  # ±10 bps
def test_return_equal_to_the_threshold_is_flat_and_to_the_barrier_is_a_touch(ticks, touched):
    mid2 = [10_000, 10_000 + ticks, 10_000]
    forward = LabelConfig(horizon_ms=100, threshold_bps=10.0)
    barrier = LabelConfig(kind="barrier", horizon_ms=100, upper_bps=10.0, lower_bps=10.0)
    assert label_frames(frames_of(mid2), forward, GRID).direction[0, 0] == Direction.FLAT
    assert label_frames(frames_of(mid2), barrier, GRID).direction[0, 0] == touched


@pytest.mark.parametrize("bit", [Quality[name] for name in RiskConfig().blocked_quality])
def test_blocked_entry_has_no_label(bit):
    quality = np.zeros((3, 1), np.uint32)
    quality[0] = bit
    labels = label_frames(frames_of([100, 100, 100], quality), LabelConfig(horizon_ms=100), GRID)
    assert labels.direction[:, 0].tolist() == [NO_CLASS, Direction.FLAT, NO_CLASS]


@pytest.mark.parametrize("bit", [Quality.LATE, Quality.FALLBACK])
def test_bits_that_do_not_block_live_do_not_block_training(bit):
    labels = label_frames(frames_of([100, 100], np.full((2, 1), bit)), LabelConfig(horizon_ms=100), GRID)
    assert labels.direction[0, 0] == Direction.FLAT


def test_unquoted_frames_and_warm_up_at_the_exit():
    frames = frames_of([0, 100, 100, 0], np.array([[0], [0], [Quality.WARM_UP], [0]]))
    labels = label_frames(frames, LabelConfig(horizon_ms=100), GRID)
    # No quote; may end on a warming frame; is itself warming; is the last.
    assert labels.direction[:, 0].tolist() == [NO_CLASS, Direction.FLAT, NO_CLASS, NO_CLASS]


def test_hole_in_the_grid_ends_labels_before_it():
    end_ns = START_NS + FRAME_NS * np.array([1, 2, 3, 50, 51])
    labels = label_frames(frames_of([100] * 5, end_ns=end_ns), LabelConfig(horizon_ms=100), GRID)
    assert labels.valid[:, 0].tolist() == [True, True, False, True, False]


def test_symbols_are_labelled_alone():
    rng = np.random.default_rng(1)
    mid2 = 20_000 + np.cumsum(rng.integers(-5, 6, (80, 3)), axis=0)
    label = LabelConfig(kind="barrier", horizon_ms=700)
    together = label_frames(frames_of(mid2), label, GRID)
    for symbol in range(3):
        alone = label_frames(frames_of(mid2[:, symbol]), label, GRID)
        np.testing.assert_array_equal(together.direction[:, symbol], alone.direction[:, 0])


@given(st.integers(1, 40), st.integers(0, 2**31))
def test_label_does_not_change_when_prices_after_its_end_do(cut, seed):
    rng = np.random.default_rng(seed)
    mid2 = 20_000 + np.cumsum(rng.integers(-5, 6, 60))
    changed = mid2.copy()
    changed[cut + 1 :] += rng.integers(1, 500, 60 - cut - 1)
    for kind in ("forward", "barrier"):
        label = LabelConfig(kind=kind, horizon_ms=500)
        before, after = (label_frames(frames_of(path), label, GRID) for path in (mid2, changed))
        known = before.valid & (before.end_ns <= START_NS + FRAME_NS * (cut + 1))
        np.testing.assert_array_equal(before.return_bps[known], after.return_bps[known])
        np.testing.assert_array_equal(before.direction[known], after.direction[known])


@given(
    moves=st.lists(st.integers(-9, 9), min_size=2, max_size=50),
    steps=st.integers(1, 9),
    taken=st.lists(st.booleans(), min_size=50, max_size=50),
)
def test_uniqueness_equals_the_mean_share_of_open_labels(moves, steps, taken):
    mid2 = 20_000 + np.cumsum(moves)
    labels = label_frames(frames_of(mid2), LabelConfig(kind="barrier", horizon_ms=100 * steps), GRID)
    chosen = np.array(taken[: len(mid2)])[:, None]

    weight = uniqueness(labels, chosen)

    used = [t for t in range(len(mid2)) if chosen[t, 0] and labels.valid[t, 0]]
    spans = {t: range(t + 1, t + 1 + int(labels.span_frames[t, 0])) for t in used}
    for t in range(len(mid2)):
        wanted = 0.0
        if t in spans:
            shares = [1.0 / sum(u in other for other in spans.values()) for u in spans[t]]
            wanted = sum(shares) / len(shares)
        assert weight[t, 0] == pytest.approx(wanted, abs=1e-9)


def test_labels_that_do_not_overlap_weigh_one():
    labels = label_frames(frames_of([100] * 41), LabelConfig(horizon_ms=1_000), GRID)
    apart = np.zeros((41, 1), bool)
    apart[::10] = True
    assert uniqueness(labels, apart)[:40:10, 0].tolist() == [1.0] * 4


def test_horizon_that_is_no_whole_number_of_frames_is_refused():
    with pytest.raises(ConfigError, match="whole number of frames"):
        horizon_frames(LabelConfig(horizon_ms=250), GRID)


def test_unknown_quality_bit_is_refused():
    with pytest.raises(ConfigError, match="no such quality bit"):
        quality_mask(["GAP", "GAPS"])
