"""The forest on a GPU from one row to a million: our kernel, XGBoost's CUDA predictor, nvForest.

Rows lie on the device, and so do the answers; each call is waited for. "For large batches the faster one by
measurement": the table says which that is, and ``predictor`` in the configuration follows it by hand.
"""

from __future__ import annotations

import importlib
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.gpu_stream import summary
from gpuscalp.boosters import Boosters
from gpuscalp.device import import_cupy
from gpuscalp.errors import DeviceError, ParityError
from gpuscalp.ops import cuda_forest
from gpuscalp.ops import forest as cpu_forest
from gpuscalp.ops.forest import Forest

ROWS = (1, 8, 64, 512, 4_096, 32_768, 262_144, 1_000_000)
CHECKED_ROWS = 4_096  # against the CPU's twin


def run(
    forest: Forest, members: Sequence[bytes] | None, sample: np.ndarray, rows: Sequence[int] = ROWS
) -> dict[str, Any]:
    """Return a row of the table for each number of rows, drawn from ``sample`` with replacement.

    Raises
    ------
    ParityError    a margin's bits differ from the CPU's
    """
    scratch = cuda_forest.ForestScratch.of(forest)

    def ours(x: Any, out: Any) -> None:
        cuda_forest.predict_margins(forest, x, out=out, scratch=scratch)

    peers: dict[str, Callable[[Any, Any], None]] = {"forest": ours}
    skipped: dict[str, str] = {}
    for name, make in (("xgboost", _xgboost), ("nvforest", _nvforest)):
        try:
            if members is None:
                raise DeviceError("no boosters: XGBoost is not installed")
            peers[name] = make(members)
        except Exception as error:  # a peer that does not work here must not take our figures with it
            skipped[name] = f"{type(error).__name__}: {error}"
    return {
        "trees": forest.tree_count,
        "columns": forest.feature_count,
        "skipped": skipped,
        "table": [_measure(forest, peers, sample, count) for count in rows],
    }


def _measure(
    forest: Forest, peers: dict[str, Callable[[Any, Any], None]], sample: np.ndarray, count: int
) -> dict[str, Any]:
    cupy = import_cupy()
    chosen = np.random.default_rng(count).integers(0, len(sample), count)
    host = np.ascontiguousarray(sample[chosen])
    x = cupy.asarray(host)
    out = cupy.empty((forest.member_count, count, forest.class_count), np.float32)
    peers["forest"](x, out)
    _check(forest, host[:CHECKED_ROWS], cupy.asnumpy(out[:, :CHECKED_ROWS]))
    calls = max(5, min(300, 3_000_000 // count // 10))
    result: dict[str, Any] = {"rows": count}
    for name, predict in peers.items():
        taken = []
        for call in range(-3, calls):
            start = time.perf_counter_ns()
            predict(x, out)
            cupy.cuda.runtime.deviceSynchronize()
            if call >= 0:
                taken.append((time.perf_counter_ns() - start) / 1e3)
        result[name] = summary(taken)
    for name in list(peers)[1:]:
        result[f"ratio_{name}"] = round(result[name]["p50_us"] / result["forest"]["p50_us"], 2)
    return result


def _check(forest: Forest, x: np.ndarray, margins: np.ndarray) -> None:
    wanted = np.empty(margins.shape, np.float32)
    cpu_forest.predict_margins(forest, x, out=wanted, scratch=cpu_forest.ForestScratch.of(forest))
    differing = int((wanted.view(np.uint32) != np.ascontiguousarray(margins).view(np.uint32)).sum())
    if differing:
        raise ParityError("margins of the two devices differ", where=f"{len(x)} rows", value=differing)


def _xgboost(members: Sequence[bytes]) -> Callable[[Any, Any], None]:
    return Boosters(members, "cuda").margins


def _nvforest(members: Sequence[bytes]) -> Callable[[Any, Any], None]:
    """Return nvForest's class probabilities, one model per member: it has no margins of a classifier."""
    nvforest = importlib.import_module("nvforest")
    models = []
    with tempfile.TemporaryDirectory() as folder:
        for index, member in enumerate(members):
            path = Path(folder) / f"{index}.ubj"
            path.write_bytes(member)
            models.append(nvforest.load_model(path, device="gpu", model_type="xgboost_ubj"))

    def predict(x: Any, _out: Any) -> None:
        for model in models:
            model.predict_proba(x)

    return predict
