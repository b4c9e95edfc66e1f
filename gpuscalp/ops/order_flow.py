"""One symbol's order flow and queues, event by event: the kernel of the synthetic market.

Owns: the exact simulation of a two-sided Hawkes process, what each order does to the queues and the prices,
and the tape of rows that comes of it. Never: chooses parameters, knows units of money, or sees a clock.

Numbers. A seed has to give the same market on every platform. So the only randomness is
``Generator.random()`` (53 bits of PCG64, exact); gpuscalp.ops.variates makes everything else of it.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np

from gpuscalp.ops._numba import jit
from gpuscalp.ops.elementary import exp
from gpuscalp.ops.variates import exponential
from gpuscalp.schema import BOOK_LEVELS, F64, I64

BID: Final = 0
ASK: Final = 1
_LEVELS: Final = BOOK_LEVELS

# Columns of the tape. Prices in ticks, quantities in lots, all int64.
TRADE_COLUMNS: Final = ("exch_ns", "seq", "px", "lots", "side")
QUOTE_COLUMNS: Final = ("exch_ns", "seq", "bid_px", "bid_lots", "ask_px", "ask_lots")
BOOK_COLUMNS: Final = ("exch_ns", "seq", "bid_px", "ask_px")  # then bid lots [20], ask lots [20]
MARK_COLUMNS: Final = ("exch_ns", "seq", "bid_px + ask_px")
MOVE_COLUMNS: Final = ("exch_ns", "half_ticks")

# `Tape.rows`.
TRADES, QUOTES, BOOKS, MARKS, MOVES = range(5)
# `Progress.counts`: best prices at BID and ASK, then these.
SEQ, NEXT_BOOK, NEXT_MARK, NEXT_ECHO = range(2, 6)
# `Progress.times_ns`.
NOW, PENDING = range(2)

_NONE: Final = -1.0


class Rules(NamedTuple):
    """Parameters of one symbol. Rates in events per second; J kernels of the excitation.

    Attributes
    ----------
    base_hz : rate of one side without excitation
    decay_hz, same_side, cross_side : float64[J]
        kernel j raises the rate of its own side by ``decay·same·exp(-decay·t)`` and of the other by
        ``decay·cross·exp(-decay·t)``; ``same`` and ``cross`` are mean numbers of direct descendants
    move_probability : an order with probability p of its sign moves the price with this times 1 - p
    jump_cdf : float64[K]      P(levels swept <= k + 1), given that the price moves
    queue_hz, queue_per_trade : rate of queue changes, and the part that follows the rate of orders
    close_hz, open_hz : rate at which a wide spread loses a tick (per tick too many), or gains one
    spread_cap : largest spread in ticks that orders may leave behind
    order_lots, queue_lots : int64[Q]   equally likely sizes
    book_ns, mark_ns : intervals of the book and mark rows
    """

    base_hz: float
    decay_hz: F64
    same_side: F64
    cross_side: F64
    move_probability: float
    jump_cdf: F64
    queue_hz: float
    queue_per_trade: float
    close_hz: float
    open_hz: float
    spread_cap: int
    order_lots: I64
    queue_lots: I64
    book_ns: int
    mark_ns: int


class Progress(NamedTuple):
    """Where a symbol stands. Changed in place, so that a market can be made piece by piece.

    Attributes
    ----------
    times_ns : float64[2]         NOW; PENDING, the drawn time of the next candidate event, or -1
    excitation_hz : float64[2, J] what past orders add to the rate of orders that hit (bids, asks)
    counts : int64[6]             best price in ticks at BID and ASK; SEQ; NEXT_BOOK, NEXT_MARK in ns;
                                  NEXT_ECHO, an index
    queues : int64[2, 20]         lots at the best 20 prices of (bids, asks), one tick apart
    """

    times_ns: F64
    excitation_hz: F64
    counts: I64
    queues: I64


class Tape(NamedTuple):
    """Preallocated rows, one array for each kind; ``rows[kind]`` of them are written.

    int64 arrays of shape [capacity, columns]; the columns are named by the constants above.
    """

    trades: I64
    quotes: I64
    books: I64
    marks: I64
    moves: I64
    rows: I64


def make_tape(capacity: int) -> Tape:
    """Allocate a tape whose kinds each hold ``capacity`` rows."""
    widths = (
        len(TRADE_COLUMNS),
        len(QUOTE_COLUMNS),
        len(BOOK_COLUMNS) + 2 * _LEVELS,
        len(MARK_COLUMNS),
        len(MOVE_COLUMNS),
    )
    trades, quotes, books, marks, moves = (np.empty((capacity, width), np.int64) for width in widths)
    return Tape(trades, quotes, books, marks, moves, np.zeros(len(widths), np.int64))


@jit
def simulate(
    rng: np.random.Generator,
    rules: Rules,
    state: Progress,
    echo_ns: I64,
    echo_ticks: I64,
    end_ns: int,
    tape: Tape,
) -> bool:
    """Carry one symbol forward to ``end_ns``, or until the tape is full.

    Parameters
    ----------
    rng : source of uniforms; only ``random()`` is called
    rules : see Rules
    state : changed in place
    echo_ns : int64[E]     times of moves copied from elsewhere, ascending; those before NOW were done
    echo_ticks : int64[E]  their signed size, never 0
    end_ns : exclusive; events at or after it are left for the next call
    tape : its rows are overwritten from the start

    Returns
    -------
    bool
        True if ``end_ns`` was reached; False if the tape is full: take the rows, then call again

    Notes
    -----
    Thinning after Ogata (1981), "On Lewis' simulation method for point processes", IEEE Trans. Inf. Theory
    27: between events the rates only fall, so the present total is a bound; it is exact. A drawn candidate is
    kept over the end of a call, so that the pieces give the rows of one run. The candidate is drawn again
    after echoes and snapshots, which the exponential's lack of memory allows.
    """
    tape.rows[:] = 0
    # One event writes at most one trade for each level swept, and one row of every other kind.
    room = len(tape.quotes) - len(rules.jump_cdf) - 1
    times = state.times_ns
    if state.counts[SEQ] == 0:
        _write_quote(state, tape)
    while max(tape.rows[TRADES], tape.rows[QUOTES], tape.rows[BOOKS], tape.rows[MARKS]) < room:
        if times[PENDING] == _NONE:
            times[PENDING] = times[NOW] + exponential(rng) / _bound_hz(rules, state) * 1e9
        echo_index = state.counts[NEXT_ECHO]
        echo = echo_ns[echo_index] if echo_index < len(echo_ns) else end_ns
        fixed = min(echo, state.counts[NEXT_BOOK], state.counts[NEXT_MARK])
        if min(times[PENDING], float(fixed)) >= end_ns:
            return True
        if fixed <= times[PENDING]:
            _advance(rules, state, float(fixed))
            if fixed == echo:
                _echo(rng, rules, state, echo_ticks[echo_index], tape)
                state.counts[NEXT_ECHO] += 1
            elif fixed == state.counts[NEXT_BOOK]:
                _write_book(state, tape)
                state.counts[NEXT_BOOK] += rules.book_ns
            else:
                _write_mark(state, tape)
                state.counts[NEXT_MARK] += rules.mark_ns
        else:
            bound_hz = _bound_hz(rules, state)
            _advance(rules, state, times[PENDING])
            _candidate(rng, rules, state, rng.random() * bound_hz, tape)
        times[PENDING] = _NONE
    return False


@jit
def _bound_hz(rules: Rules, state: Progress) -> float:
    """Rate of all candidate events from now on, if nothing decayed."""
    orders_hz = _side_hz(rules, state, BID) + _side_hz(rules, state, ASK)
    total: float = (
        orders_hz * (1.0 + rules.queue_per_trade)
        + rules.queue_hz
        + _closing_hz(rules, state)
        + _opening_hz(rules, state)
    )
    return total


@jit
def _side_hz(rules: Rules, state: Progress, side: int) -> float:
    """Rate of the orders that hit one side."""
    rate_hz = rules.base_hz
    for j in range(len(rules.decay_hz)):
        rate_hz += state.excitation_hz[side, j]
    return rate_hz


@jit
def _closing_hz(rules: Rules, state: Progress) -> float:
    rate_hz: float = rules.close_hz * (state.counts[ASK] - state.counts[BID] - 1)
    return rate_hz


@jit
def _opening_hz(rules: Rules, state: Progress) -> float:
    return rules.open_hz if state.counts[ASK] - state.counts[BID] < rules.spread_cap else 0.0


@jit
def _advance(rules: Rules, state: Progress, to_ns: float) -> None:
    elapsed_s = (to_ns - state.times_ns[NOW]) * 1e-9
    for j in range(len(rules.decay_hz)):
        factor = exp(-rules.decay_hz[j] * elapsed_s)
        for side in range(2):
            state.excitation_hz[side, j] *= factor
    state.times_ns[NOW] = to_ns


@jit
def _candidate(rng: np.random.Generator, rules: Rules, state: Progress, level_hz: float, tape: Tape) -> None:
    """Decide which event a candidate is: constant rates first, what has decayed since is no event."""
    closing_hz = _closing_hz(rules, state)
    opening_hz = _opening_hz(rules, state)
    if level_hz < closing_hz + opening_hz:
        # Either side moves with probability one half: neither direction can be foreseen.
        _shift(rng, rules, state, int(rng.random() * 2.0), 1 if level_hz < closing_hz else -1)
        _write_quote(state, tape)
        return
    level_hz -= closing_hz + opening_hz
    if level_hz < rules.queue_hz:
        _change_queue(rng, rules, state, tape)
        return
    level_hz -= rules.queue_hz
    sell_hz = _side_hz(rules, state, BID)
    buy_hz = _side_hz(rules, state, ASK)
    orders_hz = buy_hz + sell_hz
    if level_hz < orders_hz:
        hit = int(level_hz < buy_hz)
        _order(rng, rules, state, hit, (sell_hz if hit == ASK else buy_hz) / orders_hz, tape)
    elif level_hz < orders_hz * (1.0 + rules.queue_per_trade):
        _change_queue(rng, rules, state, tape)


@jit
def _order(
    rng: np.random.Generator, rules: Rules, state: Progress, hit: int, surprise: float, tape: Tape
) -> None:
    """Let a taker hit one side; ``surprise`` is the probability that the order had the other sign.

    The price moves with a probability proportional to the surprise. With p the probability of a buy, the
    mean move is p·(1-p) up and (1-p)·p down: none, whatever the past. So orders move the price and come in
    runs, and yet the runs foretell nothing (the discrete form of Madhavan, Richardson and Roomans 1997).
    """
    queue = state.queues[hit]
    if rng.random() < rules.move_probability * surprise:
        u = rng.random()
        swept = 1
        while swept < len(rules.jump_cdf) and u >= rules.jump_cdf[swept - 1]:
            swept += 1
        for level in range(swept):
            _write_trade(state, tape, hit, level, queue[level])
        followed = swept - 1 if state.counts[ASK] - state.counts[BID] < rules.spread_cap else swept
        _shift(rng, rules, state, hit, -swept)
        _shift(rng, rules, state, 1 - hit, followed)
        move = tape.moves[tape.rows[MOVES]]
        move[0] = int(state.times_ns[NOW])
        move[1] = (swept + followed) * (2 * hit - 1)
        tape.rows[MOVES] += 1
    else:
        lots = min(_pick(rng, rules.order_lots), queue[0] - 1)
        _write_trade(state, tape, hit, 0, lots)
        queue[0] -= lots
        if queue[0] < 2:
            queue[0] = 2 + _pick(rng, rules.order_lots)
    for j in range(len(rules.decay_hz)):
        state.excitation_hz[hit, j] += rules.decay_hz[j] * rules.same_side[j]
        state.excitation_hz[1 - hit, j] += rules.decay_hz[j] * rules.cross_side[j]
    _write_quote(state, tape)


@jit
def _echo(rng: np.random.Generator, rules: Rules, state: Progress, ticks: int, tape: Tape) -> None:
    """Copy a move from elsewhere: a fast taker gets the best queue, the makers move both sides.

    It excites no further orders, so that the flow is the same process with and without copies.
    """
    hit = int(ticks > 0)
    _write_trade(state, tape, hit, 0, state.queues[hit, 0])
    _shift(rng, rules, state, hit, -abs(ticks))
    _shift(rng, rules, state, 1 - hit, abs(ticks))
    _write_quote(state, tape)


@jit
def _change_queue(rng: np.random.Generator, rules: Rules, state: Progress, tape: Tape) -> None:
    """Draw one queue halfway to a fresh size: limit orders and cancellations taken together."""
    queue = state.queues[int(rng.random() * 2.0)]
    level = 0 if rng.random() < 0.6 else int(rng.random() * _LEVELS)
    lots = max(2, (queue[level] + _pick(rng, rules.queue_lots)) // 2)
    changed = lots != queue[level]
    queue[level] = lots
    if level == 0 and changed:
        _write_quote(state, tape)


@jit
def _pick(rng: np.random.Generator, sizes: I64) -> int:
    chosen: int = sizes[int(rng.random() * len(sizes))]
    return chosen


@jit
def _shift(rng: np.random.Generator, rules: Rules, state: Progress, side: int, ticks: int) -> None:
    """Move one side ``ticks`` towards the other (negative: away from it).

    Towards it, fresh queues appear in front and the farthest fall out of sight; away from it, the best are
    gone and fresh ones come into sight at the far end.
    """
    kept = state.queues[side].copy()
    for level in range(_LEVELS):
        source = level - ticks
        state.queues[side, level] = kept[source] if 0 <= source < _LEVELS else _pick(rng, rules.queue_lots)
    state.counts[side] += ticks * (1 - 2 * side)


@jit
def _stamp(row: I64, state: Progress) -> None:
    row[0] = int(state.times_ns[NOW])
    row[1] = state.counts[SEQ]
    state.counts[SEQ] += 1


@jit
def _write_trade(state: Progress, tape: Tape, hit: int, level: int, lots: int) -> None:
    row = tape.trades[tape.rows[TRADES]]
    _stamp(row, state)
    row[2] = state.counts[hit] + level * (2 * hit - 1)
    row[3] = lots
    row[4] = 2 * hit - 1
    tape.rows[TRADES] += 1


@jit
def _write_quote(state: Progress, tape: Tape) -> None:
    row = tape.quotes[tape.rows[QUOTES]]
    _stamp(row, state)
    for side in range(2):
        row[2 + 2 * side] = state.counts[side]
        row[3 + 2 * side] = state.queues[side, 0]
    tape.rows[QUOTES] += 1


@jit
def _write_book(state: Progress, tape: Tape) -> None:
    row = tape.books[tape.rows[BOOKS]]
    _stamp(row, state)
    for side in range(2):
        row[2 + side] = state.counts[side]
        for level in range(_LEVELS):
            row[4 + side * _LEVELS + level] = state.queues[side, level]
    tape.rows[BOOKS] += 1


@jit
def _write_mark(state: Progress, tape: Tape) -> None:
    row = tape.marks[tape.rows[MARKS]]
    _stamp(row, state)
    row[2] = state.counts[BID] + state.counts[ASK]
    tape.rows[MARKS] += 1
