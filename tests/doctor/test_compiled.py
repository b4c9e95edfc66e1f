"""The folder of compiled kernels: writable, and warm."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

import numpy as np
import pytest

from gpuscalp.doctor.compiled import (
    NEEDED,
    CudaCache,
    KernelCache,
    check_cuda_kernels,
    check_kernels,
    read_cuda_cache,
    read_kernel_cache,
)
from gpuscalp.ops.cuda_module import compile_kernel
from gpuscalp.ops.logit import logit32

needs_nvrtc = pytest.mark.skipif(importlib.util.find_spec("cupy") is None, reason="CuPy is not installed")

TAG = f"py{sys.version_info.major}{sys.version_info.minor}"


@pytest.mark.parametrize(
    ("cache", "status"),
    [
        (KernelCache(Path("/c"), None, frozenset(NEEDED)), "ok"),
        (KernelCache(Path("/c"), None, frozenset()), "warn"),
        (KernelCache(Path("/c"), None, frozenset({"wire", "frames"})), "warn"),
        (KernelCache(Path("/c"), "Read-only file system", frozenset(NEEDED)), "fail"),
    ],
)
def test_cache_is_judged_by_what_it_takes_and_holds(cache, status):
    assert check_kernels(cache).status == status


def test_missing_kernels_are_named_with_what_compiles_them():
    check = check_kernels(KernelCache(Path("/c"), None, frozenset({"frames", "ladder", "context"})))
    assert "wire, forest" in check.what
    assert "gpuscalp kernels compile" in (check.fix or "")


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


def test_only_kernels_of_this_python_count(tmp_path):
    folder = tmp_path / "ops_1"
    folder.mkdir()
    for name in (f"frames._fold-12.{TAG}.nbi", "forest._walk-3.py39.nbi", f"wire.scan-1.{TAG}.1.nbc"):
        (folder / name).touch()
    assert read_kernel_cache(tmp_path).stems == {"frames"}


def test_folder_that_is_not_there_yet_is_judged_by_its_parent(tmp_path):
    assert read_kernel_cache(tmp_path / "a" / "b").refusal is None


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_folder_without_permission_is_refused(tmp_path):
    tmp_path.chmod(0o500)
    assert read_kernel_cache(tmp_path).refusal == "Permission denied"


def test_place_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "file").touch()
    assert read_kernel_cache(tmp_path / "file").refusal is not None


def test_kernel_that_ran_is_found_in_the_real_folder():
    logit32(np.float32(0.5))
    found = read_kernel_cache()
    assert found.refusal is None
    assert "logit" in found.stems


def test_every_needed_kernel_is_a_file_of_the_package():
    for stem in NEEDED:
        assert importlib.util.find_spec(f"gpuscalp.ops.{stem}") is not None
