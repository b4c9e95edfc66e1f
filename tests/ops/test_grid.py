"""The grid's integer logic on hand-made ticks; tests/test_frames.py compares it with the oracle."""

from __future__ import annotations

import numpy as np
import pytest

from gpuscalp.ops import grid as grid_ops
from gpuscalp.schema import TICK, Quality, TickKind

FRAME, LATENESS, MAX_GAP = 100, 20, 1_000  # any unit: the logic is in whole numbers


def ticks_at(*times, kind=TickKind.QUOTE, symbol=0):
    ticks = np.zeros(len(times), TICK)
    ticks["exch_ns"], ticks["kind"], ticks["symbol"] = times, kind, symbol
    return ticks


def assign(ticks, state=None, limit=1_000):
    state = grid_ops.new_state() if state is None else state
    frames = np.full(len(ticks), -7, np.int64)
    taken, gap = grid_ops.assign(ticks, FRAME, LATENESS, MAX_GAP, state, frames, limit)
    return taken, gap, frames, state


def test_first_tick_opens_its_frame_less_the_lateness():
    _, _, frames, state = assign(ticks_at(510))
    assert frames.tolist() == [5]
    assert state.tolist() == [490, 4, 0, 0, 0]


@pytest.mark.parametrize(("newest", "open_frame"), [(619, 5), (620, 6), (719, 6), (720, 7)])
def test_frame_closes_when_the_watermark_reaches_its_end(newest, open_frame):
    _, _, _, state = assign(ticks_at(550, newest))
    assert state[grid_ops.OPEN_FRAME] == open_frame


def test_older_tick_of_an_open_frame_is_kept_and_moves_nothing():
    ticks = ticks_at(610, 590)
    _, _, frames, state = assign(ticks)
    assert frames.tolist() == [6, 5]
    assert state.tolist() == [590, 5, 0, 0, 0]


@pytest.mark.parametrize(
    ("kind", "becomes"),
    [
        (TickKind.TRADE, grid_ops.LATE_KIND),
        (TickKind.QUOTE, TickKind.QUOTE),
        (TickKind.BOOK, TickKind.BOOK),
    ],
)
def test_late_tick_is_counted_and_put_into_the_open_frame_and_a_trade_dropped_there(kind, becomes):
    ticks = ticks_at(500, 650, 599)
    ticks["kind"][2] = kind
    _, _, frames, state = assign(ticks)
    assert frames.tolist() == [5, 6, 6]
    assert ticks["kind"].tolist() == [TickKind.QUOTE, TickKind.QUOTE, becomes]
    assert ticks["quality"].tolist() == [0, 0, Quality.LATE]
    assert state[grid_ops.LATE_COUNT] == 1
    trade = int(kind == TickKind.TRADE)
    assert state[[grid_ops.TRADE_COUNT, grid_ops.LATE_TRADE_COUNT]].tolist() == [trade, trade]


def test_old_mark_goes_into_the_open_frame_and_is_not_late():
    ticks = ticks_at(500, 650, 599)
    ticks["kind"][2] = TickKind.MARK
    _, _, frames, state = assign(ticks)
    assert frames.tolist() == [5, 6, 6]
    assert ticks["kind"][2] == TickKind.MARK
    assert ticks["quality"].tolist() == [0, 0, 0]
    assert state[grid_ops.LATE_COUNT] == 0


def test_clock_tick_moves_the_watermark_and_belongs_to_no_frame():
    ticks = ticks_at(500, 900)
    ticks["kind"][1], ticks["symbol"][1] = TickKind.CLOCK, -1
    _, _, frames, state = assign(ticks)
    assert frames.tolist() == [5, grid_ops.UNSET]
    assert state[grid_ops.OPEN_FRAME] == 8


@pytest.mark.parametrize(("pause", "gap"), [(MAX_GAP, False), (MAX_GAP + 1, True)])
def test_silence_longer_than_the_limit_stops_before_the_tick(pause, gap):
    taken, stopped, _, state = assign(ticks_at(500, 500 + pause))
    assert (taken, stopped) == (1 if gap else 2, gap)
    assert state[grid_ops.WATERMARK] == 480 + (0 if gap else pause)


def test_limit_stops_after_the_tick_that_closes_the_last_wanted_frame():
    taken, gap, _, _ = assign(ticks_at(500, 560, 620, 720, 820), limit=2)
    assert (taken, gap) == (3, False)  # opens 4; 620 closes 4 and 5


def test_times_before_the_epoch_round_down():
    _, _, frames, _ = assign(ticks_at(-10))
    assert frames.tolist() == [-1]


@pytest.mark.parametrize("count", [0, 1, 31, 32, 33, 257])
def test_order_sorts_by_frame_and_symbol_and_keeps_arrival_order(count, rng):
    symbol_count, first_frame, frame_count = 3, 40, 4
    words = np.zeros((count, 8), np.int64)
    ticks = words.reshape(-1).view(TICK)
    ticks["exch_ns"] = np.arange(count)  # arrival
    ticks["symbol"] = rng.integers(0, symbol_count, count)
    frames = rng.integers(first_frame, first_frame + 7, count)
    frames[rng.random(count) < 0.1] = grid_ops.UNSET
    arrival = [(int(f), int(t["symbol"]), int(t["exch_ns"])) for f, t in zip(frames, ticks, strict=True)]
    offsets = np.full(symbol_count * frame_count + 1, -1, np.int64)
    out = np.zeros((count, 8), np.int64)

    kept = grid_ops.order(ticks, frames, first_frame, frame_count, symbol_count, offsets, words, out)

    closed = sorted(row for row in arrival if first_frame <= row[0] < first_frame + frame_count)
    later = [row for row in arrival if row[0] >= first_frame + frame_count]
    ordered = out.reshape(-1).view(TICK)
    assert [int(tick["exch_ns"]) for tick in ordered[: offsets[-1]]] == [row[2] for row in closed]
    assert [int(tick["exch_ns"]) for tick in ticks[:kept]] == [row[2] for row in later]
    assert frames[:kept].tolist() == [row[0] for row in later]
    wanted = [
        sum((row[0] - first_frame) * symbol_count + row[1] < key for row in closed)
        for key in range(len(offsets))
    ]
    assert offsets.tolist() == wanted
