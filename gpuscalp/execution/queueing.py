"""The orders that rest, and how far ahead of each the queue still is.

Owns: the queue models. Never: fills. The arithmetic is compiled: ``gpuscalp.ops.queues``.

The venue shows how much rests at a price, not where in it we stand. Facts that every model shares:

* At its arrival an order is behind everything that is displayed at its price. Where the book does not show
  the price (outside of the visible levels) it is behind whatever is shown when the price comes into view.
* A trade at the price takes from the front.
* Nobody can be behind more than is displayed.

What the models differ in is a displayed quantity d that leaves without a trade, out of D displayed, with A
of it ahead of us and B = D − A behind:

* pessimistic: it left behind us. Only trades advance us.
* proportional: anyone may have cancelled: A shrinks by d·A/D.
* probabilistic: A shrinks by d·Aⁿ/(Aⁿ + Bⁿ): the longer part has more to lose, more so the larger n is
  (n = 1 is the proportional model; hftbacktest has the same family under the name of power functions).

Book and trades are two streams. A trade whose quantity has already left the display at the same exchange
time is not counted a second time, and a drop that follows a trade is explained by it.
"""

from __future__ import annotations

from typing import Final, final

import numpy as np

from gpuscalp.config.trading import QueueModel
from gpuscalp.execution.display import Display
from gpuscalp.execution.working import WorkingOrder
from gpuscalp.ops import queues as ops
from gpuscalp.ops.display import ASKS, BIDS

_ROOM: Final = 8


@final
class Queues:
    """Our resting orders of one symbol, by side in price-time priority.

    Parameters
    ----------
    display : whose quantities they queue behind
    model, power : which model, and n

    Attributes
    ----------
    orders : by side, best price first, then by arrival
    queue : as ``gpuscalp.ops.queues`` has it; places in the order of ``orders``
    power : n, 0 for the pessimistic model
    """

    def __init__(self, display: Display, model: QueueModel, power: int) -> None:
        self._display = display
        self.orders: dict[int, list[WorkingOrder]] = {1: [], -1: []}
        self.queue = ops.new_queue(_ROOM)
        self.power = {"pessimistic": 0, "proportional": 1}.get(model, power)

    def __len__(self) -> int:
        return len(self.orders[1]) + len(self.orders[-1])

    def enter(self, order: WorkingOrder, at_ns: int) -> None:
        """Put an order at the end of the queue at its price."""
        display, index, orders = self._display, _index(order.side), self.orders[order.side]
        if len(orders) == self.queue.shape[2]:
            self.queue = np.concatenate([self.queue, np.zeros_like(self.queue)], axis=2)
        key = -order.side * order.price_e8
        place = ops.enter(display.head, display.book, self.queue, index, key, at_ns)
        orders.insert(place, order)

    def leave(self, order: WorkingOrder) -> None:
        """Take an order out of its queue, if it is in one."""
        orders = self.orders[order.side]
        if order in orders:
            place = orders.index(order)
            del orders[place]
            ops.leave(self._display.head, self.queue, _index(order.side), place)

    def follow(self, at_ns: int) -> None:
        """Move the queues as the new state of the display says."""
        display = self._display
        ops.follow(display.head, display.book, self.queue, at_ns, self.power)

    def note_trade(self, side: int, price_e8: int, qty_e8: int, at_ns: int) -> None:
        """Note a trade that takes from our side of the book."""
        ops.note_trade(self._display.head, self.queue, _index(side), -side * price_e8, qty_e8, at_ns)

    def pass_trade(self, order: WorkingOrder, price_e8: int, qty_e8: int, at_ns: int) -> int:
        """Let a trade take from before an order; return what of it is left for it and those behind it."""
        side = order.side
        place = self.orders[side].index(order)
        return int(ops.pass_trade(self.queue, _index(side), place, -side * price_e8, qty_e8, at_ns))


def _index(side: int) -> int:
    return BIDS if side > 0 else ASKS
