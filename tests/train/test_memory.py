"""Peak memory grows by what XGBoost keeps of the rows, and never by a matrix of floats."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from gpuscalp.config import BoosterConfig, EnsembleConfig, SplitConfig
from gpuscalp.schema import FeatureChunk
from tests.train.market import FakeSource, graph_of, quick_config

# The first training is not looked at: it imports what every training needs.
FRAMES = (1_000, 8_000, 24_000)
COLUMNS = 200
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


def train_all(out: Path) -> list[dict[str, float]]:
    """Train in this process on ever more frames, and say what that took; run in a process of its own."""
    from gpuscalp.train import distribution, held_out, train

    # What is kept of the rows as they are has bounds of its own: low enough here for every training to reach.
    distribution.ROWS_MAX, held_out.ROWS_MAX, held_out.SAMPLE_ROWS_MAX = 1_000, 2_000, 256  # type: ignore[misc]
    graph = graph_of(*(f"c{index}" for index in range(COLUMNS)))
    booster = BoosterConfig(rounds=2, early_stopping_rounds=1, max_depth=2, max_bin=16)
    config = quick_config(booster=booster, split=SplitConfig(folds=1), ensemble=EnsembleConfig(members=1))
    found = []
    for frame_count in FRAMES:
        source = WideSource(frame_count=frame_count, cut=400, graph=graph)
        result = train(source, config, out / str(frame_count), device="cpu", threads=1)
        found.append({"rows": result.training.rows, "peak_mb": result.peak_rss_mb})
    return found


@pytest.mark.slow
@pytest.mark.thorough
def test_more_rows_take_the_memory_of_their_bins_and_not_of_their_floats(tmp_path):
    code = (
        "import json, sys; from pathlib import Path; from tests.train.test_memory import train_all\n"
        "print(json.dumps(train_all(Path(sys.argv[1]))))\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    _, small, large = json.loads(done.stdout)
    # XGBoost keeps the bins by row and by column, one byte each; a float has four.
    binned_mb = 2 * large["rows"] * COLUMNS / 1e6
    floats_mb = 2 * binned_mb
    grown_mb = large["peak_mb"] - small["peak_mb"]
    print(f"{grown_mb:.0f} MB more, {binned_mb:.0f} MB of bins; floats would be {floats_mb:.0f} MB")
    assert grown_mb - binned_mb < floats_mb / 2
