"""A small training: enough for a first look, well under a minute on two cores.

Owns: the values. The demo and the embedded live session train with them; nothing else should.
"""

from __future__ import annotations

from gpuscalp.config import (
    BoosterConfig,
    EnsembleConfig,
    FeatureConfig,
    LabelConfig,
    SplitConfig,
    TrainConfig,
)


def quick_config(
    venue: str,
    symbols: tuple[str, ...],
    *,
    horizon_ms: int,
    seed: int,
    features: FeatureConfig | None = None,
) -> TrainConfig:
    """Return the configuration of a small training.

    Parameters
    ----------
    venue, symbols : what to train on
    horizon_ms : of the labels
    seed : of the ensemble
    features : None takes all columns
    """
    return TrainConfig(
        venue=venue,
        symbols=symbols,
        stride_frames=2,
        features=FeatureConfig() if features is None else features,
        label=LabelConfig(horizon_ms=horizon_ms, threshold_bps=1.0),
        split=SplitConfig(folds=3),
        booster=BoosterConfig(
            rounds=40,
            early_stopping_rounds=8,
            eta=0.15,
            max_depth=4,
            max_bin=64,
            min_child_weight=10.0,
            colsample_bytree=0.4,
        ),
        ensemble=EnsembleConfig(members=3, seed=seed),
    )
