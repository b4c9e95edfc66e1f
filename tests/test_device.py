"""The choice of a device, on stand-ins for machines that lack one thing each."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from gpuscalp import device
from gpuscalp.device_profile import DeviceProfile, Machine, NoProfile, Point, Workload
from gpuscalp.errors import DeviceError, UsageError


class FakeRuntimeError(RuntimeError):
    def __init__(self, status: int) -> None:
        super().__init__(f"cudaError {status}")
        self.status = status


def fake_cupy(
    *,
    driver: int = 13000,
    count_fault: int | None = None,
    context_fault: int | None = None,
    capability: tuple[int, int] = (9, 0),
    nvrtc: tuple[int, int] | None = (13, 2),
) -> Any:
    """A CuPy with one GPU, or with the named thing missing."""

    def count() -> int:
        if count_fault is not None:
            raise FakeRuntimeError(count_fault)
        return 2

    def free(_address: int) -> None:
        if context_fault is not None:
            raise FakeRuntimeError(context_fault)

    def nvrtc_version() -> tuple[int, int]:
        if nvrtc is None:
            raise RuntimeError("libnvrtc.so.13 not found")
        return nvrtc

    runtime = SimpleNamespace(
        CUDARuntimeError=FakeRuntimeError,
        driverGetVersion=lambda: driver,
        runtimeGetVersion=lambda: 13020,
        getDeviceCount=count,
        getDevice=lambda: 0,
        getDeviceProperties=lambda _: {
            "name": b"Test GPU",
            "major": capability[0],
            "minor": capability[1],
            "totalGlobalMem": 2**34,
        },
        deviceGetPCIBusId=lambda _: "0000:01:00.0",
        free=free,
    )
    return SimpleNamespace(
        __version__="14.2.0",
        cuda=SimpleNamespace(runtime=runtime, nvrtc=SimpleNamespace(getVersion=nvrtc_version)),
    )


# What is wrong with the machine -> the CuPy it has (None: not installed), a word of the message.
BROKEN = {
    "no CuPy": (None, "CuPy is not installed"),
    "no driver": (fake_cupy(driver=0), "no NVIDIA driver"),
    "old driver": (fake_cupy(driver=12040, count_fault=35), "older than CuPy's CUDA runtime"),
    "no device": (fake_cupy(count_fault=100), "no GPU is visible"),
    "old device": (fake_cupy(capability=(7, 0)), "too old for the kernels"),
    "no NVRTC": (fake_cupy(nvrtc=None), "NVRTC is missing"),
    "in use": (fake_cupy(context_fault=46), "exclusive use"),
    "in a fault": (fake_cupy(context_fault=719), "does not answer"),
}

broken = pytest.mark.parametrize(("cupy", "message"), list(BROKEN.values()), ids=list(BROKEN))


@broken
def test_resolve_cuda_is_an_error_where_it_cannot_run(
    monkeypatch: pytest.MonkeyPatch, cupy: Any, message: str
) -> None:
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    with pytest.raises(DeviceError, match=message) as caught:
        device.resolve("cuda")
    assert caught.value.exit_code == 6
    assert caught.value.fix is not None
    assert "--device cpu" in caught.value.fix


@pytest.mark.parametrize("requested", ["cuda", "auto"])
def test_resolve_takes_a_gpu_that_can_run(
    monkeypatch: pytest.MonkeyPatch, requested: device.RequestedDevice
) -> None:
    monkeypatch.setitem(sys.modules, "cupy", fake_cupy(capability=(7, 5)))
    choice = device.resolve(requested)
    assert choice.name == "cuda"
    assert "Test GPU, compute capability 7.5" in choice.reason
    assert choice.details == {
        "name": "Test GPU",
        "compute_capability": "7.5",
        "memory_bytes": 2**34,
        "device_index": 0,
        "device_count": 2,
        "pci_bus_id": "0000:01:00.0",
        "driver_version": "13.0",
        "runtime_version": "13.2",
        "nvrtc_version": "13.2",
        "cupy_version": "14.2.0",
    }


PROFILE = DeviceProfile(
    1,
    "2026-11-25T00:00:00+00:00",
    Machine("a processor", 2, "0.1.0", "0.68.1", gpu="Test GPU"),
    tuple(
        Point(name, symbols, 200, 300, p50, 2 * p50)
        for name, symbols, p50 in (
            ("cpu", 1, 100.0),
            ("cpu", 100, 1_000.0),
            ("cuda", 1, 300.0),
            ("cuda", 100, 400.0),
        )
    ),
)


@pytest.mark.parametrize(("symbols", "name"), [(1, "cpu"), (100, "cuda")])
def test_resolve_auto_takes_the_device_that_was_measured_to_be_faster(
    monkeypatch: pytest.MonkeyPatch, symbols: int, name: str
) -> None:
    monkeypatch.setitem(sys.modules, "cupy", fake_cupy())
    choice = device.resolve("auto", workload=Workload(symbols, 300), deadline_ms=200, profile=PROFILE)
    assert choice.name == name
    assert ("core_count" in choice.details) == (name == "cpu")
    assert "measured on 2026-11-25" in choice.reason
    assert "Test GPU" in choice.reason
    asked = device.resolve("cuda", workload=Workload(symbols, 300), deadline_ms=200, profile=PROFILE)
    assert asked.name == "cuda", "what was asked for by name is not replaced"
    assert device.resolve("auto", profile=PROFILE).name == "cuda", "for anything: as without a profile"


@pytest.mark.parametrize(
    ("profile", "symbols", "words"),
    [
        (NoProfile("there is no device profile"), 1, "there is no device profile"),
        (PROFILE, 1_000, "says nothing of 1,000 symbols"),
    ],
)
def test_resolve_auto_takes_the_gpu_where_nothing_was_measured(
    monkeypatch: pytest.MonkeyPatch, profile: DeviceProfile | NoProfile, symbols: int, words: str
) -> None:
    monkeypatch.setitem(sys.modules, "cupy", fake_cupy())
    choice = device.resolve("auto", workload=Workload(symbols, 300), deadline_ms=200, profile=profile)
    assert choice.name == "cuda"
    assert words in choice.reason
    assert "gpuscalp bench crossover" in choice.reason


@broken
def test_resolve_auto_without_a_gpu_judges_the_cpu_alone(
    monkeypatch: pytest.MonkeyPatch, cupy: Any, message: str
) -> None:
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    work = Workload(100, 300)
    choice = device.resolve("auto", workload=work, deadline_ms=1, profile=PROFILE)
    assert choice.name == "cpu"
    assert message in choice.reason
    assert "deadline of 1 ms will not be kept" in choice.reason
    none = device.resolve("auto", workload=work, deadline_ms=1, profile=NoProfile("none"))
    assert none.name == "cpu"
    assert "crossover" not in none.reason, "there is nothing to compare"


def test_resolve_cpu_never_imports_cupy(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> Any:
        raise AssertionError("asked for a GPU")

    monkeypatch.setattr(device, "import_cupy", fail)
    choice = device.resolve("cpu")
    assert choice.name == "cpu"
    assert choice.details["core_count"] >= 1  # type: ignore[operator]


def test_cores_are_those_that_this_process_may_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {3}, raising=False)
    monkeypatch.setattr("os.cpu_count", lambda: 64)
    assert device.core_count() == 1
    assert device.resolve("cpu").details["core_count"] == 1


def test_bus_ids_are_told_in_cudas_order_and_none_where_cuda_cannot_be_asked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cupy = fake_cupy()
    cupy.cuda.runtime.deviceGetPCIBusId = lambda index: f"0000:{9 - index}B:00.0"
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    assert device.cuda_bus_ids() == ("0000:9B:00.0", "0000:8B:00.0")
    for missing in (None, fake_cupy(count_fault=100)):
        monkeypatch.setitem(sys.modules, "cupy", missing)
        assert device.cuda_bus_ids() == ()


def test_resolve_refuses_another_word() -> None:
    with pytest.raises(UsageError, match="unknown device") as caught:
        device.resolve("gpu")  # type: ignore[arg-type]
    assert caught.value.fix == "one of cpu, cuda, auto"


def test_import_cupy_tells_absent_from_damaged(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    (tmp_path / "cupy.py").write_text("import libcuda_of_another_planet\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "cupy", raising=False)
    with pytest.raises(DeviceError, match="damaged"):
        device.import_cupy()
    (tmp_path / "cupy.py").write_text("raise OSError('libcublas.so: wrong ELF class')\n")
    with pytest.raises(DeviceError, match=r"cannot be imported.*wrong ELF class") as caught:
        device.import_cupy()
    assert "make setup" in (caught.value.fix or "")


def test_cache_of_cupy_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    """CuPy makes it when it is imported. A service whose home was closed was told to install CuPy again."""
    if importlib.util.find_spec("cupy") is None:
        pytest.skip("CuPy is not installed")
    (tmp_path / "file").touch()
    code = "from gpuscalp.device import resolve; print(resolve('auto').reason)"
    env = os.environ | {"CUPY_CACHE_DIR": str(tmp_path / "file" / "cupy")}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    assert "CuPy cannot be imported: Not a directory" in done.stdout
    assert f"value: '{tmp_path}/file/cupy'" in done.stdout
    assert "fix: name a folder that can be written to with CUPY_CACHE_DIR, or use --device cpu" in done.stdout


@broken
def test_describe_reports_a_missing_gpu_without_raising(
    monkeypatch: pytest.MonkeyPatch, cupy: Any, message: str
) -> None:
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    answer = json.loads(json.dumps(device.describe()))
    assert answer["device"] == "cpu"
    assert answer["requested"] == "auto"
    assert message in answer["reason"]
    assert answer["cuda"]["usable"] is False
    assert message in answer["cuda"]["error"]["what"]
    assert device.describe("cuda")["device"] is None


def test_describe_reports_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cupy", fake_cupy())
    answer = json.loads(json.dumps(device.describe()))
    assert answer["device"] == "cuda"
    assert answer["cuda"]["usable"] is True
    assert answer["cuda"]["name"] == "Test GPU"
