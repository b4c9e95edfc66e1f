"""The arrays of a book, call by call; tests/feeds/test_book_laws.py compares whole books with an oracle."""

from __future__ import annotations

import numpy as np
import pytest

from gpuscalp.ops import levels as ops

BIDS = [(100 - n, 10 + n) for n in range(25)]
ASKS = [(101 + n, 30 + n) for n in range(25)]


def array(*sides):
    return np.array([level for side in sides for level in side], np.int64).reshape(-1, 2)


def filled(room=64, bids=BIDS, asks=ASKS):
    cells, top = ops.new_cells(room), np.zeros((4, 20), np.int64)
    made = ops.update(cells, top, array(bids, asks), 0, len(bids), len(asks), 1_000, False)
    return cells, top, made


def test_best_levels_come_first_and_their_quantities_are_added_up():
    _, top, made = filled()
    assert top.tolist() == [
        [price for price, _ in BIDS[:20]],
        [qty for _, qty in BIDS[:20]],
        [price for price, _ in ASKS[:20]],
        [qty for _, qty in ASKS[:20]],
    ]
    assert made[0] == ops.CHANGED | ops.MOVED
    assert made[1:3] == (100, 101)
    sums = []
    for count in (5, 20):
        for side in (BIDS, ASKS):
            total = 0.0
            for _, qty in side[:count]:
                total += qty / 1e8
            sums.append(total)
    assert list(made[3:]) == sums


def test_quantity_above_the_integers_of_a_float_is_rounded_before_it_is_divided():
    # As NumPy divides the column of an archive; an exact quotient of integers would be another number.
    qty = next(q for q in range(2**53 + 10**8, 2**53 + 10**9) if q / 10**8 != float(q) / 1e8)
    _, _, made = filled(bids=[(100, qty)], asks=[])
    assert made[3] == (np.array([qty], np.int64) / 100_000_000)[0] != qty / 10**8


def test_without_room_nothing_is_done():
    cells, top, _ = filled(room=26)
    before = cells.copy(), top.copy()
    made = ops.update(cells, top, array([(200, 1), (201, 1)]), 0, 0, 2, 1_000, False)
    assert made == (ops.ROOM, 0, 0, 0.0, 0.0, 0.0, 0.0)
    assert np.array_equal(cells, before[0])
    assert np.array_equal(top, before[1])
    larger = ops.with_room(cells, 40)
    made = ops.update(larger, top, array([(200, 1), (201, 1)]), 0, 0, 2, 1_000, False)
    assert made[0] == 0
    assert larger[ops.ASKS, 0] == 27


@pytest.mark.parametrize(
    ("level", "bits"),
    [
        ((100, 10), 0),  # as it is
        ((50, 0), 0),  # not there
        ((81, 29), 0),
        ((81, 0), ops.CHANGED | ops.MOVED),  # the twentieth
        ((80, 0), 0),
        ((80, 5), 0),
        ((101, 5), ops.CHANGED | ops.MOVED | ops.CROSSED),
    ],
)
def test_bits_say_what_a_bid_did(level, bits):
    cells, top, _ = filled()
    before = top.copy()
    made = ops.update(cells, top, array([(1, 1), level]), 1, 1, 0, 1_000, False)
    assert made[0] == bits
    if not bits & ops.MOVED:
        assert np.array_equal(top, before)
        assert made[1:] == (0, 0, 0.0, 0.0, 0.0, 0.0)


def test_a_side_of_exactly_twenty_levels_has_no_place_for_a_worse_one():
    for side, worse in (("bids", (80, 5)), ("asks", (121, 5))):
        cells, top, _ = filled(bids=BIDS[:20], asks=ASKS[:20])
        counts = (1, 0) if side == "bids" else (0, 1)
        made = ops.update(cells, top, array([worse]), 0, *counts, 1_000, False)
        assert made[0] == 0
        assert cells[ops.BIDS if side == "bids" else ops.ASKS, 0] == 21


def test_the_farthest_levels_of_either_side_are_let_go():
    cells, top, _ = filled()
    before = top.copy()
    ops.update(cells, top, array([(1, 1)], [(999, 1)]), 0, 1, 1, 22, False)
    for row, sign, side in ((ops.BIDS, 1, BIDS), (ops.ASKS, -1, ASKS)):
        assert cells[row, 0] == 22
        kept = list(zip((sign * cells[row, 22:0:-1]).tolist(), cells[row + 1, 22:0:-1].tolist(), strict=True))
        assert kept == side[:22]
    assert np.array_equal(top, before)


def test_crossed_levels_go_where_they_are_doubtful_even_if_nothing_else_changed():
    cells, top, _ = filled()
    ops.update(cells, top, array([(103, 5)]), 0, 1, 0, 1_000, False)
    made = ops.update(cells, top, array([(103, 5)]), 0, 1, 0, 1_000, True)
    assert made[0] == ops.MOVED
    assert made[1:3] == (103, 104)
    assert top[2, 0] == 104


def test_cells_filled_by_hand_are_read_as_those_of_an_update():
    cells, top, made = filled()
    again = np.full_like(top, -1)
    assert ops.read(cells, again) == (made[0] & ~ops.CHANGED, *made[1:])
    assert np.array_equal(again, top)
