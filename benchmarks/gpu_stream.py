"""The stream on a GPU: bits first; then times against the CPU's engine and the peer; copies; memory.

What is timed is what a session waits for: from the ticks of a closed frame in host memory to signals there.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.peer_cupy import PeerFeatures
from gpuscalp.bench import stream as market
from gpuscalp.boosters import Boosters
from gpuscalp.config import FeatureConfig, GridConfig
from gpuscalp.cuda_inference import CudaInference
from gpuscalp.device import import_cupy
from gpuscalp.ensemble import Calibration, Ensemble
from gpuscalp.errors import DeviceError, ParityError
from gpuscalp.frames import ClosedFrames
from gpuscalp.inference import Answer, HostInference
from gpuscalp.ops.forest import Forest
from gpuscalp.ops.ledger import DIRECTIONS, LEDGER
from gpuscalp.ops.packed import Field, packed_bytes
from gpuscalp.ops.tick_upload import frames_layout
from gpuscalp.pipeline import FeaturePipeline
from gpuscalp.schema import NS_PER_MS

FRAME_MS = 100
DISTINCT = 64  # frames of the made-up market, over and over
PACE_S, SPIN_S, BEAT_S, BEAT_ROWS = 0.02, 0.002, 0.005, 32
Wait = Callable[[float], None]  # until then, by time.perf_counter


@dataclass(frozen=True, slots=True)
class Setup:
    """A market and a model.

    members : UBJSON of each, or None where XGBoost is missing
    """

    symbols: int
    frames: Sequence[ClosedFrames]
    forest: Forest
    members: Sequence[bytes] | None

    def pipeline(self, device: str) -> FeaturePipeline:
        return pipeline(self.symbols, device)

    def dated(self, frame: int) -> ClosedFrames:
        """Return the frame of that number, at its own time."""
        return at_time(self.frames[frame % len(self.frames)], frame)


def pipeline(symbols: int, device: str) -> FeaturePipeline:
    grid = GridConfig(frame_ms=FRAME_MS, lateness_ms=0)
    return FeaturePipeline(
        grid=grid,
        features=FeatureConfig(),
        instruments=market.instruments(symbols),
        device=device,
        threads=1,
    )


def closed_frames(symbols: int, ticks_per_symbol: int = 4) -> list[ClosedFrames]:
    """Return DISTINCT frames as a grid closes them, all at the same time."""
    frames = []
    for number in range(DISTINCT):
        ticks = market.market(symbols, ticks_per_symbol * symbols, number)
        ticks = ticks[np.argsort(ticks["symbol"], kind="stable")]
        offsets = np.searchsorted(ticks["symbol"], np.arange(symbols + 1)).astype(np.int64)
        frames.append(ClosedFrames(np.array([FRAME_MS * NS_PER_MS]), ticks, offsets, False))
    return frames


def at_time(closed: ClosedFrames, frame: int) -> ClosedFrames:
    """Return a copy that ends ``frame`` frames later."""
    start_ns = market.START_NS + frame * FRAME_MS * NS_PER_MS
    ticks = closed.ticks.copy()
    ticks["exch_ns"] += start_ns
    return ClosedFrames(closed.end_ns + start_ns, ticks, closed.offsets, closed.restart)


def feature_rows(symbols: int, frames: Sequence[ClosedFrames], warm_up: int, count: int) -> np.ndarray:
    """Return rows float32[R, F] of a warm market, R at least ``count``: what a model is made from."""
    stream, rows, number = pipeline(symbols, "cpu").stream(), [], 0
    while sum(map(len, rows)) < count:
        chunk = stream.step(at_time(frames[number % len(frames)], number))
        number += 1
        if number > warm_up:
            rows.append(chunk.features[:, :, 0].copy())
    return np.concatenate(rows)


def parity(setup: Setup, steps: int) -> dict[str, Any]:
    """Step both engines side by side.

    Raises
    ------
    ParityError    a digest of features or a bit of a margin differs
    """
    host = HostInference(setup.pipeline("cpu"), setup.forest)
    cuda = CudaInference(setup.pipeline("cuda"), setup.forest)
    for frame in range(steps):
        closed = setup.dated(frame)
        wanted, got = host.step(closed), cuda.step(closed)
        for what in ("digests", "margins"):
            a, b = getattr(wanted, what), getattr(got, what)
            if a.tobytes() != b.tobytes():
                differing = int((a != b).sum())
                raise ParityError(
                    f"{what} of the two devices differ", where=f"frame {frame}", value=differing
                )
    return {"frames": steps, "differing_digests": 0, "differing_margins": 0}


def times(setup: Setup, steps: int, warm_up: int) -> dict[str, Any]:
    """Return the steps of both engines, each alone, and how they compare.

    The CPU, of which a step takes a hundred times as long, gets a tenth of the steps, what is split and paced
    a third. ``paced`` is the GPU stepped once in ``PACE_S``, as a session steps it, in three ways: the thread
    sleeps; it sleeps, and keeps its core busy at the end; it sleeps, and the card predicts every ``BEAT_S``.
    """
    ensemble = Ensemble(setup.forest, Calibration.identity(), np.array([-1.0, 0.0, 1.0]))

    def measure(
        engine: HostInference | CudaInference,
        count: int,
        wait: Wait | None = None,
        split: Split | None = None,
    ) -> list[float]:
        taken = []
        due_s = 0.0
        for frame in range(warm_up + count):
            closed = setup.dated(frame)
            if frame >= warm_up and wait is not None:
                due_s = max(due_s + PACE_S, time.perf_counter())
                wait(due_s)
            start = time.perf_counter_ns()
            answer: Answer = engine.step(closed)
            ensemble.combine(answer.margins)
            end = time.perf_counter_ns()
            if frame >= warm_up:
                taken.append((end - start) / 1e3)
                if split is not None:
                    split.keep(start, end)
        return taken

    cuda = CudaInference(setup.pipeline("cuda"), setup.forest)
    found = {"cuda": measure(cuda, steps)}
    found["cpu"] = measure(HostInference(setup.pipeline("cpu"), setup.forest), max(1, steps // 10))
    timed = _Timed(cuda)
    waits = {"asleep": _sleep, "spinning": _spin, "beating": _beat(cuda, setup.forest.feature_count)}
    parts = {}
    for name, wait in {"unpaced": None, **waits}.items():
        split = Split(timed)
        measure(cuda, max(1, steps // 3), wait, split)
        parts[name] = split.summary()
    cuda.close()
    result: dict[str, Any] = {
        "symbols": setup.symbols,
        "features": setup.forest.feature_count,
        "trees": setup.forest.tree_count,
        "steps": {name: len(taken) for name, taken in found.items()} | {"paced": max(1, steps // 3)},
        **{name: summary(taken) for name, taken in found.items()},
        "unpaced": parts.pop("unpaced"),
        "paced": parts,
    }
    return result | {"ratio_cpu": round(result["cpu"]["p50_us"] / result["cuda"]["p50_us"], 2)}


def _sleep(due_s: float) -> None:
    time.sleep(max(0.0, due_s - time.perf_counter()))


def _spin(due_s: float) -> None:
    _sleep(due_s - SPIN_S)
    while time.perf_counter() < due_s:
        pass


def _beat(engine: CudaInference, columns: int) -> Wait:
    rows = np.zeros((BEAT_ROWS, columns), np.float32)

    def wait(due_s: float) -> None:
        while due_s - time.perf_counter() > BEAT_S:
            time.sleep(BEAT_S)
            engine.margins(rows)
        _sleep(due_s)

    return wait


class _Timed:
    """An engine's graph between two events, and when it had been launched."""

    def __init__(self, engine: CudaInference) -> None:
        self._cuda = import_cupy().cuda
        self._events = [self._cuda.Event(disable_timing=False) for _ in range(2)]
        self._replay, self.launched_ns = engine._replay, 0
        engine._replay = self

    def __call__(self) -> None:
        begin, end = self._events
        begin.record()
        self._replay()
        end.record()
        self.launched_ns = time.perf_counter_ns()

    def graph_us(self) -> float:
        return 1e3 * float(self._cuda.get_elapsed_time(*self._events))


class Split:
    """What steps are made of.

    ``host``: until the graph is launched; ``graph``: on the card; ``rest``: what neither of them is, the
    answer's copy, waking up and the signals. The graph may begin before the launch returns: then the rest is
    too small, by as much.
    """

    def __init__(self, timed: _Timed) -> None:
        self._timed = timed
        self._steps: list[tuple[float, float, float, float]] = []

    def keep(self, start_ns: int, end_ns: int) -> None:
        whole, host = (end_ns - start_ns) / 1e3, (self._timed.launched_ns - start_ns) / 1e3
        graph = self._timed.graph_us()
        self._steps.append((whole, host, graph, whole - host - graph))

    def summary(self) -> dict[str, Any]:
        """Return percentiles of each, and the parts of the slowest hundredth of the steps, in the middle."""
        steps = np.array(self._steps)
        slowest = steps[steps[:, 0] >= np.percentile(steps[:, 0], 99)]
        names = ("host", "graph", "rest")
        return {
            **summary(steps[:, 0]),
            **{name: summary(steps[:, column]) for column, name in enumerate(names, 1)},
            "slowest": {
                f"{name}_us": round(float(np.median(slowest[:, column])), 1)
                for column, name in enumerate(names, 1)
            },
        }


def peer(setup: Setup, steps: int, warm_up: int) -> dict[str, Any]:
    """Return the steps of plain CuPy, with ``inplace_predict`` per member.

    It starts from channels and ends with margins: folding ticks and making signals are not in its time.
    """
    cupy = import_cupy()
    stream = setup.pipeline("cpu").stream()
    channels = [
        stream.step(setup.dated(frame)).frames.channels[0].copy() for frame in range(DISTINCT)
    ]  # of frames, which it gets for nothing
    features = PeerFeatures(cupy, stream.graph.names, setup.symbols)
    predict, skipped = _members(setup)
    margins = cupy.empty((setup.forest.member_count, setup.symbols, setup.forest.class_count), np.float32)
    taken: dict[str, list[float]] = {"features": [], "whole": []}
    for frame in range(warm_up + steps):
        end_ns = market.START_NS + frame * FRAME_MS * NS_PER_MS
        start = time.perf_counter_ns()
        x = features.step(cupy.asarray(channels[frame % DISTINCT]), end_ns)
        cupy.cuda.get_current_stream().synchronize()
        middle = time.perf_counter_ns()
        if predict is not None:
            predict(x, margins)
            cupy.asnumpy(margins)
        end = time.perf_counter_ns()
        if frame >= warm_up:
            taken["features"].append((middle - start) / 1e3)
            taken["whole"].append((end - start) / 1e3)
    result: dict[str, Any] = {"features": summary(taken["features"])}
    return result | ({"whole": summary(taken["whole"])} if skipped is None else {"skipped": skipped})


def _members(setup: Setup) -> tuple[Callable[[Any, Any], None] | None, str | None]:
    if setup.members is None:
        return None, "XGBoost is not installed"
    try:
        return Boosters(setup.members, "cuda").margins, None
    except DeviceError as error:
        return None, str(error)


def ledger(setup: Setup, steps: int) -> dict[str, Any]:
    """Count the copies of many steps.

    Raises
    ------
    ParityError    there were others than the packed ticks in and the answer out, once each
    """
    engine = CudaInference(setup.pipeline("cuda"), setup.forest)
    answer = packed_bytes(
        (
            Field((setup.symbols,), np.uint64),
            Field((setup.forest.member_count, setup.symbols, setup.forest.class_count), np.float32),
        )
    )
    wanted = {"host_to_device": 0, "device_to_host": steps * answer}
    before = {way: LEDGER.total(way) for way in DIRECTIONS}
    for frame in range(steps):
        closed = setup.frames[frame % len(setup.frames)]
        wanted["host_to_device"] += packed_bytes(frames_layout(1, setup.symbols, len(closed.ticks)))
        engine.step(closed)
    result: dict[str, Any] = {"frames": steps, "captures": engine.capture_count}
    for way in DIRECTIONS:
        after = LEDGER.total(way)
        count, size = after.count - before[way].count, after.bytes - before[way].bytes
        if (count, size) != (steps, wanted[way]):
            raise ParityError(
                "other copies than the packed ticks and the answer",
                where=way,
                value=f"{count} copies, {size} bytes",
                fix=f"expected {steps} copies, {wanted[way]} bytes",
            )
        result[way] = {"copies": count, "bytes": size}
    return result


def memory(setup: Setup, minutes: float) -> dict[str, Any]:
    """Step as fast as it goes and return how the memory in use on the card moves, as a straight line."""
    engine = CudaInference(setup.pipeline("cuda"), setup.forest)
    runtime = import_cupy().cuda.runtime
    samples: list[tuple[float, int]] = []
    start = time.perf_counter()
    frame = 0
    for frame in _until(start + 60 * minutes):
        engine.step(setup.frames[frame % len(setup.frames)])
        if frame % 256 == 255:
            free, total = runtime.memGetInfo()
            samples.append((time.perf_counter() - start, total - free))
    if len(samples) < 3:
        return {"minutes": minutes, "frames": frame + 1, "skipped": "too short for a slope"}
    at, used = np.array(samples, np.float64).T
    slope = float(np.polyfit(at / 3_600, used, 1)[0])
    return {
        "minutes": minutes,
        "frames": frame + 1,
        "first_bytes": int(used[0]),
        "last_bytes": int(used[-1]),
        "slope_bytes_per_hour": round(slope),
    }


def _until(end_s: float) -> Iterator[int]:
    frame = 0
    while frame < 256 or time.perf_counter() < end_s:
        yield frame
        frame += 1


def summary(taken_us: Sequence[float]) -> dict[str, float]:
    """Return median and 99th percentile."""
    p50, p99 = np.percentile(taken_us, [50, 99])
    return {"p50_us": round(float(p50), 1), "p99_us": round(float(p99), 1)}
