"""Live quality of predictions, counted row by row, over labels made by a loop."""

from __future__ import annotations

import math
import statistics

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpuscalp.config import GridConfig, LabelConfig
from gpuscalp.schema import Quality
from gpuscalp.succession.outcomes import (
    AGREEMENT_BOUNDS,
    BUCKET_NS,
    BUCKETS,
    CONFIDENCE_BOUNDS,
    Outcomes,
    Predicted,
)

GRID = GridConfig(frame_ms=100)
FRAME_NS = 100_000_000
START_NS = 1_700_000_000_000_000_000
LABEL = LabelConfig(horizon_ms=500, threshold_bps=2.0)
BARRIER = LabelConfig(kind="barrier", horizon_ms=500, upper_bps=3.0, lower_bps=2.0)
STEPS = 5


def market(seed: int, frames: int, symbols: int = 3) -> list[Predicted]:
    """Return frames of a random walk, with doubts, holes in what was said, and symbols without a quote."""
    rng = np.random.default_rng(seed)
    mid = 10_000 + np.cumsum(rng.integers(-2, 3, (frames, symbols)), axis=0)
    probability = rng.dirichlet([0.7, 1.0, 0.7], (frames, symbols))
    probability[rng.random((frames, symbols)) < 0.1] = np.nan
    quality = np.where(rng.random((frames, symbols)) < 0.03, int(Quality.GAP), 0)
    quality |= np.where(rng.random((frames, symbols)) < 0.1, int(Quality.STALE), 0)
    quality[: frames // 10] |= int(Quality.WARM_UP)
    bid = np.where(rng.random((frames, symbols)) < 0.01, 0, mid)
    return [
        Predicted(
            START_NS + (index + 1) * FRAME_NS,
            bid[index].astype(np.int32),
            (mid[index] + 1).astype(np.int32),
            quality[index].astype(np.uint32),
            probability[index],
            rng.random(symbols),
        )
        for index in range(frames)
    ]


def by_hand(frames: list[Predicted], label: LabelConfig) -> tuple[np.ndarray, np.ndarray]:
    """Return probabilities and classes of the rows whose label has matured, by one price path at a time."""
    said, came = [], []
    for entry in range(len(frames) - STEPS):
        path = frames[entry : entry + STEPS + 1]
        for symbol in range(len(path[0].bid_px)):
            sure = [_is_sure(each, symbol, first=place == 0) for place, each in enumerate(path)]
            start = int(path[0].bid_px[symbol]) + int(path[0].ask_px[symbol])
            found = None
            if not (sure[0] and sure[STEPS] and (label.kind == "forward" or all(sure))):
                continue
            for place in range(1, STEPS + 1):
                last = place == STEPS
                if label.kind == "forward" and not last:
                    continue
                now = int(path[place].bid_px[symbol]) + int(path[place].ask_px[symbol])
                move = 1e4 * (now - start) / start
                if label.kind == "forward":
                    found = 2 if move > label.threshold_bps else 0 if move < -label.threshold_bps else 1
                elif move >= label.upper_bps or move <= -label.lower_bps or last:
                    found = 2 if move >= label.upper_bps else 0 if move <= -label.lower_bps else 1
                    break
            row = path[0].probability[symbol]
            if found is not None and not math.isnan(row[0]):
                said.append(row)
                came.append(found)
    return np.array(said).reshape(-1, 3), np.array(came, np.int64)


def _is_sure(frame: Predicted, symbol: int, *, first: bool) -> bool:
    bits = int(frame.quality[symbol])
    if not first:
        bits &= ~int(Quality.WARM_UP | Quality.STALE)
    return bits == 0 and frame.bid_px[symbol] > 0


@pytest.mark.parametrize("label", [LABEL, BARRIER], ids=["forward", "barrier"])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_quality_is_what_counting_gives(label, seed):
    frames = market(seed, 400)
    outcomes = Outcomes(3, label, GRID)
    for start in range(0, 400, 7):
        outcomes.take(frames[start : start + 7])
    found = outcomes.quality()

    said, came = by_hand(frames, label)
    pairs = list(zip(said, came.tolist(), strict=True))
    rows = [(max(range(3), key=row.__getitem__), outcome) for row, outcome in pairs]
    assert found.rows == len(rows) > 500
    assert found.accuracy == pytest.approx(statistics.mean(named == outcome for named, outcome in rows))
    counts = [sum(outcome == each for _, outcome in rows) for each in range(3)]
    for each in range(3):
        hits = rows.count((each, each))
        named = sum(one == each for one, _ in rows)
        assert found.precision[each] == pytest.approx(hits / named)
        assert found.recall[each] == pytest.approx(hits / counts[each])
        assert found.f1[each] == pytest.approx(2 * hits / (named + counts[each]))
        assert found.predicted[each] == pytest.approx(named / len(rows))
        assert found.matured[each] == pytest.approx(counts[each] / len(rows))
    assert found.base_accuracy == pytest.approx(max(counts) / len(rows))
    # A Dirichlet row may hold a zero.
    surprise = [-math.log(max(row[outcome], 1e-300)) for row, outcome in pairs]
    assert found.log_loss == pytest.approx(statistics.mean(surprise), rel=1e-6)
    entropy = -sum(count / len(rows) * math.log(count / len(rows)) for count in counts)
    assert found.base_log_loss == pytest.approx(entropy)
    assert found.brier == pytest.approx(np.mean(np.sum((said - np.eye(3)[came]) ** 2, axis=1)))
    assert found.calibration_error == pytest.approx(expected_calibration_error(said, came))
    assert outcomes.matured_count.tolist() == counts


def expected_calibration_error(said: np.ndarray, came: np.ndarray) -> float:
    """Guo et al. (2017), one bin after the other."""
    confidence, right = said.max(axis=1), said.argmax(axis=1) == came
    total = 0.0
    for tenth in range(10):
        inside = [tenth <= 10 * value < tenth + 1 or (tenth == 9 and value == 1.0) for value in confidence]
        if any(inside):
            share = sum(inside) / len(came)
            total += share * abs(right[inside].mean() - confidence[inside].mean())
    return total


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 99), cuts=st.lists(st.integers(1, 40), min_size=1, max_size=8))
def test_blocks_do_not_matter(seed, cuts):
    frames = market(seed, 120)
    whole, parts = Outcomes(3, LABEL, GRID), Outcomes(3, LABEL, GRID)
    whole.take(frames)
    at = 0
    while at < len(frames):
        step = cuts[at % len(cuts)]
        parts.take(frames[at : at + step])
        at += step
    assert whole.matured_count.tolist() == parts.matured_count.tolist()
    assert whole.predicted_count.tolist() == parts.predicted_count.tolist()
    assert whole.quality().log_loss == pytest.approx(parts.quality().log_loss)
    assert whole.quality().accuracy == pytest.approx(parts.quality().accuracy)


def test_nothing_is_known_before_the_first_label_has_matured():
    frames = market(1, 40)
    outcomes = Outcomes(3, LABEL, GRID)
    outcomes.take(frames[:STEPS])
    assert outcomes.quality() is None
    assert outcomes.matured_count.sum() == 0
    assert outcomes.predicted_count.sum() > 0
    outcomes.take(frames[STEPS:])
    assert outcomes.quality() is not None


def test_class_that_never_came_or_was_never_named_has_no_ratio():
    frames = [each._replace(probability=np.tile([0.2, 0.7, 0.1], (3, 1))) for each in market(1, 60)]
    outcomes = Outcomes(3, LabelConfig(horizon_ms=500, threshold_bps=1e6), GRID)
    outcomes.take(frames)
    found = outcomes.quality()
    assert found.precision == (None, 1.0, None)
    assert found.recall == (None, 1.0, None)
    assert found.base_log_loss == 0.0


@pytest.mark.parametrize("after", [0, 3, 200, 399])
def test_another_model_is_not_judged_by_what_the_one_before_has_said(after):
    """For an hour after a promotion the figures, and the score, were those of two models together."""
    frames = market(1, 400)
    whole, outcomes, later = (Outcomes(3, LABEL, GRID) for _ in range(3))
    whole.take(frames)
    outcomes.take(frames[:after])
    outcomes.begin(frames[after - 1].end_ns if after else 0)
    assert outcomes.quality() is None
    outcomes.take(frames[after:])
    silent = np.full((3, 3), np.nan)
    later.take([each._replace(probability=silent) for each in frames[:after]])
    later.take(frames[after:])
    assert outcomes.quality() == later.quality()
    assert outcomes.matured_count.tolist() == whole.matured_count.tolist(), "of the process, whoever led"


def test_old_rows_leave_the_window():
    outcomes = Outcomes(3, LABEL, GRID)
    frames = market(1, 60)
    outcomes.take(frames)
    end_ns = frames[-1].end_ns
    assert outcomes.quality(end_ns).rows > 0
    assert outcomes.quality(end_ns + (BUCKETS - 2) * BUCKET_NS).rows > 0
    assert outcomes.quality(end_ns + (BUCKETS + 1) * BUCKET_NS) is None
    assert outcomes.window_ns == BUCKETS * BUCKET_NS


def test_histograms_count_up_to_their_bounds():
    frames = market(4, 200)
    outcomes = Outcomes(3, LABEL, GRID)
    outcomes.take(frames)
    said = np.concatenate([each.probability for each in frames])
    agreement = np.concatenate([each.agreement for each in frames])
    known = ~np.isnan(said[:, 0])
    for histogram, values, bounds in (
        (outcomes.confidence, said[known].max(axis=1), CONFIDENCE_BOUNDS),
        (outcomes.agreement, agreement[known], AGREEMENT_BOUNDS),
    ):
        risen = np.cumsum(histogram.counts)
        assert risen[:-1].tolist() == [int((values <= bound).sum()) for bound in bounds]
        assert risen[-1] == len(values)
        assert histogram.sum == pytest.approx(values.sum())


def test_memory_is_bounded():
    outcomes = Outcomes(3, LABEL, GRID)
    held = outcomes._frames._end_ns.nbytes
    for seed in range(8):
        frames = market(seed, 300)
        shifted = [each._replace(end_ns=each.end_ns + seed * 300 * FRAME_NS) for each in frames]
        outcomes.take(shifted)
        assert len(outcomes._frames) == STEPS
    assert outcomes._frames._end_ns.nbytes == held
