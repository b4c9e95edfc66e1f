"""A small market and a quick walk-forward over it."""

from __future__ import annotations

from pathlib import Path

from gpuscalp.config import (
    BacktestConfig,
    BoosterConfig,
    CostConfig,
    EnsembleConfig,
    FeatureConfig,
    JudgeConfig,
    LabelConfig,
    RiskConfig,
    SizingConfig,
    SplitConfig,
    StrategyConfig,
    TrainConfig,
    TriedConfig,
    WalkForwardConfig,
)
from gpuscalp.synthetic.spec import DEFAULT_SYMBOLS, MarketSpec
from gpuscalp.synthetic.write import write
from tests.handmade import DROP

TRAIN = TrainConfig(
    venue="synthetic",
    stride_frames=2,
    features=FeatureConfig(leader="BTCUSDT", drop=DROP),
    label=LabelConfig(horizon_ms=300, threshold_bps=0.3),
    split=SplitConfig(folds=2),
    booster=BoosterConfig(rounds=8, early_stopping_rounds=4, eta=0.3, max_depth=3, max_bin=32),
    ensemble=EnsembleConfig(members=2),
)
TRADE = BacktestConfig(
    strategy=StrategyConfig(min_edge_bps=-100.0, min_confidence=0.34),
    # Sizes that hang on nothing but the configured one.
    sizing=SizingConfig(kelly_fraction="off", target_volatility_bps="off", drawdown=False),
    risk=RiskConfig(max_losses="off"),
    cost=CostConfig(taker_fee_bps=0.5),
)
CONFIG = WalkForwardConfig(
    steps=SplitConfig(folds=3, min_train_fraction=0.4),
    train=TRAIN,
    backtest=TRADE,
    tried=TriedConfig(min_confidence=(0.4, 0.5)),
    judge=JudgeConfig(blocks=4, resamples=100, random_draws=200, sizes=(50.0,), look_ahead_ticks=4_000),
)


def write_market(path: Path, *, duration_s: int = 200, seed: int = 7, lag_strength: float = 0.9) -> Path:
    """Write an archive of two symbols; the second follows the first as far as ``lag_strength`` says."""
    spec = MarketSpec(
        seed=seed, duration_s=duration_s, symbols=DEFAULT_SYMBOLS[:2], lag_strength=lag_strength
    )
    write(spec, path)
    return path
