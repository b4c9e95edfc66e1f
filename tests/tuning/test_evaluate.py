"""One trial: the folds of training, without walking the archive again for another booster."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from msgspec import structs

from gpuscalp.config import CostConfig, LabelConfig, StrategyConfig
from gpuscalp.distributed.job import Job, versions
from gpuscalp.ensemble import Signals
from gpuscalp.errors import DataError, UsageError
from gpuscalp.splits import Fold
from gpuscalp.train import train
from gpuscalp.train.dataset import count_rows, labelled_chunks
from gpuscalp.train.device import training_device
from gpuscalp.tuning.cluster import TrialSpec
from gpuscalp.tuning.evaluate import STRETCH_FRAMES, Evaluator, held_rows
from gpuscalp.tuning.score import HeldRows, acts_of
from gpuscalp.tuning.search import Task
from tests.train.market import FRAME_NS, START_NS, FakeSource, quick_config
from tests.train.test_device import needs_compiler, trained_on_host

CONFIG = quick_config()
STRATEGY = StrategyConfig(min_edge_bps=-50.0, min_confidence=0.34)


def evaluator(source: FakeSource, kept: int = 2) -> Evaluator:
    return Evaluator(lambda config: source, device="cpu", threads=1, cost=CostConfig(), kept=kept)


def task(rounds: int = 15, **changes: object) -> Task:
    return Task(0, 0, rounds, structs.replace(CONFIG, **changes), STRATEGY)


@pytest.fixture(scope="module")
def source() -> FakeSource:
    return FakeSource(frame_count=2_000)


@pytest.mark.parametrize("stride", [1, 3])
def test_last_rung_has_the_folds_of_training_to_the_bit(source, tmp_path, stride):
    line = evaluator(source).make(task(stride_frames=stride))
    config = structs.replace(CONFIG, stride_frames=stride)
    result = train(source, config, tmp_path / "model", device="cpu", threads=1)
    assert line.failure is None
    assert [fold.rounds for fold in line.folds] == [fold.rounds for fold in result.folds]
    assert [fold.log_loss for fold in line.folds] == [fold.score.log_loss for fold in result.folds]
    assert [fold.rows for fold in line.folds] == [fold.score.rows for fold in result.folds]
    for fold, other in zip(line.folds, result.folds, strict=True):
        assert fold.base_log_loss == pytest.approx(other.score.base_log_loss, rel=1e-12)
        assert fold.acts > 0


def test_another_booster_does_not_walk_again_and_what_is_kept_changes_nothing(source):
    whole = evaluator(source)
    first = whole.make(task())
    walks = source.walks
    other = whole.make(task(booster=structs.replace(CONFIG.booster, eta=0.1)))
    fewer = whole.make(task(rounds=4))
    assert source.walks == walks
    assert len({line.folds for line in (first, other, fewer)}) == 3
    # Another label takes other rows, and, with room for one set only, the first ones are made again.
    small = evaluator(source, kept=1)
    label = LabelConfig(horizon_ms=300, threshold_bps=1.0)
    lines = [small.make(each) for each in (task(), task(label=label), task())]
    assert lines[0].folds == lines[2].folds == first.folds
    assert lines[1].folds != first.folds
    assert source.walks > walks


def test_values_that_the_data_do_not_allow_are_a_failure_of_the_trial(source):
    line = evaluator(source).make(task(label=LabelConfig(horizon_ms=60_000)))
    assert line.folds == ()
    assert "too short" in line.failure


def test_archive_that_cannot_be_read_here_is_no_failure_of_the_trial(tmp_path):
    # On a machine that does not see the archive every trial would have "failed", and been kept as that.
    job = Job(tmp_path / "nothing", CONFIG, None, None, "", versions(), "cpu", 1)
    spec = TrialSpec(job, 0.0, CostConfig(), kept=1)
    with pytest.raises(UsageError, match="cannot open the archive"):
        spec.evaluator().make(task())


def test_machine_with_other_versions_makes_no_trial(tmp_path):
    """Another library on one machine would have changed the best trial without a word."""
    others = (("gpuscalp", "0"), *versions()[1:])
    job = Job(tmp_path, CONFIG, None, None, "", others, "cpu", 1)
    spec = TrialSpec(job, 0.0, CostConfig(), kept=1)
    with pytest.raises(UsageError, match="other versions"):
        spec.evaluator().make(task())


@needs_compiler
def test_rows_that_a_worker_keeps_on_a_gpu_do_not_change_its_next_chunks(tmp_path, monkeypatch):
    """Each set of rows was walked in chunks by what the sets before it had left free."""
    asked = []

    def opened(job: Job, chunk_bytes: int) -> FakeSource:
        asked.append(chunk_bytes)
        raise DataError("seen")

    monkeypatch.setattr(Job, "open", opened)
    job = Job(tmp_path, CONFIG, None, None, "", versions(), "cuda", 1)
    with trained_on_host() as gpu:
        gpu.free_bytes = 33 << 30
        worker = TrialSpec(job, 1.0, CostConfig(), kept=1).evaluator()
        for free_gb in (33, 31):
            gpu.free_bytes = free_gb << 30
            assert "seen" in worker.make(task()).failure
    assert asked == [1 << 30] * 2


FRAMES, SYMBOLS = 30_000, 3


@pytest.fixture(scope="module")
def held() -> Callable[..., HeldRows]:
    """Rows of one fold of 150 stretches: all of them, every n-th, or with a stride."""
    market = FakeSource(frame_count=FRAMES, symbol_count=SYMBOLS)
    fold = Fold(0, START_NS, START_NS, START_NS + FRAMES * FRAME_NS, 0)

    def held(every: int = 1, stride: int = 1) -> HeldRows:
        config = structs.replace(CONFIG, stride_frames=stride)
        chunks = labelled_chunks(market.chunks(), config)
        return held_rows(chunks, [fold], training_device("cpu"), config.grid, every)[0]

    return held


def bps_per_hour(rows: HeldRows, share: float, net_bps: float, horizon_ms: int = 1_000) -> float:
    """Signals on a share of the frames, the same ones whatever rows there are; every act leaves the same."""
    lots = np.random.default_rng(5).random((FRAMES + 1, SYMBOLS))
    count, even = len(rows), np.full((len(rows), 3), 1 / 3)
    acting = lots[(rows.end_ns - START_NS) // FRAME_NS, rows.symbol] < share
    edge = np.where(acting, 9.0, np.nan)
    signals = Signals(even, np.ones(count), np.zeros(count), edge, np.zeros((1, count, 3), np.float32), even)
    acts = acts_of(
        replace(rows, return_bps=np.full(count, net_bps)),
        signals,
        strategy=StrategyConfig(min_edge_bps=0.0, min_confidence=0.0, min_agreement=0.0),
        cost=CostConfig(taker_fee_bps=0.0),
        horizon_ms=horizon_ms,
    )
    return float(acts.net_bps.sum()) / (acts.symbol_ns / 3.6e12)


@pytest.mark.parametrize(("every", "stride"), [(1, 1), (7, 1), (1, 20), (7, 20)])
def test_who_acts_often_or_holds_long_is_charged_for_it_however_rows_are_thinned(held, every, stride):
    """On every n-th frame no act kept its symbol busy: the order of these trials was turned round."""
    rows = held(every, stride)
    assert len(rows) == pytest.approx(SYMBOLS * FRAMES / every, rel=0.05)
    for share, net_bps, horizon_ms in ((0.5, 0.2, 1_000), (0.05, 1.0, 1_000), (0.5, 1.5, 60_000)):
        # An act comes a horizon after the one before it and then waits for a signal, from frame to frame.
        wait_s = 0.1 * (1 / share - 1)
        expected = 3600 * net_bps / (horizon_ms / 1_000 + wait_s)
        assert bps_per_hour(rows, share, net_bps, horizon_ms) == pytest.approx(expected, rel=0.1)
    assert bps_per_hour(rows, 0.5, 0.2) < 0.7 * bps_per_hour(rows, 0.05, 1.0)
    assert bps_per_hour(rows, 0.3, 1.0, 500) > 1.7 * bps_per_hour(rows, 0.3, 1.5, 2_000)


def test_kept_rows_are_whole_stretches_in_which_symbols_take_turns(held):
    rows = held(7)
    for symbol in range(SYMBOLS):
        own = np.sort(rows.end_ns[rows.symbol == symbol]) // FRAME_NS
        stretches, count = np.unique(own // STRETCH_FRAMES, return_counts=True)
        assert (np.diff(stretches) == 7).all()
        assert (count[1:-1] == STRETCH_FRAMES).all()
    assert len(np.unique(rows.end_ns // (STRETCH_FRAMES * FRAME_NS) % 7)) == SYMBOLS


def test_more_rows_than_the_limit_are_thinned_to_it(source, monkeypatch):
    whole = evaluator(source).make(task())
    monkeypatch.setattr("gpuscalp.tuning.evaluate.HELD_OUT_ROWS_MAX", 1_200)
    monkeypatch.setattr("gpuscalp.tuning.evaluate.STRETCH_FRAMES", 20)
    thin = evaluator(source).make(task())
    rows = [sum(fold.rows for fold in line.folds) for line in (whole, thin)]
    assert rows[0] > 2_000
    assert rows[1] == pytest.approx(1_200, rel=0.25)
    rates = [[fold.acts / fold.symbol_hours for fold in line.folds] for line in (whole, thin)]
    assert rates[1] == pytest.approx(rates[0], rel=0.15)


def test_trials_of_two_horizons_are_scored_on_the_same_stretches(source, monkeypatch):
    """A longer horizon leaves a few rows fewer, and they once made every 40th stretch of every 41st."""
    horizons = (500, 2_000)
    labels = [LabelConfig(horizon_ms=horizon_ms, threshold_bps=1.0) for horizon_ms in horizons]
    monkeypatch.setattr("gpuscalp.tuning.evaluate.STRETCH_FRAMES", 5)
    # Ten times as many as are held out with the longer horizon, so an eleventh with the shorter one.
    longer = structs.replace(CONFIG, label=labels[1])
    counted = count_rows(labelled_chunks(source.chunks(), longer)).total
    rows_max = counted * (1.0 - CONFIG.split.min_train_fraction) / 10
    monkeypatch.setattr("gpuscalp.tuning.evaluate.HELD_OUT_ROWS_MAX", round(rows_max) + 1)
    scored = []
    for label in labels:
        parts = evaluator(source)._parts(structs.replace(CONFIG, label=label))
        keys = [zip(part.test.end_ns.tolist(), part.test.symbol.tolist(), strict=True) for part in parts]
        scored.append(set().union(*keys))
    assert len(scored[0] & scored[1]) > 0.9 * max(map(len, scored))
