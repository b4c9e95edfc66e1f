"""Where the profit of entries that rest and of brackets came from: nothing is left over.

The orders are those of the trader (tests/street.py); the oracle is arithmetic in exact fractions.
"""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from gpuscalp.backtest.ledger import Ledger
from gpuscalp.open_orders import is_protective
from tests.street import E8, FRAME, LATENCY, ORDERS, Street, quiet
from tests.thorough import examples

FRAMES = st.lists(FRAME, min_size=5, max_size=25)
FEES = st.sampled_from([(5.3, 1.7), (1.0, 0.0), (2.0, -0.7)])


def traded(frames: list[dict[str, Any]], street: Street) -> Ledger:
    for frame in [*frames, *[quiet()] * 60]:
        street.frame(frame)
    ledger = Ledger()
    for booked in street.booked:
        ledger.on_fill(booked.fill, booked.order, maker=booked.maker)
    return ledger


@settings(max_examples=examples(80))
@given(FRAMES, ORDERS, LATENCY, FEES)
def test_parts_add_up_and_who_rested_pays_the_makers_fee(
    frames: list[dict[str, Any]],
    orders: dict[str, Any],
    latency: tuple[float, float],
    fees: tuple[float, float],
) -> None:
    street = Street(orders, latency, fees=fees)
    ledger = traded(frames, street)
    assert not ledger.open
    account = street.broker.account
    assert sum(trade.pnl_e8 for trade in ledger.closed) == account.cash_e8 - account.start_e8
    assert sum(trade.fees_e8 for trade in ledger.closed) == account.fees_e8
    taker, maker = (Fraction(str(fee)) / 10_000 for fee in fees)
    protective = {
        booked.fill.order_id for booked in street.booked if booked.order and is_protective(booked.order)
    }
    for trade in ledger.closed:
        parts = trade.gross_e8 + trade.delay_e8 + trade.spread_e8 + trade.impact_e8
        assert trade.pnl_e8 == parts - trade.fees_e8 + trade.funding_e8
        cash = 0
        for done in trade.executions:
            fill = done.fill
            value = Fraction(fill.price_e8 * fill.qty_e8, E8)
            cash -= fill.side * round(value) + fill.fee_e8
            assert fill.fee_e8 == math.ceil(round(value) * (maker if done.maker else taker))
            if done.maker:
                assert done.impact_e8 == 0
            if fill.order_id in protective:
                assert done.delay_e8 == 0
        assert trade.pnl_e8 == cash
        if trade.executions[-1].fill.order_id in protective:
            assert trade.exit_decided_ns == trade.exit_ns
        assert trade.qty_e8 == sum(done.fill.qty_e8 for done in trade.executions if done.is_entry)
        assert trade.qty_e8 == trade.exit_qty_e8


def test_entries_that_rest_and_targets_occur() -> None:
    """The law is not empty: makers enter and leave, also within one trade, and a part leaves in between."""
    seen: set[str] = set()

    @settings(max_examples=150, database=None, derandomize=True)
    @given(FRAMES, ORDERS, LATENCY)
    def collect(frames: list[dict[str, Any]], orders: dict[str, Any], latency: tuple[float, float]) -> None:
        for trade in traded(frames, Street(orders, latency, fees=(5.3, 1.7))).closed:
            roles = [(done.is_entry, done.maker) for done in trade.executions]
            seen.update(
                f"{'entry' if enters else 'exit'} {'maker' if maker else 'taker'}" for enters, maker in roles
            )
            if roles != sorted(roles, key=lambda role: not role[0]):
                seen.add("exit before entry")
            if len({maker for enters, maker in roles if enters}) == 2:
                seen.add("rest taken")

    collect()
    assert seen >= {"entry maker", "entry taker", "exit maker", "exit taker", "rest taken"}
