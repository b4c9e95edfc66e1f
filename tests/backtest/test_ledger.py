"""The components of every round trip add up to what the account earned, to the unit."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuscalp.account import Account
from gpuscalp.backtest.ledger import Ledger
from gpuscalp.orders import Fill, OrderKind
from tests.backtest.market import E8, MS, NOW, order


def fill(
    side: int,
    qty_e8: int,
    price_e8: int,
    mid2_e8: int,
    fee_e8: int = 0,
    order_id: int = 1,
    at_ms: int = 0,
    touch_e8: int = 0,
) -> Fill:
    return Fill(order_id, 0, side, qty_e8, price_e8, fee_e8, NOW + at_ms * MS, mid2_e8, touch_e8)


def test_round_trip_is_split_into_signal_delay_and_spread() -> None:
    ledger = Ledger()
    # Decided at a mid of 100; the market is at 101 when the order arrives; paid 101.5. Out: 110, 109, 108.
    ledger.on_fill(
        fill(1, 2 * E8, 10_150_000_000, 2 * 101 * E8, fee_e8=7, at_ms=20), order(1, 2.0, mid=100.0)
    )
    ledger.on_funding(0, -3)
    assert ledger.closed == []
    leaving = order(-1, 2.0, mid=110.0, reduce_only=True, decided_ms=1_000)
    ledger.on_fill(fill(-1, 2 * E8, 108 * E8, 2 * 109 * E8, fee_e8=8, at_ms=1_020), leaving)
    (trade,) = ledger.closed
    assert trade.gross_e8 == 2 * 10 * E8
    assert trade.delay_e8 == -2 * 2 * E8
    assert trade.spread_e8 == -2 * 3 * E8 // 2
    assert (trade.fees_e8, trade.funding_e8) == (15, -3)
    assert trade.pnl_e8 == 2 * (10_800_000_000 - 10_150_000_000) - 15 - 3
    assert (trade.entry_price, trade.exit_price) == (101.5, 108.0)
    assert (trade.entry_ns, trade.exit_ns) == (NOW + 20 * MS, NOW + 1_020 * MS)
    assert ledger.open == {}


def test_levels_behind_the_best_one_are_impact_and_not_spread() -> None:
    ledger = Ledger()
    # A book of 99 | 101, 103: half a spread is 1, the second unit is paid 2 more.
    into = order(1, 2.0, mid=100.0)
    ledger.on_fill(fill(1, E8, 101 * E8, 200 * E8, touch_e8=101 * E8), into)
    ledger.on_fill(fill(1, E8, 103 * E8, 200 * E8, touch_e8=101 * E8), into)
    # Out by a resting order at the ask: the half spread is earned.
    leaving = order(-1, 2.0, mid=100.0, reduce_only=True)
    ledger.on_fill(fill(-1, 2 * E8, 101 * E8, 200 * E8, touch_e8=101 * E8), leaving, maker=True)
    (trade,) = ledger.closed
    assert (trade.gross_e8, trade.delay_e8, trade.spread_e8, trade.impact_e8) == (0, 0, 0, -2 * E8)
    entry, walked, out = trade.executions
    assert (entry.spread_e8, walked.spread_e8, out.spread_e8) == (-E8, -E8, 2 * E8)
    assert (entry.is_entry, out.is_entry, out.maker) == (True, False, True)
    assert trade.pnl_e8 == -2 * E8


def test_exit_in_parts_is_one_trade() -> None:
    ledger = Ledger()
    ledger.on_fill(fill(-1, 3 * E8, 100 * E8, 200 * E8), order(-1, 3.0))
    for index in range(3):
        ledger.on_fill(fill(1, E8, 99 * E8, 198 * E8), order(1, 1.0, order_id=2 + index, reduce_only=True))
    (trade,) = ledger.closed
    assert (trade.fill_count, trade.pnl_e8, trade.exit_qty_e8) == (4, 3 * E8, 3 * E8)


def test_liquidation_closes_a_trade_that_no_decision_of_ours_closed() -> None:
    """No decision, so no delay: what it cost beyond the book's mid counts as spread."""
    ledger = Ledger()
    ledger.on_fill(fill(1, 2 * E8, 100 * E8, 200 * E8), order(1, 2.0, mid=100.0))
    ledger.on_fill(fill(-1, 2 * E8, 40 * E8, 2 * 50 * E8, fee_e8=9, order_id=-1, at_ms=70), None)
    (trade,) = ledger.closed
    assert (trade.gross_e8, trade.delay_e8, trade.spread_e8) == (-100 * E8, 0, -20 * E8)
    assert trade.pnl_e8 == 2 * (40 - 100) * E8 - 9
    assert (trade.exit_reason, trade.exit_decided_ns, trade.exit_ns) == (
        "liquidation", NOW + 70 * MS, NOW + 70 * MS,
    )  # fmt: skip


@pytest.mark.parametrize("kind", [OrderKind.LIMIT, OrderKind.STOP_MARKET])
def test_what_the_market_moved_until_a_target_or_a_stop_is_the_signals(kind: OrderKind) -> None:
    """All of it was delay, and the exit was decided on when the order was placed, a frame after the entry."""
    ledger = Ledger()
    ledger.on_fill(fill(1, 2 * E8, 101 * E8, 200 * E8, touch_e8=101 * E8), order(1, 2.0, mid=100.0))
    placed = replace(order(-1, 2.0, mid=100.0, reduce_only=True, decided_ms=100), kind=kind, price_e8=E8)
    # The market has come to 110; a target earns half the spread, a stop pays it and walks a level.
    rested = kind is OrderKind.LIMIT
    touch, price = (111, 111) if rested else (109, 108)
    done = fill(-1, 2 * E8, price * E8, 2 * 110 * E8, at_ms=9_000, touch_e8=touch * E8)
    ledger.on_fill(done, placed, maker=rested)
    (trade,) = ledger.closed
    assert (trade.gross_e8, trade.delay_e8) == (2 * 10 * E8, 0)
    assert (trade.spread_e8, trade.impact_e8) == ((0, 0) if rested else (-4 * E8, -2 * E8))
    assert (trade.exit_decided_ns, trade.exit_ns) == (NOW + 9_000 * MS, NOW + 9_000 * MS)
    # In the files the order is still known by the frame that placed it.
    assert trade.executions[-1].decided_ns == NOW + 100 * MS


PRICE = st.integers(10**6, 10**12)
TRIP = st.tuples(
    st.sampled_from([-1, 1]),
    st.lists(st.tuples(st.integers(1, 10**10), PRICE, PRICE, PRICE), min_size=1, max_size=4),
    st.lists(st.tuples(PRICE, PRICE, PRICE, PRICE), min_size=1, max_size=4),
    PRICE,
    st.integers(0, 10**6),
    st.integers(-(10**6), 10**6),
)


@given(st.lists(TRIP, max_size=6))
def test_trades_add_up_to_the_account(trips: list[Any]) -> None:
    ledger, account = Ledger(), Account(0, 1)

    def book(what: Fill, of: Any) -> None:
        account.apply_fill(0, what.side * what.qty_e8, what.price_e8, what.fee_e8)
        ledger.on_fill(what, of)

    for side, entries, exits, mid2, fee, rate in trips:
        entry = order(side, 1.0, mid=mid2 / 2 / E8)
        for qty, price, book_mid2, touch in entries:
            book(fill(side, qty, price, book_mid2, fee, touch_e8=touch), entry)
        ledger.on_funding(0, account.apply_funding(0, mid2, rate))
        left = abs(account.positions[0].qty_e8)
        for index, (price, book_mid2, decided, touch) in enumerate(exits):
            qty = left if index == len(exits) - 1 else left // 2
            left -= qty
            if qty:
                leave = order(-side, 1.0, mid=decided / 2 / E8, reduce_only=True)
                book(fill(-side, qty, price, book_mid2, fee, touch_e8=touch), leave)
    assert ledger.open == {}
    assert len(ledger.closed) == len(trips)
    assert sum(trade.pnl_e8 for trade in ledger.closed) == account.wallet_e8
    assert sum(trade.fees_e8 for trade in ledger.closed) == account.fees_e8
    assert sum(trade.funding_e8 for trade in ledger.closed) == account.funding_e8
