"""Which guards of an end are in the way of the session that comes after it."""

from __future__ import annotations

from gpuscalp.execution.lifecycle import OrderState
from gpuscalp.execution.messages import OrderKind, OrderRequest, ReportKind
from gpuscalp.execution.reconcile import FoundOrder
from gpuscalp.execution.remote import Heard, RemoteBroker
from gpuscalp.nautilus.asked import needless
from gpuscalp.nautilus.names import guard_name, is_guard, order_number
from gpuscalp.schema import E8

LOT = E8 // 100  # what tests.exchange.scripted.Client.order buys


def filled(symbol: int, qty_e8: int) -> Heard:
    """Return a trade that the session has heard of."""
    side = 1 if qty_e8 > 0 else -1
    return Heard(
        ReportKind.FILL, 1, 1, -1, symbol, trade_id=1, side=side, qty_e8=abs(qty_e8), price_e8=60_000 * E8
    )


def stop_of(symbol: int, qty_e8: int, number: int = 2) -> OrderRequest:
    """Return the session's stop of a long position."""
    return OrderRequest(number, symbol, -1, qty_e8, 59_000 * E8, OrderKind.STOP_MARKET, reduce_only=True)


def test_a_guard_stays_until_the_whole_position_has_its_stop() -> None:
    """A stop over a part of it had ended the guard over the rest."""
    guard = FoundOrder(0, guard_name("s", 0, 1), OrderState.ACCEPTED, algo_id=1)
    broker = RemoteBroker(1_000 * E8, 1)
    broker.take(filled(0, 3 * LOT))
    for number, qty_e8 in ((2, LOT), (3, 2 * LOT)):
        assert needless([guard], broker) == []
        broker.submit(stop_of(0, qty_e8, number), 0)
        broker.take(Heard(ReportKind.ACCEPTED, 1, 1, number, 0))
    assert needless([guard], broker) == [guard]
    broker.cancel(2, 0)
    assert needless([guard], broker) == []


def test_a_guard_is_none_of_the_sessions_orders_and_ends_with_what_it_guards() -> None:
    name = guard_name("s", 0, 1_700_000_000_000)
    assert order_number("s", name) is None
    assert not is_guard("other", name)
    guards = [FoundOrder(index, name, OrderState.ACCEPTED, algo_id=1) for index in range(3)]
    broker = RemoteBroker(1_000 * E8, 3)
    for index in (0, 1):
        broker.take(
            Heard(ReportKind.FILL, 1, 1, -1, index, trade_id=1, side=1, qty_e8=LOT, price_e8=60_000 * E8)
        )
    broker.submit(OrderRequest(2, 1, -1, LOT, 59_000 * E8, OrderKind.STOP_MARKET, reduce_only=True), 0)
    assert [each.symbol for each in needless(guards, broker)] == [2], "flat"
    broker.take(Heard(ReportKind.ACCEPTED, 1, 1, 2, 1))
    assert [each.symbol for each in needless(guards, broker)] == [1, 2]
