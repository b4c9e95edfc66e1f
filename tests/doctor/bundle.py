"""A bundle that this version accepts, for the symbols that a test names."""

from __future__ import annotations

from pathlib import Path

from gpuscalp.config import FeatureConfig, TrainConfig
from gpuscalp.contract import Interval
from tests.handmade import DROP, follows, write_handmade


def write(path: Path, symbols: tuple[str, ...]) -> Path:
    config = TrainConfig(symbols=symbols, features=FeatureConfig(leader=symbols[0], drop=DROP))
    return write_handmade(path, config, lambda names: follows(0, len(names), 1.0), trained_on=Interval(0, 1))
