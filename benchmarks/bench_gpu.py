"""The GPU against the CPU in one run, bits first, then times: ``python -m benchmarks gpu``; needs a GPU.

A step is what a caller waits for: ticks of one frame from the host to the device, all features, the frame
back on the host. The forest reads rows that are on the device already; its margins go back to the host.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.bench_forest import random_rows, train_members
from gpuscalp.bench import stream
from gpuscalp.config import FeatureConfig, GridConfig
from gpuscalp.device import describe
from gpuscalp.errors import ParityError
from gpuscalp.forest_reader import read_booster
from gpuscalp.ops import cuda_forest
from gpuscalp.ops import forest as cpu_forest
from gpuscalp.ops.by_device import ops_for
from gpuscalp.ops.forest import Forest
from gpuscalp.pipeline import FeaturePipeline
from gpuscalp.schema import NS_PER_MS, Ticks


def run(
    symbols: int = 512, steps: int = 1_000, warm_up: int = 600, rows: tuple[int, ...] = (1, 64, 512, 4096)
) -> dict[str, Any]:
    """Return p50 and p99 by device, and their ratios.

    Raises
    ------
    DeviceError    no GPU can run here
    ParityError    a bit differs between the devices
    """
    ops_for("cuda")
    boosters = train_members(5, 300, 6, 20_000)
    forest = Forest.join([read_booster(bytes(booster.save_raw("json"))) for booster in boosters])
    return {
        "device": describe(),
        "stream": _stream(symbols, steps, warm_up),
        "forest": [_forest(forest, count) for count in rows],
    }


def _stream(symbols: int, steps: int, warm_up: int) -> dict[str, Any]:
    frames = [stream.market(symbols, 4 * symbols, frame) for frame in range(64)]
    taken: dict[str, list[float]] = {}
    last: dict[str, np.ndarray] = {}
    for device in ("cpu", "cuda"):
        pipeline = FeaturePipeline(
            grid=GridConfig(lateness_ms=0),
            features=FeatureConfig(),
            instruments=stream.instruments(symbols),
            device=device,
            threads=1,
        ).stream()
        times = []
        for frame in range(warm_up + steps):
            ticks = _dated(frames[frame % len(frames)], frame)
            start = time.perf_counter_ns()
            for chunk in pipeline.push(ticks):
                last[device] = chunk.features
            times.append((time.perf_counter_ns() - start) / 1e3)
        last[device] = np.array(last[device])
        taken[device] = times[warm_up:]
    _same_bits(last["cpu"], last["cuda"], "features")
    return {"symbols": symbols, **_summary(taken)}


def _forest(forest: Forest, row_count: int, calls: int = 300) -> dict[str, Any]:
    x = random_rows(np.random.default_rng(row_count), row_count, forest.feature_count)
    ops = ops_for("cuda")
    shape = (forest.member_count, row_count, forest.class_count)
    host, host_scratch = np.empty(shape, np.float32), cpu_forest.ForestScratch.of(forest)
    there, out = ops.xp.asarray(x), ops.xp.empty(shape, np.float32)
    scratch = cuda_forest.ForestScratch.of(forest)

    def on_cpu() -> np.ndarray:
        cpu_forest.predict_margins(forest, x, out=host, scratch=host_scratch)
        return host

    def on_gpu() -> np.ndarray:
        cuda_forest.predict_margins(forest, there, out=out, scratch=scratch)
        return np.asarray(ops.to_host(out))

    _same_bits(on_cpu(), on_gpu(), "margins")
    taken = {name: _times(task, calls) for name, task in (("cpu", on_cpu), ("cuda", on_gpu))}
    return {"rows": row_count, "trees": forest.tree_count, **_summary(taken)}


def _times(task: Callable[[], object], calls: int) -> list[float]:
    times = []
    for _ in range(calls):
        start = time.perf_counter_ns()
        task()
        times.append((time.perf_counter_ns() - start) / 1e3)
    return times[calls // 10 :]


def _summary(taken: dict[str, list[float]]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for device, times in taken.items():
        result[device] = {
            "p50_us": round(statistics.median(times), 1),
            "p99_us": round(float(np.percentile(times, 99)), 1),
        }
    return result | {"ratio_cpu": round(result["cpu"]["p50_us"] / result["cuda"]["p50_us"], 2)}


def _dated(ticks: Ticks, frame: int) -> Ticks:
    dated = ticks.copy()
    dated["exch_ns"] += stream.START_NS + frame * 100 * NS_PER_MS
    return dated


def _same_bits(cpu: np.ndarray, cuda: np.ndarray, what: str) -> None:
    differ = (cpu.view(np.uint32) != cuda.view(np.uint32)) & ~(np.isnan(cpu) & np.isnan(cuda))
    if differ.any():
        raise ParityError(f"{what} of the two devices differ", value=int(differ.sum()))
