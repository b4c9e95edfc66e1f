"""Jumps and standard deviations against plain loops, with gaps, missing quotes and a restart in between."""

from __future__ import annotations

import math
from copy import deepcopy
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuscalp.risk.volatility import Volatility

MS = 1_000_000
NOW = 1_700_000_000 * 10**9
SHORT_MS, LONG_MS = 500, 4_000

FRAME = st.tuples(
    st.sampled_from([100, 100, 100, 50, 3_000]),  # ms since the frame before
    st.lists(st.tuples(st.integers(0, 1_000), st.integers(0, 3)), min_size=3, max_size=3),
)


def show(target: Volatility, at_ms: int, quotes: list[tuple[int, int]]) -> None:
    bid = np.array([bid for bid, _ in quotes], np.int32)
    target.observe(NOW + at_ms * MS, bid, bid + np.array([gap for _, gap in quotes], np.int32))


def expected(frames: list[Any], symbol: int, memory_ms: int) -> tuple[float, float]:
    """Return the last jump and the variance per second, in exact fractions, of one symbol."""
    memory = Fraction(memory_ms, 1_000)
    squares = seconds = Fraction(0)
    last: tuple[int, Fraction] | None = None
    at = 0
    jump = math.nan
    for pause, quotes in frames:
        at += pause
        bid, gap = quotes[symbol]
        jump = math.nan
        if bid == 0:
            continue
        mid = Fraction(2 * bid + gap, 2)
        if last is not None:
            passed = Fraction(at - last[0], 1_000)
            move = 10_000 * (mid / last[1] - 1)
            keep = memory / (memory + passed)
            squares, seconds = squares * keep + move**2, seconds * keep + passed
            jump = float(abs(move))
        last = (at, mid)
    return jump, float(squares / seconds) if seconds else math.nan


@given(st.lists(FRAME, min_size=1, max_size=20), st.integers(0, 19))
def test_estimates_are_those_of_plain_loops(frames: list[Any], restart: int) -> None:
    target = Volatility(3, short_ms=SHORT_MS, long_ms=LONG_MS)
    at = 0
    for index, (pause, quotes) in enumerate(frames):
        at += pause
        show(target, at, quotes)
        if index == restart:
            target = deepcopy(target)
    for symbol in range(3):
        jump, short = expected(frames, symbol, SHORT_MS)
        _, long = expected(frames, symbol, LONG_MS)
        # Some tens of float64 operations: 1e-12 is far above their rounding and far below any mistake.
        assert target.jump_bps[symbol] == pytest.approx(jump, rel=1e-9, abs=1e-9, nan_ok=True)
        assert target.short_bps[symbol] == pytest.approx(
            math.sqrt(short * SHORT_MS / 1e3), rel=1e-12, nan_ok=True
        )
        assert target.over_bps(symbol, 700.0) == pytest.approx(math.sqrt(long * 0.7), rel=1e-12, nan_ok=True)


def test_steady_moves_give_their_own_size_from_the_first_one_on() -> None:
    target = Volatility(1, short_ms=1_000, long_ms=1_000)
    for index in range(30):
        show(target, 100 * index, [(1_000_000 + 100 * (index % 2), 0)])
        if index:
            # 1 bp every 100 ms: √10 bps a second.
            assert target.short_bps[0] == pytest.approx(math.sqrt(10), rel=1e-3)
            assert target.over_bps(0, 100.0) == pytest.approx(1.0, rel=1e-3)


@pytest.mark.parametrize("half", [(1_000, 0), (0, 1_000), (0, 0)])
def test_half_a_quote_is_no_move_and_one_tick_is_a_price(half: tuple[int, int]) -> None:
    """Taken for a quote, a side without orders is a fall by half, and the breakers act on it."""
    target = Volatility(1, short_ms=SHORT_MS, long_ms=LONG_MS)
    jumps = []
    for at, (bid, ask) in enumerate([(1, 1), half, (1, 2)]):
        target.observe(NOW + at * 100 * MS, np.array([bid], np.int32), np.array([ask], np.int32))
        jumps.append(float(target.jump_bps[0]))
    assert np.isnan(jumps[:2]).all()
    assert jumps[2] == 5_000.0


def test_nothing_is_known_before_the_second_quote() -> None:
    target = Volatility(1, short_ms=1_000, long_ms=1_000)
    for at_ms, quote in ((0, (0, 0)), (100, (500, 1)), (200, (0, 0))):
        show(target, at_ms, [quote])
        assert np.isnan(target.jump_bps[0])
        assert np.isnan(target.short_bps[0])
        assert math.isnan(target.over_bps(0, 1_000.0))


def test_frame_that_comes_twice_counts_once() -> None:
    target = Volatility(1, short_ms=1_000, long_ms=1_000)
    show(target, 0, [(500, 0)])
    show(target, 100, [(501, 0)])
    before = target.over_bps(0, 1_000.0)
    show(target, 100, [(501, 0)])
    assert target.over_bps(0, 1_000.0) == before
    assert np.isnan(target.jump_bps[0])


def test_prices_near_the_end_of_int32_do_not_wrap() -> None:
    target = Volatility(1, short_ms=1_000, long_ms=1_000)
    show(target, 0, [(2**31 - 4, 2)])
    show(target, 100, [(2**31 - 4, 2)])
    assert target.jump_bps[0] == 0.0
