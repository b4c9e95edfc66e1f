"""The event kernel by itself: full tapes, copied moves, and moves by surprise alone."""

from __future__ import annotations

import numpy as np
import pytest

from gpuscalp.ops import order_flow
from gpuscalp.ops.order_flow import ASK, BID, MOVES, NEXT_ECHO, QUOTES, SEQ, TRADES
from gpuscalp.schema import BOOK_LEVELS, NS_PER_MS, NS_PER_S

NO_ECHO = np.empty(0, np.int64)
RULES = order_flow.Rules(
    base_hz=1.5,
    decay_hz=np.array([15.0, 0.5]),
    same_side=np.array([0.3, 0.2]),
    cross_side=np.array([0.1, 0.1]),
    move_probability=0.8,
    jump_cdf=np.array([0.7, 0.9, 1.0]),
    queue_hz=3.0,
    queue_per_trade=0.5,
    close_hz=8.0,
    open_hz=0.5,
    spread_cap=4,
    order_lots=np.array([1, 5, 40, 300]),
    queue_lots=np.array([20, 100, 500]),
    book_ns=100 * NS_PER_MS,
    mark_ns=NS_PER_S,
)


def start():
    return order_flow.Progress(
        times_ns=np.array([0.0, -1.0]),
        excitation_hz=np.zeros((2, 2)),
        counts=np.array([10_000, 10_001, 0, 0, 0, 0], np.int64),
        queues=np.full((2, BOOK_LEVELS), 77, np.int64),
    )


def run(seed, *, end_ns, capacity=4_096, rules=RULES, echo=(NO_ECHO, NO_ECHO), state=None):
    """Return the rows of all kinds up to ``end_ns`` and the number of calls it took."""
    rng = np.random.Generator(np.random.PCG64(seed))
    state = start() if state is None else state
    tape = order_flow.make_tape(capacity)
    parts, done = [], False
    while not done:
        done = order_flow.simulate(rng, rules, state, *echo, end_ns, tape)
        parts.append([rows[:count].copy() for rows, count in zip(tape, tape.rows, strict=False)])
    return [np.concatenate(kind) for kind in zip(*parts, strict=True)], len(parts), state


@pytest.mark.parametrize("capacity", [5, 6, 33, 1_000])
def test_full_tape_is_taken_up_where_it_ended(capacity):
    whole, calls, _ = run(1, end_ns=60 * NS_PER_S, capacity=100_000)
    pieces, more_calls, _ = run(1, end_ns=60 * NS_PER_S, capacity=capacity)
    assert calls == 1 < more_calls
    for one, many in zip(whole, pieces, strict=True):
        np.testing.assert_array_equal(one, many)


def test_first_row_is_a_quote_and_numbers_have_no_holes():
    (trades, quotes, books, marks, _), _, state = run(2, end_ns=10 * NS_PER_S)
    assert quotes[0].tolist() == [0, 0, 10_000, 77, 10_001, 77]
    numbers = np.sort(np.concatenate([rows[:, 1] for rows in (trades, quotes, books, marks)]))
    np.testing.assert_array_equal(numbers, np.arange(state.counts[SEQ]))
    np.testing.assert_array_equal(books[:, 0], np.arange(100) * RULES.book_ns)
    np.testing.assert_array_equal(marks[:, 0], np.arange(10) * RULES.mark_ns)


@pytest.mark.parametrize("ticks", [1, -1, 7, -30])
def test_copied_move_takes_the_best_queue_and_moves_both_sides(ticks):
    """Without orders and queue changes nothing else happens. 30 ticks are more than the book shows."""
    silent = RULES._replace(
        base_hz=0.0, queue_hz=1e-9, open_hz=0.0, book_ns=NS_PER_S, mark_ns=NS_PER_S, queue_per_trade=0.0
    )
    echo = (np.array([123_456_789], np.int64), np.array([ticks], np.int64))
    (trades, quotes, _, _, moves), _, state = run(3, end_ns=NS_PER_S, rules=silent, echo=echo)
    px = 10_001 if ticks > 0 else 10_000
    assert trades.tolist() == [[123_456_789, 3, px, 77, 1 if ticks > 0 else -1]]
    assert len(quotes) == 2
    assert quotes[1, [0, 2, 4]].tolist() == [123_456_789, 10_000 + ticks, 10_001 + ticks]
    assert len(moves) == 0  # a copy is not copied again
    assert state.counts[NEXT_ECHO] == 1
    left_behind = ASK if ticks > 0 else BID
    kept = max(BOOK_LEVELS - abs(ticks), 0)
    np.testing.assert_array_equal(state.queues[left_behind, :kept], 77)
    np.testing.assert_array_equal(state.queues[1 - left_behind, BOOK_LEVELS - kept :], 77)


def test_events_at_the_end_are_left_for_the_next_call():
    echo = (np.array([NS_PER_S], np.int64), np.array([2], np.int64))
    (_, quotes, books, _, _), _, state = run(4, end_ns=NS_PER_S, echo=echo)
    assert quotes[-1, 0] < NS_PER_S
    assert books[-1, 0] < NS_PER_S
    assert state.counts[NEXT_ECHO] == 0


def test_price_moves_in_proportion_to_the_surprise_alone():
    """An oracle of its own follows the intensities: of the buys, and of the sells, as many move the price as
    the sum of q·(1 - p) says, and the expected move is none in calm and in one-sided times alike."""
    (trades, _, _, _, moves), _, _ = run(5, end_ns=4_000 * NS_PER_S, capacity=150_000)
    first = np.concatenate([[True], np.diff(trades[:, 0]) > 0])
    times_ns, sides = trades[first, 0], (trades[first, 4] > 0).astype(int)
    moved_at = dict(moves.tolist())
    excitation, before = np.zeros((2, 2)), 0.0
    p_buy, move = np.empty(len(sides)), np.empty(len(sides))
    for index, (time_ns, side) in enumerate(zip(times_ns.tolist(), sides, strict=True)):
        excitation *= np.exp(-RULES.decay_hz * (time_ns - before) / 1e9)
        rate = RULES.base_hz + excitation.sum(axis=1)
        p_buy[index] = rate[1] / rate.sum()
        move[index] = moved_at.get(time_ns, 0)
        excitation[side] += RULES.decay_hz * RULES.same_side
        excitation[1 - side] += RULES.decay_hz * RULES.cross_side
        before = time_ns
    surprise = np.where(sides == 1, 1 - p_buy, p_buy)
    chance = RULES.move_probability * surprise
    for chosen in (sides == 1, sides == 0, surprise > 0.6, surprise < 0.3):
        expected, spread = chance[chosen].sum(), np.sqrt((chance * (1 - chance))[chosen].sum())
        assert (move[chosen] != 0).sum() == pytest.approx(expected, abs=4 * spread)
    assert (np.sign(move) * (2 * sides - 1) >= 0).all()  # never against the order
    for chosen in (p_buy > 0.6, p_buy < 0.4, np.abs(p_buy - 0.5) < 0.05):
        assert chosen.sum() > 500
        assert abs(move[chosen].mean()) < 4 * move[chosen].std() / np.sqrt(chosen.sum())
    # p itself is right: signs agree with it, band by band.
    for low in (0.3, 0.4, 0.5, 0.6):
        band = (p_buy >= low) & (p_buy < low + 0.1)
        error = 4 * np.sqrt((p_buy * (1 - p_buy))[band].sum())
        assert sides[band].sum() == pytest.approx(p_buy[band].sum(), abs=error)


def test_spread_stays_between_one_tick_and_the_cap():
    (_, quotes, _, _, _), _, _ = run(6, end_ns=600 * NS_PER_S, capacity=100_000)
    spread = quotes[:, 4] - quotes[:, 2]
    assert spread.min() == 1
    assert spread.max() == RULES.spread_cap


def test_tape_counts_what_it_holds():
    tape = order_flow.make_tape(64)
    assert [len(rows) for rows in tape[:5]] == [64] * 5
    assert {TRADES, QUOTES, MOVES} < set(range(len(tape.rows)))
