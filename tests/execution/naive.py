"""The matching, unit by unit, in plain loops: what the paper broker is compared with.

Imports nothing of gpuscalp. A level is a list of units, each of them taken or not; an order knows how many
units are before it. Requests have no latency and meet the next book; queues are pessimistic.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class Order:
    number: int
    side: int
    left: int
    price: int  # 0 = market
    tif: str
    ahead: int = 0


@dataclass
class Naive:
    """One symbol. ``fills`` holds [time, order, price, quantity, maker], units of one match merged."""

    levels: dict[int, dict[int, list[bool]]] = field(default_factory=lambda: {1: {}, -1: {}})
    waiting: list[tuple[str, object]] = field(default_factory=list)
    resting: list[Order] = field(default_factory=list)
    fills: list[list[object]] = field(default_factory=list)
    now: int = 0

    def on_book(self, now: int, bids: list[tuple[int, int]], asks: list[tuple[int, int]]) -> None:
        self.now = now
        for side, shown in ((1, dict(bids)), (-1, dict(asks))):
            mine = self.levels[side]
            for price in {*mine, *shown}:
                units = mine.setdefault(price, [])
                while len(units) > shown.get(price, 0):
                    units.remove(True) if True in units else units.pop()
                while len(units) < shown.get(price, 0):
                    units.append(False)
        for side in (1, -1):
            for order in self._queue(side):
                self._take(order, order.price, order.price)
        self.resting = [order for order in self.resting if order.left]
        for order in self.resting:
            order.ahead = min(order.ahead, len(self.levels[order.side].get(order.price, [])))
        for order in self.waiting:
            self._new(order)
        self.waiting = []

    def on_trade(self, now: int, price: int, qty: int, side: int) -> None:
        self.now = now
        for order in self.resting:
            if order.side == -side and order.side * (order.price - price) > 0:
                order.ahead = 0
        for _ in range(qty):
            for order in self._queue(-side):
                if order.side * (order.price - price) < 0:
                    break
                if order.left and order.ahead == 0:
                    self._fill(order, order.price, True)
                    break
                if order.left:
                    order.ahead -= 1
        self.resting = [order for order in self.resting if order.left]

    def submit(self, order: Order) -> None:
        self.waiting.append(order)

    def cancel(self, number: int) -> None:
        self.resting = [order for order in self.resting if order.number != number]
        self.waiting = [order for order in self.waiting if order.number != number]

    def _new(self, order: Order) -> None:
        opposite = self.levels[-order.side]
        limit = order.price or (10**9 if order.side > 0 else 0)
        within = [price for price in opposite if order.side * (limit - price) >= 0]
        if order.tif == "gtx" and any(opposite[price] for price in within) and order.price:
            return
        free = sum(unit is False for price in within for unit in opposite[price])
        if order.tif == "fok" and order.price and free < order.left:
            return
        self._take(order, limit, 0)
        if order.left and order.price and order.tif in ("gtc", "gtx"):
            order.ahead = len(self.levels[order.side].get(order.price, []))
            self.resting.append(order)

    def _take(self, order: Order, limit: int, pay: int) -> None:
        """Take units as far as a limit; ``pay`` is the price paid, 0 = that of the level."""
        opposite = self.levels[-order.side]
        for price in sorted(opposite, key=lambda price: order.side * price):
            if order.side * (limit - price) < 0:
                return
            for index, taken in enumerate(opposite[price]):
                if order.left and not taken:
                    opposite[price][index] = True
                    # A resting order that a deeper level reaches fills in a match of its own.
                    self._fill(order, pay or price, bool(pay))

    def _queue(self, side: int) -> list[Order]:
        mine = [order for order in self.resting if order.side == side]
        return sorted(mine, key=lambda order: -side * order.price)

    def _fill(self, order: Order, price: int, maker: bool) -> None:
        order.left -= 1
        key = [self.now, order.number, price]
        if self.fills and self.fills[-1][:3] == key and self.fills[-1][4] == maker:
            self.fills[-1][3] += 1  # type: ignore[operator]
        else:
            self.fills.append([*key, 1, maker])
