"""``kernels/ladder.cu`` against its Numba twin, bit for bit: on the host in every run, on a GPU if asked."""

from __future__ import annotations

import re

import numpy as np
import pytest

from gpuscalp.config import FeatureConfig, GridConfig
from gpuscalp.errors import ShapeError
from gpuscalp.feature_names import Group, Output
from gpuscalp.features import FeatureGraph
from gpuscalp.ops import cuda_ladder, ladder
from gpuscalp.ops.cuda_module import DEFAULT_DYNAMIC_SHARED_BYTES
from gpuscalp.ops.kernel_source import load_kernel_source
from gpuscalp.ops.ladder_codes import (
    FINISH_FIELDS,
    GROUP_FIELDS,
    LEVELS,
    SPECTRUM_BINS,
    TOP,
    Op,
    Stat,
)
from gpuscalp.schema import Channel
from tests.host_shim.build import compiler, entries_of
from tests.host_shim.cuda_on_host import cuda_on_host
from tests.host_shim.ladder_threads import ladder_threads
from tests.ops.device_case import assert_twins, garbage, up, up_tuple
from tests.ops.test_cuda_frames import enum_of

needs_compiler = pytest.mark.skipif(compiler() is None, reason="there is no g++ to build kernels with")

CONTEXT = ("leader.*", "market.*", "relative.*")
FLOWS = ("flow.imb*", "flow.imp*", "flow.ret*", "flow.tox*", "flow.vwap*", "flow.ill*")
ROLLING = ("*.mean.*", "*.std.*", "*.zscore.*", "*.ewm.*", "*.macd.*")
DROPS: dict[str, tuple[str, ...]] = {
    "all": (),
    "no long windows": ("*.512", "*.256", "*.ewm.*", "*.macd.*"),
    "neither price nor flow": (*CONTEXT, "price.*", *FLOWS),
    "spectra alone": (*CONTEXT, *FLOWS, *ROLLING, "price.*", "*.last"),
    "last values alone": (*CONTEXT, *FLOWS, *ROLLING, "price.*", "*.spectrum.*"),
}


def program_of(drop=()):
    return FeatureGraph(GridConfig(), FeatureConfig(drop=drop)).program


def program_of_groups(*groups):
    return FeatureGraph(GridConfig(), FeatureConfig(), groups=groups, context=(), cycles=()).program


def unused_families():
    """What the default graph leaves out: EXTREMES, windows of every level, as many spans as fit."""
    windows = [1 << level for level in range(8)]
    extremes = [Output(f"low.{w}", "bps", Stat.MIN, w) for w in windows]
    extremes += [Output(f"high.{w}", "bps", Stat.MAX, w) for w in reversed(windows)]
    cross = [Output(f"correlation.{w}", "ratio", Stat.CORRELATION, w) for w in windows[1:]]
    cross += [Output(f"beta.{w}", "ratio", Stat.BETA, w) for w in windows[1:]]
    spans = (2, 3, 5, 8, 13, 21, 34, 55)
    assert len(spans) == cuda_ladder.MAX_SPANS
    decay = [Output(f"ewm.{span}", "bps", Stat.DECAYED_MEAN, 64, a=i) for i, span in enumerate(spans)]
    decay += [Output(f"macd.{i}", "bps", Stat.DECAYED_DIFFERENCE, 16, a=i, b=7 - i) for i in range(8)]
    return program_of_groups(
        Group(Op.EXTREMES, "extremes", tuple(extremes), Channel.SPREAD_BPS),
        Group(Op.CROSS, "cross", tuple(cross), Channel.AGE_MS, y=Channel.BASIS_BPS),
        Group(Op.DECAY, "decay", tuple(decay), Channel.SPREAD_BPS, spans=spans),
    )


def random_channels(rng, frame_count, symbol_count):
    """float32[T, C, S]: walks and flows, NaN at the start and in the middle, constants, zeros, extremes."""
    shape = (frame_count, len(Channel), symbol_count)
    channels = rng.standard_normal(shape).astype(np.float32) * np.float32(3.0)
    flows = [Channel.BUY_KUSDT, Channel.SELL_KUSDT, Channel.TRADE_COUNT, Channel.VARIANCE_BPS2]
    channels[:, flows] = np.abs(np.round(channels[:, flows]))
    channels[:, Channel.FLOW_KUSDT] = channels[:, Channel.BUY_KUSDT] - channels[:, Channel.SELL_KUSDT]
    channels[: frame_count // 2, Channel.QUEUE_IMBALANCE] = np.float32(0.25)  # windows without variance
    channels[:, Channel.SPREAD_BPS] *= np.float32(1e-38)  # denormals
    # A market that stands still for a while: no flow, no move.
    still = slice(frame_count // 3, frame_count // 3 + 40)
    channels[still, Channel.RETURN_BPS] = 0.0
    channels[still, flows] = 0.0
    channels[still, Channel.FLOW_KUSDT] = -0.0
    channels[rng.random(shape) < 2e-5] = np.float32(3e38)  # squares overflow
    for symbol in range(symbol_count):
        channels[: rng.integers(0, 5), :, symbol] = np.nan
    channels[frame_count * 2 // 3, :, symbol_count // 2] = np.nan
    channels[:, Channel.BASIS_BPS, 0] = np.nan  # a symbol without a mark price
    return channels


def check_step(rng, program, symbol_count, frame_count):
    """Step frame by frame; return which columns had a value at any time."""
    channels = random_channels(rng, frame_count, symbol_count)
    column_count = int(program.finishes[:, 2].max()) + 1
    state = ladder.new_step_state(program, symbol_count)
    scratch = ladder.step_scratch(program, symbol_count)
    tables = up_tuple(program)
    cuda_state = cuda_ladder.new_step_state(tables, symbol_count)
    cuda_scratch = cuda_ladder.step_scratch(tables, symbol_count)
    assert_twins(cuda_state, state, ("rings", "clock"))
    (cuda_channels,) = up([channels])
    seen = np.zeros(column_count, np.bool_)
    for frame in range(frame_count):
        out = garbage((column_count, symbol_count), np.float32)
        (cuda_out,) = up([out])
        ladder.step(program, channels[frame], state, scratch, out)
        cuda_ladder.step(tables, cuda_channels[frame], cuda_state, cuda_scratch, cuda_out)
        assert_twins([cuda_out], [out], [f"columns of frame {frame}"])
        seen |= np.isfinite(out).any(axis=1)
    assert_twins(cuda_state, state, ("rings", "clock"))
    return seen


def check_batch(rng, program, frame_count, *, tile, cuts, symbol_count=1):
    """Compute pieces of some symbols, leaving the rest; return which columns had a value at any time."""
    halo = ladder.halo(program)
    column_count = int(program.finishes[:, 2].max()) + 1
    channels = random_channels(rng, halo + frame_count, symbol_count).transpose(2, 1, 0).copy()
    channels[:, :, : halo // 2] = np.nan
    out = garbage((symbol_count, column_count, frame_count), np.float32)
    tables = up_tuple(program)
    cuda_channels, cuda_out = up([channels, out])
    assert cuda_ladder.halo(tables) == halo
    assert cuda_ladder.ring_rows(tables) == ladder.ring_rows(program)
    scratch = ladder.batch_scratch(program, 64)
    cuda_scratch = cuda_ladder.batch_scratch(tables, tile)
    for first, last in cuts:
        ladder.batch(program, channels, first, last, 64, scratch, out)
        cuda_ladder.batch(tables, cuda_channels, first, last, tile, cuda_scratch, cuda_out)
        assert_twins([cuda_out], [out], [f"frames {first} to {last}"])
    return np.isfinite(out).any(axis=(0, 2))


@pytest.fixture
def small(monkeypatch):
    """Few threads and few blocks, so that small inputs cross their borders."""
    monkeypatch.setattr(cuda_ladder, "STEP_THREADS", 32)
    monkeypatch.setattr(cuda_ladder, "BATCH_BLOCKS", 1)  # the tile is the one that is asked for
    with ladder_threads(8):
        yield


@needs_compiler
@pytest.mark.usefixtures("small")
def test_step_gives_the_bits_of_the_cpu_until_every_window_is_warm(rng):
    with cuda_on_host():
        assert check_step(rng, program_of(), 3, 700).all()


@needs_compiler
@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("seed", [None, 1])
@pytest.mark.parametrize("symbol_count", [1, 2, 31, 33])
@pytest.mark.parametrize("drop", DROPS, ids=str)
def test_step_gives_the_bits_of_the_cpu(rng, drop, symbol_count, seed):
    with cuda_on_host(seed=seed):
        check_step(rng, program_of(DROPS[drop]), symbol_count, 40)


@needs_compiler
@pytest.mark.usefixtures("small")
def test_step_knows_families_that_the_default_graph_does_not_use(rng):
    with cuda_on_host(seed=3):
        check_step(rng, unused_families(), 2, 200)


@needs_compiler
@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("seed", [None, 1])
@pytest.mark.parametrize("drop", DROPS, ids=str)
def test_batch_gives_the_bits_of_the_cpu(rng, drop, seed):
    with cuda_on_host(seed=seed):
        # 300 frames in tiles of 64: whole tiles, a part of one, and pieces that begin inside one.
        check_batch(rng, program_of(DROPS[drop]), 300, tile=64, cuts=[(0, 150), (150, 300), (7, 8), (9, 9)])


@needs_compiler
@pytest.mark.parametrize("seed", [None, 1, 2])
@pytest.mark.parametrize("threads", [1, pytest.param(2, marks=pytest.mark.thorough), 8, 64])
def test_batch_does_not_depend_on_the_threads_of_a_block(rng, threads, seed):
    """Levels that look back further than a block has threads take the other way through shared memory."""
    program = program_of(("*.512", "*.256", "*.ewm.*", "*.macd.*", *CONTEXT, "price.*", *FLOWS))
    with cuda_on_host(seed=seed), ladder_threads(threads):
        check_batch(rng, program, 80, tile=37, cuts=[(0, 80)], symbol_count=2)


@needs_compiler
def test_batch_of_many_symbols_keeps_them_apart(rng):
    with cuda_on_host(seed=3):
        check_batch(rng, program_of(DROPS["no long windows"]), 130, tile=50, cuts=[(3, 130)], symbol_count=5)


@needs_compiler
def test_batch_asks_for_the_shared_memory_of_the_longest_windows(rng):
    """4096 frames back take more than a block gets unasked; the shim refuses what was not asked for."""
    low = (Output("low", "bps", Stat.MIN, 4096),)
    mean = (Output("mean", "bps", Stat.MEAN, 4096),)
    flow = (Output("rsi", "ratio", Stat.RSI, 4096),)
    program = program_of_groups(
        Group(Op.EXTREMES, "low", low, Channel.SPREAD_BPS),
        Group(Op.MOMENTS, "mean", mean, Channel.SPREAD_BPS),
        Group(Op.SUMS, "flow", flow, Channel.RETURN_BPS),
    )
    with cuda_on_host():
        launches = cuda_ladder.batch_scratch(program, 64)
        assert max(launch.shared_bytes for launch in launches) > DEFAULT_DYNAMIC_SHARED_BYTES
        check_batch(rng, program, 100, tile=4096, cuts=[(0, 100)])


def test_batch_is_one_launch_for_each_family_and_length_the_largest_blocks_first():
    program = program_of()
    with cuda_on_host():
        launches = cuda_ladder.batch_scratch(program, 64)
    found = []
    for launch in launches:
        tops = {int(top) for top in program.groups[np.asarray(launch.chosen), TOP]}
        assert {(1 << top) - 1 for top in tops} == {launch.reach}
        found.append((launch.entry, launch.reach, len(launch.chosen), launch.shared_bytes))
    assert found == [
        ("batch_spectrum", 255, 1, 41792),
        ("batch_sums", 511, 1, 31080),
        ("batch_spectrum", 63, 2, 26272),
        ("batch_path", 511, 1, 24984),
        ("batch_cross", 511, 2, 24664),
        ("batch_decay4", 511, 2, 16464),
        ("batch_moments", 511, 11, 8344),
        ("batch_moments", 0, 8, 4128),
    ]
    assert sum(count for _, _, count, _ in found) == len(program.groups)
    # So that it runs on every GPU: docs/gpu.md.
    assert max(size for *_, size in found) <= DEFAULT_DYNAMIC_SHARED_BYTES


@needs_compiler
@pytest.mark.usefixtures("small")
def test_launches_of_a_batch_wait_for_what_was_queued_before_it(rng):
    """They run on streams of their own."""
    program, frame_count = program_of(DROPS["no long windows"]), 20
    channels = random_channels(rng, ladder.halo(program) + frame_count, 1).transpose(2, 1, 0).copy()
    out = garbage((1, int(program.finishes[:, 2].max()) + 1, frame_count), np.float32)
    with cuda_on_host():
        tables = up_tuple(program)
        scratch = cuda_ladder.batch_scratch(tables, 64)
        cuda_channels, cuda_out = up([np.zeros_like(channels), out])
        cuda_channels.set(channels)
        cuda_ladder.batch(tables, cuda_channels, 0, frame_count, 64, scratch, cuda_out)
        for launch in scratch:
            launch.stream.synchronize()  # and not the one on which they were queued
        ladder.batch(program, channels, 0, frame_count, 64, ladder.batch_scratch(program, 64), out)
        assert_twins([cuda_out], [out], ["columns"])


def test_tiles_are_shortened_until_there_are_blocks_enough_but_not_below_the_halo():
    launch = cuda_ladder.Launch("batch_moments", np.zeros(10, np.int32), 511, 0, None)
    assert cuda_ladder._tile_frames(launch, 5000, 8192, 4096) == 4096  # enough blocks
    assert cuda_ladder._tile_frames(launch, 500, 8192, 4096) == 2731  # three tiles of each strip
    assert cuda_ladder._tile_frames(launch, 10, 8192, 4096) == 511
    assert cuda_ladder._tile_frames(launch, 10, 100, 64) == 64  # never longer than was asked for
    assert cuda_ladder._tile_frames(launch._replace(reach=0), 10, 100, 64) == 1


@needs_compiler
@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("tile", [1, 31, 64, 65, 1000])
def test_batch_does_not_depend_on_the_tile(rng, tile):
    with cuda_on_host():
        check_batch(rng, program_of(DROPS["no long windows"]), 130, tile=tile, cuts=[(0, 130)])


@needs_compiler
def test_batch_gives_the_bits_of_the_cpu_with_the_shipped_geometry(rng):
    with cuda_on_host():
        graph = FeatureGraph(GridConfig(), FeatureConfig())
        seen = check_batch(rng, graph.program, 1500, tile=cuda_ladder.TILE_FRAMES, cuts=[(0, 1500)])
    # The one symbol has no mark price.
    assert {graph.names[column].split(".")[0] for column in np.flatnonzero(~seen)} == {"basis_bps"}


@needs_compiler
@pytest.mark.usefixtures("small")
def test_batch_knows_families_that_the_default_graph_does_not_use(rng):
    with cuda_on_host(seed=3):
        check_batch(rng, unused_families(), 200, tile=64, cuts=[(0, 200)])


@pytest.mark.gpu
@pytest.mark.parametrize("symbol_count", [1, 2, 31, 33, 129])
@pytest.mark.parametrize("drop", DROPS, ids=str)
def test_step_gives_the_bits_of_the_cpu_on_a_gpu(rng, drop, symbol_count):
    check_step(rng, program_of(DROPS[drop]), symbol_count, 1100)


@pytest.mark.gpu
@pytest.mark.parametrize("drop", DROPS, ids=str)
def test_batch_gives_the_bits_of_the_cpu_on_a_gpu(rng, drop):
    for symbol_count in (1, 40):
        check_batch(
            rng, program_of(DROPS[drop]), 5000, tile=cuda_ladder.TILE_FRAMES,
            cuts=[(0, 5000), (10, 1034)], symbol_count=symbol_count,
        )  # fmt: skip


@pytest.mark.gpu
def test_families_that_the_default_graph_does_not_use_on_a_gpu(rng):
    check_step(rng, unused_families(), 40, 200)
    check_batch(rng, unused_families(), 3000, tile=cuda_ladder.TILE_FRAMES, cuts=[(0, 3000)])


@needs_compiler
def test_step_refuses_arrays_of_another_number_of_symbols():
    with cuda_on_host():
        program = program_of()
        state = cuda_ladder.new_step_state(program, 3)
        scratch = cuda_ladder.step_scratch(program, 2)
        channels, out = np.zeros((19, 2), np.float32), np.zeros((400, 2), np.float32)
        with pytest.raises(ShapeError, match=r"state\.rings"):
            cuda_ladder.step(program, channels, state, scratch, out)


@needs_compiler
def test_scratch_refuses_more_decays_than_there_are_registers():
    spans = tuple(range(2, 11))
    outputs = (Output("ewm", "bps", Stat.DECAYED_MEAN, 64),)
    program = program_of_groups(Group(Op.DECAY, "decay", outputs, Channel.SPREAD_BPS, spans=spans))
    with cuda_on_host(), pytest.raises(AssertionError, match="at most 8 spans"):
        cuda_ladder.step_scratch(program, 1)


def test_codes_of_the_kernel_are_those_of_the_program():
    source = load_kernel_source("ladder")
    assert enum_of(source, "Op") == {op.name: int(op) for op in Op}
    assert enum_of(source, "Stat") == {stat.name: int(stat) for stat in Stat}
    assert enum_of(source, "Channel").items() <= {channel.name: int(channel) for channel in Channel}.items()
    for name, value in (
        ("LEVELS", LEVELS),
        ("SPECTRUM_BINS", SPECTRUM_BINS),
        ("MAX_SPANS", cuda_ladder.MAX_SPANS),
        ("GROUP_FIELDS", GROUP_FIELDS),
        ("FINISH_FIELDS", FINISH_FIELDS),
        ("STEP_THREADS", cuda_ladder.STEP_THREADS),
        ("BATCH_THREADS", cuda_ladder.BATCH_THREADS),
    ):
        assert f"#define {name} {value}\n" in source
    assert program_of().groups[:, TOP].max() < LEVELS


def test_layouts_of_the_kernel_are_those_that_the_launcher_reckons_with():
    source = load_kernel_source("ladder")
    found = {
        family.lower(): (frames, words)
        for family, frames, words in re.findall(
            r"struct (\w+) {\n.* N = .*\n.* INPUTS = .*\n.* FRAMES = (.+);\n.* WORDS = (.+);",
            source,
        )
    }
    assert found.pop("decay") == ("SPANS <= 4 ? 4 : 2", "SPANS <= 4 ? 4 : 10")
    assert found.pop("spectrum") == ("2", "2 * SPECTRUM_BINS")
    found |= {"decay4": ("4", "4"), "decay8": ("2", "10"), "spectrum": ("2", str(2 * SPECTRUM_BINS))}
    assert found == {
        family: (str(frames), str(words)) for family, (frames, words) in cuda_ladder._LAYOUTS.items()
    }
    entries = {entry.name for entry in entries_of(source)}
    assert entries == {"step", "advance_clock", *(f"batch_{family}" for family in found)}
