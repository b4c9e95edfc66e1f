"""``kernels/frames.cu`` against its Numba twin, bit for bit: on the host in every run, on a GPU if asked."""

from __future__ import annotations

import re

import numpy as np
import pytest

from gpuscalp.errors import ShapeError
from gpuscalp.ops import cuda_frames, frames
from gpuscalp.ops.kernel_source import load_kernel_source
from gpuscalp.schema import TICK, Channel, Quality, TickKind
from tests.host_shim.build import compiler
from tests.host_shim.covers import covers
from tests.host_shim.cuda_on_host import cuda_on_host
from tests.ops.device_case import assert_twins, garbage, up, up_bytes

needs_compiler = pytest.mark.skipif(compiler() is None, reason="there is no g++ to build kernels with")

SEEDS = (None, 1, 2)
# Symbols, frames, mean ticks of a cell. 127 to 129: at, below and over the edge of a block.
SIZES = (
    (1, 40, 6.0),
    (2, 300, 2.0),
    (31, 20, 3.0),
    (33, 12, 0.4),
    (127, 3, 1.0),
    (128, 3, 1.0),
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
        [0, 0, 0, int(Quality.GAP), int(Quality.LATE), int(Quality.CLOCK_DRIFT)], count
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
    row = (frame_count, symbol_count)
    for _ in range(2):
        ticks, offsets = random_ticks(rng, symbol_count, frame_count, mean)
        end_ns = 1_700_000_000_000_000_000 + (1 + np.arange(frame_count, dtype=np.int64)) * FRAME_NS
        out = (
            garbage((frame_count, frames.CHANNEL_COUNT, symbol_count), np.float32),
            garbage(row, np.uint32),
            garbage(row, np.int32),
            garbage(row, np.int32),
            garbage(row, np.float64),
        )
        cuda_out = up(out)
        inputs = up((offsets, end_ns, tick_size))
        cuda_frames.fold(up_bytes(ticks), *inputs, stale_ns, warm_up_frames, cuda_state, *cuda_out)
        frames.fold(ticks, offsets, end_ns, tick_size, stale_ns, warm_up_frames, cpu_state, *out)
        assert_twins((*cuda_state, *cuda_out), (*cpu_state, *out), NAMES)
    assert np.isfinite(out[0]).any(), "no symbol was quoted: the case shows nothing"


@needs_compiler
@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("size", SIZES, ids=str)
@covers("frames", "fold")
def test_fold_gives_the_bits_of_the_cpu(rng, size, seed):
    with cuda_on_host(seed=seed):
        check_fold(rng, *size)


@pytest.mark.gpu
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_fold_gives_the_bits_of_the_cpu_on_a_gpu(rng, size):
    check_fold(rng, *size)


@needs_compiler
@covers("frames", "fold")
def test_fold_without_ticks_says_that_nothing_is_known():
    with cuda_on_host():
        state = cuda_frames.FrameState.empty(2)
        out = [garbage((3, frames.CHANNEL_COUNT, 2), np.float32)]
        out += [garbage((3, 2), dtype) for dtype in (np.uint32, np.int32, np.int32, np.float64)]
        ticks = np.empty((0, 64), np.uint8)
        end_ns = np.arange(3, dtype=np.int64)
        cuda_frames.fold(ticks, np.zeros(7, np.int64), end_ns, np.ones(2), 1, 1, state, *out)
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
