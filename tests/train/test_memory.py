"""Peak memory does not grow with the recording: ten times the frames, and the float matrix never exists."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from gpuscalp.config import BoosterConfig
from gpuscalp.schema import FeatureChunk
from tests.train.market import FakeSource, graph_of, quick_config

COLUMNS = 100
SMALL_FRAMES = 4_000
ROOT = Path(__file__).resolve().parents[2]


class WideSource(FakeSource):
    """The fake recording with columns enough for its matrix to be seen in the process's memory."""

    def _chunk(self, first: int, last: int) -> FeatureChunk:
        chunk = super()._chunk(first, last)
        rng = np.random.default_rng([first, last])
        shape = (self.symbol_count, COLUMNS - 6, last - first)
        more = rng.integers(0, 1 << 16, shape, np.uint16).astype(np.float32)
        # No missing values: XGBoost then keeps a bin in one byte instead of four.
        features = np.nan_to_num(np.concatenate([chunk.features, more], axis=1), copy=False)
        return FeatureChunk(chunk.frames, features)


def train_once(frame_count: int, out: Path) -> dict[str, float]:
    """Train in this process and say how much memory that took; run in a process of its own."""
    from gpuscalp.train import train

    graph = graph_of(*(f"c{index}" for index in range(COLUMNS)))
    source = WideSource(frame_count=frame_count, cut=2_000, graph=graph)
    booster = BoosterConfig(rounds=3, max_depth=3, max_bin=64)
    result = train(source, quick_config(booster=booster), out, device="cpu", threads=1)
    return {"rows": result.training.rows, "peak_mb": result.peak_rss_mb}


@pytest.mark.slow
def test_ten_times_the_recording_takes_less_than_half_more_memory(tmp_path):
    peaks = []
    for times in (1, 10):
        code = (
            "import json, sys; from pathlib import Path; from tests.train.test_memory import train_once\n"
            "print(json.dumps(train_once(int(sys.argv[1]), Path(sys.argv[2]))))\n"
        )
        command = [sys.executable, "-c", code, str(times * SMALL_FRAMES), str(tmp_path / f"m{times}")]
        done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
        peaks.append(json.loads(done.stdout))
    small, large = peaks
    # XGBoost keeps the bins by row and by column, one byte each.
    binned_mb = 2 * large["rows"] * COLUMNS / 1e6
    print(f"{small['peak_mb']:.0f} MB, then {large['peak_mb']:.0f} MB with {binned_mb:.0f} MB of bins")
    assert large["peak_mb"] - binned_mb < 1.5 * small["peak_mb"]
