"""Configuration: TOML decoded into frozen structs.

Secrets never live here: one that is found is refused.
Parts get the struct they need; there is no global settings object.
"""

from __future__ import annotations

from gpuscalp.config.fields import OFF, Count, Fraction, Limit, NonNegative, Positive, PositiveInt, Seed
from gpuscalp.config.live import (
    AdaptationConfig,
    BatchConfig,
    EngineConfig,
    FeedConfig,
    GpuHealthConfig,
    JournalConfig,
    LiveConfig,
    LogsConfig,
    MetricsConfig,
    NautilusConfig,
    NotifyConfig,
    PromotionConfig,
    RetrainingConfig,
    SessionConfig,
)
from gpuscalp.config.load import ENV_PREFIX, flat, flat_dict, load, load_named, to_dict, variable_of
from gpuscalp.config.trading import (
    AccountConfig,
    BacktestConfig,
    BandConfig,
    CostConfig,
    LegConfig,
    OrdersConfig,
    PaperConfig,
    RiskConfig,
    SizingConfig,
    StrategyConfig,
)
from gpuscalp.config.training import (
    BoosterConfig,
    EnsembleConfig,
    FeatureConfig,
    GridConfig,
    LabelConfig,
    SplitConfig,
    TrainConfig,
)
from gpuscalp.config.tuning import (
    DEFAULT_SPACE,
    DimensionConfig,
    ScoreConfig,
    SearchConfig,
    TrialConfig,
    TuneConfig,
)
from gpuscalp.config.walkforward import JudgeConfig, TriedConfig, WalkForwardConfig

__all__ = [
    "DEFAULT_SPACE",
    "ENV_PREFIX",
    "OFF",
    "AccountConfig",
    "AdaptationConfig",
    "BacktestConfig",
    "BandConfig",
    "BatchConfig",
    "BoosterConfig",
    "CostConfig",
    "Count",
    "DimensionConfig",
    "EngineConfig",
    "EnsembleConfig",
    "FeatureConfig",
    "FeedConfig",
    "Fraction",
    "GpuHealthConfig",
    "GridConfig",
    "JournalConfig",
    "JudgeConfig",
    "LabelConfig",
    "LegConfig",
    "Limit",
    "LiveConfig",
    "LogsConfig",
    "MetricsConfig",
    "NautilusConfig",
    "NonNegative",
    "NotifyConfig",
    "OrdersConfig",
    "PaperConfig",
    "Positive",
    "PositiveInt",
    "PromotionConfig",
    "RetrainingConfig",
    "RiskConfig",
    "ScoreConfig",
    "SearchConfig",
    "Seed",
    "SessionConfig",
    "SizingConfig",
    "SplitConfig",
    "StrategyConfig",
    "TrainConfig",
    "TrialConfig",
    "TriedConfig",
    "TuneConfig",
    "WalkForwardConfig",
    "flat",
    "flat_dict",
    "load",
    "load_named",
    "to_dict",
    "variable_of",
]
