"""Lead and shadow on the same rows, against a loop over rows, frames and blocks."""

from __future__ import annotations

import math

import numpy as np
import pytest

from gpuscalp.config import CostConfig, GridConfig, LabelConfig, StrategyConfig
from gpuscalp.orders import SignalRow
from gpuscalp.strategy import Strategy
from gpuscalp.succession.contest import Contest
from gpuscalp.succession.outcomes import Matured, Outcomes, Predicted

GRID, LABEL = GridConfig(frame_ms=100), LabelConfig(horizon_ms=500, threshold_bps=2.0)
STEPS, BLOCK_NS, GAP_NS = 5, 2_500_000_000, 500_000_000
FRAME_NS = 100_000_000
START_NS = 1_700_000_000_000_000_000
COST = CostConfig(taker_fee_bps=0.5)
RULES = StrategyConfig(min_confidence=0.5, min_agreement=0.5, min_edge_bps=0.2)


def signals(rng: np.random.Generator, frames: int) -> list[SignalRow]:
    probability = rng.dirichlet([0.6, 0.8, 0.6], (frames, 3))
    probability[rng.random((frames, 3)) < 0.1] = np.nan
    edge = 4.0 * (probability[..., 2] - probability[..., 0])
    agreement = rng.random((frames, 3))
    return [SignalRow(*each, np.zeros(3)) for each in zip(probability, agreement, edge, strict=True)]


def scene(frames: int = 400) -> tuple[list[Predicted], list[SignalRow], list[SignalRow]]:
    rng = np.random.default_rng(4)
    mid = 100_000 + np.cumsum(rng.integers(-9, 10, (frames, 3)), axis=0)
    lead, shadow = signals(rng, frames), signals(rng, frames)
    market = [
        Predicted(
            START_NS + (index + 1) * FRAME_NS,
            mid[index].astype(np.int32),
            (mid[index] + 2).astype(np.int32),
            np.where(rng.random(3) < 0.05, 1, 0).astype(np.uint32),
            lead[index].probability,
            lead[index].agreement,
        )
        for index in range(frames)
    ]
    return market, lead, shadow


def followed(after_ns: int = 0, label: LabelConfig = LABEL) -> tuple[Contest, list[Matured]]:
    """Return the contest of the scene, and what had matured."""
    market, lead, shadow = scene()
    strategy = Strategy(RULES, COST, horizon_ms=LABEL.horizon_ms)
    contest = Contest(
        strategy, COST, min_edge_bps=RULES.min_edge_bps, label=label, grid=GRID, after_ns=after_ns
    )
    outcomes, seen = Outcomes(3, label, GRID), []

    def told(matured: Matured) -> None:
        seen.append(matured)
        contest.mature(matured)

    outcomes.told = [told]
    for start in range(0, len(market), 13):
        for index in range(start, min(start + 13, len(market))):
            if index % 17:  # the shadow did not come to this one
                contest.note(market[index].end_ns, lead[index], shadow[index])
        outcomes.take(market[start : start + 13])
    return contest, seen


def by_hand(after_ns: int = 0) -> tuple[int, dict[int, list[tuple[float, float]]]]:
    """Return the rows, and of each block the differences of its frames, one row after the other."""
    market, lead, shadow = scene()
    rows, blocks = 0, {}
    for index in range(len(market) - STEPS):
        frame, end = market[index], market[index + STEPS]
        losses, scores = [], []
        for symbol in range(3):
            if frame.quality[symbol] or end.quality[symbol] or index % 17 == 0 or frame.end_ns <= after_ns:
                continue
            sides = lead[index], shadow[index]
            if any(math.isnan(each.probability[symbol, 0]) for each in sides):
                continue
            start_mid, end_mid = int(frame.bid_px[symbol]) + 1, int(end.bid_px[symbol]) + 1
            moved = 1e4 * (end_mid - start_mid) / start_mid
            came = 2 if moved > 2.0 else 0 if moved < -2.0 else 1
            rows += 1
            losses.append([-math.log(each.probability[symbol, came]) for each in sides])
            cost = 2 * 0.5 + 1e4 * 2 / start_mid
            scores.append([brought(each, symbol, moved, cost) for each in sides])
        block, into = divmod(frame.end_ns, BLOCK_NS)
        if losses and into <= BLOCK_NS - GAP_NS:
            loss = np.mean([a - b for a, b in losses])
            blocks.setdefault(block, []).append((loss, np.mean([b - a for a, b in scores])))
    return rows, blocks


def brought(said: SignalRow, symbol: int, moved: float, cost: float) -> float:
    edge = said.edge_bps[symbol]
    confidence = said.probability[symbol, 2 if edge > 0 else 0]
    if confidence < 0.5 or said.agreement[symbol] < 0.5 or abs(edge) - cost <= 0.2:
        return 0.0
    return math.copysign(1.0, edge) * moved - cost


@pytest.mark.parametrize("after", [0, 100])
def test_contest_equals_a_loop_over_rows(after):
    after_ns = START_NS + after * FRAME_NS if after else 0
    contest, _ = followed(after_ns)
    rows, blocks = by_hand(after_ns)
    assert contest.rows == rows > 400
    whole = [np.mean(frames, axis=0) for frames in list(blocks.values())[:-1]]  # the last one is not over
    assert contest.log_loss.count == contest.score.count == len(whole) > 8
    assert contest.log_loss.mean == pytest.approx(np.mean([loss for loss, _ in whole]))
    assert contest.score.mean == pytest.approx(np.mean([score for _, score in whole]))
    assert contest.score.mean != 0.0


def test_every_label_of_a_block_ends_before_the_next_begins():
    _, seen = followed()
    entries = np.concatenate([each.end_ns for each in seen])
    counted = entries[entries % BLOCK_NS <= BLOCK_NS - GAP_NS]
    assert len(counted) > 200
    assert ((counted + STEPS * FRAME_NS - 1) // BLOCK_NS == counted // BLOCK_NS).all()


def test_touch_of_a_barrier_earns_nothing_that_the_horizon_takes_back():
    """The score had the return at the touch, although a session holds for the horizon."""
    contest, seen = followed(label=LabelConfig(kind="barrier", horizon_ms=500, upper_bps=1.0, lower_bps=1.0))
    mid = {frame.end_ns: frame.bid_px.astype(np.int64) + 1 for frame in scene()[0]}
    early = 0
    for matured in seen:
        for end_ns, direction, moved in zip(
            matured.end_ns.tolist(), matured.direction, matured.return_bps, strict=True
        ):
            expected = 1e4 * (mid[end_ns + STEPS * FRAME_NS] - mid[end_ns]) / mid[end_ns]
            known = np.isfinite(moved)
            assert moved[known] == pytest.approx(expected[known])
            early += int((known & (direction == 2) & (moved < 1.0)).sum())
    assert early > 20
    # A touch counts only where the whole horizon is known: rows without one are judged by that, too.
    assert all(np.isfinite(each.return_bps[each.direction >= 0]).all() for each in seen)
    assert contest.score.count > 8
    assert math.isfinite(contest.score.mean)
