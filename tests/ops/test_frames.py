"""The fold of ticks into channels: against the oracle to the bit, and by hand for each channel."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpuscalp.ops import frames as frame_ops
from gpuscalp.schema import TICK, Channel, Quality, TickKind
from tests import naive_frames
from tests.host_shim.same_bits import assert_same_bits
from tests.random_ticks import random_ticks
from tests.thorough import examples

FRAME_NS = 100 * 1_000_000
NAN = math.nan


def tick(kind, px0=0, px1=0, q0=0.0, q1=0.0, q2=0.0, q3=0.0, *, side=0, exch_ns=0, quality=0):
    return (exch_ns, 0, px0, px1, q0, q1, q2, q3, 0, kind, side, quality)


def fold(*frames, tick_size=0.5, stale_ms=5_000, warm_up=1):
    """Fold the ticks of each frame of one symbol; return the block's arrays without axis S."""
    ticks = np.array([row for frame in frames for row in frame], TICK)
    offsets = np.cumsum([0, *(len(frame) for frame in frames)])
    end_ns = (np.arange(len(frames)) + 1) * FRAME_NS
    shape = (len(frames), 1)
    channels = np.empty((len(frames), frame_ops.CHANNEL_COUNT, 1), np.float32)
    quality, bid, ask = np.empty(shape, np.uint32), np.empty(shape, np.int32), np.empty(shape, np.int32)
    mark = np.empty(shape)
    frame_ops.fold(
        ticks, offsets, end_ns, np.array([tick_size]), stale_ms * 1_000_000, warm_up,
        frame_ops.FrameState.empty(1), channels, quality, bid, ask, mark,
    )  # fmt: skip
    return channels[:, :, 0], quality[:, 0], bid[:, 0], ask[:, 0], mark[:, 0]


def channel(which, *frames, **options):
    return fold(*frames, **options)[0][:, which].tolist()


QUOTE = tick(TickKind.QUOTE, 999, 1001, 3.0, 1.0)  # mid 1000 ticks of 0.5 = 500


def test_nothing_is_known_before_the_first_quote():
    trade = tick(TickKind.TRADE, 1000, q0=2.0, side=1)
    channels, quality, bid, ask, mark = fold([trade], [], [QUOTE])
    assert np.isnan(channels[:2]).all()
    assert quality.tolist()[:2] == [Quality.WARM_UP, Quality.WARM_UP]
    assert (bid.tolist(), ask.tolist()) == ([0, 0, 999], [0, 0, 1001])
    assert channels[2, Channel.SPREAD_BPS] == 20.0
    assert math.isnan(channels[2, Channel.RETURN_BPS])
    assert np.isnan(mark).all()


def test_quote_gives_spread_imbalance_and_microprice():
    channels = fold([QUOTE])[0][0]
    assert channels[Channel.SPREAD_BPS] == 20.0
    assert channels[Channel.QUEUE_IMBALANCE] == 0.5
    assert channels[Channel.MICROPRICE_BPS] == 5.0  # half the spread times the imbalance
    assert channels[Channel.QUOTE_COUNT] == 1


def test_trades_give_notional_by_side_count_and_largest():
    trades = [
        tick(TickKind.TRADE, 1000, q0=2.0, side=1),
        tick(TickKind.TRADE, 1002, q0=4.0, side=-1),
        tick(TickKind.TRADE, 1001, q0=1.0, side=1),
    ]
    channels = fold([QUOTE, *trades])[0][0]
    assert channels[Channel.TRADE_COUNT] == 3
    assert channels[Channel.BUY_KUSDT] == np.float32((1000 * 0.5 * 2 + 1001 * 0.5 * 1) / 1000)
    assert channels[Channel.SELL_KUSDT] == np.float32(1002 * 0.5 * 4 / 1000)
    assert channels[Channel.LARGEST_KUSDT] == np.float32(2.004)
    assert channels[Channel.FLOW_KUSDT] == np.float32(1.5005 - 2.004)
    assert channels[Channel.VWAP_FLOW] == np.float32(20 * 2.004 + 10 * 0.5005)  # bps from the mid × kUSDT


@pytest.mark.parametrize(
    ("bid", "ask", "flow"),
    [
        (999, 1001, (5 - 3) - (7 - 1)),  # the queues change in place
        (1000, 1001, 5 - (7 - 1)),  # the bid rises: its whole queue is new
        (998, 1001, -3 - (7 - 1)),  # the bid falls: its old queue is gone
        (999, 1002, (5 - 3) + 1),  # the ask rises: its old queue is gone
        (999, 1000, (5 - 3) - 7),  # the ask falls: its whole queue is new
    ],
)
def test_order_flow_imbalance_follows_the_best_queues(bid, ask, flow):
    """Cont, Kukanov, Stoikov (2014), in kUSDT at the last mid."""
    found = channel(Channel.OFI_KUSDT, [QUOTE, tick(TickKind.QUOTE, bid, ask, 5.0, 7.0)])
    assert found == [np.float32(flow * (bid + ask) / 2 * 0.5 / 1000)]


def test_returns_variance_and_range_come_from_the_mid():
    up, down = tick(TickKind.QUOTE, 1001, 1003, 1.0, 1.0), tick(TickKind.QUOTE, 997, 999, 1.0, 1.0)
    frames = [QUOTE], [up, down], [], [up]
    first, second = -20.0, 4 / 998 * 1e4
    assert channel(Channel.RETURN_BPS, *frames)[1:] == [first, 0.0, np.float32(second)]
    assert channel(Channel.LAGGED_RETURN_BPS, *frames)[2:] == [first, 0.0]
    assert channel(Channel.VARIANCE_BPS2, *frames)[1] == np.float32(20.0**2 + (4 / 1002 * 1e4) ** 2)
    assert channel(Channel.RANGE_BPS, *frames)[1:3] == [np.float32(4 / 998 * 1e4), 0.0]


def test_empty_frame_repeats_the_quote_has_no_flow_and_ages():
    channels, quality, *_ = fold([QUOTE], *[[] for _ in range(60)])
    assert channels[50, Channel.SPREAD_BPS] == 20.0
    flows = [
        Channel.TRADE_COUNT,
        Channel.BUY_KUSDT,
        Channel.OFI_KUSDT,
        Channel.QUOTE_COUNT,
        Channel.RANGE_BPS,
    ]
    assert not channels[1:, flows].any()
    assert channels[:, Channel.AGE_MS].tolist() == [100.0 * (t + 1) for t in range(61)]
    assert [bool(q & Quality.STALE) for q in quality] == [False] * 50 + [True] * 11


def test_depth_imbalance_and_basis_keep_their_last_value():
    book = tick(TickKind.BOOK, 999, 1001, 6.0, 2.0, 5.0, 15.0)
    mark = tick(TickKind.MARK, q0=400.0)
    frames = [QUOTE], [book, mark], []
    assert channel(Channel.DEPTH5_IMBALANCE, *frames)[1:] == [0.5, 0.5]
    assert channel(Channel.DEPTH20_IMBALANCE, *frames)[1:] == [-0.5, -0.5]
    assert channel(Channel.BASIS_BPS, *frames)[1:] == [2500.0, 2500.0]
    assert math.isnan(channel(Channel.BASIS_BPS, *frames)[0])


def test_a_doubtful_book_stays_doubtful_until_a_sound_one_comes():
    """Frames without a book message used to look sound in the middle of a resync, and to be trained on."""
    doubts = int(Quality.GAP | Quality.RESYNC)
    doubtful = tick(TickKind.BOOK, 999, 1001, 1, 1, 1, 1, quality=doubts | int(Quality.CLOCK_DRIFT))
    sound = tick(TickKind.BOOK, 999, 1001, 1, 1, 1, 1)
    quality = fold([QUOTE, sound], [doubtful], [], [QUOTE], [sound, QUOTE], [])[1]
    lasting = [int(q) & ~int(Quality.WARM_UP) for q in quality]
    assert lasting == [0, doubts | int(Quality.CLOCK_DRIFT), doubts, doubts, doubts, 0]


def test_crossed_and_locked_quotes_are_flagged():
    locked, crossed = tick(TickKind.QUOTE, 1000, 1000, 1, 1), tick(TickKind.QUOTE, 1001, 1000, 1, 1)
    quality = fold([QUOTE], [locked], [crossed], [QUOTE])[1]
    assert [bool(q & Quality.CROSSED) for q in quality] == [False, True, True, False]


@pytest.mark.parametrize(("bid", "ask"), [(0, 1001), (999, 0), (0, 0)])
def test_half_a_quote_has_no_mid(bid, ask):
    """A side without orders used to be a price of zero: a move of 5000 bps there and back again."""
    half = tick(TickKind.QUOTE, bid, ask, 1.0, 1.0)
    channels, quality, bids, asks, _ = fold([QUOTE], [half, QUOTE], [half], [QUOTE], [QUOTE], [], warm_up=2)
    moves = [Channel.RETURN_BPS, Channel.VARIANCE_BPS2, Channel.RANGE_BPS, Channel.OFI_KUSDT]
    assert channels[1, moves].tolist() == [0.0] * 4
    assert np.isnan(channels[2]).all()
    assert (bids[2], asks[2]) == (bid, ask)
    assert np.isnan(channels[3, [Channel.RETURN_BPS, Channel.LAGGED_RETURN_BPS]]).all()  # cold again
    assert channels[4, Channel.RETURN_BPS] == 0.0
    assert [bool(q & Quality.WARM_UP) for q in quality] == [True, False, True, True, False, False]


def test_warm_up_counts_frames_from_the_first_quote():
    quality = fold([], [QUOTE], [], [], [], warm_up=3)[1]
    assert [bool(q & Quality.WARM_UP) for q in quality] == [True, True, True, False, False]


def test_empty_queues_give_missing_not_infinite():
    empty = tick(TickKind.QUOTE, 999, 1001, 0.0, 0.0)
    book = tick(TickKind.BOOK, 0, 0, 0.0, 0.0, 0.0, 0.0)
    channels = fold([empty, book])[0][0]
    assert np.isnan(
        channels[[Channel.QUEUE_IMBALANCE, Channel.MICROPRICE_BPS, Channel.DEPTH5_IMBALANCE]]
    ).all()


@settings(max_examples=examples(25))
@given(
    seed=st.integers(0, 2**32 - 1),
    symbols=st.sampled_from([1, 2, 5]),
    one_sided=st.sampled_from([0.0, 0.05, 0.5]),
)
def test_random_ticks_fold_to_the_oracle_s_bits(seed, symbols, one_sided):
    ticks = random_ticks(seed, 400, symbols, disorder_ms=0.0, clock_share=0.0, one_sided=one_sided)
    tick_sizes = [0.5, 0.01, 1e-5, 7.0, 0.1][:symbols]
    last_ns = int(ticks["exch_ns"].max()) // FRAME_NS * FRAME_NS
    ticks = ticks[ticks["exch_ns"] < last_ns]
    first = int(ticks["exch_ns"][0]) // FRAME_NS
    frame_count = int(last_ns // FRAME_NS - first)
    key = (ticks["exch_ns"] // FRAME_NS - first) * symbols + ticks["symbol"]
    order = np.argsort(key, kind="stable")
    offsets = np.searchsorted(key[order], np.arange(frame_count * symbols + 1))
    end_ns = (first + 1 + np.arange(frame_count)) * FRAME_NS
    shape = (frame_count, symbols)
    channels = np.empty((frame_count, frame_ops.CHANNEL_COUNT, symbols), np.float32)
    quality, bid, ask = np.empty(shape, np.uint32), np.empty(shape, np.int32), np.empty(shape, np.int32)
    mark = np.empty(shape)
    frame_ops.fold(
        ticks[order], offsets, end_ns, np.array(tick_sizes), 5_000 * 1_000_000, 20,
        frame_ops.FrameState.empty(symbols), channels, quality, bid, ask, mark,
    )  # fmt: skip

    # A clock tick at the end closes the oracle's last frame.
    closing = np.zeros(1, TICK)
    closing["exch_ns"], closing["kind"] = last_ns, TickKind.CLOCK
    wanted = naive_frames.frames(
        np.concatenate([ticks, closing]), tick_sizes, lateness_ms=0, warm_up_frames=20
    )
    assert [frame.end_ns for frame in wanted.frames] == end_ns.tolist()
    assert_same_bits(channels, naive_frames.channels(wanted), "channels")
    assert quality.tolist() == [frame.quality for frame in wanted.frames]
    assert bid.tolist() == [frame.bid for frame in wanted.frames]
    assert ask.tolist() == [frame.ask for frame in wanted.frames]
    assert_same_bits(mark, np.array([frame.mark for frame in wanted.frames]), "mark")
