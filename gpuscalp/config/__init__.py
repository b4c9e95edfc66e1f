"""Configuration: TOML decoded into frozen structs.

Secrets never live here. Parts get the struct they need; there is no global settings object.
"""

from __future__ import annotations

from gpuscalp.config.fields import OFF, Count, Fraction, Limit, NonNegative, Positive, PositiveInt
from gpuscalp.config.live import BatchConfig, FeedConfig, JournalConfig, LiveConfig, SessionConfig
from gpuscalp.config.load import ENV_PREFIX, load, to_dict
from gpuscalp.config.trading import (
    AccountConfig,
    BacktestConfig,
    CostConfig,
    LegConfig,
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

__all__ = [
    "ENV_PREFIX",
    "OFF",
    "AccountConfig",
    "BacktestConfig",
    "BatchConfig",
    "BoosterConfig",
    "CostConfig",
    "Count",
    "EnsembleConfig",
    "FeatureConfig",
    "FeedConfig",
    "Fraction",
    "GridConfig",
    "JournalConfig",
    "LabelConfig",
    "LegConfig",
    "Limit",
    "LiveConfig",
    "NonNegative",
    "PaperConfig",
    "Positive",
    "PositiveInt",
    "RiskConfig",
    "SessionConfig",
    "SizingConfig",
    "SplitConfig",
    "StrategyConfig",
    "TrainConfig",
    "load",
    "to_dict",
]
