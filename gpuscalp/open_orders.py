"""The orders of one trader that have not ended.

Owns: which they are, what is left of each, when its end was asked for, and which symbols they keep from being
acted upon. Never: decides, or knows a price.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import final

import numpy as np

from gpuscalp.orders import Order, OrderKind


@dataclass(slots=True)
class Alive:
    """An order that has not ended: what is not filled, and when its end was last asked for, if ever."""

    order: Order
    left_e8: int
    asked_ns: int | None = None


@final
class OpenOrders:
    """Orders by id, oldest first.

    Parameters
    ----------
    symbol_count : S

    Attributes
    ----------
    by_id : to be read
    waiting : bool[S]  an entry or an exit is open; the symbol is left alone until it is done
    guarded : bool[S]  a protective order is open
    """

    def __init__(self, symbol_count: int) -> None:
        self.by_id: dict[int, Alive] = {}
        self.waiting = np.zeros(symbol_count, np.bool_)
        self.guarded = np.zeros(symbol_count, np.bool_)

    def __len__(self) -> int:
        return len(self.by_id)

    def of(self, symbol_index: int) -> Iterator[Alive]:
        """Iterate over those of one symbol."""
        return (alive for alive in self.by_id.values() if alive.order.symbol_index == symbol_index)

    def leaving(self, symbol_index: int) -> bool:
        """Whether an exit of a symbol is on its way."""
        return any(each.order.reduce_only and not is_protective(each.order) for each in self.of(symbol_index))

    def guards(self, symbol_index: int) -> list[Alive]:
        """Return the protective orders of a symbol whose end nobody has asked for."""
        return [each for each in self.of(symbol_index) if is_protective(each.order) and each.asked_ns is None]

    def add(self, order: Order) -> None:
        """Take in an order that is sent now."""
        self.by_id[order.order_id] = Alive(order, order.qty_e8)
        (self.guarded if is_protective(order) else self.waiting)[order.symbol_index] = True

    def ask(self, due: Iterable[Alive], now_ns: int) -> list[int]:
        """Note that the end of orders is asked for; return their ids."""
        ids = []
        for alive in due:
            alive.asked_ns = now_ns
            ids.append(alive.order.order_id)
        return ids

    def remove(self, order_id: int) -> Alive:
        """Forget an order that has ended."""
        alive = self.by_id.pop(order_id)
        kind, index = is_protective(alive.order), alive.order.symbol_index
        (self.guarded if kind else self.waiting)[index] = any(
            is_protective(other.order) is kind for other in self.of(index)
        )
        return alive


def is_protective(order: Order) -> bool:
    """Whether an order waits to close a position: a take-profit or a stop."""
    return order.reduce_only and order.kind is not OrderKind.MARKET
