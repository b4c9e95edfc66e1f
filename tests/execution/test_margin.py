"""Maintenance margin against a plain sum over the slices of a notional, and liquidation by hand."""

from __future__ import annotations

from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from gpuscalp.account import Account
from gpuscalp.execution.margin import PAPER_TIERS, TIERS, Tier, initial_e8, is_liquidated, maintenance_e8

E8 = 10**8
STEPS = ((50_000, "0.004"), (600_000, "0.005"), (3_000_000, "0.0065"), (12_000_000, "0.01"))
STEPS += ((70_000_000, "0.02"), (100_000_000, "0.025"), (230_000_000, "0.05"), (480_000_000, "0.1"))
STEPS += ((600_000_000, "0.125"), (800_000_000, "0.15"), (1_200_000_000, "0.25"), (1_800_000_000, "0.5"))


@given(
    st.sampled_from([(TIERS, STEPS), (PAPER_TIERS, STEPS[:7])]),
    st.one_of(st.integers(0, 400_000_000 * E8), st.integers(0, 4_000_000_000 * E8)),
)
def test_maintenance_is_the_sum_over_the_slices(
    table: tuple[tuple[Tier, ...], tuple[tuple[int, str], ...]], notional: int
) -> None:
    tiers, steps = table
    total, floor = Fraction(0), 0
    for number, (cap, rate) in enumerate(steps):
        end = notional if number == len(steps) - 1 else min(notional, cap * E8)
        total += max(0, end - floor) * Fraction(rate)
        floor = cap * E8
    assert abs(maintenance_e8(tiers, notional) - total) <= 1


def test_liquidation_begins_where_the_balance_falls_below_the_maintenance_margin() -> None:
    # 10,000 at 100, paid with 500: bankrupt at 95.0, and 0.4 % of the notional earlier.
    account = Account(500 * E8, 1)
    account.apply_fill(0, 100 * E8, 100 * E8, 0)
    # balance = 500 − 100 (100 − p); maintenance = 0.4 p; equal at p = 9500 / 99.6 = 95.3815…
    assert not is_liquidated(account, [9_538_152_611])
    assert is_liquidated(account, [9_538_152_600])
    account.apply_fill(0, -100 * E8, 90 * E8, 0)
    assert not is_liquidated(account, [1])  # flat: nothing to close, whatever is owed


def test_initial_margin_is_rounded_up() -> None:
    assert initial_e8(E8, 100 * E8, 20) == 5 * E8
    assert initial_e8(-E8, 100 * E8 + 1, 20) == 5 * E8 + 1
