"""What a worker costs the session, and how soon the CPU takes over: ``python -m benchmarks worker``.

The model has three trees, so that what is timed is the way there and back. The worker runs the CPU's twins,
or, as ``gpu_worker``, those of a GPU. Both processes compute all features; alone on two cores, or the figures
say nothing.
"""

from __future__ import annotations

import os
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np

from gpuscalp.bench import stream as market
from gpuscalp.bench.model import write_model
from gpuscalp.bundle import load_bundle, read_contract
from gpuscalp.config.live import EngineConfig
from gpuscalp.device import DeviceName
from gpuscalp.errors import DeviceError, ParityError
from gpuscalp.frames import ClosedFrames
from gpuscalp.inference import HostInference, chunk_digests
from gpuscalp.ops.by_device import ops_for
from gpuscalp.pipeline import FeaturePipeline, FeatureStream
from gpuscalp.schema import NS_PER_MS
from gpuscalp.worker import Fleet, WorkerSpec

LEAD_S: Final = 60.0  # a worker that does not lead by then is not going to


def run(
    symbols: int = 512, ticks_per_frame: int = 2_000, frames: int = 1_000, *, device: DeviceName = "cpu"
) -> dict[str, Any]:
    """Return times by part, in µs or as the names say; the worker is on ``device``.

    Raises
    ------
    DeviceError    the device cannot run here, or the worker does not come to lead
    ParityError    the worker's margins are not the CPU's
    """
    ops_for(device)
    listed = market.instruments(symbols)
    with tempfile.TemporaryDirectory() as folder:
        names = tuple(item.symbol for item in listed)
        bundle = write_model(
            Path(folder) / "bundle", names, now_ns=market.START_NS, members=1, rounds=1, depth=1
        )
        training = read_contract(bundle).training.config
        pipeline = FeaturePipeline(grid=training.grid, features=training.features, instruments=listed)
        forest = load_bundle(bundle, graph=pipeline.graph).ensemble.forest
        alone = HostInference(pipeline, forest)
        spec = WorkerSpec(str(bundle), tuple(listed), device, 0, (0, symbols), "forest", 1_000)
        fleet = Fleet(
            [spec],
            EngineConfig(restart_ms=1),
            symbol_count=symbols,
            member_count=forest.member_count,
            class_count=forest.class_count,
        )
        bench = _Bench(fleet, pipeline.stream(), alone, _closed(pipeline, symbols, ticks_per_frame))
        try:
            fleet.start()
            return {
                "device": device,
                "symbols": symbols,
                "ticks_per_frame": ticks_per_frame,
                **bench.run(frames),
            }
        finally:
            fleet.close()


class _Bench:
    """Frames through a fleet, timed."""

    def __init__(
        self, fleet: Fleet, stream: FeatureStream, alone: HostInference, closed: Iterator[ClosedFrames]
    ) -> None:
        self._fleet, self._stream, self._alone, self._closed = fleet, stream, alone, closed

    def run(self, frames: int) -> dict[str, Any]:
        sync_us = max(self._lead())
        times = np.array([self._frame() for _ in range(frames)])
        result: dict[str, Any] = {"frames": frames, "sync_ms": round(sync_us / 1e3, 1)}
        for name, taken in zip(("begin", "own_step", "wait", "begin_to_finish"), times.T, strict=True):
            p50, p99 = np.percentile(taken, (50, 99))
            result[name] = {"p50_us": round(float(p50), 1), "p99_us": round(float(p99), 1)}
        for name, number in (("killed", signal.SIGKILL), ("hang", signal.SIGSTOP)):
            result[f"takeover_{name}_ms"] = round(self._takeover(number), 1)
            self._lead()
        result["startup_s"] = round(float(self._worker["startup_s"]), 2)
        return result

    @property
    def _worker(self) -> dict[str, Any]:
        return dict(self._fleet.status()["workers"][0])

    def _lead(self) -> list[float]:
        """Take frames until the worker leads; return what ``begin`` took."""
        taken = []
        until = time.monotonic() + LEAD_S
        while self._worker["state"] != "leading":
            if time.monotonic() > until:
                raise DeviceError(
                    f"the worker does not lead after {LEAD_S:g} s", value=self._fleet.status()["why"]
                )
            taken.append(self._frame()[0])
            time.sleep(0.01)
        return taken

    def _frame(self, between: Callable[[], object] | None = None) -> tuple[float, float, float, float]:
        closed = next(self._closed)
        truth = self._alone.step(closed)
        start = time.perf_counter()
        self._fleet.begin(closed, partial(self._stream.checkpoint, copy=False))  # as a session does
        begun = time.perf_counter()
        if between is not None:
            between()
        digests = chunk_digests(self._stream.step(closed))
        stepped = time.perf_counter()
        found = self._fleet.finish(digests, wait=True)
        end = time.perf_counter()
        if not found.missing and found.margins.tobytes() != truth.margins.tobytes():
            raise ParityError("a worker's margins are not the CPU's")
        self._fleet.settle(None if found.lost else truth.margins)
        parts = (begun - start, stepped - begun, end - stepped, end - start)
        return parts[0] * 1e6, parts[1] * 1e6, parts[2] * 1e6, parts[3] * 1e6

    def _takeover(self, number: int) -> float:
        """Return the milliseconds from a fault while a frame is out until the CPU alone has the next."""
        pid = self._worker["pid"]
        at = 0.0

        def strike() -> None:
            nonlocal at
            at = time.perf_counter()
            os.kill(pid, number)

        # A worker on a fast core may have answered before the signal: the next frame finds it then.
        lost = self._fleet.status()["lost_frames"]
        self._frame(strike)
        while self._fleet.status()["lost_frames"] == lost and self._worker["state"] == "leading":
            self._frame()
        self._frame()
        return (time.perf_counter() - at) * 1e3


def _closed(pipeline: FeaturePipeline, symbols: int, ticks_per_frame: int) -> Iterator[ClosedFrames]:
    """Yield closed frames of a made-up market for ever."""
    frames = [market.market(symbols, ticks_per_frame, frame) for frame in range(64)]
    grid = pipeline.stream()
    frame = 0
    while True:
        ticks = frames[frame % len(frames)].copy()
        ticks["exch_ns"] += market.START_NS + frame * 100 * NS_PER_MS
        yield from grid.close(ticks)
        frame += 1
