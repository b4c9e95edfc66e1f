"""The score: acts and costs against plain loops, the formula against NumPy."""

from __future__ import annotations

import numpy as np
import pytest

from gpuscalp.config import CostConfig, ScoreConfig, StrategyConfig
from gpuscalp.ensemble import Signals
from gpuscalp.train.iterator import Tally
from gpuscalp.tuning.score import HeldRows, acts_of, fold_figures, score_of
from gpuscalp.tuning.search import Trial
from gpuscalp.tuning.trials import FoldFigures, Rung

HORIZON_MS = 300
FRAME_NS = 100_000_000


def made_up(rng: np.random.Generator, frames: int = 400, symbols: int = 3) -> tuple[HeldRows, Signals]:
    """Rows symbol by symbol within chunks, as a walk over an archive has them."""
    blocks = []
    for first in range(0, frames, 100):
        for symbol in range(symbols):
            at = np.flatnonzero(rng.random(100) < 0.8) + first
            blocks.append((at, np.full(len(at), symbol)))
    frame = np.concatenate([at for at, _ in blocks])
    symbol = np.concatenate([which for _, which in blocks]).astype(np.int32)
    count = len(frame)
    bid = rng.integers(50_000, 50_100, count).astype(np.int32)
    bid[rng.random(count) < 0.02] = 0
    rows = HeldRows(
        x=None,
        direction=rng.integers(0, 3, count).astype(np.int8),
        return_bps=rng.normal(0.0, 3.0, count),
        weight=np.where(frame % 2 == 0, 0.2, 0.0),  # a stride of two, labels that overlap
        end_ns=FRAME_NS * (frame + 1),
        symbol=symbol,
        bid_px=bid,
        ask_px=(bid + rng.integers(1, 20, count)).astype(np.int32),
        frame_ns=FRAME_NS,
    )
    probability = rng.dirichlet((1.0, 1.0, 1.0), count)
    signals = Signals(
        probability=probability,
        agreement=rng.choice([0.25, 0.5, 0.75, 1.0], count),
        spread=np.zeros(count),
        edge_bps=rng.normal(0.0, 5.0, count),
        margins=np.zeros((1, count, 3), np.float32),
        raw=probability,
    )
    return rows, signals


def naive(
    rows: HeldRows, signals: Signals, strategy: StrategyConfig, fee_bps: float
) -> tuple[list[float], float]:
    """Net of the acts and seconds, one row after the other in the order of time, in plain words."""
    free = {}
    found = []
    seconds = 0.0
    for at in sorted(range(len(rows)), key=lambda row: rows.end_ns[row]):
        symbol, bid, ask = int(rows.symbol[at]), int(rows.bid_px[at]), int(rows.ask_px[at])
        if int(rows.end_ns[at]) < free.get(symbol, 0):
            continue
        seconds += 0.1
        if bid <= 0:
            continue
        edge = float(signals.edge_bps[at])
        confidence = float(signals.probability[at, 2 if edge > 0 else 0])
        cost = 2 * fee_bps + 10_000 * (ask - bid) / ((ask + bid) / 2)
        if confidence < strategy.min_confidence or signals.agreement[at] < strategy.min_agreement:
            continue
        if abs(edge) - cost <= strategy.min_edge_bps:
            continue
        free[symbol] = int(rows.end_ns[at]) + HORIZON_MS * 1_000_000
        seconds += HORIZON_MS / 1_000 - 0.1
        found.append((1 if edge > 0 else -1) * float(rows.return_bps[at]) - cost)
    return found, seconds


@pytest.mark.parametrize("thresholds", [(-2.0, 0.34, 0.0), (0.0, 0.4, 0.5), (1.0, 0.6, 0.75)])
def test_acts_are_those_of_plain_loops(rng, thresholds):
    edge, confidence, agreement = thresholds
    rows, signals = made_up(rng)
    strategy = StrategyConfig(min_edge_bps=edge, min_confidence=confidence, min_agreement=agreement)
    acts = acts_of(
        rows, signals, strategy=strategy, cost=CostConfig(taker_fee_bps=0.3), horizon_ms=HORIZON_MS
    )
    wanted, seconds = naive(rows, signals, strategy, 0.3)
    assert len(wanted) > 5
    np.testing.assert_allclose(acts.net_bps, wanted, rtol=1e-12)
    assert acts.symbol_ns == pytest.approx(seconds * 1e9, rel=1e-12)


def test_figures_of_a_fold_count_its_time_and_its_net(rng):
    rows, signals = made_up(rng)
    strategy = StrategyConfig(min_edge_bps=-5.0, min_confidence=0.34)
    trained = Tally(count=np.array([50, 100, 50]), return_sum=np.zeros(3), weight=40.0)
    figures = fold_figures(
        rows,
        signals,
        trained,
        strategy=strategy,
        cost=CostConfig(taker_fee_bps=0.3),
        horizon_ms=HORIZON_MS,
        rounds=(7,),
    )
    wanted, seconds = naive(rows, signals, strategy, 0.3)
    assert figures.acts == len(wanted)
    assert figures.net_bps == pytest.approx(sum(wanted), rel=1e-12)
    assert figures.symbol_hours == pytest.approx(seconds / 3600, rel=1e-12)
    # The log loss is of the rows on the stride, as that of training; acts may be on any.
    on = np.flatnonzero(rows.end_ns // FRAME_NS % 2 == 1)
    assert figures.rows == len(on) < len(rows)
    given = signals.probability[on, rows.direction[on]]
    assert figures.log_loss == pytest.approx(-np.log(given).mean(), rel=1e-12)
    share = np.array([11.0, 21.0, 11.0]) / 43.0  # Laplace's rule over 40 independent labels
    assert figures.base_log_loss == pytest.approx(-np.log(share[rows.direction[on]]).mean(), rel=1e-12)


@pytest.mark.parametrize("folds", [2, 4, 20])
def test_what_earns_in_one_fold_only_is_worth_less_than_nothing(folds):
    values = [FoldFigures(100, 1.0, 3, net, 1.0, 1.0, (5,)) for net in [50.0] + [0.0] * (folds - 1)]
    assert score_of(values, ScoreConfig()) < 0.0
    assert score_of(values[1:] * 2, ScoreConfig()) == 0.0


def test_score_is_the_mean_less_the_penalty_times_the_deviation(rng):
    folds = [
        FoldFigures(100, hours, 3, net, loss, 1.05, (5,))
        for hours, net, loss in zip(
            rng.uniform(1, 2, 4), rng.normal(0, 9, 4), rng.uniform(0.9, 1.1, 4), strict=True
        )
    ]
    net = np.array([fold.net_bps / fold.symbol_hours for fold in folds])
    gain = np.array([(1.05 - fold.log_loss) / 1.05 for fold in folds])
    for penalty in (0.0, 0.5, 2.0):
        assert score_of(folds, ScoreConfig(penalty=penalty)) == pytest.approx(
            net.mean() - penalty * net.std(ddof=1)
        )
        assert score_of(folds, ScoreConfig("log_loss", penalty)) == pytest.approx(
            gain.mean() - penalty * gain.std(ddof=1)
        )


def test_what_is_known_of_a_label_counts_and_not_how_even_its_classes_are():
    """In nats a balanced label of which a tenth is known outranked a rare one of which a fifth is."""
    even = [FoldFigures(100, 1.0, 0, 0.0, 0.9 * 1.08, 1.08, (5,))] * 2
    rare = [FoldFigures(100, 1.0, 0, 0.0, 0.8 * 0.20, 0.20, (5,))] * 2
    assert score_of(even, ScoreConfig("log_loss")) == pytest.approx(0.1)
    assert score_of(rare, ScoreConfig("log_loss")) == pytest.approx(0.2)
    # It also ranks trials of which neither acts, as most after few rounds.
    trials = [
        Trial(
            number, {}, rungs=[Rung(number, 0, 5, tuple(folds), 0.0)], scores=[score_of(folds, ScoreConfig())]
        )
        for number, folds in enumerate((even, rare))
    ]
    assert min(trials, key=lambda trial: trial.rank).number == 1
