"""Maintenance margin against a plain sum over the slices of a notional, and liquidation by hand."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuscalp.account import Account
from gpuscalp.errors import ConfigError
from gpuscalp.execution.margin import DEFAULT_TIERS, initial_e8, is_liquidated, maintenance_e8, tiers_of

E8 = 10**8
STEPS = ((50_000, "0.004"), (600_000, "0.005"), (3_000_000, "0.0065"), (12_000_000, "0.01"))
STEPS += ((70_000_000, "0.02"), (100_000_000, "0.025"), (230_000_000, "0.05"))


@given(st.integers(0, 400_000_000 * E8))
def test_maintenance_is_the_sum_over_the_slices(notional: int) -> None:
    total, floor = Fraction(0), 0
    for number, (cap, rate) in enumerate(STEPS):
        end = notional if number == len(STEPS) - 1 else min(notional, cap * E8)
        total += max(0, end - floor) * Fraction(rate)
        floor = cap * E8
    assert abs(maintenance_e8(DEFAULT_TIERS, notional) - total) <= 1


@pytest.mark.parametrize("steps", [(), ((5, 0.1), (5, 0.2)), ((5, 0.2), (6, 0.1))])
def test_tiers_that_do_not_grow_are_refused(steps: tuple[tuple[int, float], ...]) -> None:
    with pytest.raises(ConfigError):
        tiers_of(steps)


def test_liquidation_begins_where_the_balance_falls_below_the_maintenance_margin() -> None:
    # 10,000 at 100, paid with 500: bankrupt at 95.0, and 0.4 % of the notional earlier.
    account = Account(500 * E8, 1)
    account.apply_fill(0, 100 * E8, 100 * E8, 0)
    tiers = (tiers_of(((50_000, 0.004),)),)
    # balance = 500 − 100 (100 − p); maintenance = 0.4 p; equal at p = 9500 / 99.6 = 95.3815…
    assert not is_liquidated(account, [9_538_152_611], tiers)
    assert is_liquidated(account, [9_538_152_600], tiers)
    account.apply_fill(0, -100 * E8, 90 * E8, 0)
    assert not is_liquidated(account, [1], tiers)  # flat: nothing to close, whatever is owed


def test_initial_margin_is_rounded_up() -> None:
    assert initial_e8(E8, 100 * E8, 20) == 5 * E8
    assert initial_e8(-E8, 100 * E8 + 1, 20) == 5 * E8 + 1
