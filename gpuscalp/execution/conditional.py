"""Stops that wait for their price: the exchange's algo service, as far as a position needs protecting.

Owns: which stops wait, and the moment at which each goes off. Never: matches, or tells anybody.

A stop goes off when the last traded price has moved against the position that it protects: at or above the
trigger for one that buys, at or below it for one that sells. It is a market order from then on. While it
waits it needs no margin, stands in no queue and is no open order of its symbol. Source: Binance
documentation, "New Algo Order" (workingType CONTRACT_PRICE, which is the default), USD-M; the simulated
exchange (gpuscalp.exchange.algo) has the same rules.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, final

from gpuscalp.execution.display import Display
from gpuscalp.execution.filters import Reject
from gpuscalp.execution.working import WorkingOrder
from gpuscalp.orders import OrderKind

MAX_STOPS: Final = 200  # of one account, over all symbols
NO_RISE: Final = 1 << 62


@final
class Conditional:
    """Stops of one account in S symbols.

    Parameters
    ----------
    displays : S, tell the last traded prices
    """

    def __init__(self, displays: Sequence[Display]) -> None:
        self._displays = displays
        self._waiting: tuple[list[WorkingOrder], ...] = tuple([] for _ in displays)

    def bounds(self, symbol_index: int) -> tuple[int, int]:
        """Return the price at or below which, and that at or above which, a trade sets something off."""
        waiting = self._waiting[symbol_index]
        falls = [order.trigger_e8 for order in waiting if order.side < 0]
        rises = [order.trigger_e8 for order in waiting if order.side > 0]
        return max(falls, default=0), min(rises, default=NO_RISE)

    def judge(self, order: WorkingOrder, mark_e8: int) -> Reject:
        """Return why a stop may not wait, or NONE. Before the first trade the mark price stands in."""
        if sum(map(len, self._waiting)) >= MAX_STOPS:
            return Reject.MAX_ORDERS
        price = self._displays[order.symbol_index].last_e8 or mark_e8
        return Reject.TRIGGERS if price and _reached(order, price) else Reject.NONE

    def add(self, order: WorkingOrder) -> None:
        """Let a stop wait."""
        self._waiting[order.symbol_index].append(order)

    def remove(self, order: WorkingOrder) -> None:
        """Let one wait no longer, if it does."""
        if order.kind is OrderKind.STOP_MARKET and order in self._waiting[order.symbol_index]:
            self._waiting[order.symbol_index].remove(order)

    def set_off(self, symbol_index: int, price_e8: int) -> list[WorkingOrder]:
        """Take a trade's price; return the stops that it has made market orders, oldest first."""
        waiting = self._waiting[symbol_index]
        if not waiting:
            return []
        gone = [order for order in waiting if _reached(order, price_e8)]
        for order in gone:
            waiting.remove(order)
            order.kind = OrderKind.MARKET
        return gone


def _reached(order: WorkingOrder, price_e8: int) -> bool:
    return order.side * (price_e8 - order.trigger_e8) >= 0
