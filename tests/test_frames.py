"""Ticks to frames: against the oracle, in any split, and what a hostile stream does to the grid."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpuscalp.config import GridConfig
from gpuscalp.errors import ShapeError
from gpuscalp.frames import Framer, Grid
from gpuscalp.schema import NS_PER_MS, NS_PER_S, TICK, Channel, Quality, TickKind
from tests import naive_frames
from tests.host_shim.same_bits import assert_same_bits
from tests.random_ticks import START_NS, cuts, instruments, random_ticks, split
from tests.thorough import examples

WARM_UP = 12


def fold(batches, symbols, config, *, block_frames=4096):
    """Return the frames of batches of ticks as one list of blocks, the places of restarts, and the grid."""
    grid = Grid(config, symbols, block_frames=block_frames)
    framer = Framer(config, instruments(symbols), warm_up_frames=WARM_UP)
    blocks, restarts, count = [], [], 0
    for ticks in batches:
        for closed in grid.push(ticks):
            if closed.restart:
                framer.restart()
                restarts.append(count)
            blocks.append(framer.fold(closed))
            count += len(closed.end_ns)
    return blocks, restarts, grid


def joined(blocks, field):
    arrays = [getattr(block, field) for block in blocks]
    return np.concatenate(arrays) if arrays else np.empty(0)


FIELDS = ("end_ns", "channels", "quality", "bid_px", "ask_px", "mark")


def assert_same_frames(got, wanted):
    for field in FIELDS:
        assert_same_bits(joined(got, field), joined(wanted, field), field)


streams = st.fixed_dictionaries(
    {
        "seed": st.integers(0, 2**32 - 1),
        "count": st.integers(1, 400),
        "symbols": st.integers(1, 4),
        "disorder_ms": st.sampled_from([0.0, 15.0, 150.0, 1_500.0]),
        "silences": st.integers(0, 3),
        "clock_share": st.sampled_from([0.0, 0.05, 0.5]),
        "quiet_symbol": st.booleans(),
        "one_sided": st.sampled_from([0.0, 0.02, 0.5]),
    }
)
configs = st.builds(
    GridConfig,
    frame_ms=st.sampled_from([1, 50, 100, 777]),
    lateness_ms=st.sampled_from([0, 20, 500]),
    stale_ms=st.sampled_from([200, 5_000]),
    max_gap_ms=st.sampled_from([1_000, 60_000]),
)


@settings(max_examples=examples(60))
@given(options=streams, config=configs, block_frames=st.sampled_from([1, 7, 4096]))
def test_frames_equal_the_oracle(options, config, block_frames):
    ticks = random_ticks(**options)
    symbols = options["symbols"]
    blocks, restarts, grid = fold([ticks.copy()], symbols, config, block_frames=block_frames)
    wanted = naive_frames.frames(
        ticks,
        [instrument.tick_size for instrument in instruments(symbols)],
        frame_ms=config.frame_ms,
        lateness_ms=config.lateness_ms,
        stale_ms=config.stale_ms,
        max_gap_ms=config.max_gap_ms,
        warm_up_frames=WARM_UP,
    )
    assert grid.late_count == wanted.late_count
    assert joined(blocks, "end_ns").tolist() == [frame.end_ns for frame in wanted.frames]
    assert restarts == [at for at, frame in enumerate(wanted.frames) if frame.restart]
    if not wanted.frames:
        return
    assert_same_bits(joined(blocks, "channels"), naive_frames.channels(wanted), "channels")
    assert joined(blocks, "quality").tolist() == [frame.quality for frame in wanted.frames]
    assert joined(blocks, "bid_px").tolist() == [frame.bid for frame in wanted.frames]
    assert joined(blocks, "ask_px").tolist() == [frame.ask for frame in wanted.frames]
    assert_same_bits(joined(blocks, "mark"), np.array([frame.mark for frame in wanted.frames]), "mark")


@settings(max_examples=examples(60))
@given(options=streams, config=configs, cut_seed=st.integers(0, 2**32 - 1), block=st.sampled_from([1, 3, 64]))
def test_any_split_into_batches_gives_the_same_frames(options, config, cut_seed, block):
    ticks = random_ticks(**options)
    places = cuts(cut_seed, len(ticks))
    whole, restarts, grid = fold([ticks], options["symbols"], config)
    parts, part_restarts, part_grid = fold(
        split(ticks, places), options["symbols"], config, block_frames=block
    )
    assert restarts == part_restarts
    assert grid.late_count == part_grid.late_count
    if whole:
        assert_same_frames(parts, whole)


@pytest.mark.parametrize("block_frames", [1, 4096])
def test_batch_longer_than_what_is_taken_at_once_gives_the_same_frames(block_frames):
    """Every frame of the stream used to copy all the ticks that followed it."""
    ticks = random_ticks(11, 70_000, 2, step_ms=0.3)
    parts = split(ticks, list(range(0, 70_000, 500)))
    assert_same_frames(
        fold([ticks], 2, GridConfig(), block_frames=block_frames)[0], fold(parts, 2, GridConfig())[0]
    )


def test_ticks_given_are_not_changed():
    """Late ticks are re-labelled in the grid's own copy."""
    ticks = random_ticks(3, 300, 2, disorder_ms=900.0)
    before = ticks.copy()
    *_, grid = fold([ticks], 2, GridConfig())
    assert grid.late_count > 0
    assert ticks.tobytes() == before.tobytes()


def test_slice_with_gaps_in_memory_is_read_as_it_is():
    ticks = random_ticks(4, 600, 2)
    assert_same_frames(fold([ticks[::2]], 2, GridConfig())[0], fold([ticks[::2].copy()], 2, GridConfig())[0])


@pytest.mark.parametrize("places", [0.1, 0.5, 0.9])
def test_restored_grid_and_framer_go_on_as_if_there_had_been_no_break(places):
    ticks = random_ticks(5, 500, 3, disorder_ms=200.0, silences=2)
    config = GridConfig(max_gap_ms=1_000)
    wanted, _, wanted_grid = fold([ticks], 3, config)
    at = int(places * len(ticks))

    grid, framer = Grid(config, 3), Framer(config, instruments(3), warm_up_frames=WARM_UP)
    blocks = []
    for part in (ticks[:at], ticks[at:]):
        for closed in grid.push(part):
            if closed.restart:
                framer.restart()
            blocks.append(framer.fold(closed))
        saved = grid.checkpoint(), framer.checkpoint()
        grid.push(random_ticks(6, 50, 3))  # what happens after the checkpoint leaves no trace in it
        grid, framer = Grid(config, 3), Framer(config, instruments(3), warm_up_frames=WARM_UP)
        grid.restore(saved[0])
        framer.restore(saved[1])
    assert_same_frames(blocks, wanted)
    assert grid.late_count == wanted_grid.late_count


def test_checkpoint_with_many_pending_ticks_is_restored():
    """Making room for them used to copy as many ticks out of a buffer that did not hold them."""
    ticks = random_ticks(12, 5_000, 2, step_ms=0.01, clock_share=0.0)
    grid, restored = Grid(GridConfig(), 2), Grid(GridConfig(), 2)
    grid.push(ticks)
    saved = grid.checkpoint()
    assert len(saved["ticks"]) > 2_000
    restored.restore(saved)
    assert len(restored.checkpoint()["ticks"]) == len(saved["ticks"])
    (a,), (b,) = (each.push(quotes(10_000)) for each in (grid, restored))
    assert a.ticks.tobytes() == b.ticks.tobytes()


def quotes(*times_ms, symbol=0):
    ticks = np.zeros(len(times_ms), TICK)
    ticks["exch_ns"] = START_NS // NS_PER_S * NS_PER_S + np.array(times_ms) * NS_PER_MS
    ticks["kind"], ticks["px0"], ticks["px1"], ticks["q0"], ticks["q1"] = TickKind.QUOTE, 99, 101, 1.0, 1.0
    ticks["symbol"] = symbol
    return ticks


def test_late_tick_marks_its_own_symbol_in_the_open_frame_only():
    ticks = np.concatenate([quotes(0), quotes(5, symbol=1), quotes(250), quotes(40), quotes(360)])
    blocks, _, grid = fold([ticks], 2, GridConfig())
    assert grid.late_count == 1
    late = joined(blocks, "quality") & Quality.LATE > 0
    assert late.tolist() == [[False, False], [False, False], [False, False], [True, False]]


def test_late_quote_and_book_hold_from_the_open_frame_on():
    """They are the newest that is known: without them the frames after would go on with an older market."""
    late = quotes(140, 141, symbol=1)
    late["px0"], late["px1"] = 109, 111
    late["kind"][1], late["quality"][1] = TickKind.BOOK, Quality.GAP | Quality.RESYNC
    ticks = np.concatenate([quotes(0), quotes(5, symbol=1), quotes(250), late, quotes(360, 470, 580)])
    blocks, _, grid = fold([ticks], 2, GridConfig())
    assert grid.late_count == 2
    assert joined(blocks, "bid_px")[:, 1].tolist() == [0, 99, 99, 109, 109, 109]
    doubt = Quality.GAP | Quality.RESYNC
    quality = joined(blocks, "quality")[:, 1] & (doubt | Quality.LATE)
    assert quality.tolist() == [0, 0, 0, doubt | Quality.LATE, doubt, doubt]
    # Its age is counted from when it was sent.
    ages_ms = joined(blocks, "channels")[3:, Channel.AGE_MS, 1]
    assert ages_ms.tolist() == [160.0, 260.0, 360.0]


def test_silence_closes_what_is_pending_and_starts_cold():
    ticks = np.concatenate([quotes(0, 1_050), quotes(120_000, 120_300)])
    blocks, restarts, _ = fold([ticks], 1, GridConfig())
    ends_ms = (joined(blocks, "end_ns") - START_NS // NS_PER_S * NS_PER_S) // NS_PER_MS
    # The first run ends with the frame of its last tick, the second begins a lateness before its first.
    assert ends_ms.tolist() == [0, *range(100, 1_101, 100), *range(120_000, 120_201, 100)]
    assert restarts == [12]
    warming = (joined(blocks, "quality") & Quality.WARM_UP > 0)[:, 0]
    assert warming[12:].all()
    assert np.isnan(joined(blocks, "channels")[12]).all()  # nothing is remembered of the quote before


def test_pause_at_the_limit_is_no_silence():
    blocks, restarts, _ = fold([quotes(0, 60_000, 60_200)], 1, GridConfig())
    assert restarts == []
    assert len(joined(blocks, "end_ns")) == 602


def test_far_future_tick_is_bounded_and_what_follows_is_counted_as_late():
    """One wrong time stamp must neither make a billion frames nor pass unseen."""
    year_ms = 365 * 86_400_000
    ticks = np.concatenate([quotes(0, 100, 200), quotes(year_ms), quotes(300, 400, 500)])
    blocks, restarts, grid = fold([ticks], 1, GridConfig())
    assert len(joined(blocks, "end_ns")) == 4
    assert grid.late_count == 3
    assert restarts == []  # the run of the far future has closed no frame yet


def test_clock_ticks_close_frames_without_a_market():
    clock = np.zeros(1, TICK)
    clock["kind"], clock["symbol"] = TickKind.CLOCK, -1
    clock["exch_ns"] = quotes(1_020)["exch_ns"]
    blocks, _, grid = fold([quotes(10), clock], 1, GridConfig())
    assert len(joined(blocks, "end_ns")) == 11
    assert len(grid.checkpoint()["ticks"]) == 0


def test_symbol_without_ticks_stays_unknown_beside_the_others():
    blocks, *_ = fold([random_ticks(8, 400, 3, quiet_symbol=True)], 3, GridConfig())
    channels, quality = joined(blocks, "channels"), joined(blocks, "quality")
    assert np.isnan(channels[:, :, 2]).all()
    assert (quality[:, 2] & Quality.WARM_UP > 0).all()
    assert not joined(blocks, "bid_px")[:, 2].any()
    assert not np.isnan(channels[-1, :, :2]).all()


def test_empty_batches_do_nothing():
    empty = random_ticks(0, 0, 1)
    ticks = random_ticks(9, 100, 1)
    assert_same_frames(fold([empty, ticks, empty], 1, GridConfig())[0], fold([ticks], 1, GridConfig())[0])
    assert fold([empty], 1, GridConfig())[0] == []


@pytest.mark.parametrize("symbol", [-1, 2])
def test_symbol_out_of_range_is_refused_before_anything_is_taken(symbol):
    ticks = random_ticks(10, 50, 2)
    ticks["kind"][20], ticks["symbol"][20] = TickKind.QUOTE, symbol
    grid = Grid(GridConfig(), 2)
    with pytest.raises(ShapeError, match="symbol index out of range") as caught:
        grid.push(ticks)
    assert (caught.value.where, caught.value.value) == ("tick 20", symbol)
    assert len(grid.checkpoint()["ticks"]) == 0


@pytest.mark.parametrize("wrong", [np.zeros(3), np.zeros((2, 2), TICK)])
def test_array_of_another_layout_is_refused(wrong):
    with pytest.raises(ShapeError, match="TICK"):
        Grid(GridConfig(), 1).push(wrong)
