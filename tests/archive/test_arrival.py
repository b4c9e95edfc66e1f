"""The repair of order, on receive times alone."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuscalp.archive.arrival import WINDOW, Arrival, Record, is_newest_first


def arranged(times: Sequence[int]) -> tuple[list[Record], int]:
    arrival = Arrival(iter([(time, number, b"") for number, time in enumerate(times)]))
    return list(arrival), arrival.out_of_order


@given(st.lists(st.integers(0, 10**6), max_size=2_000))
def test_nothing_is_lost_and_times_never_go_back(times: list[int]) -> None:
    records, _ = arranged(times)
    assert sorted(record[1] for record in records) == list(range(len(times)))
    keys = [record[0] for record in records]
    assert keys == sorted(keys)


@given(st.lists(st.integers(0, 10**6), max_size=2_000))
def test_ordered_lines_are_left_alone(times: list[int]) -> None:
    times = sorted(times)
    records, count = arranged(times)
    assert [(record[0], record[1]) for record in records] == [(time, n) for n, time in enumerate(times)]
    assert count == 0


def test_nothing_is_dated_before_the_time_that_others_have_reached() -> None:
    arrival = Arrival(
        iter([(time, number, b"") for number, time in enumerate([*range(50, 80), 3, *range(80, 99)])])
    )
    arrival.begin_ns = 50
    records = list(arrival)
    assert min(record[0] for record in records) == 50
    assert [record[0] for record in records] == sorted(record[0] for record in records)
    assert arrival.out_of_order == 1


@pytest.mark.parametrize("size", [40, 511, 512, 513, 1_000, 1_040])
def test_swapped_neighbours_go_back_to_their_places(size: int) -> None:
    for place in range(1, size - 1 - WINDOW, 7):
        times = list(range(10, 10 + size))
        times[place], times[place + 1] = times[place + 1], times[place]
        records, count = arranged(times)
        assert [record[0] for record in records] == list(range(10, 10 + size))
        assert count == 1, place


def test_moved_run_of_lines_goes_back() -> None:
    times = [*range(100), *range(105, 110), *range(100, 105), *range(110, 200)]
    records, count = arranged(times)
    assert [record[0] for record in records] == list(range(200))
    assert count == 5


@pytest.mark.parametrize("stamp", [10**9, 150])
def test_one_stamp_ahead_does_not_move_its_line_or_the_others(stamp: int) -> None:
    times = list(range(100))
    times[40] = stamp
    records, count = arranged(times)
    assert [record[1] for record in records] == list(range(100))
    assert [record[0] for record in records] == [*range(40), 39, *range(41, 100)]
    assert count == 1


@pytest.mark.parametrize("begin_ns", [0, 5])
def test_first_stamp_ahead_gets_the_time_of_those_behind_it(begin_ns: int) -> None:
    """There is no line before it: it got the time 0, and its message was refused for that."""
    arrival = Arrival(iter([(time, number, b"") for number, time in enumerate([10**9, *range(50, 150)])]))
    arrival.begin_ns = begin_ns
    records = list(arrival)
    assert [record[1] for record in records] == list(range(101))
    assert [record[0] for record in records] == [50, *range(50, 150)]
    assert arrival.out_of_order == 1


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        (range(100, 0, -1), True),
        ([*range(100, 50, -1), 10**9, *range(50, 0, -1)], True),
        ([time // 3 for time in range(100, 0, -1)], True),
        (range(100), False),
        ([*range(50, 100), *range(99)], False),
        ([5] * 100, False),
        (range(9, 0, -1), False),  # few enough to go back to their places
        ([], False),
    ],
)
def test_newest_first_is_told_by_nearly_all_steps(times: Sequence[int], expected: bool) -> None:
    assert is_newest_first(times) == expected


def test_clock_set_back_keeps_the_order_of_lines() -> None:
    times = [*range(1_000, 1_500), *range(900, 1_600)]
    records, count = arranged(times)
    assert [record[1] for record in records] == list(range(1_200))
    assert [record[0] for record in records[500:1_099]] == [1_499] * 599
    assert [record[0] for record in records[1_099:]] == list(range(1_499, 1_600))
    assert count == 599
