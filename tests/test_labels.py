"""Labels against a loop that reads one price path at a time."""

from __future__ import annotations

import math
from unittest import mock

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuscalp import labels as made
from gpuscalp.config import GridConfig, LabelConfig, RiskConfig
from gpuscalp.errors import ConfigError
from gpuscalp.labels import (
    NO_CLASS,
    Direction,
    Labels,
    horizon_frames,
    label_frames,
    uniqueness,
)
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


# docs/training.md, "Rows and labels": where a row may begin, and what a label may read.
KEEPS_OUT = {"GAP", "RESYNC", "STALE", "CROSSED", "CLOCK_DRIFT", "WARM_UP"}
SPOILS_THE_MID = {"GAP", "RESYNC", "CROSSED", "CLOCK_DRIFT"}


def oracle(kind, mid2, bits, steps):
    """Yield class, return and span of every row of one price path, as the page tells the rule.

    mid2 : 0 where there is no quote; bits : names of each frame's bits. Threshold ±2, barriers +4 and −3 bps.
    """
    for t in range(len(mid2)):
        found = NO_CLASS, math.nan, 0
        ahead = range(t + steps, t + steps + 1) if kind == "forward" else range(t + 1, t + steps + 1)
        sound = mid2[t] > 0 and not bits[t] & KEEPS_OUT
        if (
            t + steps < len(mid2)
            and sound
            and all(mid2[u] > 0 and not bits[u] & SPOILS_THE_MID for u in ahead)
        ):
            for u in ahead:
                value = 1e4 * (mid2[u] - mid2[t]) / mid2[t]
                if kind == "forward":
                    found = (2 if value > 2.0 else 0 if value < -2.0 else 1), value, steps
                elif value >= 4.0 or value <= -3.0 or u == t + steps:
                    found = (2 if value >= 4.0 else 0 if value <= -3.0 else 1), value, u - t
                    break
        yield found


def label_of(kind, steps, **changes) -> LabelConfig:
    fields = {"threshold_bps": 2.0, "upper_bps": 4.0, "lower_bps": 3.0, **changes}
    return LabelConfig(kind=kind, horizon_ms=100 * steps, **fields)


kinds = st.sampled_from(["forward", "barrier"])
# A list without a least size is short nearly always, and what is in doubt would lie behind its end.
paths = st.integers(1, 60).flatmap(lambda count: st.lists(st.integers(-9, 9), min_size=count, max_size=count))
# Where a frame bears a bit or lost its quote (None), and how long that lasts.
doubts = st.lists(
    st.tuples(
        st.integers(0, 59),
        st.integers(1, 15),
        st.one_of(st.sampled_from(sorted(KEEPS_OUT)), st.sampled_from(["LATE", "FALLBACK", "OUTLIER", None])),
    ),
    max_size=5,
)


def scene(moves, doubts):
    """Return mid2 [T], with 0 where there is no quote, and quality [T, 1]."""
    mid2 = 20_000 + np.cumsum(moves)
    quality = np.zeros((len(mid2), 1), np.uint32)
    for start, length, name in doubts:
        if name is None:
            mid2[start : start + length] = 0
        else:
            quality[start : start + length] |= np.uint32(Quality[name])
    return mid2, quality


@given(
    moves=paths,
    doubts=doubts,
    steps=st.integers(1, 12),
    kind=kinds,
)
def test_labels_equal_a_loop_over_one_path(moves, doubts, steps, kind):
    mid2, quality = scene(moves, doubts)

    labels = label_frames(frames_of(mid2, quality), label_of(kind, steps), GRID)

    bits = [{bit.name for bit in Quality if word & bit} for word in quality[:, 0].tolist()]
    wanted = list(oracle(kind, mid2.tolist(), bits, steps))
    direction, returns, spans = (np.array(column) for column in zip(*wanted, strict=True))
    np.testing.assert_array_equal(labels.direction[:, 0], direction)
    np.testing.assert_array_equal(labels.return_bps[:, 0], returns)
    np.testing.assert_array_equal(labels.span_frames[:, 0], spans)
    ends = START_NS + FRAME_NS * (1 + np.arange(len(mid2)) + spans)
    np.testing.assert_array_equal(labels.end_ns[:, 0], np.where(direction == NO_CLASS, 0, ends))
    sound = [bool(mid > 0 and not names & KEEPS_OUT) for mid, names in zip(mid2.tolist(), bits, strict=True)]
    assert labels.entry[:, 0].tolist() == sound


@given(
    seed=st.integers(0, 2**31),
    count=st.integers(0, 40),
    symbols=st.integers(1, 5),
    steps=st.integers(1, 45),
    kind=kinds,
    block=st.sampled_from([1, 40, 90, 1 << 14]),
)
def test_symbols_with_holes_in_the_grid_equal_a_loop_over_each(seed, count, symbols, steps, kind, block):
    rng = np.random.default_rng(seed)
    step = rng.choice([0, 1, 9], symbols)  # a mid that stands, one that seldom touches, one that always does
    mid2 = 20_000 + np.cumsum(rng.integers(-step, step + 1, (count, symbols)), axis=0)
    mid2[rng.random((count, symbols)) < rng.choice([0.0, 0.05])] = 0
    names = np.array(["OUTLIER", "WARM_UP", "STALE", "GAP"])[rng.integers(0, 4, (count, symbols))]
    quality = np.vectorize(lambda name: int(Quality[name]), otypes=[np.uint32])(names)
    quality[rng.random((count, symbols)) < rng.choice([0.9, 1.0])] = 0
    end_ns = START_NS + FRAME_NS * np.cumsum(rng.choice([1, 1, 2], count, p=[0.5, 0.46, 0.04]))

    with mock.patch.object(made, "_BLOCK", block):
        labels = label_frames(frames_of(mid2, quality, end_ns), label_of(kind, steps), GRID)

    whole = [t + steps < count and end_ns[t + steps] - end_ns[t] == steps * FRAME_NS for t in range(count)]
    for symbol in range(symbols):
        bits = [{bit.name for bit in Quality if word & bit} for word in quality[:, symbol].tolist()]
        rows = oracle(kind, mid2[:, symbol].tolist(), bits, steps)
        wanted = [row if good else (NO_CLASS, math.nan, 0) for row, good in zip(rows, whole, strict=True)]
        ends = [end_ns[t + span] if span else 0 for t, (_, _, span) in enumerate(wanted)]
        # To the bit, as is what no row of other symbols may change.
        assert labels.direction[:, symbol].tolist() == [row[0] for row in wanted]
        np.testing.assert_array_equal(labels.return_bps[:, symbol], [row[1] for row in wanted])
        assert labels.span_frames[:, symbol].tolist() == [row[2] for row in wanted]
        assert labels.end_ns[:, symbol].tolist() == ends
    types = [getattr(labels, name).dtype for name in Labels.__slots__]
    assert types == [np.int8, np.float64, np.int64, np.int32, np.bool_]


@given(seed=st.integers(0, 2**31), doubts=doubts.filter(bool), steps=st.integers(1, 12), kind=kinds)
def test_which_rows_are_labelled_does_not_depend_on_what_the_mid_does(seed, doubts, steps, kind):
    """A barrier's row was dropped at the first doubtful frame, unless it had been touched before."""
    rng, label = np.random.default_rng(seed), label_of(kind, steps)
    (mid2, quality), (other2, _) = (scene(rng.integers(-4, 5, 60), doubts) for _ in range(2))
    labels, other = (label_frames(frames_of(path, quality), label, GRID) for path in (mid2, other2))
    np.testing.assert_array_equal(labels.valid, other.valid)
    np.testing.assert_array_equal(labels.entry, other.entry)


@given(
    moves=paths,
    doubts=doubts,
    steps=st.integers(1, 12),
    kind=kinds,
)
def test_mirrored_prices_swap_up_and_down_and_label_the_same_rows(moves, doubts, steps, kind):
    # A move is 0.5 bps of any of these mids, to 3 %: no limit lies between a return and its mirror image.
    mid2, quality = scene(moves, doubts)
    high = np.where(mid2 > 0, 2_000_000_000 + 100_001 * (mid2 - 20_000), 0)
    mirrored = np.where(mid2 > 0, 4_000_000_000 - high, 0)
    label = label_of(kind, steps, threshold_bps=2.3, upper_bps=3.7, lower_bps=3.7)
    labels, other = (label_frames(frames_of(path, quality), label, GRID) for path in (high, mirrored))
    swapped = np.array([2, 1, 0, NO_CLASS], np.int8)
    np.testing.assert_array_equal(swapped[labels.direction], other.direction)


@pytest.mark.parametrize("kind", ["forward", "barrier"])
def test_quote_that_stands_is_flat_and_not_unknown(kind):
    """Frames turn STALE where the market stands still: to drop the labels that read them left FLAT out."""
    mid2 = np.array([20_000] * 4 + [20_040] * 20)  # one move of 20 bps, then nothing
    quality = np.zeros((24, 1), np.uint32)
    quality[10:] = Quality.STALE
    labels = label_frames(frames_of(mid2, quality), label_of(kind, 6), GRID)
    wanted = [Direction.UP] * 4 + [Direction.FLAT] * 6 + [NO_CLASS] * 14  # no row begins on a stale frame
    assert labels.direction[:, 0].tolist() == wanted


@pytest.mark.parametrize("kind", ["forward", "barrier"])
def test_in_a_quiet_market_every_sound_row_is_labelled_by_what_came(kind):
    """Of a spot market whose quote was stale in 55 % of the frames, FLAT was labelled .07 and came .57."""
    rng = np.random.default_rng(8)
    moved = rng.random(20_000) < 1 / 80
    mid2 = 20_000 + np.cumsum(np.where(moved, rng.integers(-12, 13, 20_000), 0))
    age = np.arange(20_000) - np.maximum.accumulate(np.where(moved, np.arange(20_000), 0))
    quality = np.where(age > 50, Quality.STALE, 0)[:, None]
    assert 0.4 < np.mean(quality != 0) < 0.7

    labels = label_frames(frames_of(mid2, quality), label_of(kind, 100), GRID)

    sound = [at for at in range(20_000 - 100) if age[at] <= 50]
    assert np.flatnonzero(labels.valid).tolist() == sound
    no_doubt: list[set[str]] = [set()] * 20_000
    came = [row[0] for row in oracle(kind, mid2.tolist(), no_doubt, 100)]
    assert labels.direction[sound, 0].tolist() == [came[at] for at in sound]


def test_doubts_that_come_by_chance_leave_the_class_shares():
    """A row that waited for its touch met a doubtful frame more often: FLAT was labelled .58 and came .63."""
    rng = np.random.default_rng(5)
    mid2 = np.rint(2_000_000 * np.exp(np.cumsum(rng.normal(0.0, 0.25e-4, (60_000, 4)), axis=0)))
    quality = np.where(rng.random(mid2.shape) < 0.01, Quality.GAP, 0)
    label = label_of("barrier", 60, upper_bps=2.5, lower_bps=2.5)
    labelled, came = (label_frames(frames_of(mid2, bits), label, GRID) for bits in (quality, None))
    assert 0.3 < labelled.valid.mean() < 0.7
    shares = [
        np.bincount(each.direction[each.valid], minlength=3) / each.valid.sum() for each in (labelled, came)
    ]
    assert shares[0] == pytest.approx(shares[1], abs=0.02)


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


def labels_over(span, direction) -> Labels:
    """Labels int[T, S] of which only the spans, and whether there is one, matter."""
    nothing = np.zeros(span.shape)
    return Labels(direction, nothing, nothing.astype(np.int64), span, nothing.astype(bool))


@given(seed=st.integers(0, 2**31), count=st.integers(0, 30), symbols=st.integers(1, 4), turned=st.booleans())
def test_uniqueness_has_the_bits_of_whole_numbers(seed, count, symbols, turned):
    rng = np.random.default_rng(seed)
    left = np.arange(count)[::-1, None]  # frames behind each row
    span = np.minimum(rng.integers(1, 20, (count, symbols)), left).astype(np.int32)
    direction = np.where((span > 0) & (rng.random(span.shape) < 0.8), 1, NO_CLASS).astype(np.int8)
    taken = rng.random(span.shape) < rng.choice([0.0, 0.5, 1.0])
    given_span, given_taken = (np.asfortranarray(each) if turned else each for each in (span, taken))

    weight = uniqueness(labels_over(given_span, direction), given_taken)

    assert weight.shape == span.shape
    for symbol in range(symbols):
        used = np.flatnonzero(taken[:, symbol] & (direction[:, symbol] != NO_CLASS)).tolist()
        spans = {t: range(t + 1, t + 1 + int(span[t, symbol])) for t in used}
        wanted = [0.0] * count
        for t, frames in spans.items():
            spanned = sum(2**40 // sum(u in other for other in spans.values()) for u in frames)
            wanted[t] = spanned / (2.0**40 * len(frames))
        assert weight[:, symbol].tolist() == wanted


@pytest.mark.parametrize("span", [-1, 2, 2**31 - 1])
def test_uniqueness_of_a_label_that_ends_outside_the_frames_is_refused(span):
    spans = np.array([[1], [span], [0]], np.int32)
    with pytest.raises(IndexError, match="ends outside"):
        uniqueness(labels_over(spans, np.array([[1], [1], [NO_CLASS]], np.int8)), np.ones((3, 1), bool))


def test_horizon_that_is_no_whole_number_of_frames_is_refused():
    with pytest.raises(ConfigError, match="whole number of frames"):
        horizon_frames(LabelConfig(horizon_ms=250), GRID)
