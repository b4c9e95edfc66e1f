"""Cross margin at the mark price: what positions and orders hold, and when everything is closed.

Owns: the tiers and the sums. Never: fills, or knows an order's life. Money in 1e-8 of the quote currency.

The model, for one account in one-way mode with one margin asset (Binance, "Leverage and Margin of USD-M
Futures"):

    initial      Σ over symbols of max(|position + open buys|, |position − open sells|) × mark / leverage
    maintenance  Σ over positions of notional × rate − amount, by the tier that the notional lies in
    balance      wallet + unrealised profit at the mark
    liquidation  when balance < maintenance
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from gpuscalp.account import Account, divide_half_even, notional_e8
from gpuscalp.schema import E8


@dataclass(frozen=True, slots=True)
class Tier:
    """A step of the table: maintenance = notional × ``rate_e8`` − ``amount_e8``; the largest leverage."""

    floor_e8: int
    cap_e8: int
    leverage: int
    rate_e8: int
    amount_e8: int


def _tiers() -> tuple[Tier, ...]:
    steps = (
        *((50_000, 125, 400_000), (600_000, 100, 500_000), (3_000_000, 75, 650_000)),
        *((12_000_000, 50, 1_000_000), (70_000_000, 25, 2_000_000), (100_000_000, 20, 2_500_000)),
        *((230_000_000, 10, 5_000_000), (480_000_000, 5, 10_000_000), (600_000_000, 4, 12_500_000)),
        *((800_000_000, 3, 15_000_000), (1_200_000_000, 2, 25_000_000), (1_800_000_000, 1, 50_000_000)),
    )
    made: list[Tier] = []
    floor = before = amount = 0
    for cap, leverage, rate in steps:
        # The amount that makes the maintenance margin continuous at the step.
        amount += floor * (rate - before)
        made.append(Tier(floor * E8, cap * E8, leverage, rate, amount))
        floor, before = cap, rate
    return tuple(made)


# The shape of a large symbol's table. A venue's own comes from GET /fapi/v1/leverageBracket.
TIERS: Final = _tiers()
# On paper the table ends here, and its last rate goes on: what the steps behind it limit above all, the
# leverage, is a setting there.
PAPER_TIERS: Final = TIERS[:7]


def maintenance_e8(tiers: Sequence[Tier], notional: int) -> int:
    """Return the maintenance margin of one position; beyond the last cap the last tier goes on."""
    tier = next((tier for tier in tiers if notional <= tier.cap_e8), tiers[-1])
    return max(0, divide_half_even(notional * tier.rate_e8, E8) - tier.amount_e8)


def maintenance_total_e8(account: Account, mark_e8: Sequence[int]) -> int:
    """Return the maintenance margin of all positions on paper."""
    return sum(
        maintenance_e8(PAPER_TIERS, abs(position.value_e8(price)))
        for position, price in zip(account.positions, mark_e8, strict=True)
        if position.qty_e8
    )


def is_liquidated(account: Account, mark_e8: Sequence[int]) -> bool:
    """Whether the balance at the mark no longer covers the maintenance margin of the open positions."""
    if not any(position.qty_e8 for position in account.positions):
        return False
    return account.equity_e8(mark_e8) < maintenance_total_e8(account, mark_e8)


def initial_e8(exposure_e8: int, mark_e8: int, leverage: int) -> int:
    """Return the initial margin of one symbol's exposure (a quantity), rounded up."""
    return -(-notional_e8(mark_e8, abs(exposure_e8)) // leverage)
