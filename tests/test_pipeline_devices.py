"""The pipeline on CUDA against the pipeline on the CPU: the same bits, also across a restart.

On the host in every run, by the kernels' own sources under the launchers; on a GPU if asked.
"""

from __future__ import annotations

import numpy as np
import pytest

from gpuscalp.config import FeatureConfig, GridConfig
from gpuscalp.errors import DeviceError
from gpuscalp.frames import block_layout
from gpuscalp.ops import by_device
from gpuscalp.ops.packed import ALIGNMENT, Field, carve, packed_bytes
from gpuscalp.pipeline import FeaturePipeline
from gpuscalp.schema import FeatureChunk, FrameBlock
from tests.host_shim.build import compiler
from tests.host_shim.gpu_on_host import gpu_on_host
from tests.host_shim.same_bits import assert_same_bits
from tests.random_ticks import cuts, instruments, random_ticks, split

needs_compiler = pytest.mark.skipif(compiler() is None, reason="there is no g++ to build kernels with")

SYMBOLS = 3
GRID = GridConfig(frame_ms=20, lateness_ms=10, stale_ms=200, max_gap_ms=4_000)


ADD = FeatureConfig(
    add=(
        "price.slope.64",
        "flow.spectrum.centroid.32",
        "spread_bps.max.16",
        "flow_kusdt.ewm.20",
        "market.price.slope.64",
        "my.pressure = ofi_kusdt.mean.8 / (ofi_kusdt.std.32 + 0.01)",
        "my.slope = max(price.slope.64, 0) - market.price.slope.64",
    )
)


DEFAULT = FeatureConfig()


def pipeline(device, *, features=DEFAULT, **options):
    return FeaturePipeline(
        grid=GRID, features=features, instruments=instruments(SYMBOLS), device=device, **options
    )


def market(count):
    """Long enough to fill every window, with a silence after which everything starts cold."""
    return random_ticks(11, count, SYMBOLS, step_ms=8.0, silences=1, silence_ms=5_000.0)


def host(array):
    import cupy

    return cupy.asnumpy(array)


def joined(chunks, *, fetch=np.asarray):
    """Copy what chunks hold and join it over the frames."""
    names = FrameBlock.__slots__
    parts = [([getattr(c.frames, name).copy() for name in names], fetch(c.features).copy()) for c in chunks]
    fields = {name: np.concatenate([part[0][i] for part in parts]) for i, name in enumerate(names)}
    return fields | {"features": np.concatenate([part[1] for part in parts], axis=2)}


def assert_same(got, wanted):
    for name, values in wanted.items():
        assert type(got[name]) is np.ndarray
        assert_same_bits(got[name], values, name)


def pushed(stream, batches):
    return (chunk for ticks in batches for chunk in stream.push(ticks))


def check_batch(count, **options):
    ticks = market(count)
    parts = split(ticks, cuts(3, len(ticks)))
    wanted = joined(pipeline("cpu", **options).batch([ticks]))
    assert_same(joined(pipeline("cuda", chunk_frames=300, **options).batch(parts)), wanted)
    kept = pipeline("cuda", keep_on_device=True, **options)
    assert_same(joined(kept.batch(parts), fetch=host), wanted)
    return wanted


def check_stream(count, **options):
    ticks = market(count)
    parts = split(ticks, cuts(4, len(ticks)))
    wanted = joined(pushed(pipeline("cpu", **options).stream(), [ticks]))
    assert_same(joined(pushed(pipeline("cuda", **options).stream(), parts)), wanted)
    kept = pipeline("cuda", keep_on_device=True, **options).stream()
    assert_same(joined(pushed(kept, parts), fetch=host), wanted)
    return wanted


def check_restart(count, first, second):
    """Stop on one device, go on with its checkpoint on the other."""
    ticks = market(count)
    wanted = joined(pushed(pipeline("cpu").stream(), [ticks]))
    before, after = pipeline(first).stream(), pipeline(second).stream()
    half = len(ticks) // 2
    chunks = [_copied(chunk) for chunk in before.push(ticks[:half])]
    after.restore(before.checkpoint())
    chunks += [_copied(chunk) for chunk in after.push(ticks[half:])]
    assert_same(joined(chunks), wanted)


def _copied(chunk):
    frames = FrameBlock(*(getattr(chunk.frames, name).copy() for name in FrameBlock.__slots__))
    return FeatureChunk(frames, chunk.features.copy())


@needs_compiler
@pytest.mark.parametrize("seed", [None, 1])
def test_batch_gives_the_bits_of_the_cpu(seed):
    with gpu_on_host(seed):
        wanted = check_batch(6_000)
    assert np.isfinite(wanted["features"]).any(axis=(0, 2)).all(), "a column was never seen"


@needs_compiler
def test_batch_that_is_left_early_leaves_no_copy_under_way():
    """A copy once went on into pinned memory that the next batch had already been given."""
    with gpu_on_host() as device:
        chunks = pipeline("cuda", chunk_frames=100).batch(split(market(3_000), [500, 1_000, 1_500]))
        next(chunks)
        ways = [stream for stream in device.streams if stream is not device.null]
        assert any(stream.queue for stream in ways), "nothing was under way"
        chunks.close()
        assert not any(stream.queue for stream in ways)


@needs_compiler
@pytest.mark.parametrize("seed", [None, 1])
def test_stream_gives_the_bits_of_the_cpu(seed):
    with gpu_on_host(seed):
        check_stream(500)


@needs_compiler
def test_added_columns_have_the_bits_of_the_cpu():
    with gpu_on_host():
        for wanted in (check_batch(2_000, features=ADD), check_stream(300, features=ADD)):
            own = wanted["features"][:, -2:]
            assert np.isfinite(own).any(axis=(0, 2)).all()


@needs_compiler
@pytest.mark.parametrize(("first", "second"), [("cpu", "cuda"), ("cuda", "cpu"), ("cuda", "cuda")])
def test_stream_goes_on_from_the_checkpoint_of_another_device(first, second):
    with gpu_on_host():
        check_restart(400, first, second)


@pytest.mark.gpu
def test_batch_and_stream_give_the_bits_of_the_cpu_on_a_gpu():
    check_batch(60_000)
    check_stream(6_000)
    check_batch(60_000, features=ADD)
    check_stream(6_000, features=ADD)


@pytest.mark.gpu
@pytest.mark.parametrize(("first", "second"), [("cpu", "cuda"), ("cuda", "cpu"), ("cuda", "cuda")])
def test_stream_goes_on_from_the_checkpoint_of_another_device_on_a_gpu(first, second):
    check_restart(6_000, first, second)


def test_cuda_is_an_error_where_it_cannot_run(monkeypatch):
    def nothing():
        raise DeviceError("no NVIDIA driver is installed")

    monkeypatch.setattr(by_device, "probe_cuda", nothing)
    with pytest.raises(DeviceError, match="no NVIDIA driver"):
        pipeline("cuda")


def test_a_device_that_does_not_exist_is_an_error():
    with pytest.raises(DeviceError, match="no operations for this device") as caught:
        pipeline("auto")
    assert caught.value.value == "auto"


def test_carve_gives_aligned_views_of_one_buffer():
    layout = (Field((3,), np.uint8), Field((2, 0), np.int64), *block_layout(2, 5))
    buffer = np.zeros(packed_bytes(layout), np.uint8)
    views = carve(buffer, layout)
    for number, (view, field) in enumerate(zip(views, layout, strict=True), start=1):
        assert view.shape == field.shape
        assert view.dtype == field.dtype
        if view.size:
            assert np.shares_memory(view, buffer)
            assert (view.ctypes.data - buffer.ctypes.data) % ALIGNMENT == 0
            assert not view.any(), "views overlap"
            view[...] = number


@needs_compiler
def test_upload_sends_the_ticks_of_the_frames_alone():
    ticks = market(100)
    offsets = np.array([20, 50, 50, 90], np.int64)
    with gpu_on_host():
        sent, shifted, end_ns = by_device.ops_for("cuda").upload(ticks, offsets, np.arange(1))
    assert sent.tobytes() == ticks[20:90].tobytes()
    assert np.array_equal(shifted, [0, 30, 30, 70])
    assert np.array_equal(end_ns, [0])
