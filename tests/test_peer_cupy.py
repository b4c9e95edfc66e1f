"""The peer of the GPU benchmark computes the same columns: on what stands in for CuPy, against our CPU."""

from __future__ import annotations

import warnings

import numpy as np

from benchmarks.peer_cupy import LONGEST, PeerFeatures
from gpuscalp.bench.stream import START_NS, instruments, market
from gpuscalp.config import FeatureConfig, GridConfig
from gpuscalp.pipeline import FeaturePipeline
from gpuscalp.schema import NS_PER_MS
from tests.host_shim.cuda_on_host import cuda_on_host

SYMBOLS = 4


def test_every_column_of_the_peer_is_ours() -> None:
    """Both in float32, in other orders of adding: 1e-3 of a column's size is far above that, and below any
    column that means something else."""
    pipeline = FeaturePipeline(
        grid=GridConfig(lateness_ms=0), features=FeatureConfig(), instruments=instruments(SYMBOLS)
    )
    stream = pipeline.stream()
    ours, theirs = [], []
    with cuda_on_host():
        import cupy

        peer = PeerFeatures(cupy, pipeline.graph.names, SYMBOLS)
    for frame in range(LONGEST + 60):
        ticks = market(SYMBOLS, 40, frame)
        ticks["exch_ns"] += START_NS + frame * 100 * NS_PER_MS
        for chunk in stream.push(ticks):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", RuntimeWarning)  # NumPy's, of a mean of nothing while cold
                x = peer.step(cupy.array(chunk.frames.channels[0]), int(chunk.frames.end_ns[0]))
            ours.append(chunk.features[:, :, 0].copy())
            theirs.append(cupy.asnumpy(x))
    mine, other = np.stack(ours)[LONGEST:], np.stack(theirs)[LONGEST:]
    assert len(mine) >= 50
    assert np.isfinite(mine).all(axis=(0, 1)).mean() > 0.9, "too few columns are there to be compared"
    assert other.dtype == np.float32
    assert other.flags.c_contiguous
    for index, name in enumerate(pipeline.graph.names):
        a, b = mine[:, :, index], other[:, :, index]
        assert np.array_equal(np.isnan(a), np.isnan(b)), name
        scale = max(np.nanmax(np.abs(a)), 1e-6)
        assert np.nanmax(np.abs(a - b)) <= 1e-3 * scale, name
