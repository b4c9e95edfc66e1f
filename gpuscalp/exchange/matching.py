"""Price-time priority of users' orders against the replayed book of one symbol.

Owns: the queue of resting orders, who trades with whom at which price, and how far ahead the queue still is.
Pure: an order and a moment of the book in, matches out. Never: money, status texts, messages.

* A taker walks the levels, best first. At one price the displayed quantity that was there before a user's
  order comes before that order, what was added later comes after it. Each displayed unit is taken once.
* A resting order fills when a trade of the source happens at its price after the queue ahead of it is used
  up, when a trade happens at a worse price (the source's taker would have met it first), or when the book
  moves onto it. A trade of quantity q fills at most q of all users' orders together.
* The queue ahead shrinks by trades at the price and is never longer than what the book shows there:
  cancellations are assumed to come from behind, which is the cautious side.
* Users' orders are not part of the published book.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from gpuscalp.exchange.book import ReplayBook, Side
from gpuscalp.exchange.orders import Order


@dataclass(frozen=True, slots=True)
class Match:
    """One execution of a user's order; ``maker`` tells the order's role. Two users trading with each other
    make two matches with the same price and quantity."""

    order: Order
    price_e8: int
    qty_e8: int
    maker: bool


@dataclass(frozen=True, slots=True)
class Prevented:
    """A resting or taking order that self-trade prevention ends."""

    order: Order


Outcome = Match | Prevented


class Matcher:
    """The resting orders of one symbol.

    Parameters
    ----------
    book : the replayed book; what takers take is noted in it

    Attributes
    ----------
    most_of : how much of an order may fill now; less than what is left of it where it may only reduce a
        smaller position
    """

    def __init__(self, book: ReplayBook) -> None:
        self._book = book
        self.most_of: Callable[[Order], int] = lambda order: order.left_e8
        self._sequence = 0
        # (price times the sign that makes the best smallest, arrival, order); +1 bids, -1 asks
        self._resting: dict[int, list[tuple[int, int, Order]]] = {1: [], -1: []}

    def __iter__(self) -> Iterator[Order]:
        for entries in self._resting.values():
            for _, _, order in entries:
                yield order

    def crosses(self, side: int, price_e8: int) -> bool:
        """Whether an order at that price would trade at once."""
        best = self._opposite(side).best()[0]
        others = self._resting[-side]
        prices = [price for price in (best, others[0][2].price_e8 if others else 0) if price]
        return any(side * (price_e8 - price) >= 0 for price in prices)

    def fillable(self, order: Order) -> int:
        """Return how much of a taking order could be filled now, self-trades left out."""
        total = 0
        for _, available, users in self._walk(order):
            total += available + sum(item.left_e8 for item in users if item.owner != order.owner)
            if total >= order.left_e8:
                return order.left_e8
        return total

    def take(self, order: Order) -> Iterator[Outcome]:
        """Yield the executions of a taking order, best price first. The caller applies each one before it
        asks for the next, so that quantities left are up to date."""
        for price, _, users in self._walk(order):
            side = self._opposite(order.side)
            for resting in users:
                # What stood at the price before the user's order came.
                yield from self._take_displayed(order, side, price, resting.queue_ahead_e8)
                if _done(order):
                    return
                if _done(resting):
                    continue
                if resting.owner == order.owner and order.prevention != "NONE":
                    yield from self._prevent(order, resting)
                    if _done(order):
                        return
                    continue
                qty = min(self.most_of(order), self.most_of(resting))
                if qty:
                    yield Match(resting, price, qty, True)
                    yield Match(order, price, qty, False)
                if _done(order):
                    return
            yield from self._take_displayed(order, side, price, order.left_e8)
            if _done(order):
                return

    def rest(self, order: Order) -> None:
        """Put an order at the end of the queue at its price."""
        own = self._book.bids if order.side > 0 else self._book.asks
        order.queue_ahead_e8 = max(0, own.available(order.price_e8))
        self._sequence += 1
        insort(self._resting[order.side], (-order.side * order.price_e8, self._sequence, order))

    def remove(self, order: Order) -> None:
        """Take an order out of the queue, if it is there."""
        entries = self._resting[order.side]
        entries[:] = [entry for entry in entries if entry[2] is not order]

    def on_trade(self, price_e8: int, qty_e8: int, side: int) -> Iterator[Match]:
        """Yield what a trade of the source fills; ``side`` +1: its taker bought."""
        left = qty_e8
        used = 0  # of the trade by the displayed queue at its price
        for _, _, order in tuple(self._resting[-side]):
            beyond = side * (price_e8 - order.price_e8)
            if beyond < 0:
                return
            if beyond == 0:
                passed = min(left, max(0, order.queue_ahead_e8 - used))
                used, left = used + passed, left - passed
                order.queue_ahead_e8 = max(0, order.queue_ahead_e8 - used)
            qty = min(left, self.most_of(order)) if order.is_open else 0
            if qty:
                left -= qty
                yield Match(order, order.price_e8, qty, True)

    def on_book(self) -> Iterator[Match]:
        """Yield what a change of the book fills: resting orders that it has moved onto. Then shorten the
        queues ahead to what is displayed."""
        book = self._book
        for side, own in ((1, book.bids), (-1, book.asks)):
            opposite = self._opposite(side)
            for _, _, order in tuple(self._resting[side]):
                for price in opposite.prices():
                    if side * (order.price_e8 - price) < 0 or not order.is_open:
                        break
                    qty = min(self.most_of(order), opposite.available(price))
                    if qty:
                        opposite.take(price, qty)
                        yield Match(order, order.price_e8, qty, True)
                order.queue_ahead_e8 = min(order.queue_ahead_e8, own.qty.get(order.price_e8, 0))

    def _walk(self, order: Order) -> Iterator[tuple[int, int, list[Order]]]:
        """Yield (price, available, users' orders) that a taking order may meet, best first."""
        side = self._opposite(order.side)
        users: dict[int, list[Order]] = {}
        for _, _, resting in self._resting[-order.side]:
            users.setdefault(resting.price_e8, []).append(resting)
        prices = sorted({*side.qty, *users}, key=lambda price: order.side * price)
        for price in prices:
            if order.side * (order.limit_e8 - price) < 0:
                return
            yield price, side.available(price), users.get(price, [])

    def _take_displayed(self, order: Order, side: Side, price: int, most: int) -> Iterator[Match]:
        qty = min(self.most_of(order), side.available(price), most)
        if qty <= 0:
            return
        side.take(price, qty)
        for resting in (entry[2] for entry in self._resting[-order.side] if entry[2].price_e8 == price):
            resting.queue_ahead_e8 = max(0, resting.queue_ahead_e8 - qty)
        yield Match(order, price, qty, False)

    def _prevent(self, order: Order, resting: Order) -> Iterator[Prevented]:
        if order.prevention in ("EXPIRE_MAKER", "EXPIRE_BOTH"):
            yield Prevented(resting)
        if order.prevention in ("EXPIRE_TAKER", "EXPIRE_BOTH"):
            yield Prevented(order)

    def _opposite(self, side: int) -> Side:
        return self._book.asks if side > 0 else self._book.bids


def _done(order: Order) -> bool:
    """Whether the order is closed. Asked anew after every outcome: the caller changes orders in between."""
    return not order.is_open
