"""Liquidation: what the exchange does with an account whose margin is used up.

Owns: the moment, the orders that close the positions, the insurance fund's part. Never: matches.

When wallet plus unrealised profit is no more than the maintenance margin of all positions, the open orders of
the account expire and every position is closed at the market by an order whose client id begins with
``autoclose-``. What the book cannot take within the market order's bound is tried again at the next check. A
wallet that is negative with nothing left to close is set to zero by the insurance fund.
Source: Binance documentation, "Liquidation protocols" and user event ORDER_TRADE_UPDATE.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from gpuscalp.exchange.desk import Desk
from gpuscalp.exchange.hub import Hub
from gpuscalp.exchange.listing import Listing
from gpuscalp.exchange.orders import Order
from gpuscalp.exchange.userdata import side_name
from gpuscalp.exchange.users import User

LIQUIDATED: Final = "5"  # the reason of expiry that user events give


class Liquidator:
    """Watches the margin of all users.

    Parameters
    ----------
    desk, listings : where positions are closed
    hub : who hears of it
    """

    def __init__(self, desk: Desk, listings: Mapping[str, Listing], hub: Hub) -> None:
        self._desk, self._listings, self._hub = desk, listings, hub

    def check(self, user: User, now_ms: int) -> bool:
        """Liquidate an account if it has to be; return whether it was."""
        ledger = user.ledger
        held = ledger.held()
        if not held or ledger.balance_e8() > ledger.maintenance_total_e8():
            return False
        for order in tuple(user.open_orders.values()):
            self._desk.expire(user, order, now_ms, reason=LIQUIDATED)
        for rules, position_side, position in held:
            order = Order(
                order_id=self._desk.next_order_id(),
                client_id=f"autoclose-{now_ms}-{rules.symbol}"[:36],
                owner=user.number,
                symbol=rules.symbol,
                side=-position.side,
                type="LIQUIDATION",
                time_in_force="IOC",
                price_e8=0,
                qty_e8=abs(position.qty_e8),
                created_ms=now_ms,
                position_side=position_side,
                close_position=True,
            )
            self._desk.force(user, order, now_ms)
            if order.executed_e8:
                self._publish(order, now_ms)
        if not ledger.held() and ledger.account.wallet_e8 < 0:
            self._desk.cover(user, now_ms)
        return True

    def _publish(self, order: Order, now_ms: int) -> None:
        rules = self._listings[order.symbol].rules
        payload: dict[str, Any] = {
            "e": "forceOrder",
            "E": now_ms,
            "o": {
                "s": order.symbol,
                "S": side_name(order.side),
                "o": "LIMIT",
                "f": "IOC",
                "q": rules.qty(order.qty_e8),
                "p": rules.price(order.limit_e8),
                "ap": rules.price(order.average_e8),
                "X": str(order.status),
                "l": rules.qty(order.last_qty_e8),
                "z": rules.qty(order.executed_e8),
                "T": now_ms,
            },
            "ps": order.symbol,
            "st": 1,
        }
        for stream in (f"{order.symbol.lower()}@forceOrder", "!forceOrder@arr"):
            self._hub.publish(stream, payload)
