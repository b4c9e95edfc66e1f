"""The GPU benchmark is wired right: its CUDA side runs on the host here, and the bits are compared."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks import bench_gpu
from gpuscalp.errors import ParityError
from tests.host_shim.cuda_on_host import cuda_on_host


def test_gpu_benchmark_compares_the_devices_on_the_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gpuscalp.ops.by_device.probe_cuda", lambda: None)
    with cuda_on_host():
        result = bench_gpu._stream(symbols=3, steps=2, warm_up=1)
    assert result["symbols"] == 3
    assert result["cpu"]["p50_us"] > 0
    assert result["cuda"]["p50_us"] > 0


def test_gpu_benchmark_refuses_differing_bits_and_takes_any_nan_as_missing() -> None:
    one = np.array([1.0, np.nan], np.float32)
    bench_gpu._same_bits(one, np.array([1.0, -np.nan], np.float32), "features")
    with pytest.raises(ParityError):
        bench_gpu._same_bits(one, np.array([1.0 + 2**-23, np.nan], np.float32), "features")
