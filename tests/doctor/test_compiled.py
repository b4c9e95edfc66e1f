"""The folder of compiled kernels, and what is in it."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

import numba
import pytest
from numba.core.registry import cpu_target

from gpuscalp.doctor.compiled import (
    CudaCache,
    KernelCache,
    check_cuda_kernels,
    check_kernels,
    read_cuda_cache,
    read_kernel_cache,
)
from gpuscalp.ops import _numba
from gpuscalp.ops.cuda_module import compile_kernel
from tests.privileges import bound_by_rights

needs_nvrtc = pytest.mark.skipif(importlib.util.find_spec("cupy") is None, reason="CuPy is not installed")


@pytest.mark.parametrize(
    ("cache", "status"),
    [
        (KernelCache(Path("/c"), True), "ok"),
        (KernelCache(Path("/c"), False), "warn"),
    ],
)
def test_cache_is_judged_by_what_it_holds(cache, status):
    check = check_kernels(cache)
    assert check.status == status
    assert ("gpuscalp kernels compile" in (check.fix or "")) == (status == "warn")


@pytest.mark.parametrize(
    ("cache", "status", "words"),
    [
        (None, "skip", "no GPU"),
        (CudaCache(Path("/c"), None, "sm_90", ()), "ok", "sm_90"),
        # Whoever ships a complete cache may well make it read-only.
        (CudaCache(Path("/c"), "Read-only file system", "sm_90", ()), "ok", "sm_90"),
        (CudaCache(Path("/c"), None, "sm_90", ("ladder",)), "warn", "ladder"),
        (CudaCache(Path("/c"), "Read-only file system", "sm_90", ("ladder",)), "warn", "every start"),
    ],
)
def test_cuda_cache_is_judged_by_what_it_holds(cache, status, words):
    check = check_cuda_kernels(cache)
    assert check.status == status
    assert words in check.what


@needs_nvrtc
def test_cuda_kernels_are_looked_for_as_they_are_compiled(tmp_path, monkeypatch):
    monkeypatch.setenv("GPUSCALP_KERNEL_CACHE", str(tmp_path))
    cold = read_cuda_cache("9.0")
    assert (cold.target, cold.refusal) == ("sm_90", None)
    assert {"forest", "ladder"} <= set(cold.cold)
    compile_kernel("forest", arch="90")
    assert set(cold.cold) - set(read_cuda_cache("9.0").cold) == {"forest"}
    assert read_cuda_cache("8.0").cold == cold.cold


@pytest.fixture
def folder(tmp_path, monkeypatch):
    path = tmp_path / "cache"
    monkeypatch.setattr(_numba, "CACHE_FOLDER", path)
    return path


def test_only_what_is_compiled_for_this_python_processor_and_installation_counts(folder, monkeypatch):
    """Numba compiles anew after each of these; doctor said that all was compiled, by the names of files."""
    folder.mkdir()
    _numba.compiled_mark().touch()
    assert read_kernel_cache().compiled
    for module, name, other in (
        (sys, "version", "3.99"),
        (numba, "__version__", "9.9"),
        (_numba, "__file__", str(folder / "_numba.py")),
    ):
        with monkeypatch.context() as changed:
            changed.setattr(module, name, other)
            assert not read_kernel_cache().compiled
    codegen = type(cpu_target.target_context.codegen())
    monkeypatch.setattr(codegen, "magic_tuple", lambda _: ("another", "processor"))
    assert not read_kernel_cache().compiled


def test_sources_of_another_time_are_not_those_that_were_compiled(folder, monkeypatch):
    monkeypatch.setattr(_numba, "__file__", str(folder / "_numba.py"))
    folder.mkdir()
    source = folder / "wire.py"
    source.touch()
    _numba.compiled_mark().touch()
    assert read_kernel_cache().compiled
    os.utime(source, (1, 1))
    assert not read_kernel_cache().compiled


@needs_nvrtc
def test_cuda_folder_that_is_not_there_yet_is_judged_by_its_parent(tmp_path, monkeypatch):
    monkeypatch.setenv("GPUSCALP_KERNEL_CACHE", str(tmp_path / "cache"))
    assert read_cuda_cache("9.0").refusal is None
    (tmp_path / "cache").touch()
    assert read_cuda_cache("9.0").refusal is not None


@needs_nvrtc
def test_cuda_folder_without_permission_is_refused(tmp_path, monkeypatch):
    tmp_path.chmod(0o500)
    monkeypatch.setenv("GPUSCALP_KERNEL_CACHE", str(tmp_path / "cache"))
    assert bound_by_rights(lambda: read_cuda_cache("9.0")).refusal == "Permission denied"
