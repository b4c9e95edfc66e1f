"""Drift: false flags in a market that stays as it is, and rows until a planted change is flagged.

``python -m benchmarks.bench_drift [--hours N]`` prints JSON. Every hour is a synthetic market of its own
seed, four symbols and 100 ms frames, so that blocks are as exchangeable as the promise of the flag supposes.
The training sees ``hours`` of them; then come eight more of the same market, a million rows, and hours in
which the rate of orders or the size of queues is another one.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import msgspec
import numpy as np

from gpuscalp.config import FeatureConfig, GridConfig
from gpuscalp.drift.adversarial import compare, training_floors
from gpuscalp.drift.alarm import BLOCKS_BETWEEN_ALARMS, WINDOWS_PER_BLOCK, DriftAlarm, Floor
from gpuscalp.drift.stability import Distribution, bin_counts
from gpuscalp.labels import BLOCKED
from gpuscalp.pipeline import FeaturePipeline
from gpuscalp.schema import NS_PER_MS
from gpuscalp.synthetic import MarketSpec
from gpuscalp.synthetic.market import instruments
from gpuscalp.synthetic.ticks import ticks

HOUR_S = 3_600
# Rows of a training hour that are kept, and that a comparison looks at: by lot.
KEPT = 16_000
COMPARED = 1_800
RATES = (1.1, 1.2, 1.3, 1.5, 2.0)
QUEUES = (0.9, 0.8, 0.7, 0.5)

Rows = tuple[np.ndarray, np.ndarray]


def run(hours: int = 32, *, live_hours: int = 8, processes: int = 2, seconds: int = HOUR_S) -> dict[str, Any]:
    """Measure; ``hours`` is the length of the training."""
    began = time.perf_counter()
    jobs: list[tuple[str, float, int, int, int]] = []
    jobs += [("", 1.0, 1 + hour, KEPT, seconds) for hour in range(hours)]
    with ProcessPoolExecutor(processes) as pool:
        trained = list(pool.map(market, jobs))
        names, window = columns()
        block_rows = len(MarketSpec().symbols) * WINDOWS_PER_BLOCK * window
        block_ns = WINDOWS_PER_BLOCK * window * GridConfig().frame_ms * NS_PER_MS
        rows = np.concatenate([x for x, _ in trained])
        distribution = Distribution.of(rows)
        counts = [block for hour in trained for block in _blocks(distribution, hour, block_ns)]
        floor = Floor.of(np.array(counts), names, block_ns=block_ns)
        assert floor is not None, "the training is too short for blocks"
        rng = np.random.default_rng(0)
        reference = rows[np.sort(rng.permutation(len(rows))[:2_048])]
        floors = training_floors(reference, distribution.edges, names)

        def alarm() -> DriftAlarm:
            return DriftAlarm(floor, distribution.edges, names)

        live = [("", 1.0, 1_001 + hour, 0, seconds) for hour in range(live_hours)]
        planted = [("rate", each, 2_000 + round(10 * each), 0, seconds) for each in RATES]
        planted += [("queue", each, 3_000 + round(10 * each), 0, seconds) for each in QUEUES]
        still, compared, flagged = alarm(), None, {}
        for x, end_ns in pool.map(market, live):
            _feed(still, x, end_ns)
            compared = compared or _largest(reference, x, distribution, names, floors, rng)
        for job, (x, end_ns) in zip(planted, pool.map(market, planted), strict=True):
            watched = alarm()
            at = _feed(watched, x, end_ns)
            flagged[f"{job[0]} x {job[1]:g}"] = {
                "blocks": at,
                "rows": None if at is None else at * block_rows,
                "auc": _largest(reference, x, distribution, names, floors, rng),
            }
    return {
        "training_blocks": len(floor.psi),
        "block_s": block_ns / 1e9,
        "stationary": {
            "rows": still.blocks * block_rows,
            "blocks": still.blocks,
            "false_flags": still.alarms,
            "promised_blocks_between": BLOCKS_BETWEEN_ALARMS,
            "auc": compared,
        },
        "planted": flagged,
        "seconds": round(time.perf_counter() - began, 1),
    }


def market(job: tuple[str, float, int, int, int]) -> Rows:
    """Return float32[R, F] and int64[R], the sound rows of an hour in the order of time, and their frames."""
    what, factor, seed, kept, seconds = job
    start_ns = MarketSpec().start_ns + seed * HOUR_S * 10**9
    spec = _changed(MarketSpec(seed=seed, start_ns=start_ns, duration_s=seconds), what, factor)
    pipeline = FeaturePipeline(
        grid=GridConfig(), features=FeatureConfig(), instruments=instruments(spec), threads=1
    )
    mask = np.uint32(BLOCKED)
    parts = []
    for chunk in pipeline.batch([ticks(spec)]):
        at, symbol = np.nonzero(((chunk.frames.quality & mask) == 0) & (chunk.frames.bid_px > 0))
        parts.append((chunk.features[symbol, :, at], chunk.frames.end_ns[at]))
    x, end_ns = (np.concatenate(each) for each in zip(*parts, strict=True))
    if kept:
        chosen = np.sort(np.random.default_rng(seed).permutation(len(x))[:kept])
        return x[chosen], end_ns[chosen]
    return x, end_ns


def columns() -> tuple[list[str], int]:
    """Return the names of the columns, and the longest window."""
    pipeline = FeaturePipeline(
        grid=GridConfig(), features=FeatureConfig(), instruments=instruments(MarketSpec()), threads=1
    )
    return [each.name for each in pipeline.graph.columns], max(each.window for each in pipeline.graph.columns)


def _changed(spec: MarketSpec, what: str, factor: float) -> MarketSpec:
    change: dict[str, Callable[[Any], dict[str, Any]]] = {
        "": lambda _: {},
        "rate": lambda each: {"orders_hz": each.orders_hz * factor},
        "queue": lambda each: {"queue_lots_median": max(round(each.queue_lots_median * factor), 1)},
    }
    replace = msgspec.structs.replace
    return replace(spec, symbols=tuple(replace(each, **change[what](each)) for each in spec.symbols))


def _blocks(distribution: Distribution, rows: Rows, block_ns: int) -> Iterator[np.ndarray]:
    x, end_ns = rows
    for block in np.unique(end_ns // block_ns):
        yield bin_counts(distribution.edges, x[end_ns // block_ns == block])


def _feed(alarm: DriftAlarm, x: np.ndarray, end_ns: np.ndarray) -> int | None:
    """Give an alarm the rows of some frames at a time; return the block at which the flag went up."""
    starts = np.searchsorted(end_ns, np.unique(end_ns)[::64])
    at = None
    for first, last in zip(starts, [*starts[1:], len(x)], strict=True):
        alarm.take(x[first:last], int(end_ns[first]))
        if alarm.flagged and at is None:
            at = alarm.blocks
    return at


def _largest(
    reference: np.ndarray, x: np.ndarray, distribution: Distribution, names: list[str],
    floors: dict[str, tuple[float, float]], rng: np.random.Generator,
) -> dict[str, Any]:  # fmt: skip
    """Return the group that can be told best from the training."""
    live = x[np.sort(rng.permutation(len(x))[:COMPARED])]
    began = time.perf_counter()
    found = compare(reference, live, distribution.edges, names, floors)
    took_ms = 1e3 * (time.perf_counter() - began)
    best = max(found, key=lambda each: each.auc)
    return {
        "group": best.group,
        "auc": round(best.auc, 3),
        "interval": [round(best.low, 3), round(best.high, 3)],
        "floor_max": round(best.floor_max, 3),
        "groups_that_stand_out": sum(each.stands_out for each in found),
        "groups": len(found),
        "ms": round(took_ms, 1),
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--hours", type=int, default=32)
    print(json.dumps(run(parser.parse_args().hours), indent=1))
