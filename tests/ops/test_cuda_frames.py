"""``kernels/frames.cu`` against its Numba twin, bit for bit: on the host in every run, on a GPU if asked."""

from __future__ import annotations

import itertools
import re
from contextlib import contextmanager
from unittest import mock

import numpy as np
import pytest

from gpuscalp.errors import ShapeError
from gpuscalp.ops import cuda_frames, frames
from gpuscalp.ops.kernel_source import load_kernel_source
from gpuscalp.schema import TICK, Channel, Quality, TickKind
from tests.host_shim.build import compiler
from tests.host_shim.cuda_on_host import cuda_on_host
from tests.ops.device_case import assert_twins, down, garbage, up, up_bytes

needs_compiler = pytest.mark.skipif(compiler() is None, reason="there is no g++ to build kernels with")

SEEDS = (None, 1, 2)
# Symbols and mean ticks of one frame: more ticks than a chunk holds, about as many, mostly none.
STREAM_SIZES = ((1, 150.0), (5, 32.0), (65, 0.5))
# Symbols, frames, mean ticks of a cell. 127 to 129: at, below and over the edge of a block; 31 to 33: at,
# below and over as many symbols, and frames, as a block carries.
SIZES = (
    (1, 40, 6.0),
    (2, 300, 2.0),
    (31, 20, 3.0),
    (33, 12, 0.4),
    (32, 33, 0.2),
    (127, 3, 1.0),
    (128, 2, 1.0),
    (129, 3, 1.0),
)
FRAME_NS = 100_000_000
NAMES = ("integers", "reals", "channels", "quality", "bid_px", "ask_px", "mark")


def random_ticks(rng, symbol_count, frame_count, mean):
    """Ticks of all kinds in random order: trades before quotes, books and marks late or never."""
    counts = rng.poisson(mean, frame_count * symbol_count)
    # One symbol without any tick, one that is quoted late.
    counts[rng.integers(symbol_count) :: symbol_count] *= int(symbol_count < 3)
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    count = int(offsets[-1])
    ticks = np.zeros(count, TICK)
    cell = np.repeat(np.arange(len(counts)), counts)
    ticks["symbol"] = cell % symbol_count
    ticks["exch_ns"] = 1_700_000_000_000_000_000 + cell // symbol_count * FRAME_NS
    ticks["exch_ns"] += rng.integers(0, FRAME_NS, count)
    kinds = [*TickKind, 255]  # CLOCK and a late tick must leave no trace but their quality
    ticks["kind"] = rng.choice(kinds, count, p=(0.4, 0.3, 0.1, 0.1, 0.05, 0.05))
    ticks["side"] = rng.choice([-1, 0, 1], count)
    ticks["quality"] = rng.choice(
        [0, 0, 0, *map(int, (Quality.GAP, Quality.RESYNC, Quality.LATE, Quality.CLOCK_DRIFT))], count
    )
    ticks["px0"] = 60_000 + rng.integers(-40, 40, count)
    # Sometimes crossed, sometimes locked, sometimes a side is missing.
    ticks["px1"] = ticks["px0"] + rng.integers(-1, 5, count)
    for side in ("px0", "px1"):
        ticks[side][rng.random(count) < 0.02] = 0
    for quantity in ("q0", "q1", "q2", "q3"):
        ticks[quantity] = np.round(rng.lognormal(0, 2, count), 3)
        ticks[quantity][rng.random(count) < 0.05] = 0.0
    ticks["q0"][rng.random(count) < 0.005] = 1e300  # overflows float32, and a product of two
    return ticks, offsets


def check_fold(rng, symbol_count, frame_count, mean):
    """Fold twice, so that the second call starts from the state that the first has left."""
    tick_size = rng.choice([0.1, 0.01, 0.001, 1e-7], symbol_count)
    stale_ns, warm_up_frames = 3 * FRAME_NS, 5
    cpu_state = frames.FrameState.empty(symbol_count)
    cuda_state = cuda_frames.FrameState.empty(symbol_count)
    for _ in range(2):
        ticks, offsets = random_ticks(rng, symbol_count, frame_count, mean)
        end_ns = 1_700_000_000_000_000_000 + (1 + np.arange(frame_count, dtype=np.int64)) * FRAME_NS
        out = empty_out(frame_count, symbol_count)
        cuda_out = up(out)
        inputs = up((offsets, end_ns, tick_size))
        cuda_frames.fold(up_bytes(ticks), *inputs, stale_ns, warm_up_frames, cuda_state, *cuda_out)
        frames.fold(ticks, offsets, end_ns, tick_size, stale_ns, warm_up_frames, cpu_state, *out)
        assert_twins((*cuda_state, *cuda_out), (*cpu_state, *out), NAMES)
    assert np.isfinite(out[0]).any(), "no symbol was quoted: the case shows nothing"


def check_cuts(rng, symbol_count, frame_count, mean, pieces):
    """Fold piece after piece, each from the state that the last has left; the CPU folds all at once."""
    ticks, offsets = random_ticks(rng, symbol_count, frame_count, mean)
    tick_size = rng.choice([0.1, 0.01, 1e-7], symbol_count)
    end_ns = 1_700_000_000_000_000_000 + (1 + np.arange(frame_count, dtype=np.int64)) * FRAME_NS
    state = frames.FrameState.empty(symbol_count)
    wanted = empty_out(frame_count, symbol_count)
    frames.fold(ticks, offsets, end_ns, tick_size, 3 * FRAME_NS, 5, state, *wanted)
    cuda_state = cuda_frames.FrameState.empty(symbol_count)
    parts = []
    for first, last in pieces:
        own = offsets[first * symbol_count : last * symbol_count + 1]
        out = up(empty_out(last - first, symbol_count))
        inputs = up((own - own[0], end_ns[first:last], tick_size))
        cuda_frames.fold(up_bytes(ticks[own[0] : own[-1]]), *inputs, 3 * FRAME_NS, 5, cuda_state, *out)
        parts.append(out)
    import cupy

    joined = [cupy.concatenate(arrays) for arrays in zip(*parts, strict=True)]
    assert_twins((*cuda_state, *joined), (*state, *wanted), NAMES)


def empty_out(frame_count, symbol_count):
    row = (frame_count, symbol_count)
    return (
        garbage((frame_count, frames.CHANNEL_COUNT, symbol_count), np.float32),
        garbage(row, np.uint32),
        garbage(row, np.int32),
        garbage(row, np.int32),
        garbage(row, np.float64),
    )


@needs_compiler
@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("size", STREAM_SIZES, ids=str)
def test_fold_of_one_frame_gives_the_bits_of_the_cpu(rng, size, seed):
    with cuda_on_host(seed=seed):
        check_fold(rng, size[0], 1, size[1])


@needs_compiler
@pytest.mark.parametrize("count", [31, 32, 33, 63, 64, 65, 96])
def test_fold_of_one_frame_takes_any_number_of_ticks(rng, count):
    """The chunks that are staged hold 32 ticks: one short, full, and one over."""
    ticks, _ = random_ticks(rng, 1, 1, 4.0 * count)
    ticks = ticks[:count]
    assert len(ticks) == count
    state, cuda_out, out = frames.FrameState.empty(1), empty_out(1, 1), empty_out(1, 1)
    offsets, end_ns = np.array([0, count], np.int64), ticks["exch_ns"].max(keepdims=True)
    with cuda_on_host(seed=4):
        cuda_state = cuda_frames.FrameState.empty(1)
        cuda_out = up(cuda_out)
        cuda_frames.fold(up_bytes(ticks), *up([offsets, end_ns, np.ones(1)]), 1, 1, cuda_state, *cuda_out)
        frames.fold(ticks, offsets, end_ns, np.ones(1), 1, 1, state, *out)
        assert_twins((*cuda_state, *cuda_out), (*state, *out), NAMES)


@needs_compiler
@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_fold_gives_the_bits_of_the_cpu(rng, size, seed):
    with cuda_on_host(seed=seed):
        check_fold(rng, *size)


@needs_compiler
def test_fold_may_be_cut_at_every_frame(rng):
    """A cut may fall before the first quote, into a gap, between a quote and the frames that repeat it."""
    with cuda_on_host(seed=5), few_threads():
        for cut in range(1, 13):
            check_cuts(rng, 3, 13, 0.7, [(0, cut), (cut, 13)])
            check_cuts(rng, 2, 13, 0.7, [(0, cut), *((at, at + 1) for at in range(cut, 13))])


@needs_compiler
@pytest.mark.parametrize("seed", range(12))
def test_fold_of_random_markets_in_random_pieces_gives_the_bits_of_the_cpu(seed):
    rng = np.random.default_rng(seed)
    symbol_count, frame_count = int(rng.integers(1, 9)), int(rng.integers(8, 60))
    inner = np.sort(rng.choice(np.arange(1, frame_count), 3, replace=False))
    edges = [0, *inner.tolist(), frame_count]
    pieces = list(itertools.pairwise(edges))
    with cuda_on_host(seed=seed), few_threads():
        check_cuts(rng, symbol_count, frame_count, float(rng.choice([0.05, 0.3, 1.0, 4.0])), pieces)


@contextmanager
def few_threads():
    """Blocks so small that little data crosses their borders."""
    with mock.patch.multiple(cuda_frames, CARRY_SYMBOLS=2, CARRY_STRETCHES=5, CELL_THREADS=8, FOLD_THREADS=4):
        yield


@pytest.mark.gpu
@pytest.mark.parametrize("size", STREAM_SIZES, ids=str)
def test_fold_of_one_frame_gives_the_bits_of_the_cpu_on_a_gpu(rng, size):
    check_fold(rng, size[0], 1, size[1])


@pytest.mark.gpu
@pytest.mark.parametrize("size", [*SIZES, (512, 1_000, 0.5)], ids=str)
def test_fold_gives_the_bits_of_the_cpu_on_a_gpu(rng, size):
    check_fold(rng, *size)


@pytest.mark.gpu
def test_fold_may_be_cut_at_every_frame_on_a_gpu(rng):
    for cut in range(1, 40):
        check_cuts(rng, 3, 40, 0.7, [(0, cut), (cut, 40)])


@needs_compiler
def test_fold_without_ticks_says_that_nothing_is_known():
    with cuda_on_host():
        state = cuda_frames.FrameState.empty(2)
        out = [garbage((3, frames.CHANNEL_COUNT, 2), np.float32)]
        out += [garbage((3, 2), dtype) for dtype in (np.uint32, np.int32, np.int32, np.float64)]
        given = [np.empty((0, 64), np.uint8), np.zeros(7, np.int64), np.arange(3, dtype=np.int64), np.ones(2)]
        on_device = up(out)
        cuda_frames.fold(*up(given), 1, 1, state, *on_device)
        out = down(on_device)
    assert np.isnan(out[0]).all()
    assert (out[1] == int(Quality.WARM_UP)).all()
    assert (out[2] == 0).all()
    assert (out[3] == 0).all()


@needs_compiler
def test_fold_of_no_frame_launches_nothing():
    with cuda_on_host():
        state = cuda_frames.FrameState.empty(2)
        out = [np.empty((0, frames.CHANNEL_COUNT, 2), np.float32)]
        out += [np.empty((0, 2), dtype) for dtype in (np.uint32, np.int32, np.int32, np.float64)]
        offsets, end_ns = np.zeros(1, np.int64), np.empty(0, np.int64)
        cuda_frames.fold(np.empty((0, 64), np.uint8), offsets, end_ns, np.ones(2), 1, 1, state, *out)


@needs_compiler
@pytest.mark.parametrize(
    ("position", "wrong", "named"),
    [
        (0, np.zeros((4, 63), np.uint8), "ticks"),
        (1, np.zeros(6, np.int64), "offsets"),
        (1, np.zeros(5, np.int32), "offsets"),
        (3, np.ones(2, np.float32), "tick_size"),
        (7, np.zeros((2, 2, 19), np.float32).transpose(0, 2, 1), "channels"),
    ],
)
def test_fold_refuses_an_array_that_the_kernel_would_misread(position, wrong, named):
    with cuda_on_host():
        arguments = [
            np.zeros((4, 64), np.uint8), np.zeros(5, np.int64), np.zeros(2, np.int64), np.ones(2), 1, 1,
            cuda_frames.FrameState.empty(2), np.zeros((2, 19, 2), np.float32), np.zeros((2, 2), np.uint32),
            np.zeros((2, 2), np.int32), np.zeros((2, 2), np.int32), np.zeros((2, 2)),
        ]  # fmt: skip
        arguments[position] = wrong
        with pytest.raises(ShapeError, match=named):
            cuda_frames.fold(*arguments)


def test_codes_of_the_kernel_are_those_of_the_schema():
    source = load_kernel_source("frames")
    assert enum_of(source, "Kind") == {kind.name: int(kind) for kind in TickKind if kind != TickKind.CLOCK}
    assert enum_of(source, "Channel") == {c.name: int(c) for c in Channel} | {"CHANNEL_COUNT": len(Channel)}
    assert enum_of(source, "Quality").items() <= {bit.name: int(bit) for bit in Quality}.items()


def enum_of(source: str, name: str) -> dict[str, int]:
    """Return names and values of a C++ enum whose values are numbers, shifts of numbers, or counted on."""
    body = re.search(rf"enum {name} \{{(.*?)\}}", source, re.DOTALL)[1]
    values: dict[str, int] = {}
    following = 0
    for item in filter(None, (part.strip() for part in body.split(","))):
        key, _, text = (part.strip() for part in item.partition("="))
        number, _, shift = text.partition("<<")
        value = int(number) << int(shift or 0) if text else following
        values[key] = value
        following = value + 1
    return values
