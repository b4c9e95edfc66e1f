"""The model finds the lag that the synthetic market hides, and finds nothing when the lag is taken out.

Both markets have the same orders at the same times with the same sizes; without the lag the direction of a
follower's copy is a coin's. Everything runs as a user would run it: archive, features, folds, forest.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from gpuscalp.config import BoosterConfig, EnsembleConfig, LabelConfig, SplitConfig, TrainConfig
from gpuscalp.synthetic import MarketSpec, write
from gpuscalp.synthetic.spec import DEFAULT_SYMBOLS
from gpuscalp.train import TrainResult, train_archive

CONFIG = TrainConfig(
    venue="synthetic",
    stride_frames=2,
    label=LabelConfig(horizon_ms=500, threshold_bps=1.0),
    split=SplitConfig(folds=2),
    booster=BoosterConfig(
        rounds=40, early_stopping_rounds=8, eta=0.15, max_depth=3, max_bin=32, min_child_weight=10.0
    ),
    ensemble=EnsembleConfig(members=2),
)


def trained(path: Path, lag_strength: float) -> TrainResult:
    write(
        MarketSpec(duration_s=420, symbols=DEFAULT_SYMBOLS[:3], lag_strength=lag_strength), path / "archive"
    )
    return train_archive(path / "archive", path / "bundle", config=CONFIG, device="cpu", threads=2)


@pytest.fixture(scope="module")
def with_lag(tmp_path_factory: pytest.TempPathFactory) -> TrainResult:
    return trained(tmp_path_factory.mktemp("lag"), 0.9)


@pytest.fixture(scope="module")
def without_lag(tmp_path_factory: pytest.TempPathFactory) -> TrainResult:
    return trained(tmp_path_factory.mktemp("no_lag"), 0.0)


def test_planted_lag_is_found(with_lag):
    overall = with_lag.overall
    # 0.25 ± 0.04 with ten minutes of four symbols: 0.1 is far from what chance gives.
    assert overall.ic.low > 0.1
    assert overall.log_loss < 0.97 * overall.base_log_loss
    assert all(item.score.ic.low > 0.0 for item in with_lag.folds)


def test_nothing_is_found_without_the_lag(without_lag):
    overall = without_lag.overall
    assert overall.ic.low <= 0.0 <= overall.ic.high
    assert abs(overall.ic.value) < 0.06
    # The log loss may well beat the base rate here: how far prices will move can be told from how far they
    # just moved, only not where to.


def test_difference_between_the_two_markets_is_beyond_both_intervals(with_lag, without_lag):
    assert with_lag.overall.ic.low > without_lag.overall.ic.high
