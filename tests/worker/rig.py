"""A session in small: it closes frames, computes them itself, and asks its workers, as the engine does."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import numpy as np

from gpuscalp.config import FeatureConfig, GridConfig, TrainConfig
from gpuscalp.config.live import EngineConfig
from gpuscalp.contract import Interval
from gpuscalp.frames import ClosedFrames
from gpuscalp.inference import HostInference, chunk_digests
from gpuscalp.ops.forest import Forest
from gpuscalp.pipeline import FeaturePipeline
from gpuscalp.schema import F32
from gpuscalp.worker import Fleet, Found, WorkerFault, WorkerSpec, shard
from tests.handmade import DROP, write_handmade
from tests.ops.forests import random_forest
from tests.random_ticks import instruments, random_ticks

SYMBOLS = 5
FRAMES = 4_000
MEMBERS, CLASSES = 2, 3
FRAME_MS = 20
SILENCES = 40
WAIT_S = 60.0  # for what takes one or two seconds here, on a machine that does much else


@dataclass(frozen=True, slots=True)
class Truth:
    """A model, and what the CPU alone says about every frame, without any of the code under test.

    Attributes
    ----------
    margins : float32[frames, M, S, K]
    """

    bundle: Path
    pipeline: FeaturePipeline
    margins: F32


def by_hand(columns: int) -> tuple[Forest, None]:
    """Return trees at random, of which no boosters are known."""
    depths = [4] * 30
    rng = np.random.default_rng(4)
    return random_forest(rng, depths=depths, feature_count=columns, member_count=MEMBERS), None


def write_truth(path: Path, make: Callable[[int], tuple[Forest, Sequence[bytes] | None]] = by_hand) -> Truth:
    """Write a bundle of two members over a few symbols, and run it; ``make`` gets the number of columns."""
    listed = instruments(SYMBOLS)
    config = TrainConfig(
        venue="synthetic",
        symbols=tuple(item.symbol for item in listed),
        grid=GridConfig(frame_ms=FRAME_MS, max_gap_ms=1_000),
        features=FeatureConfig(leader=listed[0].symbol, drop=DROP),
    )
    pipeline = FeaturePipeline(grid=config.grid, features=config.features, instruments=listed)
    forest, boosters = make(len(pipeline.graph))
    bundle = write_handmade(path, config, lambda _: forest, trained_on=Interval(0, 1), boosters=boosters)
    alone = HostInference(pipeline, forest)
    return Truth(bundle, pipeline, np.array([alone.step(item).margins.copy() for item in frames(pipeline)]))


def frames(pipeline: FeaturePipeline) -> list[ClosedFrames]:
    """Return FRAMES closed frames; some begin a new run after a silence."""
    ticks = random_ticks(7, 3 * FRAMES, SYMBOLS, step_ms=FRAME_MS / 2, silences=SILENCES, silence_ms=1_500.0)
    stream = pipeline.stream()
    found = [
        closed for a, b in pairwise(range(0, len(ticks) + 1, 100)) for closed in stream.close(ticks[a:b])
    ]
    return found[:FRAMES]


@dataclass
class Rig:
    """Runs a fleet beside a stream, frame by frame; nothing but the truth may come of it.

    Attributes
    ----------
    at : the next frame
    lost : frames of which the fleet has said so
    """

    truth: Truth
    fleet: Fleet
    closed: Sequence[ClosedFrames]
    at: int = 0
    lost: list[int] = field(default_factory=list)
    rejected: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._stream = self.truth.pipeline.stream()

    def step(self, *, wait: bool = True, between: Callable[[], object] | None = None) -> Found:
        """Take one frame through the fleet; ``between`` is called while the workers have it."""
        closed, index = self.closed[self.at], self.at
        self.at += 1
        self.fleet.begin(closed, self._stream.checkpoint)
        if between is not None:
            between()
        found = self.fleet.finish(chunk_digests(self._stream.step(closed)), wait=wait)
        truth = self.truth.margins[index]
        if found.lost:
            self.lost.append(index)
        margins = found.margins.copy()
        for rows in found.missing:
            assert np.isnan(margins[:, rows.start : rows.stop]).all(), "an answer that must not be used"
            margins[:, rows.start : rows.stop] = truth[:, rows.start : rows.stop]
        # The engine looks at some rows again; here all are looked at.
        wrong = np.flatnonzero((margins.view(np.uint32) != truth.view(np.uint32)).any(axis=(0, 2)))
        if len(wrong):
            self.fleet.reject(int(wrong[0]))
            self.rejected.append(index)
        self.fleet.settle(truth if wait and not found.lost and not len(wrong) else None)
        return found

    def answered(self, count: int) -> None:
        """Take so many frames; the workers answer every one, as the CPU does."""
        for _ in range(count):
            assert self.step().missing == ()
        assert self.rejected == self.lost == []

    def until(self, reached: Callable[[], bool]) -> None:
        """Take frames until something is so; few of them while no worker takes any."""
        until_s = time.monotonic() + WAIT_S
        while not reached():
            assert time.monotonic() < until_s, self.fleet.status()
            self.step()
            taking = {"shadow", "leading"} & {item["state"] for item in self.fleet.status()["workers"]}
            time.sleep(0.002 if taking else 0.02)

    def beat(self) -> None:
        """Return at the first worker's next sign of life, without a look at what it says. It gives the first
        one when it is ready, and then one before it takes up each frame."""
        board = self.fleet._workers[0].process.board
        last, until_s = int(board.beat[0]), time.monotonic() + WAIT_S
        while int(board.beat[0]) == last:
            assert time.monotonic() < until_s, "it gives no sign of life"
            time.sleep(0.002)

    def lead(self) -> None:
        """Take frames until all workers lead."""
        self.until(lambda: bool(self.fleet.status()["leading"]))

    def state(self, worker: int = 0) -> str:
        return str(self.fleet.status()["workers"][worker]["state"])

    def pid(self, worker: int = 0) -> int:
        return int(self.fleet.status()["workers"][worker]["pid"])

    def kill(self, worker: int = 0) -> None:
        """End a process, and return when it has ended; nobody has taken it up then."""
        pid = self.pid(worker)
        os.kill(pid, signal.SIGKILL)
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)

    def faults(self, worker: int = 0) -> dict[str, int]:
        return dict(self.fleet.status()["workers"][worker]["faults"])


def eager(**changes: int) -> EngineConfig:
    """Return a configuration under which everything happens soon; a busy machine is no fault by itself."""
    usual = {"agree_batches": 10, "restart_ms": 20, "restart_max_ms": 60_000, "answer_ms": 5_000}
    return EngineConfig(**usual | changes)


def specs(
    truth: Truth,
    *,
    workers: int = 1,
    faults: Sequence[WorkerFault] = (),
    device: str = "cpu",
    canary_ms: int = 50,
    predictor: str = "forest",
) -> list[WorkerSpec]:
    """Return workers that share the symbols; the first one has the faults."""
    return [
        WorkerSpec(
            bundle=str(truth.bundle),
            instruments=truth.pipeline.instruments,
            device=device,
            gpu=index if device == "cpu" else 0,
            rows=(rows.start, rows.stop),
            predictor=predictor,
            canary_ms=canary_ms,
            faults=tuple(faults) if index == 0 else (),
        )
        for index, rows in enumerate(shard(SYMBOLS, workers))
    ]


def fleet_of(listed: Sequence[WorkerSpec], config: EngineConfig, **options: Callable[[], int]) -> Fleet:
    return Fleet(listed, config, symbol_count=SYMBOLS, member_count=MEMBERS, class_count=CLASSES, **options)
