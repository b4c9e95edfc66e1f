"""One futures account in exact integers: cash, positions, realised profit, fees, funding.

Owns: the arithmetic of money. Every amount is a Python int in 1e-8 of the quote currency ("units"); prices
and quantities are ints in 1e-8 too. Never: decides, rounds twice, or knows a clock.

Two books are kept and must agree to the last unit after every event (tests/test_account.py):

* the profit book:   equity = start + realised + unrealised − fees + funding
* the cash book:     equity = cash + Σ value of positions,  cash = start − Σ signed notional − fees + funding

A product of price and quantity has sixteen decimals. It is rounded once per fill (half to even); closing a
part of a position releases its share of the entry cost by integer division and the remainder stays with the
position, so that nothing is created or lost by rounding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

from gpuscalp.schema import E8


def divide_half_even(numerator: int, denominator: int) -> int:
    """Return numerator / denominator rounded to the nearest integer, halves to the even one."""
    assert denominator > 0
    quotient, rest = divmod(numerator, denominator)
    if 2 * rest > denominator or (2 * rest == denominator and quotient & 1):
        quotient += 1
    return quotient


def notional_e8(price_e8: int, qty_e8: int) -> int:
    """Return price × quantity in units; the sign is that of the quantity."""
    return divide_half_even(price_e8 * qty_e8, E8)


def fee_rate_e8(fee_bps: float) -> int:
    """Return a fee in basis points as an integer rate in 1e-8 (5 bps = 50,000)."""
    return round(fee_bps * 10_000)


def fee_e8(price_e8: int, qty_e8: int, rate_e8: int) -> int:
    """Return the fee of one fill in units, rounded against us (up)."""
    return -((-notional_e8(price_e8, abs(qty_e8)) * rate_e8) // E8)


@dataclass(slots=True)
class Position:
    """Signed quantity and signed entry cost (Σ of the signed notionals that built it), both in units."""

    qty_e8: int = 0
    cost_e8: int = 0

    @property
    def side(self) -> int:
        return (self.qty_e8 > 0) - (self.qty_e8 < 0)

    def value_e8(self, price_e8: int) -> int:
        """Return the signed value at a price, in units."""
        return notional_e8(price_e8, self.qty_e8)


@final
class Account:
    """Cash and positions of S symbols.

    Parameters
    ----------
    start_e8 : cash at the start, units
    symbol_count : S

    Attributes
    ----------
    realised_e8 : profit of what has been closed, before fees and funding
    fees_e8 : paid so far (rebates count negative)
    funding_e8 : received so far (what was paid counts negative)
    cash_e8 : the cash book
    """

    def __init__(self, start_e8: int, symbol_count: int) -> None:
        self.start_e8 = start_e8
        self.cash_e8 = start_e8
        self.realised_e8 = 0
        self.fees_e8 = 0
        self.funding_e8 = 0
        self.turnover_e8 = 0
        self.positions = tuple(Position() for _ in range(symbol_count))

    @property
    def wallet_e8(self) -> int:
        """Start + realised − fees + funding: the balance that an exchange shows, without open positions."""
        return self.start_e8 + self.realised_e8 - self.fees_e8 + self.funding_e8

    def apply_fill(self, symbol_index: int, qty_e8: int, price_e8: int, fee_e8: int) -> int:
        """Book one execution and return the profit that it realised, in units.

        Parameters
        ----------
        qty_e8 : signed, positive bought; not 0
        price_e8 : positive
        fee_e8 : positive paid, negative received

        Notes
        -----
        A fill that crosses zero closes the old position and opens the rest; the rounded notional of the whole
        fill is split between the two, not rounded again.
        """
        assert qty_e8 != 0
        assert price_e8 > 0
        position = self.positions[symbol_index]
        notional = notional_e8(price_e8, qty_e8)
        self.cash_e8 -= notional + fee_e8
        self.fees_e8 += fee_e8
        self.turnover_e8 += abs(notional)

        closing = 0
        if position.qty_e8 * qty_e8 < 0:
            closing = -position.qty_e8 if abs(qty_e8) >= abs(position.qty_e8) else qty_e8
        closing_notional = notional if closing == qty_e8 else notional_e8(price_e8, closing)
        released = 0
        if closing == -position.qty_e8:
            released = position.cost_e8
        elif closing:
            released = divide_half_even(position.cost_e8 * abs(closing), abs(position.qty_e8))
        realised = -closing_notional - released
        position.cost_e8 += notional - closing_notional - released
        position.qty_e8 += qty_e8
        self.realised_e8 += realised
        return realised

    def funding_of_e8(self, symbol_index: int, mark_e8: int, rate_e8: int) -> int:
        """Return what funding on one position brings (negative: costs), in units; nothing is booked.

        A positive rate is paid by longs to shorts, on the position's value at the mark price
        (Binance USD-M: premium index and funding, charged at ``nextFundingTime``).
        """
        return -divide_half_even(self.positions[symbol_index].value_e8(mark_e8) * rate_e8, E8)

    def receive_funding(self, payment_e8: int) -> None:
        """Book funding as it was paid out (negative: charged)."""
        self.funding_e8 += payment_e8
        self.cash_e8 += payment_e8

    def apply_funding(self, symbol_index: int, mark_e8: int, rate_e8: int) -> int:
        """Exchange funding on one position and return what was received (negative: paid), in units."""
        payment = self.funding_of_e8(symbol_index, mark_e8, rate_e8)
        self.receive_funding(payment)
        return payment

    def unrealised_e8(self, price_e8: Sequence[int]) -> int:
        """Return Σ (value − entry cost) over open positions; ``price_e8[s]`` values symbol s."""
        return sum(
            position.value_e8(price_e8[index]) - position.cost_e8
            for index, position in enumerate(self.positions)
            if position.qty_e8
        )

    def equity_e8(self, price_e8: Sequence[int]) -> int:
        """Return wallet + unrealised."""
        return self.wallet_e8 + self.unrealised_e8(price_e8)
