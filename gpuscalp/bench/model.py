"""A model of the size of a trained one, made up: what it says means nothing, what it costs does.

Owns: a forest whose thresholds lie among the values that its columns take on a made-up market, so that rows
take all ways through the trees as they do in a trained one.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec
import numpy as np

from gpuscalp.bench.flow import VENUE, Flow, instruments
from gpuscalp.bundle import MemberFile, write_bundle
from gpuscalp.config import FeedConfig, TrainConfig
from gpuscalp.contract import Interval, TrainingSpec
from gpuscalp.drift.reference import Reference
from gpuscalp.drift.stability import Distribution
from gpuscalp.ensemble import Calibration, Ensemble
from gpuscalp.features import FeatureGraph
from gpuscalp.feeds.ingest import Ingest
from gpuscalp.labels import CLASSES
from gpuscalp.ops.forest import Forest
from gpuscalp.pipeline import FeaturePipeline
from gpuscalp.schema import F32, NS_PER_MS, NS_PER_S, Ticks

_SAMPLED: Final = 4  # symbols
_RATE: Final = 50  # messages a second and symbol
_STEP_MS: Final = 20
_KEPT: Final = 200  # frames after all columns are warm
_CANARIES: Final = 32
_SEED: Final = 7
# Standard deviation of a margin: as confident as a model of 300 rounds at a learning rate of 0.05 gets.
_SPREAD: Final = 0.6


def write_model(
    path: Path,
    symbols: tuple[str, ...],
    *,
    now_ns: int,
    members: int = 5,
    rounds: int = 300,
    depth: int = 6,
) -> Path:
    """Write a bundle for some symbols, over the default columns; it says that it was trained an hour ago.

    Parameters
    ----------
    now_ns : when it will be used
    members, rounds, depth : of the ensemble; every tree is full
    """
    config = _led(TrainConfig(venue=VENUE, symbols=symbols), symbols[0])
    pipeline = FeaturePipeline(grid=config.grid, features=config.features, instruments=instruments(symbols))
    sample = _sample(config)
    forest = made_up_forest(sample, members=members, rounds=rounds, depth=depth, seed=_SEED)
    return write_forest(path, forest, pipeline.graph, config, sample=sample, now_ns=now_ns)


def write_forest(
    path: Path, forest: Forest, graph: FeatureGraph, config: TrainConfig, *, sample: F32, now_ns: int
) -> Path:
    """Write a bundle of a forest that was made up; see ``write_model``.

    Parameters
    ----------
    graph, config : that the forest is for
    sample : float32[R, F]   rows of it
    """
    training = TrainingSpec(
        venue=config.venue,
        symbols=config.symbols,
        leader=config.features.leader,
        config=config,
        trained_on=Interval(now_ns - 7_200 * NS_PER_S, now_ns - 3_600 * NS_PER_S),
        rows=len(sample),
        folds=(),
        data_digest="0" * 64,
        device="cpu",
        versions={},
        metrics={},
    )
    rounds = forest.tree_count // (forest.member_count * forest.class_count)
    write_bundle(
        path,
        graph=graph,
        training=training,
        ensemble=Ensemble(forest, Calibration.identity(), np.array([-100.0, 0.0, 100.0])),
        members=[MemberFile(b"made up", _SEED + member, rounds) for member in range(forest.member_count)],
        canary_x=np.ascontiguousarray(sample[:: max(1, len(sample) // _CANARIES)][:_CANARIES]),
        reference=Reference(Distribution.of(sample), sample[:0], np.empty(0, np.int64), None, None),
    )
    return path


def made_up_forest(sample: F32, *, members: int, rounds: int, depth: int, seed: int) -> Forest:
    """Return full trees whose splits lie at values of a sample.

    Parameters
    ----------
    sample : float32[R, F]   rows; a column without a finite value is never split
    """
    rng = np.random.default_rng(seed)
    classes = len(CLASSES)
    trees, inner, leaves = members * rounds * classes, (1 << depth) - 1, 1 << depth
    nodes = inner + leaves
    usable = np.flatnonzero(np.isfinite(sample).all(0) & (sample.min(0) < sample.max(0)))
    feature = np.zeros((trees, nodes), np.int32)
    value = np.zeros((trees, nodes), np.float32)
    feature[:, :inner] = rng.choice(usable, (trees, inner))
    value[:, :inner] = sample[rng.integers(0, len(sample), (trees, inner)), feature[:, :inner]]
    value[:, inner:] = rng.normal(0.0, _SPREAD / rounds**0.5, (trees, leaves))
    default_left = np.zeros((trees, nodes), bool)
    default_left[:, :inner] = rng.random((trees, inner)) < 0.5
    children = np.full(nodes, -1, np.int32)
    children[:inner] = 2 * np.arange(inner) + 1
    tree = np.arange(trees)
    return Forest(
        left=np.tile(children, trees),
        right=np.tile(np.where(children < 0, -1, children + 1).astype(np.int32), trees),
        feature=feature.reshape(-1),
        value=value.reshape(-1),
        default_left=default_left.reshape(-1),
        tree_start=np.arange(trees + 1, dtype=np.int64) * nodes,
        tree_member=(tree // (rounds * classes)).astype(np.int32),
        tree_class=(tree % classes).astype(np.int32),
        base=np.zeros((members, classes), np.float32),
        objective="multi:softprob",
        feature_count=sample.shape[1],
    )


def _sample(config: TrainConfig) -> F32:
    """Return rows of a small made-up market, float32[R, F], all columns warm."""
    flow = Flow(_SAMPLED, _SAMPLED * _RATE, _SEED)
    few = _led(config, flow.names[0])
    pipeline = FeaturePipeline(grid=few.grid, features=few.features, instruments=instruments(flow.names))
    warm_up = pipeline.graph.warm_up_frames
    stream, rows = pipeline.stream(), []
    for ticks in _ticks(flow, (warm_up + _KEPT) * few.grid.frame_ms // _STEP_MS):
        for chunk in stream.push(ticks):
            warm_up -= 1
            if warm_up < 0:
                rows.append(chunk.features[:, :, 0].copy())
    return np.concatenate(rows)


def _ticks(flow: Flow, steps: int) -> Iterator[Ticks]:
    ingest = Ingest(instruments(flow.names), FeedConfig())
    count = _SAMPLED * _RATE * _STEP_MS // 1_000
    for step in range(steps):
        now_ms = 1_700_000_000_000 + step * _STEP_MS
        messages = [body for _, body in flow.draw(count, now_ms)]
        ingest.on_messages(0, now_ms * NS_PER_MS, messages)
        if ingest.tick_count:
            yield ingest.take()


def _led(config: TrainConfig, leader: str) -> TrainConfig:
    features = msgspec.structs.replace(config.features, leader=leader)
    return msgspec.structs.replace(config, features=features)
