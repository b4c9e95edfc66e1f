"""Bundles made by hand, trained on nothing: what tests need that ask what a model's answer leads to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from gpuscalp.bundle import MemberFile, write_bundle
from gpuscalp.config import TrainConfig
from gpuscalp.contract import Interval, TrainingSpec
from gpuscalp.drift.reference import Reference
from gpuscalp.ensemble import Calibration, Ensemble
from gpuscalp.features import FeatureGraph
from gpuscalp.ops.forest import Forest

# Without the long windows the features are warm after a few seconds.
DROP = ("*.128", "*.512", "*.ewm.*", "*.macd.*", "*.spectrum.*")


def write_handmade(
    path: Path,
    config: TrainConfig,
    forest: Callable[[list[str]], Forest],
    *,
    trained_on: Interval,
    returns_bps: Sequence[float] = (-3.0, 0.0, 3.0),
    seed: int = 1,
    boosters: Sequence[bytes] | None = None,
    reference: Callable[[list[str]], Reference] | None = None,
) -> Path:
    """Write a bundle that this version accepts.

    Parameters
    ----------
    config : venue, symbols, frames, columns and label; its first symbol leads
    forest : makes the members from the names of the columns
    trained_on : the time that it says it was trained on
    returns_bps : mean return of DOWN, FLAT and UP
    seed : another one makes another bundle of the same model
    boosters : files of the members, where somebody will read them
    reference : makes what it says of its training rows from the names of the columns
    """
    graph = FeatureGraph(config.grid, config.features, config.symbols)
    names = list(graph.names)
    made = forest(names)
    training = TrainingSpec(
        venue=config.venue,
        symbols=config.symbols,
        leader=config.symbols[0],
        config=config,
        trained_on=trained_on,
        rows=1,
        folds=(),
        data_digest="0" * 64,
        device="cpu",
        versions={},
        metrics={},
    )
    write_bundle(
        path,
        graph=graph,
        training=training,
        ensemble=Ensemble(made, Calibration.identity(), np.array(returns_bps)),
        members=[MemberFile(data, seed, 1) for data in boosters or [b"made by hand"] * made.member_count],
        canary_x=np.random.default_rng(seed).normal(size=(4, len(names))).astype(np.float32),
        reference=None if reference is None else reference(names),
    )
    return path


def one_split(
    values: Sequence[float], feature: int, feature_count: int, *, default_left: Sequence[bool] | None = None
) -> Forest:
    """Return one member with one tree of one split for each class.

    Parameters
    ----------
    values : threshold, left leaf and right leaf of DOWN, FLAT and UP
    default_left : of the nine nodes: where a missing value goes
    """
    return Forest(
        left=np.array([1, -1, -1] * 3, np.int32),
        right=np.array([2, -1, -1] * 3, np.int32),
        feature=np.array([feature, 0, 0] * 3, np.int32),
        value=np.array(values, np.float32),
        default_left=np.array([False] * 9 if default_left is None else default_left),
        tree_start=np.array([0, 3, 6, 9], np.int64),
        tree_member=np.zeros(3, np.int32),
        tree_class=np.arange(3, dtype=np.int32),
        base=np.zeros((1, 3), np.float32),
        objective="multi:softprob",
        feature_count=feature_count,
    )


def follows(feature: int, feature_count: int, threshold: float) -> Forest:
    """Return a member that says DOWN where a column is below −threshold, UP from threshold on, else FLAT."""
    high, low = 1.5, -1.5
    return one_split(
        [-threshold, high, low, 0, 0, 0, threshold, low, high],
        feature,
        feature_count,
        default_left=[False] * 6 + [True, False, False],
    )
