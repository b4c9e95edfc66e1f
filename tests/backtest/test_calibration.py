"""Predictions meet their outcomes, however the frames are cut."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuscalp.backtest.calibration import CalibrationRow, PredictionCheck
from gpuscalp.config import GridConfig, LabelConfig
from gpuscalp.schema import FrameBlock, Quality
from tests.backtest.market import MS, NOW

GRID = GridConfig(frame_ms=100)
LABEL = LabelConfig(horizon_ms=300, threshold_bps=1.0)


def frames(mids: np.ndarray, quality: np.ndarray | None = None) -> FrameBlock:
    count, symbols = mids.shape
    return FrameBlock(
        end_ns=NOW + 100 * MS * np.arange(1, count + 1, dtype=np.int64),
        channels=np.zeros((count, 17, symbols), np.float32),
        quality=np.zeros((count, symbols), np.uint32) if quality is None else quality,
        bid_px=(mids - 1).astype(np.int32),
        ask_px=(mids + 1).astype(np.int32),
        mark=np.full((count, symbols), np.nan),
    )


def market(count: int = 60, seed: int = 1) -> tuple[FrameBlock, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    mids = 10_000 + np.cumsum(rng.integers(-5, 6, (count, 2)), axis=0)
    return frames(mids), rng.dirichlet((1, 1, 1), (count, 2)), rng.normal(size=(count, 2))


def cut(block: FrameBlock, first: int, last: int) -> FrameBlock:
    return FrameBlock(*(getattr(block, name)[first:last] for name in FrameBlock.__slots__))


def test_rows_are_counted_and_averaged_like_a_plain_loop() -> None:
    block, probability, edge = market()
    check = PredictionCheck(LABEL, GRID)
    check.add(block, probability, edge)
    mids = (block.bid_px.astype(float) + block.ask_px) / 2
    pairs = [
        (edge[t, s], 1e4 * (mids[t + 3, s] - mids[t, s]) / mids[t, s]) for t in range(57) for s in range(2)
    ]
    assert check.row_count == len(pairs) == sum(row.count for row in check.edge_rows())
    assert check.correlation() == pytest.approx(np.corrcoef(np.array(pairs).T)[0, 1])
    for row in check.edge_rows():
        inside = [pair for pair in pairs if row.low <= pair[0] < row.high]
        assert row.count == len(inside)
        assert row.predicted == pytest.approx(np.mean([pair[0] for pair in inside]))
        assert row.observed == pytest.approx(np.mean([pair[1] for pair in inside]))
        assert row.deviation == pytest.approx(np.std([pair[1] for pair in inside]), abs=1e-9)
        assert row.frame_count == sum(
            any(row.low <= edge[t, s] < row.high for s in range(2)) for t in range(57)
        )
    assert sum(row.count for row in check.probability_rows()) == 2 * len(pairs)


@given(st.sets(st.integers(1, 59), max_size=12))
def test_cuts_leave_no_trace(cuts: set[int]) -> None:
    block, probability, edge = market()
    whole, pieces = PredictionCheck(LABEL, GRID), PredictionCheck(LABEL, GRID)
    whole.add(block, probability, edge)
    edges = [0, *sorted(cuts), 60]
    for first, last in pairwise(edges):
        pieces.add(cut(block, first, last), probability[first:last], edge[first:last])
    assert pieces.row_count == whole.row_count
    assert pieces.correlation() == pytest.approx(whole.correlation())
    for one, two in zip(pieces.edge_rows(), whole.edge_rows(), strict=True):
        assert (one.count, one.frame_count, one.low) == (two.count, two.frame_count, two.low)
        assert one.observed == pytest.approx(two.observed)


def test_symbols_that_move_as_one_are_no_more_sure_than_one() -> None:
    """Two standard errors of twenty symbols held the truth in 45 %: each frame counted twenty times."""
    block, probability, edge = market()
    mids = (block.bid_px + 1)[:, :1].astype(np.int64)
    one, many = PredictionCheck(LABEL, GRID), PredictionCheck(LABEL, GRID)
    one.add(frames(mids), probability[:, :1], edge[:, :1])
    many.add(frames(mids.repeat(20, 1)), probability[:, :1].repeat(20, 1), edge[:, :1].repeat(20, 1))
    for rows in ("edge_rows", "probability_rows"):
        for alone, together in zip(getattr(one, rows)(), getattr(many, rows)(), strict=True):
            assert together.count == 20 * alone.count
            assert together.error(3) == pytest.approx(alone.error(3), abs=1e-9)


def test_blocked_rows_and_missing_predictions_are_left_out() -> None:
    block, probability, edge = market()
    quality = np.zeros((60, 2), np.uint32)
    quality[:10] = Quality.WARM_UP
    edge[10:20] = np.nan
    check = PredictionCheck(LABEL, GRID)
    check.add(frames((block.bid_px + 1).astype(np.int64), quality), probability, edge)
    assert check.row_count == 2 * (57 - 20)


def test_perfect_probabilities_lie_on_the_line() -> None:
    rng = np.random.default_rng(5)
    count = 6_000
    up = rng.uniform(0.05, 0.9, (count, 1))
    moves = np.where(rng.uniform(size=(count, 1)) < up, 10, 0)
    mids = np.full((2 * count + 4, 1), 100_000)
    mids[1::2][:count] += moves  # every second frame starts afresh at 100,000
    label = LabelConfig(horizon_ms=100, threshold_bps=0.5)
    probability = np.zeros((len(mids), 1, 3))
    probability[0 : 2 * count : 2, :, 2] = up
    edge = np.full((len(mids), 1), np.nan)
    edge[0 : 2 * count : 2] = up
    check = PredictionCheck(label, GRID)
    check.add(frames(mids), probability, edge)
    for row in check.probability_rows():
        if row.low > 0:
            assert row.observed == pytest.approx(row.predicted, abs=4 * 0.5 / np.sqrt(row.count))


@pytest.mark.parametrize(("frame_count", "error"), [(2, 6.0), (3, 6.0), (12, 3.0), (27, 2.0)])
def test_error_counts_one_outcome_a_horizon_and_no_less_than_one(frame_count: int, error: float) -> None:
    row = CalibrationRow(0.0, 1.0, 4 * frame_count, frame_count, 0.0, 0.0, deviation=6.0)
    assert row.error(3) == error
