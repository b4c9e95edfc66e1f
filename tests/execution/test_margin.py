"""Maintenance margin against a plain sum over the slices of a notional, and liquidation by hand."""

from __future__ import annotations

from fractions import Fraction

from hypothesis import given, settings
from hypothesis import strategies as st

from gpuscalp.account import Account
from gpuscalp.execution.filters import Reject
from gpuscalp.execution.margin import PAPER_TIERS, TIERS, Tier, initial_e8, is_liquidated, maintenance_e8
from gpuscalp.execution.messages import ReportKind
from tests.execution.market import MS, book, broker, request

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


def test_one_position_among_flat_symbols_is_liquidated() -> None:
    account = Account(500 * E8, 3)
    account.apply_fill(1, -100 * E8, 100 * E8, 0)
    assert not is_liquidated(account, [0, 104 * E8, 0])
    assert is_liquidated(account, [0, 105 * E8, 0])
    account.apply_fill(2, 4 * E8, 100 * E8, 0)  # wins as much, and is closed with it
    assert not is_liquidated(account, [0, 105 * E8, 200 * E8])


def test_initial_margin_is_rounded_up() -> None:
    assert initial_e8(E8, 100 * E8, 20) == 5 * E8
    assert initial_e8(-E8, 100 * E8 + 1, 20) == 5 * E8 + 1


ORDER = st.tuples(
    st.integers(0, 2),
    st.sampled_from([1, -1]),
    st.integers(1, 40),
    st.sampled_from(["take", "rest", "rest", "reduce", "stop"]),
)


@settings(max_examples=60)
@given(st.lists(ORDER, min_size=4, max_size=14), st.integers(50, 1_500), st.sampled_from([1, 3, 20]))
def test_order_is_taken_where_the_balance_covers_all_positions_and_all_orders_that_add(
    orders: list[tuple[int, int, int, str]], start: int, leverage: int
) -> None:
    """Over three symbols; the oracle hears nothing but reports."""
    target = broker(start=start, symbols=3, leverage=leverage)
    for symbol in range(3):
        book(target, 1, [(99, 900)], [(101, 900)], symbol=symbol)
        target.on_mark(symbol, MS, 100 * E8)
    held, resting, paid = [0, 0, 0], [[0, 0], [0, 0], [0, 0]], Fraction(0)

    def most(symbol: int) -> int:
        buys, sells = resting[symbol]
        return max(abs(held[symbol] + buys), abs(held[symbol] - sells))

    for number, (symbol, side, qty, kind) in enumerate(orders, 1):
        adds = kind in ("take", "rest")
        price = {"take": 0, "stop": 100 + 10 * side}.get(kind, 100 - 10 * side)
        if kind == "reduce" and held[symbol] * side >= 0:
            continue
        before, needed = most(symbol), Fraction(0)
        if adds:
            resting[symbol][side < 0] += qty
            needed = Fraction(100 * sum(map(most, range(3))), leverage)
        grows = most(symbol) > before
        equity = start - paid + 100 * sum(held)
        tif = "stop" if kind == "stop" else "gtc"
        target.submit(
            request(number, side, qty, price, tif=tif, symbol=symbol, reduce_only=kind == "reduce"), MS
        )
        reports = target.advance(MS)
        refused = [each.code for each in reports if each.kind is ReportKind.REJECTED]
        assert refused == ([Reject.MARGIN] if grows and needed > equity else [])
        if adds and (refused or kind == "take"):
            resting[symbol][side < 0] -= qty
        for each in reports:
            if each.fill is not None:
                signed = Fraction(each.fill.side * each.fill.qty_e8, E8)
                held[symbol] += int(signed)
                paid += signed * Fraction(each.fill.price_e8, E8) + Fraction(each.fill.fee_e8, E8)
