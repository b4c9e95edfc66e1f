"""How long a step takes on the CPU and on the GPU, by symbols and trees: the device profile of this machine.

Owns: the market, the forests and the times. A step goes from the ticks of a closed frame to the margins of
all members, as a session takes it: on the CPU alone, or on the CPU up to the features while a worker on the
GPU computes all of it, and compared. The devices get the same frames, and no time counts unless their answers
have the same bits.
"""

from __future__ import annotations

import gc
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np

from gpuscalp.bench.model import made_up_forest, write_forest
from gpuscalp.bench.stream import START_NS, instruments, market
from gpuscalp.bench.timing import on_one_core
from gpuscalp.config import FeatureConfig, GridConfig, TrainConfig
from gpuscalp.config.live import EngineConfig
from gpuscalp.device_choice import profile_path, this_machine, write_profile
from gpuscalp.device_profile import FORMAT, Device, DeviceProfile, Machine, Point, crossover
from gpuscalp.errors import DeviceError, GpuscalpError, ParityError
from gpuscalp.frames import ClosedFrames
from gpuscalp.inference import HostInference, chunk_digests
from gpuscalp.labels import CLASSES
from gpuscalp.ops.forest import Forest
from gpuscalp.pipeline import FeaturePipeline
from gpuscalp.progress import Progress, silent
from gpuscalp.schema import F32, NS_PER_MS
from gpuscalp.worker import Fault, Fleet, WorkerSpec

SYMBOLS: Final = (1, 8, 32, 128, 512)
TREES: Final = (300, 1_500, 4_500)
_MEMBERS: Final = 5
_DEPTH: Final = 6
_TICKS: Final = 4  # of a symbol in a frame: 20,000 a second for 500 symbols
_SAMPLED: Final = 4  # symbols whose columns the forests split
_LEAD: Final = 60  # frames in which a worker has to come to lead; it needs _AGREE
_AGREE: Final = 5
_WARM_UP: Final = 20


def run(
    *,
    symbols: Sequence[int] = SYMBOLS,
    trees: Sequence[int] = TREES,
    steps: int = 300,
    now: str,
    told: Progress,
    machine: Machine | None = None,
) -> DeviceProfile:
    """Measure a grid on all devices that can be used.

    Parameters
    ----------
    symbols, trees : of the grid; trees are rounded up to full rounds of 5 members and 3 classes
    steps : that are timed at each point, after 80 that are not
    now : date of the measurement, ISO
    machine : None = this one

    Raises
    ------
    ParityError    the devices disagree in a bit
    DeviceError    a worker on the GPU fails, or does not come to lead
    """
    machine = machine or this_machine()
    devices: tuple[Device, ...] = ("cpu",) if machine.gpu is None else ("cpu", "cuda")
    sample = _sample()
    forests = _forests(sample, trees)
    total = len(set(symbols)) * len(forests) * len(devices)
    points: list[Point] = []
    for count in sorted(set(symbols)):
        frames, saved = _frames(count, _LEAD + _WARM_UP + steps)
        for forest in forests:
            margins: Any = None
            for device in devices:
                told(len(points), total, f"{device}, {count} symbols, {forest.tree_count} trees")
                if device == "cpu":
                    taken_us, margins = _alone(forest, frames, saved, count)
                else:
                    taken_us = _through_worker(forest, frames, saved, count, sample=sample, wanted=margins)
                p50, p99 = np.percentile(taken_us[-steps:], [50, 99])
                points.append(
                    Point(device, count, forest.feature_count, forest.tree_count, _us(p50), _us(p99))
                )
    told(total, total)
    return DeviceProfile(FORMAT, now, machine, tuple(points))


def write(
    symbols: Sequence[int],
    trees: Sequence[int],
    *,
    steps: int,
    out: Path | None = None,
    told: Progress,
) -> dict[str, Any]:
    """Measure, write the profile to ``out`` or to its place, and return what the command prints.

    Returns
    -------
    dict: the profile, ``path``, ``table``: its points with the devices side by side and the one with the
    smaller p50, and ``crossover``: by trees, from how many symbols on the GPU is the faster (None: never)
    """
    profile = run(symbols=symbols, trees=trees, steps=steps, now=_now(), told=told)
    path = out or profile_path()
    write_profile(path, profile)
    return _answer(profile) | {"path": path}


def measure() -> dict[str, Any]:
    """Measure the usual grid and return what ``write`` returns, without writing anything."""
    return _answer(run(now=_now(), told=silent))


def _answer(profile: DeviceProfile) -> dict[str, Any]:
    answer: dict[str, Any] = msgspec.to_builtins(profile)
    return answer | {"table": _table(profile), "crossover": _crossovers(profile)}


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _table(profile: DeviceProfile) -> list[dict[str, Any]]:
    found = {(point.trees, point.symbols, point.device): point for point in profile.points}
    rows = []
    for trees, symbols in sorted({key[:2] for key in found}):
        points = {device: found.get((trees, symbols, device)) for device in ("cpu", "cuda")}
        here = {device: point for device, point in points.items() if point is not None}
        times = {
            device: point and {"p50_us": point.p50_us, "p99_us": point.p99_us}
            for device, point in points.items()
        }
        rows.append(
            {"trees": trees, "symbols": symbols, **times, "faster": min(here, key=lambda d: here[d].p50_us)}
        )
    return rows


def _crossovers(profile: DeviceProfile) -> list[dict[str, int | None]]:
    return [
        {"trees": trees, "symbols": crossover(profile, trees)}
        for trees in sorted({point.trees for point in profile.points})
    ]


def _alone(
    forest: Forest, frames: Sequence[ClosedFrames], saved: dict[str, np.ndarray], symbols: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the time of each step on the CPU, µs, and what it says, float32[frames, M, S, K]."""
    engine = HostInference(_pipeline(symbols), forest)
    engine.restore(saved)
    taken_ns = np.empty(len(frames), np.int64)
    margins = np.empty((len(frames), forest.member_count, symbols, forest.class_count), np.float32)
    gc.collect()
    with on_one_core():
        for index, closed in enumerate(frames):
            begin_ns = time.perf_counter_ns()
            answer = engine.step(closed)
            taken_ns[index] = time.perf_counter_ns() - begin_ns
            margins[index] = answer.margins
    return taken_ns / 1e3, margins


def _through_worker(
    forest: Forest,
    frames: Sequence[ClosedFrames],
    saved: dict[str, np.ndarray],
    symbols: int,
    *,
    sample: F32,
    wanted: np.ndarray,
) -> np.ndarray:
    """Return the time of each step with a worker on the GPU, µs; on all cores, as a session has them.

    Parameters
    ----------
    sample : float32[R, F]   rows, for the canary
    wanted : float32[frames, M, S, K]   what the CPU says
    """
    pipeline, listed = _pipeline(symbols), tuple(instruments(symbols))
    config = TrainConfig(
        venue="synthetic",
        symbols=tuple(item.symbol for item in listed),
        grid=pipeline.grid,
        features=FeatureConfig(),
    )
    stream = pipeline.stream()
    taken_ns = np.empty(len(frames), np.int64)
    with tempfile.TemporaryDirectory() as folder:
        bundle = write_forest(
            Path(folder) / "model", forest, pipeline.graph, config, sample=sample, now_ns=START_NS
        )
        spec = WorkerSpec(
            bundle=str(bundle),
            instruments=listed,
            device="cuda",
            gpu=0,
            rows=(0, symbols),
            predictor="forest",
            canary_ms=1_000,
        )
        fleet = Fleet(
            [spec],
            EngineConfig(agree_batches=_AGREE, answer_ms=5_000),
            symbol_count=symbols,
            member_count=forest.member_count,
            class_count=forest.class_count,
        )

        def state() -> str:
            return str(fleet.status()["workers"][0]["state"])

        def step(index: int) -> bool:
            """Take a frame; return whether the worker has answered it for the session."""
            closed = frames[index]
            begin_ns = time.perf_counter_ns()
            fleet.begin(closed, partial(stream.checkpoint, copy=False))
            found = fleet.finish(chunk_digests(stream.step(closed)), wait=True)
            taken_ns[index] = time.perf_counter_ns() - begin_ns
            led = not found.missing and not found.lost
            if led and found.margins.tobytes() != wanted[index].tobytes():
                raise _differ("margins", f"frame {index}")
            fleet.settle(None if found.lost else wanted[index])
            return led

        fleet.start()
        try:
            while True:  # until it is ready, the session stands before its first frame
                stream.restore(saved)
                step(0)
                if state() != "starting":
                    break
                time.sleep(0.01)
            gc.collect()
            for index in range(1, len(frames)):
                if step(index):
                    continue
                if index >= _LEAD or state() == "failed":
                    raise _failed(fleet.status())
                time.sleep(0.01 if index < _LEAD // 2 else 0.2)
        finally:
            fleet.close()
    return taken_ns / 1e3


def _failed(status: dict[str, Any]) -> GpuscalpError:
    """Return why a worker does not lead."""
    fault = status["workers"][0]["last_fault"]
    if fault is None:
        return DeviceError("the worker on the GPU does not come to lead", value=status["why"])
    if fault["reason"] == Fault.WRONG_ANSWER:
        return _differ("features or margins", fault["detail"])
    return DeviceError("the worker on the GPU has failed", where=fault["reason"], value=fault["detail"])


def _differ(what: str, where: str) -> ParityError:
    return ParityError(
        f"the devices differ in their {what}",
        where=f"bench crossover, {where}",
        fix="run gpuscalp features parity, and report what it finds",
    )


def _forests(sample: F32, trees: Sequence[int]) -> list[Forest]:
    """Return full trees whose splits lie among the values that the columns take in this market."""
    each = _MEMBERS * len(CLASSES)
    rounds = sorted({-(-count // each) for count in trees})
    return [
        made_up_forest(sample, members=_MEMBERS, rounds=count, depth=_DEPTH, seed=count) for count in rounds
    ]


def _sample() -> F32:
    """Return rows of warm columns, float32[R, F]."""
    pipeline = _pipeline(_SAMPLED)
    frames, saved = _frames(_SAMPLED, 64)
    stream = pipeline.stream()
    stream.restore(saved)
    return np.concatenate([stream.step(closed).features[:, :, 0].copy() for closed in frames])


def _frames(symbols: int, count: int) -> tuple[list[ClosedFrames], dict[str, np.ndarray]]:
    """Return consecutive closed frames, and the state of a stream right before them, all columns warm."""
    pipeline = _pipeline(symbols)
    stream = pipeline.stream()
    kept: list[ClosedFrames] = []
    saved: dict[str, np.ndarray] = {}
    ticks = [market(symbols, _TICKS * symbols, index) for index in range(64)]
    warm_up = pipeline.graph.warm_up_frames
    for index in range(warm_up + count + 1):
        dated = ticks[index % len(ticks)].copy()
        dated["exch_ns"] += START_NS + index * 100 * NS_PER_MS
        for closed in stream.close(dated):
            if index <= warm_up:
                stream.step(closed)
            else:  # copied: the grid writes the next frame over this one
                arrays = (closed.end_ns.copy(), closed.ticks.copy(), closed.offsets.copy())
                kept.append(ClosedFrames(*arrays, closed.restart))
        if index == warm_up:
            saved = stream.checkpoint()
    return kept, saved


def _pipeline(symbols: int) -> FeaturePipeline:
    return FeaturePipeline(
        grid=GridConfig(lateness_ms=0),
        features=FeatureConfig(),
        instruments=instruments(symbols),
        device="cpu",
        threads=1,
    )


def _us(value: Any) -> float:
    return round(float(value), 1)
