"""The step of the stream: from the ticks of one frame to all features of all symbols, on one core."""

from __future__ import annotations

import time
import tracemalloc
from typing import Any

import numpy as np

from gpuscalp.bench.timing import on_one_core
from gpuscalp.config import FeatureConfig, GridConfig
from gpuscalp.pipeline import FeaturePipeline, FeatureStream
from gpuscalp.progress import Progress, silent
from gpuscalp.schema import E8, NS_PER_MS, TICK, Instrument, TickKind, Ticks

START_NS = 1_700_000_000_000_000_000
_HEAP_STEPS = 50


def run(
    symbols: int = 500,
    ticks_per_frame: int = 2_000,
    steps: int = 3_000,
    warm_up: int = 600,
    *,
    told: Progress = silent,
) -> dict[str, Any]:
    """Push one frame's ticks at a time and time each push.

    Parameters
    ----------
    symbols : number of symbols
    ticks_per_frame : ticks in each frame, over all symbols (2,000 at 100 ms are 20,000 a second)
    steps : frames that are timed, after ``warm_up`` frames that are not
    told : how far it is, and nothing while frames are timed: what draws a bar would delay the next one

    Returns
    -------
    dict with the p50 and p99 of a step in µs and the heap growth of one step in bytes
    """
    total = warm_up + steps
    told(0, total, "making the market")
    pipeline = FeaturePipeline(
        grid=GridConfig(lateness_ms=0), features=FeatureConfig(), instruments=instruments(symbols), threads=1
    )
    stream = pipeline.stream()
    frames = [market(symbols, ticks_per_frame, frame) for frame in range(64)]
    with on_one_core():
        for frame in range(warm_up):
            if frame % 100 == 0:
                told(frame, total, "warming up")
            _step(stream, frames, frame)
        told(warm_up, total, f"timing {steps:,} frames")
        taken_ns = [_step(stream, frames, frame) for frame in range(warm_up, total)]
        told(total, total, "looking at the memory of a frame")
        heap = _heap_bytes(stream, frames, total)
    p50, p99, worst = np.percentile(taken_ns, [50, 99, 100]) / 1e3
    return {
        "symbols": symbols,
        "features": len(pipeline.graph),
        "ticks_per_frame": ticks_per_frame,
        "steps": steps,
        "p50_us": float(p50),
        "p99_us": float(p99),
        "max_us": float(worst),
        "heap_peak_bytes_per_step": heap,
    }


def instruments(count: int) -> list[Instrument]:
    """Return the leader and ``count - 1`` followers."""
    names = ["BTCUSDT", *(f"S{index:03d}USDT" for index in range(1, count))]
    return [
        Instrument(name, "synthetic", E8 // 10, E8 // 1000, E8 // 1000, 5 * E8, "synthetic") for name in names
    ]


def market(symbols: int, count: int, frame: int) -> Ticks:
    """Return the ticks of one frame, times relative to its start: trades, quotes, books and marks."""
    rng = np.random.default_rng(frame)
    ticks = np.zeros(count, TICK)
    ticks["exch_ns"] = np.sort(rng.integers(0, 100 * NS_PER_MS, count))
    ticks["symbol"] = rng.permutation(np.arange(count) % symbols)
    ticks["kind"] = rng.choice(
        [TickKind.TRADE, TickKind.QUOTE, TickKind.BOOK, TickKind.MARK], count, p=[0.2, 0.65, 0.14, 0.01]
    )
    ticks["px0"] = 600_000 + rng.integers(-50, 50, count)
    ticks["px1"] = ticks["px0"] + 1
    for name in ("q0", "q1", "q2", "q3"):
        ticks[name] = rng.integers(1, 10_000, count) / 1000.0
    marks = ticks["kind"] == TickKind.MARK
    ticks["q0"][marks] = ticks["px0"][marks] * 0.1
    ticks["side"] = rng.choice([-1, 1], count)
    return ticks


def _step(stream: FeatureStream, frames: list[Ticks], frame: int) -> int:
    ticks = _dated(frames, frame)
    start = time.perf_counter_ns()
    for _ in stream.push(ticks):
        pass
    return time.perf_counter_ns() - start


def _dated(frames: list[Ticks], frame: int) -> Ticks:
    ticks = frames[frame % len(frames)].copy()
    ticks["exch_ns"] += START_NS + frame * 100 * NS_PER_MS
    ticks["recv_ns"] = ticks["exch_ns"]
    return ticks


def _heap_bytes(stream: FeatureStream, frames: list[Ticks], first: int) -> int:
    """Return the largest heap growth inside one step, the caller's own ticks aside."""
    tracemalloc.start()
    try:
        worst = 0
        for frame in range(first, first + _HEAP_STEPS):
            ticks = _dated(frames, frame)
            tracemalloc.reset_peak()
            before, _ = tracemalloc.get_traced_memory()
            for _ in stream.push(ticks):
                pass
            _, peak = tracemalloc.get_traced_memory()
            worst = max(worst, peak - before)
        return worst
    finally:
        tracemalloc.stop()
