"""The book against plain dicts whatever a feed does: gaps, copies, crossings, snapshots, many levels."""

from __future__ import annotations

from collections.abc import Container
from typing import Any
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpuscalp.feeds import book as book_module
from gpuscalp.feeds.book import BookState, LocalBook, level_array
from gpuscalp.feeds.messages import DepthSnapshot, DepthUpdate, Levels
from gpuscalp.schema import Quality
from tests.feeds.naive_book import NaiveBook
from tests.thorough import examples

# Few prices, so that levels meet, cross and pass the twentieth; quantities that are no round numbers.
QTY = st.one_of(st.just(0), st.integers(1, 3), st.integers(1, 2**62))
LEVELS = st.lists(st.tuples(st.integers(1, 80), QTY), max_size=30)
# Snapshots that were cut at as many levels as they have: their books begin near their edges.
LIMITS = frozenset(range(21, 40))
_PRICES = st.lists(st.integers(61, 100), unique=True, min_size=19, max_size=39)
DEEP = st.tuples(
    _PRICES.map(lambda prices: [(price, price) for price in prices]),
    _PRICES.map(lambda prices: [(40 + price, price) for price in prices]),
)


def _moved(to: int) -> tuple[str, Levels, Levels]:
    """Return an update by which the market lies around a price: what it leaves behind goes, some comes."""
    bids = [(price, 0 if price >= to else 2) for price in range(to - 25, 180)]
    asks = [(price, 0 if price <= to else 2) for price in range(1, to + 25)]
    return "next", bids, asks


# Past the edges and some way back, where moves alone have told all levels.
MOVES = st.sampled_from((40, 65, 75, 100, 125, 155)).map(_moved)
STEP = st.one_of(
    st.tuples(st.just("next"), LEVELS, LEVELS),
    st.tuples(st.just("next"), LEVELS, LEVELS),
    MOVES,
    st.tuples(st.just("gap"), LEVELS, LEVELS),
    st.tuples(st.sampled_from(["late", "again"]), LEVELS, LEVELS),
    st.tuples(st.integers(-6, 3), LEVELS, LEVELS),  # a snapshot so many ids behind or ahead
    st.tuples(st.integers(-6, 3), DEEP).map(lambda drawn: (drawn[0], *drawn[1])),
)


def _compare(ours: LocalBook, naive: NaiveBook) -> None:
    assert ours.state is BookState(naive.state)
    assert ours.top() == naive.top()
    assert ours.crossed == naive.crossed
    assert ours.near_edge == (naive.near and naive.state == "synced")
    assert ours.missing == naive.missing
    bid_price, bid_qty, ask_price, ask_qty = naive.top()
    assert ours.best() == (bid_price[0], bid_qty[0], ask_price[0], ask_qty[0])
    expected = (bid_price[0], ask_price[0], *naive.sums(5), *naive.sums(20))
    assert ours.summary == expected
    doubts = {"synced": 0, "resync": Quality.GAP | Quality.RESYNC, "unsynced": Quality.RESYNC}[naive.state]
    assert ours.quality == int(doubts | (Quality.CROSSED if naive.crossed else 0))


@pytest.mark.parametrize(("levels_max", "limits"), [(25, ()), (50_000, ()), (50_000, LIMITS)])
@settings(max_examples=examples(120))
@given(
    snapshot=st.tuples(LEVELS, LEVELS) | DEEP,
    steps=st.lists(STEP, max_size=20) | st.lists(MOVES, max_size=8),
    ahead=st.lists(STEP, max_size=3),
)
def test_book_is_that_of_plain_dicts_whatever_comes(
    levels_max: int,
    limits: Container[int],
    snapshot: tuple[Levels, Levels],
    steps: list[Any],
    ahead: list[Any],
) -> None:
    ours, naive = LocalBook(), NaiveBook(levels_max, limits)
    last, older = 10, 10
    with mock.patch.multiple(book_module, LEVELS_MAX=levels_max, SNAPSHOT_LIMITS=limits):
        for what, bids, asks in [*ahead, (0, *snapshot), *steps]:
            if isinstance(what, int):
                found = DepthSnapshot("X", 1, last + what, bids, asks)
                assert ours.on_snapshot(found).value == naive.on_snapshot(last + what, bids, asks)
                _compare(ours, naive)
                continue
            if what == "late":
                first, end, previous = older, older, older - 1
            elif what == "again":
                first, end, previous = last, last, last - 1
            else:
                older, previous = last, last + 2 * (what == "gap")
                first = last = end = previous + 1
            event = ours.on_diff(DepthUpdate("X", 1, first, end, previous, bids, asks))
            assert event.value == naive.on_diff(first, end, previous, bids, asks)
            _compare(ours, naive)


@settings(max_examples=examples(50))
@given(st.lists(st.tuples(LEVELS, LEVELS, st.booleans()), min_size=1, max_size=8))
def test_book_keeps_its_own_copy_of_what_waits(updates: list[tuple[Levels, Levels, bool]]) -> None:
    # The reader of messages writes the levels of the next chunk over those of the last.
    ours, naive = LocalBook(), NaiveBook(50_000)
    last = 0
    for bids, asks, gap in updates:
        previous = last + gap
        last = previous + 1
        levels = level_array([(7, 7), *bids], asks)
        event = ours.on_update(last, last, previous, levels, 1, len(bids), len(asks))
        levels[:] = -1
        assert event.value == naive.on_diff(last, last, previous, bids, asks)
    event = ours.on_snapshot(DepthSnapshot("X", 1, last - 1, [(40, 1)], [(41, 1)]))
    assert event.value == naive.on_snapshot(last - 1, [(40, 1)], [(41, 1)])
    _compare(ours, naive)


def test_book_grows_with_its_levels() -> None:
    ours, naive = LocalBook(), NaiveBook(50_000)
    for each in (ours.on_snapshot(DepthSnapshot("X", 1, 0, [], [])).value, naive.on_snapshot(0, [], [])):
        assert each == "synced"
    for number in range(1, 60):
        bids = [(10_000 - 97 * number + n, number) for n in range(60)]
        asks = [(20_000 + 89 * number - n, number) for n in range(70)]
        event = ours.on_diff(DepthUpdate("X", 1, number, number, number - 1, bids, asks))
        assert event.value == naive.on_diff(number, number, number - 1, bids, asks)
        _compare(ours, naive)
    assert len(naive.asks) > 4_000
