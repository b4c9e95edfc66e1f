"""A bundle for an archive: one member that follows the sign of one column."""

from __future__ import annotations

from pathlib import Path

from gpuscalp.archive import Archive
from gpuscalp.config import FeatureConfig, LabelConfig, TrainConfig
from gpuscalp.contract import Interval
from gpuscalp.schema import NS_PER_DAY
from tests.handmade import DROP, follows, write_handmade


def write_stump_bundle(
    path: Path, archive: Path, *, venue: str, signal: str, threshold: float, label: LabelConfig
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
