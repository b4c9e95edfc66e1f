"""Book and queues of one symbol in plain Python, with exact integers of any size: an oracle.

Imports nothing of gpuscalp. ``gpuscalp.ops.display`` and ``gpuscalp.ops.queues`` do the same in arrays.
"""

from __future__ import annotations

from dataclasses import dataclass, field

UNSEEN = 1 << 62
MOST_LEVELS = 64


@dataclass
class Side:
    """``levels``: (price, quantity), best first; ``taken``: by price, [taken, last shown]."""

    sign: int
    levels: list[tuple[int, int]] = field(default_factory=list)
    taken: dict[int, list[int]] = field(default_factory=dict)

    def shown(self, price: int) -> int | None:
        if not any(self.sign * level <= self.sign * price for level, _ in self.levels):
            return None
        return dict(self.levels).get(price, 0)

    def show(self, levels: list[tuple[int, int]]) -> None:
        self.levels = levels[:MOST_LEVELS]
        for price, entry in list(self.taken.items()):
            now = self.shown(price)
            if now is not None:
                entry[0] = max(0, entry[0] - max(0, entry[1] - now))
                entry[1] = now
                if not now or not entry[0]:
                    del self.taken[price]

    def best(self, price: int, qty: int) -> None:
        worse = [level for level in self.levels if self.sign * level[0] < self.sign * price]
        self.show([(price, qty), *worse])

    def available(self, price: int) -> int:
        return max(0, dict(self.levels)[price] - self.taken.get(price, [0])[0])

    def take(self, price: int, qty: int) -> None:
        self.taken.setdefault(price, [0, dict(self.levels)[price]])[0] += qty


@dataclass
class Place:
    price: int
    ahead: int
    since: int
    advanced: int = 0
    advanced_at: int = -1


@dataclass
class Queue:
    shown: int | None
    traded: int = 0
    traded_at: int = -1
    dropped: int = 0
    dropped_at: int = -1


@dataclass
class PlainBook:
    """``places`` are in price-time priority; ``power`` 0 is the pessimistic model."""

    power: int
    sides: dict[int, Side] = field(default_factory=lambda: {1: Side(1), -1: Side(-1)})
    queues: dict[int, dict[int, Queue]] = field(default_factory=lambda: {1: {}, -1: {}})
    places: dict[int, list[Place]] = field(default_factory=lambda: {1: [], -1: []})
    state_at: int = -1
    book_at: int = -1
    sound: bool = False

    def quote(self, at: int, bid: tuple[int, int], ask: tuple[int, int], sound: bool) -> None:
        if at < self.state_at:
            return
        self.state_at = at
        self.sound = sound and 0 < bid[0] < ask[0] and bid[1] > 0 and ask[1] > 0
        if self.sound:
            self.sides[1].best(*bid)
            self.sides[-1].best(*ask)
            self._follow()

    def book(self, at: int, bids: list[tuple[int, int]], asks: list[tuple[int, int]], sound: bool) -> None:
        newest = at >= self.state_at
        if at < self.book_at or not sound:
            if newest and not sound:
                self.sound = False
            return
        usable = bool(bids and asks) and 0 < bids[0][0] < asks[0][0] and bids[0][1] > 0 and asks[0][1] > 0
        bids, asks = ([level for level in side if min(level) > 0] for side in (bids, asks))
        if newest:
            self.state_at, self.sound = at, usable
        if not usable or not self.sound:
            return
        self.book_at = at
        for sign, levels in ((1, bids), (-1, asks)):
            side = self.sides[sign]
            if newest:
                side.show(levels)
            elif side.levels:
                first = side.levels[0]
                side.show([first, *(each for each in levels if sign * each[0] < sign * first[0])])
        if newest:
            self._follow()

    def enter(self, sign: int, price: int, at: int) -> None:
        shown = self.sides[sign].shown(price)
        self.queues[sign].setdefault(price, Queue(shown))
        self.places[sign].append(Place(price, UNSEEN if shown is None else shown, at))
        self.places[sign].sort(key=lambda place: -sign * place.price)  # stable

    def leave(self, sign: int, index: int) -> None:
        price = self.places[sign].pop(index).price
        if all(place.price != price for place in self.places[sign]):
            del self.queues[sign][price]

    def trade(self, sign: int, price: int, qty: int, at: int) -> list[int]:
        """Return what of a trade reaches each order of a side if none is filled."""
        queue = self.queues[sign].get(price)
        if queue is not None:
            known = min(qty, queue.dropped) if at == queue.dropped_at else 0
            queue.dropped -= known
            queue.traded += qty - known
            queue.traded_at = at
        reached = []
        for place in self.places[sign]:
            left = 0
            if at > place.since and sign * (place.price - price) > 0:
                place.ahead, left = 0, qty
            elif at > place.since and place.price == price:
                left = qty
                # A display of that time or a later one shows the queue as it was after the trade.
                if at <= place.advanced_at:
                    known = min(left, place.advanced)
                    place.advanced -= known
                    left -= known
                passed = min(left, place.ahead)
                place.ahead -= passed
                left -= passed
            reached.append(left)
        return reached

    def _follow(self) -> None:
        for sign in (1, -1):
            for price, queue in self.queues[sign].items():
                before, now = queue.shown, self.sides[sign].shown(price)
                queue.shown = now
                if now is not None:
                    mine = [place for place in self.places[sign] if place.price == price]
                    self._move(queue, mine, before, now)

    def _move(self, queue: Queue, places: list[Place], before: int | None, now: int) -> None:
        at, left = self.state_at, 0
        if before is not None and now < before:
            explained = min(queue.traded, before - now)
            left = before - now - explained
            queue.traded -= explained
            if queue.dropped_at != at:
                queue.dropped, queue.dropped_at = 0, at
            queue.dropped += left
        if at > queue.traded_at:
            queue.traded = 0
        for place in places:
            ahead = place.ahead
            if left and self.power and ahead < UNSEEN:
                ahead -= share(left, ahead, max(ahead, before or 0), self.power)
            ahead = min(ahead, now)
            if ahead != place.ahead:
                if place.advanced_at != at:
                    place.advanced, place.advanced_at = 0, at
                place.advanced += place.ahead - ahead
                place.ahead = ahead


def share(drop: int, ahead: int, shown: int, power: int) -> int:
    front, back = ahead**power, (shown - ahead) ** power
    return min(ahead, drop * front // (front + back)) if front else 0
