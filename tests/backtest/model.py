"""A bundle for an archive, one member that follows the sign of one column, and settings that trade it."""

from __future__ import annotations

from pathlib import Path

from gpuscalp.archive import Archive
from gpuscalp.config import (
    BacktestConfig,
    CostConfig,
    FeatureConfig,
    LabelConfig,
    RiskConfig,
    SizingConfig,
    StrategyConfig,
    TrainConfig,
)
from gpuscalp.contract import Interval
from gpuscalp.schema import NS_PER_DAY
from tests.handmade import DROP, follows, write_handmade

# Costs eat these edges, so Kelly would bet nothing on them.
CONFIG = BacktestConfig(
    strategy=StrategyConfig(min_edge_bps=-100.0),
    sizing=SizingConfig(kelly_fraction="off"),
    risk=RiskConfig(max_losses="off"),
    cost=CostConfig(taker_fee_bps=2.0),
)
LABEL = LabelConfig(horizon_ms=300, threshold_bps=0.3)


def write_stump_bundle(
    path: Path,
    archive: Path,
    *,
    venue: str = "synthetic",
    signal: str = "leader.price.move.4",
    threshold: float = 0.5,
    label: LabelConfig = LABEL,
) -> Path:
    """Write a bundle for all symbols of an archive; it says that it was trained a day earlier."""
    opened = Archive.open(archive)
    symbols = opened.symbols(venue)
    start_ns, _ = opened.time_range(venue)
    return write_handmade(
        path,
        TrainConfig(
            venue=venue,
            symbols=symbols,
            features=FeatureConfig(leader=symbols[0], drop=DROP),
            label=label,
        ),
        lambda names: follows(names.index(signal), len(names), threshold),
        trained_on=Interval(start_ns - NS_PER_DAY, start_ns - NS_PER_DAY // 2),
    )
