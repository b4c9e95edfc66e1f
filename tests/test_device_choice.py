"""The device profile on disk, what identifies a machine, and the choice of a session."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from gpuscalp.bench.model import write_model
from gpuscalp.bundle import read_contract
from gpuscalp.config import EngineConfig
from gpuscalp.device_choice import (
    describe_choice,
    processor,
    profile_path,
    read_profile,
    this_machine,
    write_profile,
)
from gpuscalp.device_profile import DeviceProfile, NoProfile, Point, Workload
from gpuscalp.ops.forest import Forest
from tests.fake_nvml import FakeCard, FakeNvml
from tests.test_device import fake_cupy

WORK = Workload(8, 300)


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch) -> FakeCard:
    """A CuPy with a GPU, and an NVML that knows the card by its address, as the second of two."""
    found = FakeCard(uuid="GPU-the-one", bus_id="00000000:01:00.0")
    monkeypatch.setitem(sys.modules, "cupy", fake_cupy())
    monkeypatch.setitem(sys.modules, "pynvml", FakeNvml(FakeCard(uuid="GPU-other"), found))
    return found


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    return tmp_path


def measured(cpu_us: float, cuda_us: float) -> DeviceProfile:
    points = (Point("cpu", 8, 200, 300, cpu_us, cpu_us), Point("cuda", 8, 200, 300, cuda_us, cuda_us))
    return DeviceProfile(1, "2026-11-25", this_machine(), points)


def test_place_follows_the_environment() -> None:
    assert profile_path({"XDG_CONFIG_HOME": "/c"}) == Path("/c/gpuscalp/device_profile.json")
    assert (
        profile_path({"XDG_CONFIG_HOME": ""}) == Path("~/.config/gpuscalp/device_profile.json").expanduser()
    )


def test_profile_is_read_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "profile.json"
    profile = measured(100.0, 200.0)
    write_profile(path, profile)
    assert read_profile(path, this_machine()) == profile
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]
    assert json.loads(path.read_text())["points"][0]["p50_us"] == 100.0


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "there is no device profile"),
        (b"", "cannot be read"),
        (b'{"format": 1}', "cannot be read"),
        (b'{"format": 2, "measured_at": "", "machine": {}, "points": []}', "cannot be read"),
    ],
)
def test_unusable_profile_is_told_and_does_not_stop_anything(
    tmp_path: Path, content: bytes | None, words: str
) -> None:
    path = tmp_path / "profile.json"
    if content is not None:
        path.write_bytes(content)
    found = read_profile(path, this_machine())
    assert isinstance(found, NoProfile)
    assert words in found.why
    assert str(path) in found.why
    assert "cannot be read" in read_profile(tmp_path, this_machine()).why  # type: ignore[union-attr]  # a folder


def test_profile_of_another_machine_is_not_used(tmp_path: Path) -> None:
    profile = measured(100.0, 200.0)
    write_profile(tmp_path / "p", profile)
    other = msgspec.structs.replace(this_machine(), cpu="another processor")
    found = read_profile(tmp_path / "p", other)
    assert isinstance(found, NoProfile)
    assert "of another machine" in found.why
    assert "another processor" in found.why


def test_machine_is_described_with_its_card(card: FakeCard) -> None:
    found = this_machine()
    assert (found.gpu, found.gpu_uuid) == ("Test GPU", "GPU-the-one")
    assert found.driver == "580.95.05"
    assert found.cupy == "14.2.0"
    assert found.cores >= 1
    card.refused["nvmlDeviceGetUUID"] = 3
    assert this_machine().gpu_uuid is None


def test_machine_without_nvml_or_gpu_is_described_by_what_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    monkeypatch.setitem(sys.modules, "cupy", fake_cupy())
    found = this_machine()
    assert (found.gpu, found.gpu_uuid, found.driver) == ("Test GPU", None, "CUDA 13.0")
    monkeypatch.setitem(sys.modules, "cupy", None)
    found = this_machine()
    assert (found.gpu, found.gpu_uuid, found.driver, found.cupy) == (None, None, None, None)


def test_processor_is_the_one_that_the_system_names(tmp_path: Path) -> None:
    (tmp_path / "cpuinfo").write_text("vendor_id : X\nmodel name\t: Some CPU @ 2 GHz\nmodel name\t: Other\n")
    assert processor(tmp_path) == "Some CPU @ 2 GHz"
    assert processor(tmp_path / "absent")


@pytest.mark.parametrize(("cpu_us", "cuda_us", "name"), [(100.0, 200.0, "cpu"), (200.0, 100.0, "cuda")])
def test_session_gets_the_device_that_was_measured_to_be_faster(
    card: FakeCard, home: Path, cpu_us: float, cuda_us: float, name: str
) -> None:
    write_profile(profile_path(), measured(cpu_us, cuda_us))
    for asked, given in (("auto", name), ("cpu", "cpu"), ("cuda", "cuda")):
        assert describe_choice(asked, WORK, deadline_ms=200)["device"] == given


def test_session_without_a_profile_gets_the_gpu(card: FakeCard, home: Path) -> None:
    choice = describe_choice("auto", WORK, deadline_ms=200)
    assert choice["device"] == "cuda"
    assert "gpuscalp bench crossover" in str(choice["reason"])


def test_command_shows_the_choice(card: FakeCard, home: Path, cli: Callable[..., Any]) -> None:
    write_profile(profile_path(), measured(100.0, 200.0))
    words = ("device", "--symbols", "8", "--trees", "300")
    answer = json.loads(cli(*words, "--json").stdout)
    assert (answer["device"], answer["cuda"]["usable"]) == ("cpu", True)
    assert answer["workload"] == {"symbols": 8, "trees": 300}
    assert answer["deadline_ms"] == EngineConfig().deadline_ms
    assert "will not be kept" in cli(*words, "--deadline-ms", "0.05").stdout
    assert json.loads(cli("device", "--json").stdout)["device"] == "cuda"
    other = home / "other.json"
    write_profile(other, measured(200.0, 100.0))
    assert json.loads(cli(*words, "--profile", other, "--json").stdout)["device"] == "cuda"
    assert cli("device", "--symbols", "8").code == 2


def test_trees_of_a_contract_are_those_of_its_forest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Forest] = []
    before = Forest.__post_init__
    monkeypatch.setattr(Forest, "__post_init__", lambda self: (made.append(self), before(self))[1])
    write_model(tmp_path / "model", ("BTCUSDT", "ETHUSDT"), now_ns=10**18, members=2, rounds=3, depth=2)
    assert read_contract(tmp_path / "model").tree_count == made[0].tree_count == 18
