"""Reading ahead: the same items in the same order, bounded, with its errors, and no thread left over."""

from __future__ import annotations

import threading
import time
from contextlib import closing

import pytest

from gpuscalp.ops.ahead import read_ahead


def threads() -> int:
    return sum(thread.name == "read-ahead" for thread in threading.enumerate())


@pytest.mark.parametrize("depth", [0, 1, 3])
def test_items_come_in_order_and_the_thread_ends(depth):
    assert list(read_ahead(iter(range(50)), depth)) == list(range(50))
    assert threads() == 0


def test_no_more_than_the_depth_is_made_ahead():
    made = []

    def source():
        for item in range(100):
            made.append(item)
            yield item

    with closing(read_ahead(source(), 3)) as items:
        assert next(items) == 0
        time.sleep(0.2)  # time enough to run away
        # Three in the queue, one waiting to get in.
        assert len(made) <= 1 + 3 + 1
        assert len(made) > 1, "nothing was read ahead"
    assert threads() == 0


def test_depth_zero_makes_items_when_they_are_asked_for():
    made = []
    items = read_ahead((made.append(item) or item for item in range(5)), 0)
    assert next(items) == 0
    assert made == [0]


def test_error_of_the_source_comes_in_its_place():
    def source():
        yield 1
        raise ValueError("part 3 is damaged")

    items = read_ahead(source(), 2)
    assert next(items) == 1
    with pytest.raises(ValueError, match="part 3 is damaged"):
        next(items)
    assert threads() == 0


def test_caller_that_stops_early_ends_the_thread_and_closes_the_source():
    closed = threading.Event()

    def source():
        try:
            while True:
                yield 1
        finally:
            closed.set()

    items = read_ahead(source(), 2)
    assert next(items) == 1
    items.close()
    assert threads() == 0
    assert closed.is_set()


def test_source_runs_in_another_thread():
    names = {threading.current_thread().name}

    def source():
        names.add(threading.current_thread().name)
        yield 1

    assert list(read_ahead(source(), 1)) == [1]
    assert names == {threading.current_thread().name, "read-ahead"}
