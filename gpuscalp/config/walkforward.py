"""What decides a walk-forward: steps, the model of each, what trades, what else is tried, how to judge it."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from gpuscalp.config.fields import Fraction, Positive, PositiveInt, Real, Seed
from gpuscalp.config.trading import BacktestConfig
from gpuscalp.config.training import SplitConfig, TrainConfig


class TriedConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """Values that are tried in place of the configured ones, in every combination.

    The configured ones are always tried as well, and are what the report is about.
    """

    min_edge_bps: tuple[Real, ...] = ()
    min_confidence: tuple[Fraction, ...] = ()
    min_agreement: tuple[Fraction, ...] = ()
    hold_ms: tuple[PositiveInt, ...] = ()
    seed: tuple[Seed, ...] = ()  # of the ensembles: each trains models of its own


class JudgeConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """How the result is judged."""

    blocks: Annotated[int, Meta(ge=2, le=20, multiple_of=2)] = 16  # of time: overfitting
    resamples: Annotated[int, Meta(ge=100, le=100_000)] = 1_000
    random_draws: Annotated[int, Meta(ge=100, le=100_000)] = 1_000
    sizes: tuple[Positive, ...] = (2.0, 5.0, 10.0)  # multiples of all amounts of money, for the capacity
    fees_bps: tuple[Real, ...] = (0.0, 1.0, 2.0, 3.0, 4.0, 5.0)
    slippages_bps: tuple[Real, ...] = (0.0, 0.5, 1.0, 2.0)
    look_ahead_ticks: Annotated[int, Meta(ge=1_000, le=250_000)] = 10_000  # of each step, examined
    seed: Seed = 7


class WalkForwardConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """Everything that decides a walk-forward.

    ``steps`` cuts the archive's time; ``train.split`` cuts the past of each step once more, for early
    stopping and calibration.
    """

    steps: SplitConfig = SplitConfig()
    train: TrainConfig = TrainConfig()
    backtest: BacktestConfig = BacktestConfig()
    tried: TriedConfig = TriedConfig()
    judge: JudgeConfig = JudgeConfig()
