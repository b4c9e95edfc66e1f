"""The proof of parity: it counts what it compares, and it would see a single differing bit."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from gpuscalp.config import FeatureConfig, GridConfig
from gpuscalp.errors import DataError
from gpuscalp.excerpt import Excerpt
from gpuscalp.parity import Check, _Reference, check_parity, random_cuts
from gpuscalp.pipeline import FeaturePipeline
from tests.random_ticks import instruments, random_ticks

GRID = GridConfig(frame_ms=50, max_gap_ms=2_000)


def excerpt(count=1_500, symbols=2):
    ticks = random_ticks(1, count, symbols, step_ms=10.0, disorder_ms=40.0, silences=1, silence_ms=2_500.0)
    return Excerpt("synthetic", instruments(symbols), ticks, complete=True)


def chunks(count=1_500):
    made = FeaturePipeline(grid=GRID, features=FeatureConfig(), instruments=instruments(2))
    return list(made.batch([excerpt().ticks[:count]]))


@pytest.fixture(scope="module")
def report():
    return check_parity(excerpt(), splits=3, grid=GRID)


def test_no_bit_differs_in_any_way_of_running(report):
    assert report.differing == 0
    assert [check.name for check in report.checks][:4] == [
        "split, batch",
        "split, stream",
        "restart",
        "chunks and threads",
    ]


def test_every_value_of_every_pass_is_counted(report):
    frames, symbols, channels = report.frames, 2, 19
    each = frames * (1 + symbols * (channels + report.columns + 4))
    assert [check.runs for check in report.checks][:3] == [3, 3, 1]
    assert all(check.values == each * check.runs for check in report.checks)
    assert report.to_dict()["values"] == sum(check.values for check in report.checks)


def test_gpu_is_compared_or_said_to_be_missing(report):
    compared = {check.name for check in report.checks}
    assert ("cpu against cuda" in compared) != ("cpu against cuda" in report.skipped)


def test_same_seed_repeats_the_same_splits():
    a, b = (random_cuts(np.random.default_rng(5), 10_000) for _ in range(2))
    assert np.array_equal(a, b)
    assert (np.diff(a) == 1).sum() > 500  # one-tick batches
    assert (np.diff(a) == 0).any()  # empty batches


@pytest.mark.parametrize("field", ["features", "channels", "quality", "mark", "end_ns"])
def test_one_differing_bit_is_counted_and_located(field):
    wanted, changed = chunks(), chunks()
    target = changed[0].features if field == "features" else getattr(changed[0].frames, field)
    flat = target.reshape(-1).view(np.uint8)
    at = np.flatnonzero(~np.isnan(target.reshape(-1).astype(float)))[-1] * target.itemsize
    flat[at] ^= 1
    check = Check("test", "")
    _Reference(wanted).compare(changed, check)
    assert check.differing == 1
    assert check.first.startswith(f"{field}, frame ")


def test_nan_equals_any_nan_and_zero_is_not_minus_zero():
    wanted, changed = chunks(), chunks()
    missing = np.isnan(changed[0].features)
    changed[0].features.view(np.uint32)[missing] |= 0x8000_0001
    zero = np.argwhere((changed[0].features == 0.0) & ~np.signbit(changed[0].features))[0]
    changed[0].features[tuple(zero)] = -0.0
    check = Check("test", "")
    _Reference(wanted).compare(changed, check)
    assert check.differing == 1


def test_a_value_that_is_missing_on_one_side_only_differs():
    """A comparison that let any NaN pass would call half of a broken feature equal, and no test saw it."""
    for is_nan, value in ((False, np.nan), (True, 1.0)):
        wanted, changed = chunks(), chunks()
        place = np.argwhere(np.isnan(changed[0].features) == is_nan)[-1]
        changed[0].features[tuple(place)] = value
        check = Check("test", "")
        _Reference(wanted).compare(changed, check)
        assert check.differing == 1


@pytest.mark.parametrize("count", [900, 1_400])
def test_missing_and_surplus_frames_count_with_all_their_values(count):
    whole, part = chunks(), chunks(count)
    frames = sum(len(c.frames) for c in whole) - sum(len(c.frames) for c in part)
    per_frame = 1 + 2 * (19 + len(whole[0].features[0]) + 4)
    missing, surplus = Check("missing", ""), Check("surplus", "")
    _Reference(whole).compare(part, missing)
    _Reference(part).compare(whole, surplus)
    assert missing.differing == surplus.differing == frames * per_frame


def test_ticks_that_close_no_frame_are_refused():
    with pytest.raises(DataError, match="close no frame"):
        check_parity(dataclasses.replace(excerpt(), ticks=excerpt().ticks[:1]), splits=1, grid=GRID)
