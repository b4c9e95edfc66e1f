"""An order meets what was recorded at or after its arrival, and takes each unit once."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuscalp.archive import BookSeries, QuoteSeries
from gpuscalp.backtest.liquidity import DEPTH_REACH_MS, Liquidity
from gpuscalp.orders import BUY, SELL
from gpuscalp.schema import Quality
from tests.backtest.market import COIN, E8, MS, NOW, books, quotes

STEP = COIN.step_size_e8


def liquidity(quote_rows: QuoteSeries | None = None, book_rows: BookSeries | None = None) -> Liquidity:
    found = Liquidity(COIN)
    found.load(quote_rows or quotes([]), book_rows or books([]))
    return found


def at(ms: float) -> int:
    return NOW + round(ms * MS)


def test_state_is_the_first_at_or_after_the_arrival() -> None:
    market = liquidity(
        quotes([(0, 9_999, 10_000, 1, 1), (10, 10_009, 10_010, 1, 1), (20, 10_019, 10_020, 1, 1)])
    )
    for arrival, met, price in ((10, 10, 10_010), (10.000001, 20, 10_020), (-5, 0, 10_000)):
        state = market.meet(at(arrival), BUY)
        assert state is not None
        assert state.exch_ns == at(met)
        assert state.levels[0][0] == price * COIN.tick_size_e8
    assert market.meet(at(20.1), BUY) is None


def test_sides_cross_to_the_other_side_of_the_book() -> None:
    market = liquidity(quotes([(0, 9_999, 10_001, 2, 3)]))
    buy, sell = market.meet(at(0), BUY), market.meet(at(0), SELL)
    assert buy is not None
    assert sell is not None
    assert buy.levels[0][:2] == (10_001 * COIN.tick_size_e8, 3 * E8)
    assert sell.levels[0][:2] == (9_999 * COIN.tick_size_e8, 2 * E8)
    assert buy.mid2_e8 == sell.mid2_e8 == 200 * E8


def test_book_is_walked_level_by_level() -> None:
    market = liquidity(None, books([(0, [(9_999, 1)], [(10_000, 1), (10_002, 2), (10_005, 5)])]))
    state = market.meet(at(0), BUY)
    assert state is not None
    tick = COIN.tick_size_e8
    assert market.take(state, 4 * E8, STEP) == [
        (10_000 * tick, E8),
        (10_002 * tick, 2 * E8),
        (10_005 * tick, E8),
    ]


def test_levels_behind_a_quote_come_from_the_next_book_and_are_worse() -> None:
    book = books([(50, [(9_990, 1)], [(9_998, 7), (10_000, 9), (10_001, 2)])])
    market = liquidity(quotes([(0, 9_999, 10_000, 1, 1)]), book)
    state = market.meet(at(0), BUY)
    assert state is not None
    assert state.exch_ns == at(0)
    assert [level[:2] for level in state.levels] == [
        (10_000 * COIN.tick_size_e8, E8),
        (10_001 * COIN.tick_size_e8, 2 * E8),
    ]


def test_book_that_comes_late_does_not_deepen_a_quote() -> None:
    book = books([(DEPTH_REACH_MS + 1, [(9_990, 1)], [(10_001, 2)])])
    state = liquidity(quotes([(0, 9_999, 10_000, 1, 1)]), book).meet(at(0), BUY)
    assert state is not None
    assert len(state.levels) == 1


@pytest.mark.parametrize("flag", [Quality.GAP, Quality.RESYNC, Quality.CROSSED])
def test_flagged_states_are_passed_over(flag: Quality) -> None:
    rows = quotes([(0, 9_999, 10_000, 1, 1), (10, 9_989, 9_990, 1, 1)])
    flagged = replace(rows, quality=np.array([flag.value, 0], np.uint16))
    state = liquidity(flagged).meet(at(0), BUY)
    assert state is not None
    assert state.exch_ns == at(10)


@pytest.mark.parametrize(("bid", "ask"), [(0, 10_000), (10_000, 0), (10_000, 10_000), (10_001, 10_000)])
def test_one_sided_and_crossed_states_are_passed_over(bid: int, ask: int) -> None:
    market = liquidity(quotes([(0, bid, ask, 1, 1), (10, 9_999, 10_000, 1, 1)]))
    for side in (BUY, SELL):
        state = market.meet(at(0), side)
        assert state is not None
        assert state.exch_ns == at(10)


def test_taken_units_are_gone_until_the_state_changes_and_also_after_a_reload() -> None:
    rows = quotes([(0, 9_999, 10_000, 1, 1.5), (10, 9_999, 10_000, 1, 1.5)])
    market = liquidity(rows)
    first = market.meet(at(0), BUY)
    assert first is not None
    assert market.take(first, E8, STEP) == [(10_000 * COIN.tick_size_e8, E8)]
    market.load(rows, books([]))
    again = market.meet(at(0), BUY)
    assert again is not None
    assert market.take(again, E8, STEP) == [(10_000 * COIN.tick_size_e8, E8 // 2)]
    assert market.take(again, E8, STEP) == []
    later = market.meet(at(5), BUY)
    assert later is not None
    assert market.take(later, E8, STEP) == [(10_000 * COIN.tick_size_e8, E8)]


def test_last_state_is_the_one_in_force() -> None:
    market = liquidity(quotes([(0, 9_999, 10_000, 1, 1), (10, 9_989, 9_990, 1, 1)]))
    state = market.last(at(9), SELL)
    assert state is not None
    assert state.levels[0][0] == 9_999 * COIN.tick_size_e8
    assert market.last(at(-1), SELL) is None


LEVELS = st.lists(st.tuples(st.integers(1, 30), st.integers(1, 3_000)), min_size=1, max_size=6)
ROW = st.tuples(st.integers(0, 60), LEVELS, LEVELS, st.booleans())
TAKE = st.tuples(st.integers(0, 70), st.sampled_from([BUY, SELL]), st.integers(1, 6_000))


def build(
    rows: list[tuple[int, list[tuple[int, int]], list[tuple[int, int]], bool]],
) -> tuple[Liquidity, dict]:
    """Quotes and books around 10,000 ticks, and what each (table, time, side, price) displayed at most."""
    quote_rows, book_rows = [], []
    shown: dict[tuple[str, int, int, int], int] = {}
    for time, bids, asks, is_quote in sorted(rows, key=lambda row: row[0]):
        sides = []
        for sign, levels in ((-1, bids), (1, asks)):
            price, side = 10_000, []
            for step, lots in levels:
                price += sign * step
                side.append((price, lots / 1_000))
            sides.append(side)
        if is_quote:
            quote_rows.append((time, sides[0][0][0], sides[1][0][0], sides[0][0][1], sides[1][0][1]))
            sides = [side[:1] for side in sides]
        else:
            book_rows.append((time, *sides))
        for taker, side in ((SELL, sides[0]), (BUY, sides[1])):
            for price, qty in side:
                key = ("quote" if is_quote else "book", at(time), taker, price)
                shown[key] = max(shown.get(key, 0), round(qty * E8))
    return liquidity(quotes(quote_rows), books(book_rows)), shown


@given(st.lists(ROW, max_size=12), st.lists(TAKE, max_size=12))
def test_no_unit_is_taken_twice_and_no_price_is_better_than_the_book(rows: list, takes: list) -> None:
    market, shown = build(rows)
    taken: dict[tuple[str, int, int, int], int] = {}
    for arrival, side, lots in takes:
        state = market.meet(at(arrival), side)
        if state is None:
            assert all(key[1] < at(arrival) for key in shown)
            continue
        assert state.exch_ns >= at(arrival)
        assert not any(at(arrival) <= key[1] < state.exch_ns for key in shown)
        filled = market.take(state, lots * STEP, STEP)
        assert sum(qty for _, qty in filled) <= lots * STEP
        prices = [side * price for price, _ in filled]
        assert prices == sorted(prices)
        keys = {price: key for price, _, key in state.levels}
        for price, qty in filled:
            assert qty > 0
            assert qty % STEP == 0
            # The oracle: everything ever taken from one displayed level stays within what it displayed.
            key = keys[price]
            assert price == key[3] * COIN.tick_size_e8
            taken[key] = taken.get(key, 0) + qty
            assert taken[key] <= shown[key]
            best = state.levels[0][0]
            assert side * (price - best) >= 0
