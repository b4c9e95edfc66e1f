"""Money is conserved to the last unit, whatever is bought, sold, paid and received."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuscalp.account import Account, divide_half_even, fee_e8, fee_rate_e8, notional_e8

E8 = 10**8

# Odd numbers on purpose: products with sixteen decimals that do not end in zeros.
PRICE = st.integers(1, 10**13)
QTY = st.integers(-(10**12), 10**12).filter(lambda qty: qty != 0)
FILL = st.tuples(st.just("fill"), st.integers(0, 2), QTY, PRICE, st.integers(-(10**9), 10**9))
FUNDING = st.tuples(st.just("funding"), st.integers(0, 2), st.just(0), PRICE, st.integers(-(10**6), 10**6))


@given(
    st.integers(1, 10**15), st.lists(st.one_of(FILL, FUNDING), max_size=40), st.tuples(PRICE, PRICE, PRICE)
)
def test_profit_book_and_cash_book_agree_to_the_last_unit(
    start: int, events: list[tuple[str, int, int, int, int]], prices: tuple[int, int, int]
) -> None:
    account = Account(start, 3)
    cash, fees, funding, realised = start, 0, 0, 0
    qty = [0, 0, 0]
    for kind, index, amount, price, money in events:
        if kind == "fill":
            # The oracle knows nothing but flows: what was paid, and what is held.
            realised += account.apply_fill(index, amount, price, money)
            cash -= round(Fraction(price * amount, E8)) + money
            fees += money
            qty[index] += amount
        else:
            payment = round(Fraction(-round(Fraction(qty[index] * price, E8)) * money, E8))
            assert account.apply_funding(index, price, money) == payment
            funding += payment
            cash += payment
        value = sum(round(Fraction(q * p, E8)) for q, p in zip(qty, prices, strict=True))
        assert account.cash_e8 == cash
        assert (account.fees_e8, account.funding_e8, account.realised_e8) == (fees, funding, realised)
        assert [position.qty_e8 for position in account.positions] == qty
        equity = account.equity_e8(prices)
        assert equity == start + realised + account.unrealised_e8(prices) - fees + funding
        assert equity == cash + value
        assert account.wallet_e8 == start + realised - fees + funding


@given(st.lists(st.tuples(QTY, PRICE), min_size=1, max_size=20), PRICE)
def test_flat_account_keeps_no_cost(fills: list[tuple[int, int]], last: int) -> None:
    account = Account(0, 1)
    for qty, price in fills:
        account.apply_fill(0, qty, price, 0)
    if account.positions[0].qty_e8:
        account.apply_fill(0, -account.positions[0].qty_e8, last, 0)
    assert account.positions[0].cost_e8 == 0
    assert account.equity_e8([1]) == account.cash_e8 == account.realised_e8


def test_round_trip_by_hand() -> None:
    account = Account(1_000 * E8, 1)
    account.apply_fill(0, 2 * E8, 100 * E8, 10)
    assert account.apply_fill(0, -E8, 110 * E8, 10) == 10 * E8
    assert account.unrealised_e8([105 * E8]) == 5 * E8
    assert account.apply_fill(0, -3 * E8, 90 * E8, 10) == -10 * E8
    assert account.positions[0].qty_e8 == -2 * E8
    assert account.unrealised_e8([80 * E8]) == 20 * E8
    assert account.wallet_e8 == 1_000 * E8 - 30
    assert account.turnover_e8 == (200 + 110 + 270) * E8


def test_longs_pay_positive_funding_and_shorts_receive_it() -> None:
    account = Account(0, 2)
    account.apply_fill(0, E8, 100 * E8, 0)
    account.apply_fill(1, -E8, 100 * E8, 0)
    rate = 10_000  # 0.01 %
    assert account.apply_funding(0, 200 * E8, rate) == -2_000_000
    assert account.apply_funding(1, 200 * E8, rate) == 2_000_000
    assert account.apply_funding(0, 200 * E8, -rate) == 2_000_000


@given(st.integers(-(10**20), 10**20), st.integers(1, 10**10))
def test_division_rounds_halves_to_even(numerator: int, denominator: int) -> None:
    assert divide_half_even(numerator, denominator) == round(Fraction(numerator, denominator))


@given(st.integers(-(10**12), 10**12), st.integers(1, 10**10), st.integers(-1, 1))
def test_exact_half_goes_to_the_even_neighbour_and_its_own_neighbours_do_not(
    below: int, half: int, off: int
) -> None:
    """Of random quotients none is a half: this one is, or the smallest step beside it."""
    numerator, denominator = (2 * below + 1) * half + off, 2 * half
    assert divide_half_even(numerator, denominator) == round(Fraction(numerator, denominator))


@given(st.lists(st.tuples(QTY, PRICE), min_size=1, max_size=12))
def test_what_adds_realises_nothing_and_what_closes_its_part_of_the_cost(
    fills: list[tuple[int, int]],
) -> None:
    account = Account(0, 1)
    held, cost = 0, Fraction(0)
    for qty, price in fills:
        realised = account.apply_fill(0, qty, price, 0)
        closing = max(-abs(held), min(abs(held), qty)) if held * qty < 0 else 0
        if not closing:
            assert realised == 0
        else:
            part = cost * Fraction(abs(closing), abs(held))
            # Rounded once in the notional, once in the cost that is released.
            assert abs(realised - (-Fraction(price * closing, E8) - part)) <= 1
        held += qty
        cost = Fraction(account.positions[0].cost_e8)


def test_fee_is_rounded_against_us() -> None:
    assert fee_rate_e8(5.0) == 50_000
    assert fee_e8(E8, 1, 50_000) == 1
    assert fee_e8(E8, -E8, 50_000) == 50_000
    assert fee_e8(3 * E8, 1, -50_000) == 0  # a rebate of a fraction of a unit is not paid


@pytest.mark.parametrize(("price", "qty"), [(10_500_000, 30_000), (6_412_345_000_000, 100_000)])
def test_notional_of_grid_prices_is_exact(price: int, qty: int) -> None:
    assert notional_e8(price, qty) * E8 == price * qty
