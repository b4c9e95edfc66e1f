"""The ladder on the CPU: against the float64 oracle, and batch against stream to the bit."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpuscalp.config import FeatureConfig, GridConfig
from gpuscalp.feature_columns import GROUPS
from gpuscalp.feature_names import Group, Output
from gpuscalp.features import FeatureGraph
from gpuscalp.ops import ladder as ladder_ops
from gpuscalp.ops.ladder_codes import Op, Stat
from gpuscalp.schema import Channel
from tests import naive
from tests.host_shim.same_bits import assert_same_bits
from tests.thorough import examples

# Of the root mean square of the column: float32 rounds to 6e-8, and a window of 512 is nine roundings deep.
TOLERANCE = 1e-5
CHANNELS = len(Channel)


def graph_of(*groups: Group) -> FeatureGraph:
    return FeatureGraph(GridConfig(), FeatureConfig(), groups=groups or GROUPS, context=(), cycles=())


def moments(channel: Channel, *windows: int) -> Group:
    outputs = []
    for window in windows:
        outputs.append(Output(f"x.mean.{window}", "", Stat.MEAN, window))
        if window > 1:
            outputs.append(Output(f"x.std.{window}", "", Stat.STD, window))
        if window > 4:  # over 2 it is ±0.7, whatever rounding leaves of the difference of equal values
            outputs.append(Output(f"x.zscore.{window}", "", Stat.ZSCORE, window))
    return Group(Op.MOMENTS, "test", tuple(outputs), channel)


def random_channels(rng, frame_count, symbol_count=1):
    """Return float32[T, C, S]: heavy tails around zero; prices stand still in two of three frames."""
    channels = rng.standard_t(4, (frame_count, CHANNELS, symbol_count))
    channels[:, Channel.RETURN_BPS] *= rng.random((frame_count, symbol_count)) < 0.35
    for channel in (Channel.BUY_KUSDT, Channel.SELL_KUSDT, Channel.TRADE_COUNT, Channel.VARIANCE_BPS2):
        channels[:, channel] = np.abs(channels[:, channel]) * (rng.random((frame_count, symbol_count)) < 0.5)
    channels[:, Channel.FLOW_KUSDT] = channels[:, Channel.BUY_KUSDT] - channels[:, Channel.SELL_KUSDT]
    channels[1:, Channel.LAGGED_RETURN_BPS] = channels[:-1, Channel.RETURN_BPS]
    return channels.astype(np.float32)


def batch(graph, channels, *, tile=4096, cut=None):
    """Return float32[S, F, T]."""
    frame_count, _, symbol_count = channels.shape
    halo = ladder_ops.halo(graph.program)
    out = np.full((symbol_count, len(graph), frame_count), 77, np.float32)
    scratch = ladder_ops.batch_scratch(graph.program, tile)
    padded = np.full((symbol_count, CHANNELS, halo + frame_count), np.nan, np.float32)
    padded[:, :, halo:] = channels.transpose(2, 1, 0)
    before = padded.copy()
    for first, last in ((0, cut or 0), (cut or 0, frame_count)):
        ladder_ops.batch(graph.program, padded, first, last, tile, scratch, out)
    assert_same_bits(padded, before, "the input")
    return out


def stream(graph, channels):
    """Return float32[S, F, T], made frame by frame."""
    frame_count, _, symbol_count = channels.shape
    state = ladder_ops.new_step_state(graph.program, symbol_count)
    scratch = ladder_ops.step_scratch(graph.program, symbol_count)
    out = np.empty((symbol_count, len(graph), frame_count), np.float32)
    row = np.full((len(graph), symbol_count), 77, np.float32)
    for frame in range(frame_count):
        ladder_ops.step(graph.program, np.ascontiguousarray(channels[frame]), state, scratch, row)
        out[:, :, frame] = row.T
    return out


def oracle(graph, channels):
    end_ns = np.arange(len(channels), dtype=np.int64)
    return naive.columns(graph.names, channels, end_ns, leader=None)


def undecided(name, channels, symbol):
    return naive.undecided(name, naive.inputs(channels, symbol))


def assert_near_oracle(graph, channels, got):
    wanted = oracle(graph, channels)
    for at, name in enumerate(graph.names):
        for symbol in range(channels.shape[2]):
            value, exact = got[symbol, at].astype(float), wanted[symbol, at]
            decided = ~undecided(name, channels, symbol)
            assert (np.isnan(value) == np.isnan(exact))[decided].all(), f"{name}: NaN at other places"
            known = decided & ~np.isnan(exact)
            if not known.any():
                continue
            scale = np.sqrt(np.mean(wanted[:, at][~np.isnan(wanted[:, at])] ** 2))
            worst = np.abs(value - exact)[known].max()
            assert worst <= TOLERANCE * scale, f"{name}: {worst / scale:.1e} of its scale"


DEFAULT = graph_of()


@pytest.mark.parametrize("frame_count", [0, 1, 2, 31, 32, 33, 255, 256, 257, 1500])
def test_every_default_column_equals_the_oracle(frame_count, rng):
    channels = random_channels(rng, frame_count, symbol_count=2)
    assert_near_oracle(DEFAULT, channels, batch(DEFAULT, channels))


@pytest.mark.parametrize("place", ["start", "middle", "end", "one channel"])
def test_window_with_a_missing_frame_is_missing(place, rng):
    channels = random_channels(rng, 700)
    if place == "one channel":
        channels[100:103, Channel.OFI_KUSDT] = np.nan
    else:
        at = {"start": slice(0, 5), "middle": slice(90, 94), "end": slice(-3, None)}[place]
        channels[at] = np.nan
    assert_near_oracle(DEFAULT, channels, batch(DEFAULT, channels))


def test_standing_prices_and_empty_flow_are_missing_or_zero_never_infinite(rng):
    channels = random_channels(rng, 1400)
    channels[300:1000] = 0.0
    got = batch(DEFAULT, channels)
    assert not np.isinf(got).any()
    assert_near_oracle(DEFAULT, channels, got)


def test_single_move_has_the_lowest_bin_as_its_dominant_one(rng):
    """All bins are equally strong; rounding used to choose among them, differently at every frame."""
    channels = random_channels(rng, 100)
    channels[:, Channel.RETURN_BPS] = 0.0
    channels[50, Channel.RETURN_BPS] = 0.7
    dominant = batch(DEFAULT, channels)[0, DEFAULT.index("return.spectrum.dominant.64")]
    assert set(dominant[70:95].tolist()) == {1 / 64}


def test_move_at_the_edge_of_the_window_has_no_spectrum_but_an_amplitude(rng):
    """The Hann window is zero there: the shares were the rounding errors of a cancelled sum."""
    channels = random_channels(rng, 120)
    channels[:, Channel.RETURN_BPS] = 0.0
    channels[50, Channel.RETURN_BPS] = 0.7
    got = batch(DEFAULT, channels)[0]
    newest_edge, oldest_edge = [50, 51], [112, 113]
    for at in newest_edge + oldest_edge:
        window = slice(at, at + 1)
        if at < 63:
            continue
        assert np.isnan(got[DEFAULT.index("return.spectrum.centroid.64"), window]).all()
        assert not np.isnan(got[DEFAULT.index("return.spectrum.amplitude.64"), window]).any()


def test_offset_that_swamps_the_variation_has_no_zscore(rng):
    """An imbalance that stands at 0.98 and trembles in the sixth digit had a z-score of pure rounding."""
    channels = random_channels(rng, 300)
    channels[:, Channel.QUEUE_IMBALANCE, 0] = 0.98 + 1e-6 * rng.standard_normal(300)
    at = DEFAULT.index("queue_imbalance.zscore.128")
    assert np.isnan(batch(DEFAULT, channels)[0, at]).all()
    channels[:, Channel.QUEUE_IMBALANCE, 0] = 0.98 + 0.1 * rng.standard_normal(300)
    assert not np.isnan(batch(DEFAULT, channels)[0, at, 127:]).any()


@pytest.mark.parametrize("tile", [1, 7, 512, 100_000])
def test_tile_and_cut_do_not_change_the_bits(tile, rng):
    channels = random_channels(rng, 900)
    wanted = batch(DEFAULT, channels)
    assert_same_bits(batch(DEFAULT, channels, tile=tile, cut=int(rng.integers(0, 900))), wanted)


def test_frames_outside_the_range_are_not_written(rng):
    channels = random_channels(rng, 40)
    padded = np.full((CHANNELS, ladder_ops.halo(DEFAULT.program) + 40), np.nan, np.float32)
    padded[:, -40:] = channels[:, :, 0].T
    out = np.full((len(DEFAULT), 40), 77, np.float32)
    scratch = ladder_ops.batch_scratch(DEFAULT.program, 16)
    ladder_ops.batch(DEFAULT.program, padded[None], 10, 30, 16, scratch, out[None])
    assert (out[:, :10] == 77).all()
    assert (out[:, 30:] == 77).all()
    assert not (out[:, 10:30] == 77).any()


@pytest.mark.parametrize("symbol_count", [1, 2, 31, 32, 33])
def test_stream_equals_batch(symbol_count, rng):
    channels = random_channels(rng, 560, symbol_count)
    channels[:3, :, 0] = np.nan
    assert_same_bits(stream(DEFAULT, channels), batch(DEFAULT, channels))


WIDE = graph_of(
    moments(Channel.OFI_KUSDT, 1, 2, 4, 1024, 4096),
    Group(
        Op.EXTREMES,
        "test",
        tuple(
            Output(f"x.{stat.name.lower()}.{window}", "", stat, window)
            for window in (1, 8, 2048)
            for stat in (Stat.MIN, Stat.MAX)
        ),
        Channel.OFI_KUSDT,
    ),
)  # fmt: skip


def test_families_that_the_default_graph_does_not_use_equal_the_oracle(rng):
    channels = random_channels(rng, 5_000)
    got = batch(WIDE, channels)[0]
    x = channels[:, Channel.OFI_KUSDT, 0].astype(float)
    for at, name in enumerate(WIDE.names):
        _, stat, window = name.split(".")
        exact = naive.over(naive.MOMENTS[stat], naive.windows(x, int(window)))
        assert np.array_equal(np.isnan(got[at]), np.isnan(exact)), name
        known = ~np.isnan(exact)
        scale = np.sqrt(np.mean(exact[known] ** 2))
        assert np.abs(got[at] - exact)[known].max() <= TOLERANCE * scale, name


def test_stream_equals_batch_for_the_longest_windows(rng):
    channels = random_channels(rng, 4_200)
    assert_same_bits(stream(WIDE, channels), batch(WIDE, channels))


@settings(max_examples=examples(30))
@given(
    seed=st.integers(0, 2**32 - 1),
    kept=st.sets(st.integers(0, len(GROUPS) - 1), min_size=1, max_size=3),
    frame_count=st.integers(1, 90),
    symbol_count=st.integers(1, 4),
    tile=st.integers(1, 64),
)
def test_any_part_of_the_graph_gives_the_columns_of_the_whole(seed, kept, frame_count, symbol_count, tile):
    channels = random_channels(np.random.default_rng(seed), frame_count, symbol_count)
    part = graph_of(*(GROUPS[index] for index in sorted(kept)))
    whole = batch(DEFAULT, channels)[:, [DEFAULT.index(name) for name in part.names]]
    assert_same_bits(batch(part, channels, tile=tile), whole)
    assert_same_bits(stream(part, channels), whole)


def test_ring_holds_every_level_below_the_top():
    state = ladder_ops.new_step_state(WIDE.program, 3)
    elements = 2 * (4096 - 1) + 2 * (2048 - 1)
    assert state.rings.shape == (elements, 3)
    assert np.isnan(state.rings).all()
    assert state.clock.tolist() == [0]
