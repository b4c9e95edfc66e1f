"""Judging: no fold is calibrated by its own rows, and rows that overlap do not count as many."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from gpuscalp.train.held_out import HeldOut
from gpuscalp.train.iterator import Tally
from gpuscalp.train.judge import judge

FRAME_NS = 100_000_000
ROWS = 2_000
FEW_ROWS = 300
TRAINED = Tally(np.array([600, 800, 600]), np.array([-1_200.0, 0.0, 1_200.0]), 2_000.0, 0, 1)


def held_out(seed: int, count: int, *, horizon: int = 1, first_frame: int = 0) -> HeldOut:
    """Predictions that are surer than they should be; outcomes and errors last for ``horizon`` frames."""
    rng = np.random.default_rng(seed)
    drawn = np.repeat(rng.normal(0, 1, (count // horizon, 2)), horizon, axis=0)
    known, noise = drawn.T
    moved = 0.5 * known + noise
    scores = np.stack([-2 * known, np.zeros(count), 2 * known], axis=1)
    raw = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    return HeldOut(
        raw=raw,
        direction=np.digitize(moved, [-0.5, 0.5]).astype(np.int8),
        return_bps=4 * moved,
        weight=np.full(count, 1.0 / horizon),
        end_ns=FRAME_NS * (first_frame + np.arange(1, count + 1)),
    )


def test_a_fold_is_calibrated_by_the_folds_before_it_alone():
    """Fitting with the fold's own rows as well passed every other test."""
    folds = [held_out(seed, FEW_ROWS, first_frame=FEW_ROWS * seed) for seed in range(3)]
    options = {"kind": "vector", "horizon_ns": FRAME_NS}
    before = judge(folds, [TRAINED] * 3, **options)
    assert before.calibrations[0].kind == "none"
    assert all(found.kind == "vector" for found in before.calibrations[1:])
    for changed in range(3):
        other = list(folds)
        other[changed] = replace(folds[changed], direction=(2 - folds[changed].direction).astype(np.int8))
        after = judge(other, [TRAINED] * 3, **options)
        for index in range(3):
            same = np.array_equal(after.calibrations[index].scale, before.calibrations[index].scale)
            assert same == (index <= changed)


def test_the_interval_counts_labels_and_not_the_rows_that_repeat_them():
    """Blocks of one instant give an interval that is far too narrow, and no other test saw it."""

    def width(horizon: int, told: int) -> float:
        rows = held_out(5, ROWS, horizon=horizon)
        found = judge([rows], [TRAINED], kind="none", horizon_ns=told * FRAME_NS).overall.ic
        assert found.low < found.value < found.high
        return found.high - found.low

    honest, independent = width(20, told=20), 2 * 1.96 / np.sqrt(ROWS)
    assert honest > 3.5 * independent
    # 2,000 rows that repeat 100 labels are as good as 100 rows: √20 times as uncertain.
    assert 0.6 < honest / (width(1, told=1) * np.sqrt(20)) < 1.4
