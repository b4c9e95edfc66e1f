"""The orders of one trader that have not ended.

Owns: which they are, what is left of each, and which symbols they keep from being acted upon.
Never: decides, or knows a price.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import final

import numpy as np

from gpuscalp.orders import Order, OrderKind


@final
class OpenOrders:
    """Orders by id, oldest first.

    Parameters
    ----------
    symbol_count : S

    Attributes
    ----------
    by_id : to be read
    left_e8 : what is not filled of each
    waiting : bool[S]  an entry or an exit is open; the symbol is left alone until it is done
    guarded : bool[S]  a protective order is open
    """

    def __init__(self, symbol_count: int) -> None:
        self.by_id: dict[int, Order] = {}
        self.left_e8: dict[int, int] = {}
        self.waiting = np.zeros(symbol_count, np.bool_)
        self.guarded = np.zeros(symbol_count, np.bool_)

    def __len__(self) -> int:
        return len(self.by_id)

    def of(self, symbol_index: int) -> Iterator[Order]:
        """Iterate over those of one symbol."""
        return (order for order in self.by_id.values() if order.symbol_index == symbol_index)

    def leaving(self, symbol_index: int) -> bool:
        """Whether an exit of a symbol is on its way."""
        return any(order.reduce_only and not is_protective(order) for order in self.of(symbol_index))

    def add(self, order: Order) -> None:
        """Take in an order that is sent now."""
        self.by_id[order.order_id] = order
        self.left_e8[order.order_id] = order.qty_e8
        (self.guarded if is_protective(order) else self.waiting)[order.symbol_index] = True

    def fill(self, order_id: int, qty_e8: int) -> None:
        """Count an execution."""
        self.left_e8[order_id] -= qty_e8

    def remove(self, order_id: int) -> Order:
        """Forget an order that has ended."""
        order = self.by_id.pop(order_id)
        del self.left_e8[order_id]
        kind = is_protective(order)
        (self.guarded if kind else self.waiting)[order.symbol_index] = any(
            is_protective(other) is kind for other in self.of(order.symbol_index)
        )
        return order


def is_protective(order: Order) -> bool:
    """Whether an order waits to close a position: a take-profit or a stop."""
    return order.reduce_only and order.kind is not OrderKind.MARKET
