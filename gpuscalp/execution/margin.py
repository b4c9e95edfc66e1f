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
from itertools import pairwise
from typing import Final

from gpuscalp.account import Account, divide_half_even, notional_e8
from gpuscalp.errors import ConfigError
from gpuscalp.schema import E8


@dataclass(frozen=True, slots=True)
class Tier:
    """Up to a notional of ``cap_e8``: maintenance = notional × ``rate_e8`` − ``amount_e8``."""

    cap_e8: int
    rate_e8: int
    amount_e8: int


def tiers_of(steps: Sequence[tuple[int, float]]) -> tuple[Tier, ...]:
    """Return tiers from (cap in quote currency, rate); amounts make the margin continuous at each cap.

    Raises
    ------
    ConfigError
        no step, or caps or rates that do not grow
    """
    if not steps or any(high[0] <= low[0] or high[1] < low[1] for low, high in pairwise(steps)):
        raise ConfigError("margin tiers must grow in cap and rate", where="margin tiers", value=steps)
    made: list[Tier] = []
    floor = before = amount = 0
    for cap, rate in steps:
        rate_e8 = round(rate * E8)
        amount += floor * (rate_e8 - before)
        made.append(Tier(cap * E8, rate_e8, amount))
        floor, before = cap, rate_e8
    return tuple(made)


# The shape of a large symbol's table. A venue's own comes from GET /fapi/v1/leverageBracket.
DEFAULT_TIERS: Final = tiers_of(
    (
        (50_000, 0.004),
        (600_000, 0.005),
        (3_000_000, 0.0065),
        (12_000_000, 0.01),
        (70_000_000, 0.02),
        (100_000_000, 0.025),
        (230_000_000, 0.05),
    )
)


def maintenance_e8(tiers: Sequence[Tier], notional: int) -> int:
    """Return the maintenance margin of one position; beyond the last cap the last tier goes on."""
    tier = next((tier for tier in tiers if notional <= tier.cap_e8), tiers[-1])
    return max(0, divide_half_even(notional * tier.rate_e8, E8) - tier.amount_e8)


def maintenance_total_e8(account: Account, mark_e8: Sequence[int], tiers: Sequence[Sequence[Tier]]) -> int:
    """Return the maintenance margin of all positions."""
    return sum(
        maintenance_e8(tiers[index], abs(position.value_e8(mark_e8[index])))
        for index, position in enumerate(account.positions)
        if position.qty_e8
    )


def is_liquidated(account: Account, mark_e8: Sequence[int], tiers: Sequence[Sequence[Tier]]) -> bool:
    """Whether the balance at the mark no longer covers the maintenance margin of the open positions."""
    if not any(position.qty_e8 for position in account.positions):
        return False
    return account.equity_e8(mark_e8) < maintenance_total_e8(account, mark_e8, tiers)


def initial_e8(exposure_e8: int, mark_e8: int, leverage: int) -> int:
    """Return the initial margin of one symbol's exposure (a quantity), rounded up."""
    return -(-notional_e8(mark_e8, abs(exposure_e8)) // leverage)
