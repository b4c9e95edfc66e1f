"""The compiler options, and loading, on a CuPy that stands in for one with a GPU."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from gpuscalp.errors import DeviceError
from gpuscalp.ops import cuda_module
from gpuscalp.ops.cuda_module import NVRTC_OPTIONS, compile_source, load_module
from gpuscalp.ops.kernel_source import load_kernel_source

SOURCE = 'extern "C" __global__ void scale(float* x) { x[0] *= 2.0f; }'

needs_cupy = pytest.mark.skipif(importlib.util.find_spec("cupy") is None, reason="CuPy is not installed")


class FakeNvrtcError(RuntimeError):
    pass


class FakeDriverError(RuntimeError):
    pass


class FakeCupy:
    """Records what is compiled and loaded."""

    def __init__(self, capability: str = "90") -> None:
        self.capability = capability
        self.device_index = 0
        self.nvrtc_version = (13, 0)
        self.compiled: list[tuple[str, ...]] = []
        self.loaded: list[bytes] = []
        self.attributes: list[tuple[object, ...]] = []
        self.log = ""
        self.cuda = SimpleNamespace(
            runtime=SimpleNamespace(getDevice=lambda: self.device_index),
            Device=lambda: SimpleNamespace(compute_capability=self.capability),
            Module=lambda: SimpleNamespace(load=self.load, get_function=self.get_function),
            driver=SimpleNamespace(
                CUDADriverError=FakeDriverError,
                CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES=8,
                funcSetAttribute=lambda *words: self.attributes.append(words),
            ),
            nvrtc=SimpleNamespace(
                NVRTCError=FakeNvrtcError,
                getVersion=lambda: self.nvrtc_version,
                getSupportedArchs=lambda: (75, 80, 90, 120),
                createProgram=lambda source, *_: source,
                compileProgram=self.compile,
                getPTX=lambda _: b"ptx\0",
                getCUBIN=lambda _: b"cubin",
                getProgramLog=lambda _: self.log,
                destroyProgram=lambda _: None,
            ),
        )

    def compile(self, _program: str, options: tuple[str, ...]) -> None:
        self.compiled.append(options)
        if self.log:
            raise FakeNvrtcError("NVRTC_ERROR_COMPILATION")

    def load(self, binary: bytes) -> None:
        self.loaded.append(binary)

    def get_function(self, name: str) -> Any:
        if name == "missing":
            raise FakeDriverError("CUDA_ERROR_NOT_FOUND: named symbol not found")
        return SimpleNamespace(name=name, ptr=4711)


@pytest.fixture
def cupy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> FakeCupy:
    fake = FakeCupy()
    monkeypatch.setenv("GPUSCALP_KERNEL_CACHE", str(tmp_path / "kernels"))
    monkeypatch.setitem(sys.modules, "cupy", fake)
    monkeypatch.setattr(cuda_module, "_MODULES", {})
    monkeypatch.setattr(cuda_module, "load_kernel_source", lambda _: SOURCE)
    return fake


def test_load_module_loads_once_for_each_source_and_device(cupy: FakeCupy) -> None:
    first = load_module("scale")
    assert load_module("scale") is first
    cupy.device_index = 1
    assert load_module("scale") is not first
    assert len(cupy.loaded) == 2
    assert len(cupy.compiled) == 1, "two devices of one kind share a binary"
    options = cupy.compiled[0]
    assert options[0] == "--gpu-architecture=sm_90"
    assert set(NVRTC_OPTIONS) <= set(options)


def test_compiled_source_is_found_on_the_disk_by_the_next_process(
    cupy: FakeCupy, monkeypatch: pytest.MonkeyPatch
) -> None:
    load_module("scale")
    monkeypatch.setattr(cuda_module, "_MODULES", {})
    load_module("scale")
    assert len(cupy.compiled) == 1
    assert cupy.loaded == [b"cubin", b"cubin"]


@pytest.mark.parametrize("what", ["source", "options", "compiler", "architecture", "kind"])
def test_whatever_changes_the_binary_is_compiled_anew(
    cupy: FakeCupy, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    load_module("scale")
    monkeypatch.setattr(cuda_module, "_MODULES", {})
    if what == "source":
        monkeypatch.setattr(cuda_module, "load_kernel_source", lambda _: SOURCE + " ")
    elif what == "options":
        monkeypatch.setattr(cuda_module, "NVRTC_OPTIONS", (*NVRTC_OPTIONS, "--dopt=on"))
    elif what == "compiler":
        cupy.nvrtc_version = (13, 1)
    else:
        cupy.capability = {"architecture": "80", "kind": "100"}[what]
    load_module("scale")
    assert len(cupy.compiled) == 2


def test_damaged_entry_is_compiled_anew_and_mended(
    cupy: FakeCupy, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    load_module("scale")
    (path,) = (tmp_path / "kernels").iterdir()
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    monkeypatch.setattr(cuda_module, "_MODULES", {})
    load_module("scale")
    assert len(cupy.compiled) == 2
    assert cupy.loaded == [b"cubin", b"cubin"]
    assert path.read_bytes() == whole


def test_source_that_does_not_compile_leaves_no_entry(cupy: FakeCupy, tmp_path: Path) -> None:
    cupy.log = "error"
    with pytest.raises(DeviceError):
        load_module("scale")
    assert not (tmp_path / "kernels").exists()


def test_is_compiled_says_what_the_disk_holds(cupy: FakeCupy) -> None:
    assert not cuda_module.is_compiled("scale", arch="90")
    load_module("scale")
    assert cuda_module.is_compiled("scale", arch="90")
    assert not cuda_module.is_compiled("scale", arch="90", binary=False)
    assert not cuda_module.is_compiled("scale", arch="75")


def test_load_module_gives_ptx_to_a_device_newer_than_the_compiler(cupy: FakeCupy) -> None:
    cupy.capability = "100"
    load_module("scale")
    assert cupy.compiled[0][0] == "--gpu-architecture=compute_90"
    assert cupy.loaded == [b"ptx"]


def test_load_module_refuses_a_device_older_than_the_compiler(cupy: FakeCupy) -> None:
    cupy.capability = "70"
    with pytest.raises(DeviceError, match="too old for this NVRTC") as caught:
        load_module("scale")
    assert caught.value.value == "70"


def test_load_module_shows_the_log_of_a_source_that_does_not_compile(cupy: FakeCupy) -> None:
    cupy.log = "scale.cu(1): error: y is undefined"
    with pytest.raises(DeviceError, match=r"scale\.cu does not compile for sm_90") as caught:
        load_module("scale")
    assert caught.value.value == cupy.log
    cupy.log = ""
    load_module("scale")


def test_load_module_names_what_to_install_where_cupy_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cupy", None)
    with pytest.raises(DeviceError) as caught:
        load_module("scale")
    assert "DEVICE=cuda13" in str(caught.value)


def test_get_function_asks_for_more_shared_memory_than_the_default(cupy: FakeCupy) -> None:
    module = load_module("scale")
    plain = module.get_function("scale")
    assert module.get_function("scale") is plain
    assert cupy.attributes == []
    module.get_function("scale", max_dynamic_shared_bytes=65536)
    assert cupy.attributes == [(4711, 8, 65536)]


def test_get_function_never_lowers_the_shared_memory_that_somebody_has_asked_for(cupy: FakeCupy) -> None:
    """The driver keeps one limit of a function: a smaller one would fail the next launch that needs more."""
    module = load_module("scale")
    for wanted in (70000, 60000, 70000, 80000, 60000):
        module.get_function("scale", max_dynamic_shared_bytes=wanted)
    assert [size for _, _, size in cupy.attributes] == [70000, 80000]


def test_get_function_names_the_shared_memory_that_a_gpu_does_not_have(cupy: FakeCupy) -> None:
    def refuse(*_: object) -> None:
        raise FakeDriverError("CUDA_ERROR_INVALID_VALUE: invalid argument")

    cupy.cuda.driver.funcSetAttribute = refuse
    module = load_module("scale")
    with pytest.raises(DeviceError, match="needs 300000 bytes of shared memory") as caught:
        module.get_function("scale", max_dynamic_shared_bytes=300_000)
    assert caught.value.fix == "use shorter windows, or --device cpu"
    with pytest.raises(DeviceError, match="needs 300000 bytes"):
        module.get_function("scale", max_dynamic_shared_bytes=300_000)


def test_get_function_names_an_entry_point_that_is_not_there(cupy: FakeCupy) -> None:
    with pytest.raises(DeviceError, match="entry point 'missing'"):
        load_module("scale").get_function("missing")


@needs_cupy
def test_compile_source_keeps_denormals_and_does_not_fuse() -> None:
    # CuPy's own RawModule made `mul.rn.ftz.f32` of this: it adds -ftz=true behind the options it is given.
    source = 'extern "C" __global__ void f(float* x) { x[3] = x[0] * x[1] + x[2]; }'
    made = compile_source(source, "f.cu", arch="90")
    assert "mul.rn.f32" in made.ptx
    assert "add.rn.f32" in made.ptx
    assert "fma" not in made.ptx
    assert "ftz" not in made.ptx
    assert "Compiling entry function 'f'" in made.log


@needs_cupy
def test_two_compilations_give_the_same_bytes() -> None:
    # ptxas writes into its log how long it took.
    one, other = (compile_source(load_kernel_source("forest"), "forest.cu", arch="90") for _ in range(2))
    assert one == other


@needs_cupy
def test_compile_source_gives_the_log_of_the_real_compiler() -> None:
    with pytest.raises(DeviceError) as caught:
        compile_source('extern "C" __global__ void f(float* x) { x[0] = y; }', "f.cu", arch="75")
    assert 'identifier "y" is undefined' in str(caught.value.value)
    assert caught.value.where == "f.cu"
