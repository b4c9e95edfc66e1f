"""What one symbol's book displays, and what of it our own orders have already taken.

Owns: levels, what each unit of them was used for, and whether the book can be believed. Never: knows orders.

Taken units: what an order takes from a level stays taken for as long as the book shows it. When a level
shrinks, the units that left are counted against the taken ones first; when it grows, or comes back after the
book has shown that it was gone, the new units are there to be taken. So what is ever taken at a price is at
most what the book showed there first plus all that it added.

Levels behind the best one: a quote tells only the best, so levels behind it are as old as the last book.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, final

_MOST_LEVELS: Final = 64  # a quote that improves on the book adds a level; the far end is cut off here

# What a price shows: a quantity, 0 where the book shows that there is none, or None where it does not say.
Shown = int | None


@dataclass(slots=True)
class _Taken:
    qty_e8: int
    shown_e8: int


@final
class Side:
    """One side of a book, best level first.

    Parameters
    ----------
    sign : +1 for bids, -1 for asks: ``sign × price`` falls from the best level outwards

    Attributes
    ----------
    prices, qtys : lists of equal length, in 1e-8
    """

    __slots__ = ("_sign", "_taken", "prices", "qtys")

    def __init__(self, sign: int) -> None:
        self._sign = sign
        self.prices: list[int] = []
        self.qtys: list[int] = []
        self._taken: dict[int, _Taken] = {}

    def replace(self, prices: Sequence[int], qtys: Sequence[int]) -> None:
        """Set all levels, best first; levels without quantity are left out."""
        self.prices = [price for price, qty in zip(prices, qtys, strict=True) if price > 0 and qty > 0]
        self.qtys = [qty for price, qty in zip(prices, qtys, strict=True) if price > 0 and qty > 0]
        if self._taken:
            self._recount()

    def replace_behind(self, prices: Sequence[int], qtys: Sequence[int]) -> None:
        """Set the levels behind the best one, which stays: for a book that is older than the last quote."""
        if not self.prices:
            return
        best, best_qty, sign = self.prices[0], self.qtys[0], self._sign
        behind = [
            pair for pair in zip(prices, qtys, strict=True) if pair[0] > 0 and sign * pair[0] < sign * best
        ]
        self.replace([best, *(price for price, _ in behind)], [best_qty, *(qty for _, qty in behind)])

    def set_best(self, price: int, qty: int) -> None:
        """Set the best level; what was better than it is gone."""
        prices, qtys, sign = self.prices, self.qtys, self._sign
        gone = 0
        while gone < len(prices) and sign * prices[gone] > sign * price:
            gone += 1
        if gone:
            del prices[:gone], qtys[:gone]
        if prices and prices[0] == price:
            qtys[0] = qty
        else:
            prices.insert(0, price)
            qtys.insert(0, qty)
            del prices[_MOST_LEVELS:], qtys[_MOST_LEVELS:]
        if self._taken:
            self._recount()

    def shown(self, price: int) -> Shown:
        """Return what the book shows at a price."""
        value = self._sign * price
        for index, level in enumerate(self.prices):
            if level == price:
                return self.qtys[index]
            if self._sign * level < value:
                return 0
        return None

    def available(self, index: int) -> int:
        """Return what may still be taken of a level."""
        qty = self.qtys[index]
        if self._taken:
            taken = self._taken.get(self.prices[index])
            if taken is not None:
                return max(0, qty - taken.qty_e8)
        return qty

    def take(self, index: int, qty: int) -> None:
        """Use up units of a level."""
        assert 0 < qty <= self.available(index), "a displayed unit is taken once"
        taken = self._taken.setdefault(self.prices[index], _Taken(0, self.qtys[index]))
        taken.qty_e8 += qty

    def reachable(self, limit: int, *, deep: bool) -> Iterator[int]:
        """Yield the indices of levels that an order of the other side may take, best first.

        Parameters
        ----------
        limit : worst price
        deep : False if only the best level can be believed
        """
        sign = self._sign
        for index, price in enumerate(self.prices if deep else self.prices[:1]):
            if sign * price < sign * limit:
                return
            yield index

    @property
    def taken_prices(self) -> tuple[int, ...]:
        """Prices at which units are still counted as taken."""
        return tuple(self._taken)

    def count(self, price: int, shown: int) -> bool:
        """Count what a book shows at a price against what was taken there; return whether some is left."""
        taken = self._taken[price]
        taken.qty_e8 = max(0, taken.qty_e8 - max(0, taken.shown_e8 - shown))
        taken.shown_e8 = shown
        if shown and taken.qty_e8:
            return True
        del self._taken[price]
        return False

    def adopt(self, other: Side) -> None:
        """Take over what was taken of another side of the same book, as it stands."""
        self._taken = other._taken

    def _recount(self) -> None:
        far = self._sign * self.prices[-1] if self.prices else 0
        for price in tuple(self._taken):
            # A market that has moved on leaves many takes behind its last level: they are not looked for.
            if self._sign * price < far or (shown := self.shown(price)) is None:
                continue
            self.count(price, shown)


@final
class Display:
    """The book of one symbol as its last states show it.

    Attributes
    ----------
    bids, asks : Side
    state_ns : exchange time of the newest state, -1 before the first
    sound : whether the newest state had both sides, uncrossed and without doubts; what is not sound is not
        taken over into the levels
    """

    __slots__ = ("_book_ns", "asks", "bids", "sound", "state_ns")

    def __init__(self) -> None:
        self.bids = Side(1)
        self.asks = Side(-1)
        self.state_ns = -1
        self._book_ns = -1
        self.sound = False

    def on_quote(self, at_ns: int, bid: int, bid_qty: int, ask: int, ask_qty: int, *, sound: bool) -> bool:
        """Take a best bid and ask; return whether it changed what can be believed. Older ones are ignored."""
        if at_ns < self.state_ns:
            return False
        self.state_ns = at_ns
        self.sound = sound and 0 < bid < ask and bid_qty > 0 and ask_qty > 0
        if self.sound:
            self.bids.set_best(bid, bid_qty)
            self.asks.set_best(ask, ask_qty)
        return self.sound

    def on_book(
        self,
        at_ns: int,
        bid_prices: Sequence[int],
        bid_qtys: Sequence[int],
        ask_prices: Sequence[int],
        ask_qtys: Sequence[int],
        *,
        sound: bool,
    ) -> bool:
        """Take the best levels of both sides, best first; return whether it changed what can be believed.

        A book that is older than the last state tells only what lies behind the best levels.
        """
        if at_ns < self._book_ns or not sound:
            self.sound = self.sound and (sound or at_ns < self.state_ns)
            return False
        usable = bool(bid_prices and ask_prices) and 0 < bid_prices[0] < ask_prices[0]
        usable = usable and bid_qtys[0] > 0 and ask_qtys[0] > 0
        if at_ns < self.state_ns:
            if usable and self.sound:
                self._book_ns = at_ns
                self.bids.replace_behind(bid_prices, bid_qtys)
                self.asks.replace_behind(ask_prices, ask_qtys)
            return False
        self.state_ns = at_ns
        self.sound = usable
        if usable:
            self._book_ns = at_ns
            self.bids.replace(bid_prices, bid_qtys)
            self.asks.replace(ask_prices, ask_qtys)
        return usable

    @contextmanager
    def rebuilt(self) -> Iterator[None]:
        """Forget all but what was taken; states given inside of the block build the levels up again.

        For whoever has kept states from a display that nothing looked at. They are older than what is taken,
        or have been counted against it by :meth:`Side.count`, so they leave it alone.
        """
        before = self.bids, self.asks
        self.bids, self.asks = Side(1), Side(-1)
        self.state_ns, self._book_ns, self.sound = -1, -1, False
        yield
        for side, old in ((self.bids, before[0]), (self.asks, before[1])):
            side.adopt(old)

    def side(self, sign: int) -> Side:
        return self.bids if sign > 0 else self.asks

    def is_deep(self, at_ns: int, age_ns: int) -> bool:
        """Whether levels behind the best ones are young enough to be taken."""
        return self._book_ns >= 0 and at_ns - self._book_ns <= age_ns

    @property
    def mid2_e8(self) -> int:
        """Best bid + best ask; 0 before the first sound state."""
        return self.bids.prices[0] + self.asks.prices[0] if self.bids.prices and self.asks.prices else 0
