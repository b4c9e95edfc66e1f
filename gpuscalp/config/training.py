"""What decides a model: frames, columns, labels, folds, boosters."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

from gpuscalp.config.fields import Count, NonNegative, Positive, PositiveInt, Seed


class GridConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """The frame grid in exchange time, the same for all symbols."""

    frame_ms: Annotated[int, Meta(ge=1, le=60_000)] = 100
    lateness_ms: Annotated[int, Meta(ge=0, le=10_000)] = 20
    stale_ms: PositiveInt = 5_000
    max_gap_ms: PositiveInt = 60_000  # a longer silence ends the run of frames: what follows starts cold


class FeatureConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """Which columns the graph has.

    ``drop`` takes shell patterns over the names of the default columns; ``add`` takes names of further ones,
    and formulas (gpuscalp.feature_additions).
    """

    leader: str = "BTCUSDT"
    drop: tuple[str, ...] = ()
    add: tuple[str, ...] = ()


class LabelConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """``forward``: class by the mid return over the horizon against ±threshold.

    ``barrier``: class by which of +upper, −lower (in bps of the entry mid) or the horizon is met first.
    """

    kind: Literal["forward", "barrier"] = "forward"
    horizon_ms: PositiveInt = 1_000
    threshold_bps: NonNegative = 1.0
    upper_bps: Positive = 3.0
    lower_bps: Positive = 3.0


class SplitConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """Walk-forward folds. Purging is by label horizon and cannot be turned off; ``embargo_ms`` < horizon
    is refused."""

    folds: Annotated[int, Meta(ge=2, le=50)] = 4
    mode: Literal["expanding", "rolling"] = "expanding"
    embargo_ms: Count | None = None  # default: the label horizon
    min_train_fraction: Annotated[float, Meta(gt=0, lt=1)] = 0.3


class BoosterConfig(Struct, frozen=True, forbid_unknown_fields=True):
    rounds: PositiveInt = 300
    early_stopping_rounds: PositiveInt = 30
    eta: Annotated[float, Meta(gt=0, le=1)] = 0.05
    max_depth: Annotated[int, Meta(ge=1, le=8)] = 6
    max_bin: Annotated[int, Meta(ge=2, le=1024)] = 256
    min_child_weight: NonNegative = 20.0
    reg_lambda: NonNegative = 1.0
    gamma: NonNegative = 0.0
    subsample: Annotated[float, Meta(gt=0, le=1)] = 0.8
    colsample_bytree: Annotated[float, Meta(gt=0, le=1)] = 0.5


class EnsembleConfig(Struct, frozen=True, forbid_unknown_fields=True):
    members: Annotated[int, Meta(ge=1, le=64)] = 5
    seed: Seed = 7
    calibration: Literal["vector", "none"] = "vector"


class TrainConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """Everything that decides a bundle."""

    symbols: tuple[str, ...] = ()  # empty: all symbols of the archive
    venue: str = "binance_usdm"
    stride_frames: PositiveInt = 1  # take every n-th frame as a training row
    grid: GridConfig = GridConfig()
    features: FeatureConfig = FeatureConfig()
    label: LabelConfig = LabelConfig()
    split: SplitConfig = SplitConfig()
    booster: BoosterConfig = BoosterConfig()
    ensemble: EnsembleConfig = EnsembleConfig()
