"""The measurement of a device profile: its grid, that answers are compared, and what is told."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gpuscalp.bench import crossover
from gpuscalp.device_choice import read_profile, this_machine
from gpuscalp.device_profile import DeviceProfile, Machine, Point
from gpuscalp.errors import DeviceError, ParityError
from gpuscalp.frames import ClosedFrames
from gpuscalp.pipeline import FeatureStream
from gpuscalp.worker import WorkerSpec, parse_fault

GPU = Machine("a processor", 2, "0.1.0", "0.68.1", gpu="a card")


def no_progress(done: float, total: float | None = None, note: str = "") -> None:
    pass


@pytest.fixture
def twin(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Let a worker on the CPU stand for one on the GPU; faults in words."""

    def worker(*faults: str) -> None:
        def spec(*, device: str, **named: Any) -> WorkerSpec:
            assert device == "cuda"
            return WorkerSpec(device="cpu", faults=tuple(map(parse_fault, faults)), **named)

        monkeypatch.setattr(crossover, "WorkerSpec", spec)

    worker()
    return worker


@pytest.mark.thorough
def test_grid_is_measured_on_the_cpu_alone_where_there_is_no_gpu() -> None:
    told: list[float] = []
    profile = crossover.run(
        symbols=(3, 1, 3),
        trees=(20, 1),
        steps=20,
        now="2026-11-25",
        told=lambda done, total=None, note="": told.append(done),
        machine=Machine("a processor", 2, "0.1.0", "0.68.1"),
    )
    # 20 trees are rounded up to two rounds of 15.
    assert [(point.device, point.symbols, point.trees) for point in profile.points] == [
        ("cpu", symbols, trees) for symbols in (1, 3) for trees in (15, 30)
    ]
    assert all(0 < point.p50_us <= point.p99_us < 1e6 for point in profile.points)
    assert profile.points[0].features > 200
    assert told == [0, 1, 2, 3, 4]


@pytest.mark.thorough
@pytest.mark.usefixtures("twin")
def test_gpu_is_timed_through_a_worker_as_a_session_uses_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """It was timed in this process: no handing over, waiting, comparing, nor the session's own features."""
    own: list[int] = []
    step = FeatureStream.step

    def counted(self: FeatureStream, closed: ClosedFrames) -> Any:
        own.append(int(closed.end_ns[0]))
        return step(self, closed)

    cores = os.sched_getaffinity(0)
    monkeypatch.setattr(FeatureStream, "step", counted)
    profile = crossover.run(
        symbols=(2,), trees=(15,), steps=20, now="2026-11-25", told=no_progress, machine=GPU
    )
    cpu, cuda = profile.points
    assert (cpu.device, cuda.device) == ("cpu", "cuda")
    assert 0 < cuda.p50_us <= cuda.p99_us < 1e6
    assert len(set(own[-99:])) == 99, "a warm-up and 20 frames, without a gap"
    assert own.count(own[-1]) == 2, "by the CPU alone, and beside the worker"
    assert os.sched_getaffinity(0) == cores


def test_frames_begin_warm_and_follow_one_another() -> None:
    frames, saved = crossover._frames(2, 5)
    assert len(frames) == 5
    assert len({int(closed.end_ns[0]) for closed in frames}) == 5
    assert {int(b.end_ns[0] - a.end_ns[0]) for a, b in pairwise(frames)} == {10**8}
    assert not any(closed.restart for closed in frames)
    assert all(len(closed.ticks) and closed.offsets[-1] - closed.offsets[0] == 8 for closed in frames)
    stream = crossover._pipeline(2).stream()
    stream.restore(saved)
    features = stream.step(frames[0]).features
    assert np.isfinite(features).mean() > 0.9, "columns are warm"


def test_differing_answers_are_an_error_and_no_profile(twin: Callable[..., None]) -> None:
    twin("wrong_answer:at_frame=75,part=margin")
    with pytest.raises(ParityError, match="differ in their margins"):
        crossover.run(symbols=(2,), trees=(15,), steps=20, now="", told=no_progress, machine=GPU)


def test_worker_that_fails_is_an_error_and_says_why(twin: Callable[..., None]) -> None:
    twin("start_failed:at_frame=0")
    with pytest.raises(DeviceError, match="has failed") as caught:
        crossover.run(symbols=(2,), trees=(15,), steps=20, now="", told=no_progress, machine=GPU)
    assert caught.value.where == "start_failed"


@pytest.mark.thorough
def test_command_writes_what_auto_reads(tmp_path: Path, cli: Callable[..., Any]) -> None:
    path = tmp_path / "profile.json"
    words = ("bench", "crossover", "--symbols", "1,2", "--trees", "15", "--steps", "20", "--out", path)
    answer = json.loads(cli(*words, "--json").stdout)
    profile = read_profile(path, this_machine())
    assert isinstance(profile, DeviceProfile)
    assert len(answer["points"]) == len(profile.points) == len(answer["table"]) >= 2
    assert answer["path"] == str(path)
    text = cli(*words).stdout
    assert "Written to" in text
    if answer["machine"]["gpu"] is None:
        assert "Only the CPU was measured" in text
        assert [row["faster"] for row in answer["table"]] == ["cpu", "cpu"]


@pytest.mark.parametrize("words", ["", "1,", "0", "-1", "1.5", "x", "²"])
def test_command_refuses_what_is_no_number(words: str, cli: Callable[..., Any]) -> None:
    assert cli("bench", "crossover", "--symbols", words).code == 2


def test_text_says_from_where_on_the_gpu_is_faster(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cli: Callable[..., Any]
) -> None:
    times = {("cpu", 1): 10.0, ("cpu", 100): 1_000.0, ("cuda", 1): 100.0, ("cuda", 100): 100.0}
    points = [Point(device, n, 200, 300, p50, p50) for (device, n), p50 in times.items()]  # type: ignore[arg-type]
    slow = [
        Point(device, n, 200, 900, 1e4 if device == "cuda" else p50, 2e4)
        for (device, n), p50 in times.items()
    ]  # type: ignore[arg-type]
    made = DeviceProfile(1, "2026-11-25", GPU, (*points, *slow))
    monkeypatch.setattr(crossover, "run", lambda **_: made)
    text = cli("bench", "crossover", "--out", tmp_path / "p").stdout
    assert "300 trees: the GPU is faster from 11 symbols on" in text
    assert "900 trees: the CPU is the faster one throughout" in text
    assert "1,000 / 1,000" in text


@pytest.mark.gpu
def test_both_devices_are_measured_on_a_machine_with_a_gpu() -> None:
    profile = crossover.run(symbols=(1, 64), trees=(300,), steps=100, now="2026-11-25", told=no_progress)
    assert {point.device for point in profile.points} == {"cpu", "cuda"}
    assert profile.machine.gpu is not None
