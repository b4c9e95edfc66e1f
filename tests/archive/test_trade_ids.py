"""The account of trade ids, against sets of them."""

from __future__ import annotations

import tracemalloc
from collections import Counter

import numpy as np
import pytest

from gpuscalp.archive.manifest import Part
from gpuscalp.archive.trade_ids import TradeIds
from gpuscalp.schema import NS_PER_DAY


def part(day: int, *sources: str) -> Part:
    times = [day * NS_PER_DAY + 5] * 4
    return Part("v", "s", "", "trades", f"{day}", 1, *times, 0, 0, 0, 1, 1, 1, 1, "", 0, sources)


def account(
    parts: list[tuple[Part, list[int]]], gaps: list[tuple[int, int]] | None = None
) -> tuple[int, tuple[int, int, int]]:
    ids = TradeIds(gaps or [])
    for of_part, numbers in parts:
        ids.add(of_part, np.array(numbers))
    return ids.twice, ids.missing()


@pytest.mark.parametrize("seed", range(20))
def test_counts_are_those_of_sets(seed: int) -> None:
    """Days of one numbering, in several parts each, some of which share trades, and gaps that overlap."""
    rng = np.random.default_rng(seed)
    parts, times = [], Counter[int]()
    for day in range(4):
        for source in range(rng.integers(1, 4)):
            numbers = 100 * day + rng.integers(-5, 105, rng.integers(1, 90))
            parts.append((part(day, f"{day} {source}"), numbers.tolist()))
            times.update(numbers.tolist())
    begins = rng.integers(-20, 420, 6)
    gaps = [
        (int(begin), int(begin) + int(length))
        for begin, length in zip(begins, rng.integers(0, 30, 6), strict=True)
    ]
    missing = set(range(min(times), max(times))) - set(times)
    lost = {number for number in missing if any(first <= number <= last for first, last in gaps)}
    twice, (in_gaps, between, others) = account(parts, gaps)
    assert twice == times.total() - len(times)
    assert (in_gaps, between + others) == (len(lost), len(missing - lost))


def test_hole_between_two_imports_is_told_from_one_inside() -> None:
    """They were taken for trades that no market made."""
    inside = [(part(1, "a"), [1, 2, 5]), (part(2, "a", "b"), [7, 8]), (part(3, "b"), [10])]
    assert account(inside) == (0, (0, 0, 4))
    apart = [(part(1, "a"), [1, 2, 5]), (part(1, "b"), [9, 10]), (part(3, "c"), [13])]
    assert account(apart) == (0, (0, 5, 2))
    assert account(apart, [(6, 7)]) == (0, (2, 3, 2))
    assert account([(part(1), [1]), (part(2), [4])]) == (0, (0, 0, 2)), "made without sources"


def test_trades_of_days_far_apart_are_different_ones_whatever_their_ids() -> None:
    """Trades of one year and aggregate trades of another, numbered apart, were called the same ones."""
    assert account([(part(1, "a"), [*range(20)]), (part(700, "b"), [*range(10, 30)])]) == (0, (0, 0, 0))
    assert account([(part(1, "a"), [*range(20)]), (part(2, "b"), [*range(10, 30)])])[0] == 10
    # Another numbering, or a symbol listed again: what lies between is no missing trade.
    assert account([(part(1, "a"), [900, 901, 903]), (part(2, "b"), [5, 6, 8])]) == (0, (0, 0, 2))


def test_memory_does_not_grow_with_the_trades() -> None:
    """The ids of all symbols were kept to the end, 8 bytes a trade."""
    ids = TradeIds([])
    tracemalloc.start()
    try:
        for day in range(20):
            ids.add(part(day, f"{day}"), np.arange(50_000 * day, 50_000 * (day + 1)))
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept < 100_000
    assert ids.missing() == (0, 0, 0)


def test_symbol_without_trades_has_no_ids() -> None:
    assert account([], [(1, 2)]) == (0, (0, 0, 0))
