"""Training on a GPU, end to end, on as many synthetic rows as it takes: seconds, and the GPU's memory.

How far it is, and the memory until then, is told on stderr: what is ended halfway has that to show.
"""

from __future__ import annotations

import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Final

import numpy as np

from gpuscalp.bench import stream
from gpuscalp.config import (
    BoosterConfig,
    EnsembleConfig,
    FeatureConfig,
    GridConfig,
    LabelConfig,
    SplitConfig,
    TrainConfig,
)
from gpuscalp.features import FeatureGraph
from gpuscalp.ops.by_device import Ops, ops_for
from gpuscalp.progress import Progress, silent
from gpuscalp.schema import NS_PER_MS, FeatureChunk, FrameBlock
from gpuscalp.train import train
from gpuscalp.train.device import training_device
from gpuscalp.train.source import chunk_frames

FRAME_NS: Final = 100 * NS_PER_MS
ROUNDS: Final = 10


def training_config() -> TrainConfig:
    """Return two folds and a final model of one member each: every step of a training, at its least."""
    return TrainConfig(
        venue="synthetic",
        label=LabelConfig(horizon_ms=500, threshold_bps=0.5),
        split=SplitConfig(folds=2),
        booster=BoosterConfig(rounds=ROUNDS),
        ensemble=EnsembleConfig(members=1),
    )


def run(rows: float, *, symbols: int, frames: int | None = None) -> dict[str, Any]:
    """Train end to end on synthetic rows; the GPU's memory is watched all the while.

    Parameters
    ----------
    frames : of a chunk; None: as many as a training takes
    """
    ops = ops_for("cuda")
    frames = frames or chunk_frames(symbols, training_device("cuda").chunk_bytes)

    def used() -> int:
        free, total = ops.xp.cuda.runtime.memGetInfo()
        return int(total - free)

    # What CuPy keeps for later would hide as much of what the training takes.
    ops.xp.get_default_memory_pool().free_all_blocks()
    with tempfile.TemporaryDirectory() as folder, PeakMemory(used) as memory:
        began = time.perf_counter()

        def told(_done: float, _total: float | None = None, note: str = "") -> None:
            seconds, peak_gb = time.perf_counter() - began, memory.peak_bytes / 1e9
            print(f"  {seconds:6.1f} s, peak {peak_gb:5.2f} GB: {note}", file=sys.stderr, flush=True)

        source = SyntheticRows(
            ops, symbols=symbols, frames=frames, chunks=max(round(rows / (symbols * frames)), 1), told=told
        )
        result = train(source, training_config(), Path(folder) / "model", device="cuda", on_progress=told)
    matrix_bytes = 4 * result.training.rows * len(source.graph.columns)
    return {
        "rows": result.training.rows,
        "columns": len(source.graph.columns),
        "seconds": round(result.seconds, 1),
        "peak_gpu_mb": round(memory.peak_bytes / 1e6),
        "float_matrix_mb": round(matrix_bytes / 1e6),
        "share_of_float_matrix": round(memory.peak_bytes / matrix_bytes, 3),
        "device_comparison": result.devices.to_dict(),
    }


class SyntheticRows:
    """A recording of any length: one chunk of features on the device, copied time and again under new dates.

    Every row misses one column, each in its turn, so that XGBoost takes as many bits for a value as it ever
    does (``gpuscalp.train.device.binned_bytes``). Quotes move in a closed walk, so that labels of all classes
    come and chunks join without a jump. ``told`` hears of every walk: a training tells of its rounds only.
    """

    venue = "synthetic"
    trade_delays_ms = ()

    def __init__(self, ops: Ops, *, symbols: int, frames: int, chunks: int, told: Progress = silent) -> None:
        self._told, self._walks = told, 0
        self.symbols = tuple(item.symbol for item in stream.instruments(symbols))
        self.graph = FeatureGraph(GridConfig(), FeatureConfig(), self.symbols)
        self._chunks = chunks
        # Numbers of four symbols for all of them: what they are does not matter, how many there are does.
        few = np.random.default_rng(4).standard_normal((min(symbols, 4), len(self.graph), frames))
        at = np.arange(frames)
        few[:, at % len(self.graph), at] = np.nan
        copies = -(-symbols // len(few))
        self._features = ops.xp.asarray(np.tile(few.astype(np.float32), (copies, 1, 1))[:symbols])
        steps = np.random.default_rng(3).integers(-40, 41, (frames // 2, symbols))
        self._bid = 600_000 + np.concatenate([steps, -steps[::-1]]).cumsum(axis=0).astype(np.int32)

    def chunks(self) -> Iterator[FeatureChunk]:
        frames, symbols = self._bid.shape
        self._walks += 1
        self._told(0.0, None, f"walk {self._walks} over the rows")
        for index in range(self._chunks):
            end_ns = stream.START_NS + (1 + index * frames + np.arange(frames, dtype=np.int64)) * FRAME_NS
            block = FrameBlock(
                end_ns=end_ns,
                channels=np.zeros((frames, 0, symbols), np.float32),
                quality=np.zeros((frames, symbols), np.uint32),
                bid_px=self._bid,
                ask_px=self._bid + np.int32(1),
                mark=np.full((frames, symbols), np.nan),
            )
            yield FeatureChunk(block, self._features.copy())  # as a pipeline, which makes new ones

    def digest(self) -> str:
        return f"synthetic rows, {self._chunks} chunks"


class PeakMemory:
    """The largest of what a function says while a block runs, above what it said before.

    Parameters
    ----------
    used : bytes in use now
    every_s : how often it is asked
    """

    def __init__(self, used: Callable[[], int], every_s: float = 0.02) -> None:
        self._used = used
        self._every_s = every_s
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._before = 0
        self.peak_bytes = 0

    def __enter__(self) -> PeakMemory:
        self._before = self._used()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while True:
            self.peak_bytes = max(self.peak_bytes, self._used() - self._before)
            if self._over.wait(self._every_s):
                return
