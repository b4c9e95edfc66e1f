"""The GPU's engine against the CPU's, frame by frame: the same digests and margins, to the bit.

On the host in every run, on a device whose work is done when it is waited for and whose graphs know addresses
alone; on a GPU if asked.
"""

from __future__ import annotations

from unittest import mock

import numpy as np
import pytest

from gpuscalp.bench import stream as bench
from gpuscalp.bundle import margins_on
from gpuscalp.config import FeatureConfig, GridConfig
from gpuscalp.cuda_inference import CudaInference
from gpuscalp.errors import DeviceError, ShapeError
from gpuscalp.frames import ClosedFrames
from gpuscalp.inference import HostInference
from gpuscalp.ops import tick_upload
from gpuscalp.ops.ledger import LEDGER, Copies
from gpuscalp.pipeline import FeaturePipeline
from gpuscalp.schema import NS_PER_MS, TICK
from tests.host_shim import host_device
from tests.host_shim.build import ShimError, compiler
from tests.host_shim.gpu_on_host import gpu_on_host
from tests.host_shim.same_bits import assert_same_bits
from tests.ops.forests import random_forest, random_rows
from tests.random_ticks import instruments, random_ticks

needs_compiler = pytest.mark.skipif(compiler() is None, reason="there is no g++ to build kernels with")

GRID = GridConfig(frame_ms=20, lateness_ms=10, stale_ms=200, max_gap_ms=4_000)


def pipeline(device, symbols, grid=GRID):
    return FeaturePipeline(
        grid=grid, features=FeatureConfig(), instruments=instruments(symbols), device=device, threads=1
    )


def forest_of(rng, symbols=1, trees=12):
    graph = pipeline("cpu", symbols).graph
    return random_forest(rng, depths=[2, 3, 6, 9] * (trees // 4), feature_count=len(graph))


def market(count, symbols, *, step_ms=8.0):
    """With a silence, after which everything starts cold, and frames without ticks."""
    return random_ticks(11, count, symbols, step_ms=step_ms, silences=1, silence_ms=5_000.0)


def frames_of(ticks, symbols, stream=None):
    stream = stream or pipeline("cpu", symbols).stream()
    return list(stream.close(ticks))


def engines(rng, symbols, rows=None):
    forest = forest_of(rng)
    return (
        HostInference(pipeline("cpu", symbols), forest, rows=rows),
        CudaInference(pipeline("cuda", symbols), forest, rows=rows),
    )


def assert_same_steps(host, cuda, frames):
    """Step both through the frames; the answers are overwritten, so each is compared at once."""
    for index, closed in enumerate(frames):
        wanted, got = host.step(closed), cuda.step(closed)
        assert type(got.margins) is np.ndarray
        assert_same_bits(got.digests, wanted.digests, f"digests of frame {index}")
        assert_same_bits(got.margins, wanted.margins, f"margins of frame {index}")


def check_steps(rng, count, symbols, rows=None):
    host, cuda = engines(rng, symbols, rows)
    frames = frames_of(market(count, symbols), symbols)
    assert any(closed.restart for closed in frames)
    assert any(closed.offsets[0] == closed.offsets[-1] for closed in frames), "no frame without ticks"
    assert_same_steps(host, cuda, frames)
    cuda.close()


def check_growth(rng, symbols, bursts):
    """Frames of more and more ticks: the buffer grows and the graph is captured anew, and only then."""
    host, cuda = engines(rng, symbols)
    captured = [cuda.capture_count]
    end_ns = 1_700_000_000_000_000_000
    for count in bursts:
        ticks = np.sort(bench.market(symbols, count, count), order="symbol", kind="stable")
        ticks["exch_ns"] += end_ns
        end_ns += 20 * NS_PER_MS
        offsets = np.searchsorted(ticks["symbol"], np.arange(symbols + 1)).astype(np.int64)
        assert_same_steps(host, cuda, [ClosedFrames(np.array([end_ns]), ticks, offsets, False)])
        captured.append(cuda.capture_count)
    return captured


def check_restore(rng, count, symbols):
    """Go on in the middle of the market from what a stream on the CPU has saved."""
    ticks = market(count, symbols)
    host, cuda = engines(rng, symbols)
    before, half = pipeline("cpu", symbols).stream(), len(ticks) // 2
    for closed in before.close(ticks[:half]):
        before.step(closed)
    saved = before.checkpoint()
    for closed in frames_of(market(60, symbols), symbols):
        cuda.step(closed)  # of which nothing must be left
    cuda.restore(saved)
    host.restore(saved)
    assert_same_steps(host, cuda, frames_of(ticks[half:], symbols, before))


def check_ledger(rng, steps, symbols):
    """Exactly the packed ticks in and the answer out, for every frame; return both engines' frames."""
    cuda = CudaInference(pipeline("cuda", symbols), forest_of(rng))
    frames = frames_of(market(3 * steps, symbols, step_ms=7.0), symbols)
    while len(frames) < steps:  # again and again; the ends of frames do not matter here
        frames += frames[: steps - len(frames)]
    frames = frames[:steps]
    before = [LEDGER.total(direction) for direction in ("host_to_device", "device_to_host")]
    for closed in frames:
        cuda.step(closed)
    after = [LEDGER.total(direction) for direction in ("host_to_device", "device_to_host")]
    copied = [Copies(b.count - a.count, b.bytes - a.bytes) for a, b in zip(before, after, strict=True)]
    # Every array starts at a multiple of 64 bytes.
    padded = lambda size: -(-size // 64) * 64  # noqa: E731
    ticks_in = sum(int(closed.offsets[-1] - closed.offsets[0]) for closed in frames)
    header = 64 + padded(8 * (symbols + 1))
    answer = padded(8 * symbols) + padded(4 * 2 * symbols * 3)
    assert copied[0] == Copies(steps, steps * header + ticks_in * TICK.itemsize)
    assert copied[1] == Copies(steps, steps * answer)
    assert cuda.capture_count == 1


@needs_compiler
@pytest.mark.parametrize("seed", [None, 1])
@pytest.mark.parametrize("rows", [None, range(1, 3), range(2, 2)], ids=str)
def test_every_step_gives_the_bits_of_the_cpu(rng, seed, rows):
    with gpu_on_host(seed):
        check_steps(rng, 400, 3, rows)


@needs_compiler
def test_a_buffer_that_grows_is_captured_anew(rng, monkeypatch):
    monkeypatch.setattr(tick_upload, "_FIRST_TICKS_MIN", 1)
    with gpu_on_host():
        # 2 symbols begin with room for 32 ticks, and the room doubles.
        assert check_growth(rng, 2, [0, 31, 32, 33, 64, 65, 3, 300]) == [1, 1, 1, 1, 2, 2, 3, 3, 4]


@needs_compiler
def test_few_symbols_have_room_for_the_bursts_of_a_market(rng):
    """Room for 32 ticks grew six times in 8 minutes of two symbols, each time in a burst."""
    with gpu_on_host():
        assert check_growth(rng, 2, [30, 1_362]) == [1, 1, 1]


@needs_compiler
def test_it_goes_on_from_the_checkpoint_of_a_cpu(rng):
    with gpu_on_host():
        check_restore(rng, 400, 3)


@needs_compiler
def test_margins_of_given_rows_are_those_of_the_cpu(rng):
    with gpu_on_host():
        host, cuda = engines(rng, 2)
        x = random_rows(rng, 37, host._forest)
        assert_same_bits(cuda.margins(x), host.margins(x), "margins")
        assert_same_bits(margins_on("cuda", host._forest, x), host.margins(x), "margins for a bundle")
        # The canary leaves the stream as it was.
        assert_same_steps(host, cuda, frames_of(market(60, 2), 2))


@needs_compiler
def test_ledger_has_one_copy_in_and_one_out_for_each_frame(rng):
    with gpu_on_host() as device:
        check_ledger(rng, 60, 2)
        assert device.graph_launches == 60
        # What the device was asked for itself, set-up included: no copy goes past the ledger.
        counted = {way: LEDGER.total(way) for way in ("host_to_device", "device_to_host")}
        done = dict(device.copied)
        cuda = CudaInference(pipeline("cuda", 2), forest_of(rng))
        cuda.step(frames_of(market(30, 2), 2)[0])
        for way, before in counted.items():
            more = [(size, count - done.get((way, size), 0))
                    for (name, size), count in device.copied.items() if name == way]  # fmt: skip
            after = LEDGER.total(way)
            assert after.count - before.count == sum(count for _, count in more)
            assert after.bytes - before.bytes == sum(size * count for size, count in more)


@needs_compiler
def test_given_margins_take_the_place_of_the_kernel_outside_the_graph(rng):
    calls = []

    def margins(x, out):
        calls.append(x.shape)
        out[:] = np.float32(3.0)

    with gpu_on_host():
        forest = forest_of(rng)
        cuda = CudaInference(pipeline("cuda", 3), forest, rows=range(1, 3), margins=margins)
        host = HostInference(pipeline("cpu", 3), forest, rows=range(1, 3))
        assert calls == []
        for closed in frames_of(market(40, 3), 3)[:3]:
            answer = cuda.step(closed)
            assert_same_bits(answer.digests, host.step(closed).digests)
            assert (answer.margins == 3.0).all()
        assert calls == [(2, forest.feature_count)] * 3
        assert (cuda.margins(np.zeros((5, forest.feature_count), np.float32)) == 3.0).all()


@needs_compiler
def test_no_frame_allocates_on_the_device(rng):
    """Neither in the engine nor in the stream, whether it goes on or starts cold."""
    with gpu_on_host() as device:
        _, cuda = engines(rng, 2)
        stream = pipeline("cuda", 2).stream()
        frames = frames_of(market(60, 2), 2)
        before = device.allocation_count
        assert before > 0
        for closed in frames:
            cuda.step(closed)
            stream.step(closed)
        assert any(closed.restart for closed in frames)
        assert device.allocation_count == before


# What the shim must see, or it would prove nothing --------------------------------------------------------


@needs_compiler
def test_a_buffer_replaced_behind_the_graph_is_noticed(rng):
    with gpu_on_host():
        _, cuda = engines(rng, 2)
        cuda.close()  # what is queued holds its arrays
        cuda._upload._allocate(cuda._upload.capacity)
        with pytest.raises(ShimError, match="has been freed"):
            cuda.step(frames_of(market(60, 2), 2)[0])


@needs_compiler
def test_a_buffer_replaced_behind_the_graph_but_kept_gives_another_answer(rng):
    with gpu_on_host():
        host, cuda = engines(rng, 2)
        kept = cuda._upload.arrays
        cuda._upload._allocate(cuda._upload.capacity)
        with pytest.raises(AssertionError, match="digests"):
            assert_same_steps(host, cuda, frames_of(market(60, 2), 2))
        assert not kept[0].any()


@needs_compiler
def test_an_answer_that_is_not_waited_for_is_an_old_one(rng):
    with gpu_on_host():
        host, cuda = engines(rng, 2)
        with (
            mock.patch.object(host_device.Event, "synchronize"),
            pytest.raises(AssertionError, match="digests"),
        ):
            assert_same_steps(host, cuda, frames_of(market(60, 2), 2))


@needs_compiler
def test_a_copy_or_an_allocation_in_the_graph_is_refused(rng):
    import_in_capture = {
        "allocate": lambda cupy: cupy.zeros(3),
        "copy": lambda cupy: cupy.asnumpy(keep),
        "copy between": lambda cupy: keep.set(np.zeros(3)),
        "compute": lambda cupy: keep + keep,
        "wait": lambda cupy: cupy.cuda.get_current_stream().synchronize(),
    }
    with gpu_on_host():
        import cupy

        from gpuscalp.ops.device_stream import DeviceStream

        stream = DeviceStream()
        with stream:
            keep = cupy.zeros(3)
        for match, work in import_in_capture.items():
            with pytest.raises(ShimError, match=match):
                stream.capture(lambda work=work: work(cupy))
        # A fill is a kernel: recorded, not done, and done each time that the graph is launched.
        replay = stream.capture(lambda: keep.__setitem__(slice(None), 7))
        assert (cupy.asnumpy(keep) == 0).all()
        for value in (7, 7):
            replay()
            with stream:
                assert (cupy.asnumpy(keep) == value).all()
                keep[:] = 0


@needs_compiler
def test_a_pipeline_of_another_device_is_refused(rng):
    with pytest.raises(DeviceError, match="another device"):
        CudaInference(pipeline("cpu", 2), forest_of(rng))


@needs_compiler
def test_a_checkpoint_of_other_symbols_is_refused(rng):
    with gpu_on_host():
        _, cuda = engines(rng, 2)
        with pytest.raises(ShapeError, match="other symbols"):
            cuda.restore(pipeline("cpu", 3).stream().checkpoint())


# On a GPU -------------------------------------------------------------------------------------------------


@pytest.mark.gpu
@pytest.mark.parametrize(("count", "symbols"), [(20_000, 3), (40_000, 70)])
def test_every_step_gives_the_bits_of_the_cpu_on_a_gpu(rng, count, symbols):
    check_steps(rng, count, symbols)
    check_steps(rng, count // 4, symbols, range(1, symbols - 1))


@pytest.mark.gpu
def test_a_buffer_that_grows_is_captured_anew_on_a_gpu(rng):
    assert check_growth(rng, 512, [100, 8192, 8193, 100_000, 5])[-1] == 3


@pytest.mark.gpu
def test_it_goes_on_from_the_checkpoint_of_a_cpu_on_a_gpu(rng):
    check_restore(rng, 20_000, 5)


@pytest.mark.gpu
def test_ledger_has_one_copy_in_and_one_out_for_each_of_10000_frames_on_a_gpu(rng):
    check_ledger(rng, 10_000, 64)
