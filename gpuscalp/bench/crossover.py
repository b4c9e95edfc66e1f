"""How long a step takes on the CPU and on the GPU, by symbols and trees: the device profile of this machine.

Owns: the market, the forests and the times. A step goes from the ticks of a closed frame to the margins of
all members, as a session takes it (``gpuscalp.inference``). The devices get the same frames, and no time
counts unless their answers have the same bits.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np

from gpuscalp.bench.model import made_up_forest
from gpuscalp.bench.stream import START_NS, instruments, market
from gpuscalp.bench.timing import on_one_core
from gpuscalp.config import FeatureConfig, GridConfig
from gpuscalp.device_choice import profile_path, this_machine, write_profile
from gpuscalp.device_profile import FORMAT, Device, DeviceProfile, Machine, Point, crossover
from gpuscalp.errors import ParityError
from gpuscalp.frames import ClosedFrames
from gpuscalp.inference import HostInference, Inference
from gpuscalp.labels import CLASSES
from gpuscalp.ops.forest import Forest
from gpuscalp.pipeline import FeaturePipeline
from gpuscalp.progress import Progress, silent
from gpuscalp.schema import F32, NS_PER_MS

SYMBOLS: Final = (1, 8, 32, 128, 512)
TREES: Final = (300, 1_500, 4_500)
_MEMBERS: Final = 5
_DEPTH: Final = 6
_TICKS: Final = 4  # of a symbol in a frame: 20,000 a second for 500 symbols
_SAMPLED: Final = 4  # symbols whose columns the forests split
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
    steps : that are timed at each point, after 20 that are not
    now : date of the measurement, ISO
    machine : None = this one

    Raises
    ------
    ParityError    the devices disagree in a bit
    """
    machine = machine or this_machine()
    devices: tuple[Device, ...] = ("cpu",) if machine.gpu is None else ("cpu", "cuda")
    forests = _forests(trees)
    total = len(set(symbols)) * len(forests) * len(devices)
    points: list[Point] = []
    with on_one_core():
        for count in sorted(set(symbols)):
            frames, saved = _frames(count, _WARM_UP + steps)
            for forest in forests:
                answers = {}
                for device in devices:
                    told(len(points), total, f"{device}, {count} symbols, {forest.tree_count} trees")
                    engine = _engine(device, _pipeline(count, device), forest)
                    engine.restore(saved)
                    taken_us, answers[device] = _times(engine, frames)
                    p50, p99 = np.percentile(taken_us[_WARM_UP:], [50, 99])
                    point = Point(device, count, forest.feature_count, forest.tree_count, _us(p50), _us(p99))
                    points.append(point)
                _check_same(answers)
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


def _engine(device: Device, pipeline: FeaturePipeline, forest: Forest) -> Inference:
    if device == "cpu":
        return HostInference(pipeline, forest)
    from gpuscalp.cuda_inference import CudaInference

    return CudaInference(pipeline, forest)


def _times(engine: Inference, frames: Sequence[ClosedFrames]) -> tuple[np.ndarray, tuple[np.ndarray, ...]]:
    """Return the time of each step, µs, and the last answer."""
    taken_ns = np.empty(len(frames), np.int64)
    gc.collect()
    for index, closed in enumerate(frames):
        begin_ns = time.perf_counter_ns()
        answer = engine.step(closed)
        taken_ns[index] = time.perf_counter_ns() - begin_ns
    return taken_ns / 1e3, (answer.digests.copy(), answer.margins.copy())


def _check_same(answers: dict[Device, tuple[np.ndarray, ...]]) -> None:
    first, *others = answers.values()
    for other in others:
        for name, ours, theirs in zip(("features", "margins"), first, other, strict=True):
            if ours.tobytes() != theirs.tobytes():
                raise ParityError(
                    f"the devices differ in their {name}",
                    where="bench crossover",
                    fix="run gpuscalp features parity, and report what it finds",
                )


def _forests(trees: Sequence[int]) -> list[Forest]:
    """Return full trees whose splits lie among the values that the columns take in this market."""
    each = _MEMBERS * len(CLASSES)
    rounds = sorted({-(-count // each) for count in trees})
    sample = _sample()
    return [
        made_up_forest(sample, members=_MEMBERS, rounds=count, depth=_DEPTH, seed=count) for count in rounds
    ]


def _sample() -> F32:
    """Return rows of warm columns, float32[R, F]."""
    pipeline = _pipeline(_SAMPLED, "cpu")
    frames, saved = _frames(_SAMPLED, 64)
    stream = pipeline.stream()
    stream.restore(saved)
    return np.concatenate([stream.step(closed).features[:, :, 0].copy() for closed in frames])


def _frames(symbols: int, count: int) -> tuple[list[ClosedFrames], dict[str, np.ndarray]]:
    """Return consecutive closed frames, and the state of a stream right before them, all columns warm."""
    pipeline = _pipeline(symbols, "cpu")
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


def _pipeline(symbols: int, device: Device) -> FeaturePipeline:
    return FeaturePipeline(
        grid=GridConfig(lateness_ms=0),
        features=FeatureConfig(),
        instruments=instruments(symbols),
        device=device,
        threads=1,
    )


def _us(value: Any) -> float:
    return round(float(value), 1)
