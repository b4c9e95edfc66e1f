"""Our orders of one symbol against its displayed book and its trades.

Owns: resting orders in price-time priority, and which quantity meets which order at which price.
Never: money, reports, latencies; the caller is told of every match at once and books it before the next one
is sought.

* A taking order walks the displayed levels, best first, as far as its limit.
* A resting order fills at its own limit: by trades that reach it through the queue (see queueing), by trades
  at a worse price, whose taker would have met it first, and by a book that has moved onto it.
* One trade fills at most its quantity over all of our orders; one displayed unit is taken once.
* Our orders are not part of the displayed book: what others would have done because of them is not known.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import final

from gpuscalp.execution.display import Display
from gpuscalp.execution.queueing import UNSEEN, Level, Model, Place
from gpuscalp.execution.working import WorkingOrder

# (order, price_e8, qty_e8, maker)
Match = Callable[[WorkingOrder, int, int, bool], None]


@final
class Matcher:
    """Matching of one symbol.

    Parameters
    ----------
    step_e8 : quantities filled are multiples of it
    model, power : the queue model
    depth_age_ns : how old a book may be for the levels behind the best one to be taken
    most_of : how much of an order may fill now
    on_match : books a match at once
    """

    def __init__(
        self,
        step_e8: int,
        *,
        model: Model,
        power: int,
        depth_age_ns: int,
        most_of: Callable[[WorkingOrder], int],
        on_match: Match,
    ) -> None:
        self.display = Display()
        self._step_e8 = step_e8
        self._model: Model = model
        self._power = power
        self._depth_age_ns = depth_age_ns
        self._most_of = most_of
        self._on_match = on_match
        # Best price first, then by arrival; +1 bids, -1 asks.
        self._resting: dict[int, list[WorkingOrder]] = {1: [], -1: []}
        self._levels: dict[int, dict[int, Level]] = {1: {}, -1: {}}
        self.resting_count = 0

    def __iter__(self) -> Iterator[WorkingOrder]:
        """Iterate over a copy: orders may end meanwhile."""
        return iter((*self._resting[1], *self._resting[-1]))

    def crosses(self, side: int, price_e8: int) -> bool:
        """Whether an order at that price would take."""
        opposite = self.display.side(-side).prices
        return bool(opposite) and side * (price_e8 - opposite[0]) >= 0

    def fillable_e8(self, order: WorkingOrder, limit_e8: int, at_ns: int) -> int:
        """Return how much a taking order could fill now, at most what is left of it."""
        side = self.display.side(-order.side)
        found = sum(self._whole(side.available(index)) for index in self._reach(order.side, limit_e8, at_ns))
        return min(found, self._most_of(order))

    def take(self, order: WorkingOrder, limit_e8: int, at_ns: int) -> None:
        """Fill a taking order from the display."""
        side = self.display.side(-order.side)
        for index in self._reach(order.side, limit_e8, at_ns):
            qty = self._whole(min(self._most_of(order), side.available(index)))
            if qty:
                side.take(index, qty)
                self._on_match(order, side.prices[index], qty, False)
            if not order.left_e8:
                return

    def sweep(self, order: WorkingOrder, at_ns: int) -> Iterator[tuple[int, int]]:
        """Yield price and quantity of what a forced close takes; the caller fills each before the next."""
        side = self.display.side(-order.side)
        for index in self._reach(order.side, 1 << 62 if order.side > 0 else 1, at_ns):
            qty = self._whole(min(order.left_e8, side.available(index)))
            if qty:
                side.take(index, qty)
                yield side.prices[index], qty
            if not order.left_e8:
                return

    def rest(self, order: WorkingOrder, at_ns: int) -> None:
        """Put an order at the end of the queue at its price."""
        side, price = order.side, order.price_e8
        levels = self._levels[side]
        shown = self.display.side(side).shown(price)
        if price not in levels:
            levels[price] = Level(shown)
        order.place = Place(UNSEEN if shown is None else shown, at_ns)
        levels[price].places.append(order.place)
        queue = self._resting[side]
        position = len(queue)
        while position and side * queue[position - 1].price_e8 < side * price:
            position -= 1
        queue.insert(position, order)
        self.resting_count += 1

    def remove(self, order: WorkingOrder) -> None:
        """Take an order out of its queue, if it is in one."""
        queue = self._resting[order.side]
        if order not in queue:
            return
        queue.remove(order)
        self.resting_count -= 1
        level = self._levels[order.side][order.price_e8]
        level.places = [place for place in level.places if place is not order.place]
        if not level.places:
            del self._levels[order.side][order.price_e8]

    def on_state(self, at_ns: int) -> None:
        """Follow a sound state of the display: fill what the book has moved onto, then move the queues."""
        if not self.resting_count:
            return
        for side in (1, -1):
            opposite = self.display.side(-side)
            for order in tuple(self._resting[side]):
                if not self.crosses(side, order.price_e8):
                    break
                for index in self._reach(side, order.price_e8, at_ns):
                    if not order.is_open:
                        break
                    qty = self._whole(min(self._most_of(order), opposite.available(index)))
                    if qty:
                        opposite.take(index, qty)
                        self._on_match(order, order.price_e8, qty, True)
            own = self.display.side(side)
            for price, level in self._levels[side].items():
                level.on_shown(own.shown(price), at_ns, self._model, self._power)

    def on_trade(self, price_e8: int, qty_e8: int, taker_side: int, at_ns: int) -> None:
        """Let a trade of the market reach our orders on the other side of its taker."""
        side = -taker_side
        queue = self._resting[side]
        if not queue:
            return
        level = self._levels[side].get(price_e8)
        if level is not None:
            level.on_trade(qty_e8, at_ns)
        ours = 0
        for order in tuple(queue):
            beyond = side * (order.price_e8 - price_e8)
            if beyond < 0:
                return
            place = order.place
            if beyond == 0:
                # What an earlier order of ours took of the trade does not take from the queue as well.
                reach = place.pass_trade(qty_e8 - ours, at_ns)
            elif at_ns > place.since_ns:
                # The trade was at a worse price: everybody before us at ours has been served.
                place.ahead_e8, reach = 0, qty_e8 - ours
            else:
                reach = 0
            if order.is_open and reach:
                qty = self._whole(min(self._most_of(order), reach))
                if qty:
                    ours += qty
                    self._on_match(order, order.price_e8, qty, True)

    def _reach(self, side: int, limit_e8: int, at_ns: int) -> Iterator[int]:
        deep = self.display.is_deep(at_ns, self._depth_age_ns)
        return self.display.side(-side).reachable(limit_e8, deep=deep)

    def _whole(self, qty_e8: int) -> int:
        return qty_e8 - qty_e8 % self._step_e8
