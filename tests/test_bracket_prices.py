"""Where targets and stops stand, against exact fractions of what a position has cost."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuscalp.account import Position
from gpuscalp.config import OrdersConfig
from gpuscalp.open_orders import OpenOrders
from gpuscalp.order_policy import OrderPolicy
from gpuscalp.orders import BUY, SELL, OrderKind
from gpuscalp.schema import E8
from tests.trading import INSTRUMENTS, NOTHING, UP, enter, fill, market, resting, step, trader


@given(
    side=st.sampled_from([BUY, SELL]),
    index=st.integers(0, 1),
    qty_e8=st.integers(1, 10**12),
    price=st.fractions(Fraction(1, 100), 100_000, max_denominator=10**6),
    target_bps=st.integers(1, 900),
    stop_bps=st.integers(1, 900),
)
def test_target_gives_no_less_and_stop_loses_no_more_than_was_asked_for_by_less_than_a_tick(
    side: int, index: int, qty_e8: int, price: Fraction, target_bps: int, stop_bps: int
) -> None:
    """Entered in several fills, a position has an average price that lies on no tick."""
    cost = max(1, round(price * qty_e8))
    policy = OrderPolicy(
        OrdersConfig(take_profit_bps=float(target_bps), stop_loss_bps=float(stop_bps)),
        INSTRUMENTS, OpenOrders(2), hold_ns=10**9,
    )  # fmt: skip
    wanted = policy.protection(index, Position(side * qty_e8, side * cost), 0, 0)
    found = {each.kind: Fraction(each.price_e8, E8) for each, _ in wanted}
    average, tick = Fraction(cost, qty_e8), Fraction(INSTRUMENTS[index].tick_size_e8, E8)
    for kind, bps in ((OrderKind.LIMIT, side * target_bps), (OrderKind.STOP_MARKET, -side * stop_bps)):
        exact = average * (1 + Fraction(bps, 10_000))
        if kind in found:
            assert found[kind] % tick == 0
            assert 0 <= side * (found[kind] - exact) < tick
        else:
            assert exact < tick, "a price of nothing is none"


@pytest.mark.parametrize("only", ["take_profit_bps", "stop_loss_bps"])
def test_either_side_of_a_bracket_comes_alone(only: str) -> None:
    machine = trader(orders={only: 10.0})
    enter(machine)
    kinds = {"take_profit_bps": OrderKind.LIMIT, "stop_loss_bps": OrderKind.STOP_MARKET}
    assert [each.kind for each in step(machine, market(100), NOTHING).orders] == [kinds[only]]


def test_what_has_filled_of_an_entry_is_protected_while_the_rest_still_rests() -> None:
    machine, entry = resting(take_profit_bps=10.0, stop_loss_bps=10.0)
    machine.on_fill(fill(entry, entry.price_e8, entry.qty_e8 // 4))
    guards = step(machine, market(100), UP).orders
    assert [(each.kind, each.qty_e8) for each in guards] == [
        (OrderKind.STOP_MARKET, entry.qty_e8 // 4),
        (OrderKind.LIMIT, entry.qty_e8 // 4),
    ]
