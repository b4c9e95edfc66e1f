"""A bundle made by hand: one member that follows the sign of one column. Trained on nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from gpuscalp.archive import Archive
from gpuscalp.bundle import MemberFile, write_bundle
from gpuscalp.config import FeatureConfig, LabelConfig, TrainConfig
from gpuscalp.contract import Interval, TrainingSpec
from gpuscalp.ensemble import Calibration, Ensemble
from gpuscalp.ops.forest import Forest
from gpuscalp.pipeline import FeaturePipeline
from gpuscalp.schema import NS_PER_S

# Without the long windows the features are warm after a few seconds.
DROP = ("*.128", "*.512", "*.ewm.*", "*.macd.*", "*.spectrum.*")


def stump_forest(feature: int, feature_count: int, threshold: float) -> Forest:
    """One member: DOWN where the column is below −threshold, UP from threshold on, else FLAT."""
    high, low = 1.5, -1.5
    # Trees of DOWN, FLAT, UP: root, left leaf, right leaf; the root's value is its threshold.
    return Forest(
        left=np.array([1, -1, -1] * 3, np.int32),
        right=np.array([2, -1, -1] * 3, np.int32),
        feature=np.array([feature, 0, 0] * 3, np.int32),
        value=np.array([-threshold, high, low, 0, 0, 0, threshold, low, high], np.float32),
        default_left=np.array([False] * 3 + [False] * 3 + [True, False, False]),
        tree_start=np.array([0, 3, 6, 9], np.int64),
        tree_member=np.zeros(3, np.int32),
        tree_class=np.arange(3, dtype=np.int32),
        base=np.zeros((1, 3), np.float32),
        objective="multi:softprob",
        feature_count=feature_count,
    )


def write_stump_bundle(
    path: Path, archive: Path, *, venue: str, signal: str, threshold: float, label: LabelConfig
) -> Path:
    """Write a bundle for all symbols of an archive; it says that it was trained a day earlier."""
    opened = Archive.open(archive)
    symbols = opened.symbols(venue)
    config = TrainConfig(
        venue=venue,
        symbols=symbols,
        features=FeatureConfig(leader=symbols[0], drop=DROP),
        label=label,
    )
    pipeline = FeaturePipeline(
        grid=config.grid, features=config.features, instruments=opened.instruments(venue, symbols)
    )
    names = list(pipeline.graph.names)
    start_ns, _ = opened.time_range(venue)
    day = 86_400 * NS_PER_S
    training = TrainingSpec(
        venue=venue,
        symbols=symbols,
        leader=symbols[0],
        config=config,
        trained_on=Interval(start_ns - day, start_ns - day // 2),
        rows=1,
        folds=(),
        data_digest="0" * 64,
        device="cpu",
        versions={},
        metrics={},
    )
    write_bundle(
        path,
        graph=pipeline.graph,
        training=training,
        ensemble=Ensemble(
            stump_forest(names.index(signal), len(names), threshold),
            Calibration.identity(),
            np.array([-3.0, 0.0, 3.0]),
        ),
        members=[MemberFile(b"made by hand", 0, 1)],
        canary_x=np.random.default_rng(1).normal(size=(4, len(names))).astype(np.float32),
    )
    return path
