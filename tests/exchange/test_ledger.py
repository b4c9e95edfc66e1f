"""An account's money on the exchange, in amounts that were worked out by hand."""

from __future__ import annotations

from typing import Any

import pytest

from gpuscalp.exchange.ledger import Ledger
from gpuscalp.exchange.orders import Order
from gpuscalp.exchange.rules import SymbolRules
from gpuscalp.schema import E8, Instrument

NAMES = ("AUSDT", "BUSDT")
RULES = [SymbolRules.of(Instrument(name, "v", E8 // 10, 1_000, 1_000, 0, "synthetic")) for name in NAMES]
MARKS = {"AUSDT": 110 * E8, "BUSDT": 50 * E8}


def order(symbol: str, side: int, qty: int, price: int = 0, **more: Any) -> Order:
    return Order(1, "c", 0, symbol, side, "LIMIT", "GTC", price * E8, qty * E8, 0, **more)


def opened(**rates: Any) -> Ledger:
    return Ledger(RULES, MARKS.__getitem__, 1_000 * E8, **rates)


def book(ledger: Ledger, side: int, qty: int, price: int, *, maker: bool = False, **more: Any) -> int:
    """Return the commission, 1e-8."""
    done = ledger.book(order("AUSDT", side, qty, **more), price * E8, qty * E8, maker=maker, now_ms=7)
    return done.fee_e8


@pytest.mark.parametrize("side", [1, -1])
def test_break_even_carries_the_commission_of_what_is_still_open(side: int) -> None:
    ledger = opened()

    def even() -> float:
        return ledger.break_even_e8("AUSDT", "BOTH") / E8

    assert even() == 0
    assert book(ledger, side, 3, 100) == 15_000_000
    assert even() == pytest.approx(100 + side * 0.05, abs=1e-8)
    # A third of it goes: 0.1 of 0.15 stays. Then as much again at 110 by an order that rested: 0.022 for 1.
    book(ledger, -side, 1, 110)
    assert even() == pytest.approx(100 + side * 0.05, abs=1e-8)
    assert book(ledger, side, 1, 110, maker=True) == 2_200_000
    assert even() == pytest.approx((310 + side * 0.122) / 3, abs=1e-8)
    assert ledger.entry_e8(ledger.position("AUSDT", "BOTH")) == 310 * E8 // 3
    # Turned around: of 0.25 for five, two fifths are those of what is open now.
    assert book(ledger, -side, 5, 100) == 25_000_000
    assert even() == pytest.approx(100 - side * 0.05, abs=1e-8)
    book(ledger, side, 2, 100)
    assert even() == ledger.entry_e8(ledger.position("AUSDT", "BOTH")) == 0
    book(ledger, side, 1, 200)
    assert even() == pytest.approx(200 + side * 0.1, abs=1e-8)
    assert ledger.updated == {("AUSDT", "BOTH"): 7}


def test_commission_is_rounded_against_the_user() -> None:
    ledger = opened(maker_e8=-20_000)
    unit = order("AUSDT", 1, 1)
    assert ledger.book(unit, E8, 1, maker=False, now_ms=0).fee_e8 == 1
    assert ledger.book(unit, E8, 1, maker=True, now_ms=0).fee_e8 == 0
    assert ledger.book(unit, E8, E8, maker=True, now_ms=0).fee_e8 == -20_000


def test_margin_of_positions_and_of_what_open_orders_would_add() -> None:
    ledger = opened(taker_e8=0)
    ledger.settings["BUSDT"].leverage = 7
    book(ledger, 1, 3, 100)
    assert ledger.initial_e8("AUSDT", "BOTH") == ledger.initial_total_e8() == 1_650_000_000
    assert ledger.maintenance_e8("AUSDT", "BOTH") == ledger.maintenance_total_e8() == 132_000_000
    assert ledger.unrealised_e8("AUSDT", "BOTH") == ledger.unrealised_total_e8() == 30 * E8
    assert ledger.balance_e8() == 1_030 * E8
    assert ledger.orders_margin_e8([]) == 0
    # Long 330: buys for 100 make 430, sells for 1,200 make a short of 870; that is 540 more, of 20 for 1.
    waiting = [order("AUSDT", 1, 1, 100), order("AUSDT", -1, 10, 120)]
    assert ledger.orders_margin_e8(waiting[:1]) == 5 * E8
    assert ledger.orders_margin_e8(waiting) == 27 * E8
    # Sells that only make it smaller add nothing. Half of an order is filled already.
    assert ledger.orders_margin_e8([order("AUSDT", -1, 5, 120), order("AUSDT", -1, 9, reduce_only=True)]) == 0
    assert ledger.orders_margin_e8([order("AUSDT", 1, 9, close_position=True)]) == 0
    assert ledger.orders_margin_e8([order("AUSDT", 1, 2, 100, executed_e8=E8)]) == 5 * E8
    # Without a price at the mark; 50 / 7 is rounded up. Symbols and position sides are sums of their own.
    others = [order("BUSDT", 1, 1), order("AUSDT", -1, 1, 100, position_side="SHORT")]
    assert ledger.orders_margin_e8([*waiting, *others]) == 27 * E8 + 714_285_715 + 5 * E8
    assert ledger.available_e8(waiting) == (1_030 - 27) * E8 - 1_650_000_000


def test_long_and_short_of_one_symbol_are_positions_of_their_own() -> None:
    ledger = opened(hedge=True)
    book(ledger, 1, 3, 100, position_side="LONG")
    book(ledger, -1, 1, 120, position_side="SHORT")
    assert [(rules.symbol, side, position.qty_e8) for rules, side, position in ledger.held()] == [
        ("AUSDT", "LONG", 3 * E8), ("AUSDT", "SHORT", -E8),
    ]  # fmt: skip
    assert ledger.unrealised_total_e8() == (30 + 10) * E8
    assert ledger.initial_total_e8() == 1_650_000_000 + 550_000_000
    # A positive rate is paid by the long to the short; a deposit is neither profit nor funding.
    assert ledger.fund("AUSDT", "LONG", 110 * E8, 10_000) == -3_300_000
    assert ledger.fund("AUSDT", "SHORT", 110 * E8, 10_000) == 1_100_000
    ledger.deposit(5 * E8)
    assert ledger.account.wallet_e8 == 1_005 * E8 - 15_000_000 - 6_000_000 - 2_200_000
    assert ledger.account.cash_e8 == ledger.account.wallet_e8 - (300 - 120) * E8
