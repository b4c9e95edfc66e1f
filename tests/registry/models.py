"""Small bundles for the tests of the registry: trained in a second, on a market in memory."""

from __future__ import annotations

from pathlib import Path

from gpuscalp.config import BoosterConfig, EnsembleConfig
from gpuscalp.synthetic import MarketSpec, write
from gpuscalp.synthetic.spec import DEFAULT_SYMBOLS
from gpuscalp.train import train, train_archive
from tests.train.market import FakeSource, quick_config

_CONFIG = """
venue = "synthetic"
[label]
horizon_ms = 500
[split]
folds = 2
[booster]
rounds = 6
eta = 0.3
max_depth = 3
max_bin = 32
[ensemble]
members = 1
"""


def tiny_bundles(folder: Path, count: int) -> list[Path]:
    """Train ``count`` bundles that differ in their seed; their columns are those of no real graph."""
    made = []
    for seed in range(count):
        config = quick_config(
            booster=BoosterConfig(rounds=3, early_stopping_rounds=2, max_depth=2, min_child_weight=2.0),
            ensemble=EnsembleConfig(members=1, seed=seed),
        )
        path = folder / f"model-{seed}"
        train(FakeSource(frame_count=1_000), config, path, device="cpu", threads=1)
        made.append(path)
    return made


def real_bundles(folder: Path) -> dict[str, Path]:
    """Train bundles of the running graph: ``a`` and ``b`` of the same columns, ``narrow`` of fewer."""
    archive = folder / "archive"
    write(MarketSpec(duration_s=150, symbols=DEFAULT_SYMBOLS[:2]), archive)
    config = folder / "train.toml"
    config.write_text(_CONFIG)
    kinds: dict[str, dict[str, object]] = {
        "a": {"ensemble.seed": 1},
        "b": {"ensemble.seed": 2, "booster.max_depth": 2},
        "narrow": {"features.drop": ["*imbalance*"]},
    }
    return {
        name: train_archive(
            archive, folder / name, config=config, overrides=changes, device="cpu", threads=1
        ).bundle
        for name, changes in kinds.items()
    }
