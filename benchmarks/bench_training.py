"""Training from a stream of chunks against a materialised float matrix, each in a process of its own.

``python -m benchmarks.bench_training stream|matrix ARCHIVE`` is such a process: the same rows and the same
booster; prints seconds, rows, the peak of the resident memory and the log loss as JSON.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROUNDS = 10
PARAMETERS = {
    "objective": "multi:softprob", "num_class": 3, "max_depth": 6, "eta": 0.1, "tree_method": "hist",
    "max_bin": 256, "nthread": 2, "seed": 7,
}  # fmt: skip


def run(minutes: int = 30) -> dict[str, Any]:
    """Make a synthetic archive and train on it both ways."""
    from gpuscalp.synthetic import MarketSpec, write

    with tempfile.TemporaryDirectory() as folder:
        archive = Path(folder) / "archive"
        write(MarketSpec(duration_s=60 * minutes), archive)
        found = {way: _process(way, archive) for way in ("stream", "matrix")}
    stream, matrix = found["stream"], found["matrix"]
    assert stream["rows"] == matrix["rows"]
    assert stream["log_loss"] == matrix["log_loss"], "the same rows make the same trees"
    return {
        "rows": stream["rows"],
        "columns": stream["columns"],
        "seconds": {way: item["seconds"] for way, item in found.items()},
        "peak_rss_mb": {way: item["peak_rss_mb"] for way, item in found.items()},
        "ratio_memory": round(matrix["peak_rss_mb"] / stream["peak_rss_mb"], 2),
        "ratio_seconds": round(matrix["seconds"] / stream["seconds"], 2),
    }


def _process(way: str, archive: Path) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.bench_training", way, str(archive)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return dict(json.loads(done.stdout))


def _train(way: str, archive: Path) -> dict[str, Any]:
    import numpy as np
    import xgboost

    from gpuscalp.archive import Archive
    from gpuscalp.config import TrainConfig
    from gpuscalp.monitoring.resources import peak_resident_bytes
    from gpuscalp.synthetic import VENUE
    from gpuscalp.train.device import training_device
    from gpuscalp.train.iterator import binned_matrix
    from gpuscalp.train.source import ArchiveSource

    config = TrainConfig(venue=VENUE)
    source = ArchiveSource.open(Archive.open(archive), config, threads=2)
    start = time.perf_counter()
    if way == "stream":
        matrix, _ = binned_matrix(
            lambda: _rows(source, config),
            device=training_device("cpu"),
            max_bin=256,
            threads=2,
            what="benchmark",
        )
    else:
        rows = list(_rows(source, config))
        x = np.concatenate([np.ascontiguousarray(item.x) for item in rows])
        label = np.concatenate([item.direction for item in rows]).astype(np.float32)
        weight = np.concatenate([item.weight for item in rows]).astype(np.float32)
        del rows
        matrix = xgboost.QuantileDMatrix(x, label, weight=weight, max_bin=256, nthread=2)
    seen: dict[str, dict[str, list[float]]] = {}
    xgboost.train(
        PARAMETERS, matrix, ROUNDS, evals=[(matrix, "train")], evals_result=seen, verbose_eval=False
    )
    return {
        "rows": matrix.num_row(),
        "columns": matrix.num_col(),
        "seconds": round(time.perf_counter() - start, 2),
        "peak_rss_mb": round(peak_resident_bytes() / 1e6, 1),
        "log_loss": seen["train"]["mlogloss"][-1],
    }


def _rows(source: Any, config: Any) -> Iterator[Any]:
    from gpuscalp.train.dataset import labelled_chunks
    from gpuscalp.train.device import training_device

    device = training_device("cpu")
    for chunk in labelled_chunks(source.chunks(), config):
        yield from chunk.rows(chunk.select(lambda end_ns, _: end_ns >= 0), device)


if __name__ == "__main__":
    print(json.dumps(_train(sys.argv[1], Path(sys.argv[2]))))
