"""One trial: the folds of training, without walking the archive again for another booster."""

from __future__ import annotations

import pytest
from msgspec import structs

from gpuscalp.config import CostConfig, LabelConfig, StrategyConfig
from gpuscalp.distributed.job import versions
from gpuscalp.errors import UsageError
from gpuscalp.train import train
from gpuscalp.tuning.cluster import WorkerSpec
from gpuscalp.tuning.evaluate import Evaluator
from gpuscalp.tuning.search import Task
from tests.train.market import FakeSource, quick_config

CONFIG = quick_config()
STRATEGY = StrategyConfig(min_edge_bps=-50.0, min_confidence=0.34)


def evaluator(source: FakeSource, kept: int = 2) -> Evaluator:
    return Evaluator(lambda config: source, device="cpu", threads=1, cost=CostConfig(), kept=kept)


def task(rounds: int = 15, **changes: object) -> Task:
    return Task(0, 0, rounds, structs.replace(CONFIG, **changes), STRATEGY)


@pytest.fixture(scope="module")
def source() -> FakeSource:
    return FakeSource(frame_count=2_000)


def test_last_rung_has_the_folds_of_training_to_the_bit(source, tmp_path):
    line = evaluator(source).make(task())
    result = train(source, CONFIG, tmp_path / "model", device="cpu", threads=1)
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
    spec = WorkerSpec(tmp_path / "nothing", "", versions(), None, None, "cpu", 1, 0.0, CostConfig(), kept=1)
    with pytest.raises(UsageError, match="cannot open the archive"):
        spec.evaluator().make(task())


def test_machine_with_other_versions_makes_no_trial(tmp_path):
    """Another library on one machine would have changed the best trial without a word."""
    others = (("gpuscalp", "0"), *versions()[1:])
    spec = WorkerSpec(tmp_path, "", others, None, None, "cpu", 1, 0.0, CostConfig(), kept=1)
    with pytest.raises(UsageError, match="other versions"):
        spec.evaluator().make(task())
