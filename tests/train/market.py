"""A small recording in memory: a leader whose moves the mids copy, and columns that may or may not say so.

No archive and no pipeline: these tests are about labels, walks and models.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from gpuscalp.config import BoosterConfig, EnsembleConfig, LabelConfig, SplitConfig, TrainConfig
from gpuscalp.contract import ColumnSpec
from gpuscalp.schema import FeatureChunk, FrameBlock, Quality

FRAME_NS = 100_000_000
START_NS = 1_700_000_000_000_000_000
LAG_FRAMES = 3


@dataclass(frozen=True)
class FakeGraph:
    columns: tuple[ColumnSpec, ...]
    hash: str


def graph_of(*names: str) -> FakeGraph:
    columns = tuple(ColumnSpec(name, "bps", 8, 8, "test") for name in names)
    return FakeGraph(columns, hashlib.sha256(repr(columns).encode()).hexdigest())


GRAPH = graph_of("hint", "noise_a", "noise_b", "sparse", "trend", "constant")


@dataclass
class FakeSource:
    """T frames of S symbols; ``hint`` is a noisy view of the move that comes, if ``informed``.

    ``walks`` counts how often the recording was begun; ``cut`` is the frames per chunk.
    """

    frame_count: int = 4_000
    symbol_count: int = 2
    informed: bool = True
    cut: int = 700
    seed: int = 3
    gap_at: int | None = None
    venue: str = "synthetic"
    graph: FakeGraph = GRAPH
    walks: int = 0
    trade_delays_ms: tuple[float, ...] = ()

    @property
    def symbols(self) -> tuple[str, ...]:
        return tuple(f"S{index}USDT" for index in range(self.symbol_count))

    def digest(self) -> str:
        return hashlib.sha256(f"{self.frame_count}{self.seed}{self.informed}".encode()).hexdigest()

    def chunks(self) -> Iterator[FeatureChunk]:
        self.walks += 1
        for first in range(0, self.frame_count, self.cut):
            yield self._chunk(first, min(first + self.cut, self.frame_count))

    def _chunk(self, first: int, last: int) -> FeatureChunk:
        """Make frames from ``first`` to ``last`` without having made those before: nothing is kept."""
        count, symbols = last - first, self.symbol_count
        mid2 = np.empty((count, symbols), np.int64)
        features = np.empty((symbols, 6, count), np.float32)
        for symbol in range(symbols):
            drive = self._drive(symbol, first - 400, last + LAG_FRAMES)
            steps = np.rint(2.0 * drive[:-LAG_FRAMES]).astype(np.int64)
            # A window of steps instead of a sum from the beginning: any chunk can be made alone.
            window = np.convolve(steps, np.ones(400, np.int64))[400 : 400 + count]
            mid2[:, symbol] = 60_000 + 2 * window
            own = self._noise(symbol, 1, first, last)
            hint = drive[400 + LAG_FRAMES :] if self.informed else own
            features[symbol, 0] = hint + 0.3 * own
            features[symbol, 1] = self._noise(symbol, 2, first, last)
            features[symbol, 2] = self._noise(symbol, 3, first, last)
            features[symbol, 3] = np.where(self._noise(symbol, 4, first, last) > 0.5, 1.0, np.nan)
            features[symbol, 4] = np.arange(first, last) / self.frame_count  # a trend that means nothing
            features[symbol, 5] = 1.0
        quality = np.zeros((count, symbols), np.uint32)
        if first < 40:
            quality[: 40 - first] = Quality.WARM_UP
        if self.gap_at is not None and first <= self.gap_at < last:
            quality[self.gap_at - first] = Quality.GAP
        bid = (mid2 // 2).astype(np.int32)
        frames = FrameBlock(
            end_ns=START_NS + FRAME_NS * np.arange(first + 1, last + 1),
            channels=np.zeros((count, 1, symbols), np.float32),
            quality=quality,
            bid_px=bid,
            ask_px=(mid2 - bid).astype(np.int32),
            mark=np.full((count, symbols), np.nan),
        )
        return FeatureChunk(frames, features)

    def _drive(self, symbol: int, first: int, last: int) -> np.ndarray:
        return self._noise(symbol, 0, first, last)

    def _noise(self, symbol: int, stream: int, first: int, last: int) -> np.ndarray:
        """Standard normal numbers that depend on the frame alone, so that chunks can be cut anywhere."""
        block = 512
        parts = []
        for index in range(first // block, (last - 1) // block + 1):
            rng = np.random.default_rng([self.seed, symbol, stream, index + 1_000_000])
            numbers = rng.standard_normal(block)
            parts.append(numbers[max(first - index * block, 0) : max(min(last - index * block, block), 0)])
        return np.concatenate(parts)


def quick_config(**changes: object) -> TrainConfig:
    """A configuration that trains in a second."""
    fields: dict[str, object] = {
        "venue": "synthetic",
        "label": LabelConfig(horizon_ms=500, threshold_bps=1.0),
        "split": SplitConfig(folds=2),
        "booster": BoosterConfig(
            rounds=15, early_stopping_rounds=5, eta=0.3, max_depth=3, min_child_weight=2.0
        ),
        "ensemble": EnsembleConfig(members=2),
    }
    return TrainConfig(**{**fields, **changes})  # type: ignore[arg-type]
