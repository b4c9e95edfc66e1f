"""The measurement of a device profile: its grid, that answers are compared, and what is told."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from gpuscalp.bench import crossover
from gpuscalp.device_choice import read_profile, this_machine
from gpuscalp.device_profile import DeviceProfile, Machine, Point
from gpuscalp.errors import ParityError
from gpuscalp.frames import ClosedFrames
from gpuscalp.inference import Answer, HostInference
from tests.host_shim.cuda_on_host import cuda_on_host

GPU = Machine("a processor", 2, "0.1.0", "0.68.1", gpu="a card")


def no_progress(done: float, total: float | None = None, note: str = "") -> None:
    pass


@pytest.fixture
def device_of(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Let the CPU's engine stand for the GPU's; returns the devices that pipelines were made for."""
    asked: list[str] = []
    right = crossover._pipeline

    def pipeline(symbols: int, device: str) -> Any:
        asked.append(device)
        return right(symbols, "cpu")

    monkeypatch.setattr(crossover, "_pipeline", pipeline)
    monkeypatch.setitem(sys.modules, "gpuscalp.cuda_inference", SimpleNamespace(CudaInference=HostInference))
    return asked


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


def test_both_devices_get_the_same_frames_from_a_warm_start(device_of: list[str]) -> None:
    profile = crossover.run(
        symbols=(2,), trees=(15,), steps=20, now="2026-11-25", told=no_progress, machine=GPU
    )
    assert [point.device for point in profile.points] == ["cpu", "cuda"]
    assert "cuda" in device_of
    frames, saved = crossover._frames(2, 5)
    assert len(frames) == 5
    assert len({int(closed.end_ns[0]) for closed in frames}) == 5
    assert {int(b.end_ns[0] - a.end_ns[0]) for a, b in pairwise(frames)} == {10**8}
    assert not any(closed.restart for closed in frames)
    assert all(len(closed.ticks) and closed.offsets[-1] - closed.offsets[0] == 8 for closed in frames)
    stream = crossover._pipeline(2, "cpu").stream()
    stream.restore(saved)
    features = stream.step(frames[0]).features
    assert np.isfinite(features).mean() > 0.9, "columns are warm"


def test_differing_answers_are_an_error_and_no_profile(
    device_of: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Wrong(HostInference):  # type: ignore[misc]  # final: only here
        def step(self, closed: ClosedFrames) -> Answer:
            answer = super().step(closed)
            answer.margins[0, 0, 0] = np.nextafter(answer.margins[0, 0, 0], np.float32(9))
            return answer

    monkeypatch.setitem(sys.modules, "gpuscalp.cuda_inference", SimpleNamespace(CudaInference=Wrong))
    with pytest.raises(ParityError, match="differ in their margins"):
        crossover.run(symbols=(2,), trees=(15,), steps=20, now="", told=no_progress, machine=GPU)


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


def test_cuda_engine_is_measured_on_the_host_with_the_bits_of_the_cpu(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("gpuscalp.ops.by_device.probe_cuda", lambda: None)
    with cuda_on_host():
        profile = crossover.run(
            symbols=(3,), trees=(15,), steps=20, now="2026-11-25", told=no_progress, machine=GPU
        )
    assert [point.device for point in profile.points] == ["cpu", "cuda"]


@pytest.mark.gpu
def test_both_devices_are_measured_on_a_machine_with_a_gpu() -> None:
    profile = crossover.run(symbols=(1, 64), trees=(300,), steps=100, now="2026-11-25", told=no_progress)
    assert {point.device for point in profile.points} == {"cpu", "cuda"}
    assert profile.machine.gpu is not None
