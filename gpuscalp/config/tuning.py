"""What decides a search for a configuration: what is tuned, how it is scored, how the search goes."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

from gpuscalp.config.fields import Count, NonNegative, PositiveInt, Real, Seed, Whole
from gpuscalp.config.trading import CostConfig, StrategyConfig
from gpuscalp.config.training import TrainConfig

Number = Whole | Real
Choice = bool | Whole | Real | str | tuple[str, ...]


class DimensionConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """What one key may be: from ``low`` to ``high``, both included, or one of ``choices``.

    Two whole ends make a whole number. ``log`` spreads the tries evenly over the orders of magnitude.
    """

    low: Number | None = None
    high: Number | None = None
    log: bool = False
    choices: tuple[Choice, ...] = ()


# Keys as in [train] and [strategy]; docs/tuning.md says which may be tuned.
DEFAULT_SPACE: dict[str, DimensionConfig] = {
    "label.horizon_ms": DimensionConfig(choices=(500, 1_000, 2_000)),
    "label.threshold_bps": DimensionConfig(choices=(0.5, 1.0, 2.0)),
    "features.drop": DimensionConfig(choices=((), ("*.512",), ("*.512", "*.128"), ("*.8",))),
    "booster.eta": DimensionConfig(low=0.02, high=0.3, log=True),
    "booster.max_depth": DimensionConfig(low=3, high=8),
    "booster.min_child_weight": DimensionConfig(low=2.0, high=200.0, log=True),
    "booster.reg_lambda": DimensionConfig(low=0.1, high=10.0, log=True),
    "booster.subsample": DimensionConfig(low=0.5, high=1.0),
    "booster.colsample_bytree": DimensionConfig(low=0.2, high=1.0),
    "strategy.min_edge_bps": DimensionConfig(low=0.0, high=3.0),
    "strategy.min_confidence": DimensionConfig(low=0.34, high=0.7),
}


class ScoreConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """How a trial is scored: mean over the folds less ``penalty`` standard deviations between them.

    ``net``: bps after costs per symbol and hour. ``log_loss``: by which share it is below the base rate's.
    """

    metric: Literal["net", "log_loss"] = "net"
    penalty: NonNegative = 1.0


class SearchConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """Trials are made in generations; within one the worse ones stop at rungs of boosting rounds."""

    seed: Seed = 7
    generation: PositiveInt = 9
    random_trials: Count = 18  # before the search learns from what it has seen
    rungs: Annotated[int, Meta(ge=1, le=10)] = 3
    reduction: Annotated[int, Meta(ge=2, le=10)] = 3  # of the trials, and of the rounds, from rung to rung


class TrialConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """What one trial takes of the machines."""

    cpus: PositiveInt = 1  # and as many threads: the last bits of XGBoost may depend on their number
    gpus: Annotated[float, Meta(gt=0, le=1)] = 1.0  # with the device cuda only
    kept: PositiveInt = 4  # binned sets of rows that a worker keeps in memory


class TuneConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """Everything that decides a search. ``space`` replaces the built-in one as a whole."""

    train: TrainConfig = TrainConfig()
    strategy: StrategyConfig = StrategyConfig()
    cost: CostConfig = CostConfig()
    space: dict[str, DimensionConfig] = msgspec.field(default_factory=lambda: dict(DEFAULT_SPACE))
    score: ScoreConfig = ScoreConfig()
    search: SearchConfig = SearchConfig()
    trial: TrialConfig = TrialConfig()
