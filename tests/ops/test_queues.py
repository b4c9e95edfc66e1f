"""Book and queues in arrays against plain Python, step by step, on random markets."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpuscalp.ops import display, queues
from tests.execution.plain_queues import PlainBook, share
from tests.thorough import examples

# A step of time of 0 is frequent: what one instant tells twice must count once.
AT = st.sampled_from((0, 0, 1, 1, 2, -1))
PRICE = st.integers(98, 101)
QTY = st.sampled_from((0, 1, 2, 3, 7, 7, 10**6, 3 * 10**14))
SIGN = st.sampled_from((1, -1))
LEVELS = st.lists(QTY, min_size=1, max_size=5)
SOUND = st.sampled_from((True, True, True, True, True, False))
QUOTE = st.tuples(AT, st.just("quote"), PRICE, st.sampled_from((1, 1, 2, 0, -1)), QTY, QTY, SOUND)
BOOK = st.tuples(AT, st.just("book"), PRICE, st.integers(0, 2), LEVELS, LEVELS, SOUND)
TRADE = st.tuples(AT, st.just("trade"), SIGN, PRICE, QTY)
ENTER = st.tuples(st.just(0), st.just("enter"), SIGN, PRICE)
LEAVE = st.tuples(st.just(0), st.just("leave"), SIGN, st.integers(0, 9))
TAKE = st.tuples(st.just(0), st.just("take"), SIGN, st.integers(0, 5), st.integers(1, 10**15))
SCRIPT = st.lists(
    st.one_of(QUOTE, QUOTE, BOOK, BOOK, TRADE, TRADE, ENTER, ENTER, LEAVE, TAKE), min_size=15, max_size=60
)
POWER = st.sampled_from((0, 1, 2, 3, 6))


SCRATCH = np.zeros(4 * display.LIMBS, np.int64)


class Arrays:
    """The compiled state, driven as the paper broker does."""

    def __init__(self, power: int) -> None:
        self.head, self.book, self.queue = display.new_head(), display.new_book(), queues.new_queue(64)
        self.power = power

    def follow(self, changed: bool) -> None:
        if changed:
            at = self.head[display.WHOLE, display.STATE_NS]
            queues.follow(self.head, self.book, self.queue, at, self.power)

    def state(self) -> dict[str, Any]:
        head, sides = self.head.tolist(), []
        for index, sign in ((0, 1), (1, -1)):
            book, queue = self.book[index].tolist(), self.queue[index].tolist()
            first, end, taken, count, places = (
                head[index][column]
                for column in (display.FIRST, display.END, display.TAKEN, display.QUEUES, display.PLACES)
            )
            sides.append(
                {
                    "levels": [(-sign * book[0][n], book[1][n]) for n in range(first, end)],
                    "taken": {-sign * book[2][n]: [book[3][n], book[4][n]] for n in range(taken)},
                    "queues": {
                        -sign * queue[0][n]: tuple(queue[row][n] for row in range(1, 6)) for n in range(count)
                    },
                    "places": [
                        (-sign * queue[6][n], *(queue[row][n] for row in range(7, 11))) for n in range(places)
                    ],
                }
            )
        return {"head": head[display.WHOLE][:3], "sides": sides}


def plain_state(plain: PlainBook) -> dict[str, Any]:
    sides = [
        {
            "levels": plain.sides[sign].levels,
            "taken": plain.sides[sign].taken,
            "queues": {
                price: (-1 if q.shown is None else q.shown, q.traded, q.traded_at, q.dropped, q.dropped_at)
                for price, q in plain.queues[sign].items()
            },
            "places": [(p.price, p.ahead, p.since, p.advanced, p.advanced_at) for p in plain.places[sign]],
        }
        for sign in (1, -1)
    ]
    return {"head": [plain.state_at, plain.book_at, int(plain.sound)], "sides": sides}


def step(made: Arrays, plain: PlainBook, kind: str, at: int, what: list[Any]) -> None:
    head, book, queue = made.head, made.book, made.queue
    if kind == "quote":
        bid, gap, bid_qty, ask_qty, sound = what
        made.follow(display.set_quote(head, book, at, bid, bid_qty, bid + gap, ask_qty, sound))
        plain.quote(at, (bid, bid_qty), (bid + gap, ask_qty), sound)
    elif kind == "book":
        bid, gap, bids, asks, sound = what
        top = np.zeros((4, 20), np.int64)
        sides = [
            [(bid - n, qty) for n, qty in enumerate(bids)],
            [(bid + gap + n, q) for n, q in enumerate(asks)],
        ]
        for row, side in zip((0, 2), sides, strict=True):
            top[row, : len(side)] = [price for price, _ in side]
            top[row + 1, : len(side)] = [qty for _, qty in side]
        made.follow(display.set_book(head, book, at, top[None], 0, sound))
        plain.book(at, *sides, sound)
    elif kind == "trade":
        sign, price, qty = what
        index, key = (0, -price) if sign > 0 else (1, price)
        may_fill = queues.trade_fills(head, queue, index, key, qty, at)
        queues.note_trade(head, queue, index, key, qty, at)
        reached = [
            queues.pass_trade(queue, index, place, key, qty, at)
            for place in range(head[index, display.PLACES])
        ]
        assert reached == plain.trade(sign, price, qty, at)
        assert may_fill or not any(reached), "a row that may fill an order must not be skimmed"
    elif kind == "enter":
        sign, price = what
        queues.enter(head, book, queue, 0 if sign > 0 else 1, -sign * price, at)
        plain.enter(sign, price, at)
    elif kind == "leave":
        sign, place = what
        if place < len(plain.places[sign]):
            queues.leave(head, queue, 0 if sign > 0 else 1, place)
            plain.leave(sign, place)
    else:
        sign, level, most = what
        index = 0 if sign > 0 else 1
        if level < len(plain.sides[sign].levels):
            price = plain.sides[sign].levels[level][0]
            level += head[index, display.FIRST]
            left = display.available(head, book, index, level)
            assert left == plain.sides[sign].available(price)
            if left:
                display.take(head, book, index, level, min(left, most))
                plain.sides[sign].take(price, min(left, most))


@settings(max_examples=examples(600))
@given(SCRIPT, POWER)
def test_every_step_leaves_what_plain_loops_leave(script: list[Any], power: int) -> None:
    made, plain = Arrays(power), PlainBook(power)
    at = 100
    for ahead, kind, *what in script:
        at += ahead
        step(made, plain, kind, at, what)
        assert made.state() == plain_state(plain)


def test_quotes_that_improve_push_the_farthest_level_out() -> None:
    made, plain = Arrays(0), PlainBook(0)
    for n in range(200):
        step(made, plain, "quote", n, [100 + n, 1_000 - n, 5, 6, True])
        assert made.state() == plain_state(plain)
    assert made.head[0, display.END] - made.head[0, display.FIRST] == display.MOST_LEVELS


@settings(max_examples=examples(500))
@given(
    st.integers(0, 2**62 - 1), st.integers(0, 2**62 - 1), st.integers(0, 2**62 - 1), st.integers(1, 6),
    st.integers(0, 61),
)  # fmt: skip
def test_share_is_exact_whatever_the_size(drop: int, ahead: int, behind: int, power: int, less: int) -> None:
    drop, ahead, behind = drop >> less, ahead >> less, (behind >> less) // 2
    ahead = min(ahead, 2**62 - 1 - behind)
    assert queues.share(drop, ahead, ahead + behind, power, SCRATCH) == share(
        drop, ahead, ahead + behind, power
    )


@pytest.mark.parametrize("power", [1, 2, 3, 6])
def test_share_at_the_edges_of_an_integer(power: int) -> None:
    most = 2**62 - 1
    for ahead, shown in (
        (1, most),
        (most - 1, most),
        (most, most),
        (0, most),
        (most // 2, most),
        (2**31, 2**32),
    ):
        for drop in (0, 1, shown - 1, shown):
            assert queues.share(drop, ahead, shown, power, SCRATCH) == share(drop, ahead, shown, power)


@pytest.mark.parametrize("power", [0, 1, 3])
def test_a_trade_that_is_told_after_a_newer_book_moves_the_queue_once(power: int) -> None:
    made = Arrays(power)
    head, book, queue = made.head, made.book, made.queue
    made.follow(display.set_quote(head, book, 100, 99, 70, 101, 1, True))
    queues.enter(head, book, queue, 0, -99, 100)
    # 40 of the 70 before us are traded at 101; the book of 102, which shows what is left, comes first.
    made.follow(display.set_quote(head, book, 102, 99, 30, 101, 1, True))
    assert queue[0, queues.AHEAD, 0] == 30
    queues.note_trade(head, queue, 0, -99, 40, 101)
    assert queues.pass_trade(queue, 0, 0, -99, 40, 101) == 0
    assert queue[0, queues.AHEAD, 0] == 30
    # What is newer than the book moves it.
    assert queues.pass_trade(queue, 0, 0, -99, 35, 103) == 5


@pytest.mark.parametrize("power", [0, 1, 3])
@pytest.mark.parametrize("traded_ns", [101, 102])
def test_a_queue_that_comes_into_view_is_what_the_trades_until_then_have_left(
    power: int, traded_ns: int
) -> None:
    """Told after the book that shows it, such a trade emptied what the book shows and filled the order."""
    made = Arrays(power)
    head, book, queue = made.head, made.book, made.queue
    made.follow(display.set_quote(head, book, 100, 99, 5, 101, 1, True))
    queues.enter(head, book, queue, 0, -98, 100)
    assert queue[0, queues.AHEAD, 0] == queues.UNSEEN
    # The bid falls to our price, where 30 are left; the 40 that were traded there are told now.
    made.follow(display.set_quote(head, book, 102, 98, 30, 101, 1, True))
    queues.note_trade(head, queue, 0, -98, 40, traded_ns)
    assert queues.pass_trade(queue, 0, 0, -98, 40, traded_ns) == 0
    assert queue[0, queues.AHEAD, 0] == 30
    # What is newer takes from the front, and a trade at a worse price has served everybody before us.
    assert queues.pass_trade(queue, 0, 0, -98, 35, 103) == 5
    assert queues.pass_trade(queue, 0, 0, -97, 7, 102) == 7
