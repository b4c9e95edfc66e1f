"""What one symbol's book displays, and what of it our own orders have already taken.

Owns: levels, what each unit of them was used for, and whether the book can be believed. Never: knows orders.
The levels and the rules by which they change are in compiled code: ``gpuscalp.ops.display``.

Levels behind the best one: a quote tells only the best, so levels behind it are as old as the last book.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import final

import numpy as np

from gpuscalp.ops import display as ops
from gpuscalp.schema import BOOK_LEVELS, I64


@final
class Display:
    """The book of one symbol as its last states show it. Prices and quantities in 1e-8.

    Sides are +1 for bids, −1 for asks.

    Attributes
    ----------
    head, book : as ``gpuscalp.ops.display`` has them
    """

    __slots__ = ("book", "head")

    def __init__(self) -> None:
        self.head = ops.new_head()
        self.book = ops.new_book()

    @property
    def state_ns(self) -> int:
        """Exchange time of the newest state, -1 before the first."""
        return int(self.head[ops.WHOLE, ops.STATE_NS])

    @property
    def sound(self) -> bool:
        """Whether the newest state had both sides, uncrossed and without doubts.

        What is not sound is not taken over into the levels.
        """
        return bool(self.head[ops.WHOLE, ops.SOUND])

    @property
    def last_e8(self) -> int:
        """The last traded price, 0 before the first trade."""
        return int(self.head[ops.WHOLE, ops.LAST])

    @last_e8.setter
    def last_e8(self, price_e8: int) -> None:
        self.head[ops.WHOLE, ops.LAST] = price_e8

    @property
    def is_taken(self) -> bool:
        """Whether units are still counted as taken."""
        return bool(self.head[: ops.WHOLE, ops.TAKEN].any())

    def on_quote(self, at_ns: int, bid: int, bid_qty: int, ask: int, ask_qty: int, *, sound: bool) -> bool:
        """Take a best bid and ask; return whether it changed what can be believed. Older ones are ignored."""
        return bool(ops.set_quote(self.head, self.book, at_ns, bid, bid_qty, ask, ask_qty, sound))

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
        width = max(BOOK_LEVELS, len(bid_prices), len(ask_prices))
        top: I64 = np.zeros((4, width), np.int64)
        for row, column in zip(top, (bid_prices, bid_qtys, ask_prices, ask_qtys), strict=True):
            row[: len(column)] = column
        return bool(ops.set_book(self.head, self.book, at_ns, top[None], 0, sound))

    def best(self, side: int) -> tuple[int, int]:
        """Return price and quantity of the best level; zeros if there is none."""
        index = _index(side)
        first, end = self._range(index)
        if first == end:
            return 0, 0
        return -side * int(self.book[index, ops.KEY, first]), int(self.book[index, ops.QTY, first])

    def available(self, side: int, level: int) -> int:
        """Return what may still be taken of a level; levels are named by ``reachable``."""
        return int(ops.available(self.head, self.book, _index(side), level))

    def take(self, side: int, level: int, qty: int) -> None:
        """Use up units of a level."""
        assert 0 < qty <= self.available(side, level), "a displayed unit is taken once"
        index = _index(side)
        if self.head[index, ops.TAKEN] == self.book.shape[2]:
            self.book = np.concatenate([self.book, np.zeros_like(self.book)], axis=2)
        ops.take(self.head, self.book, index, level, qty)

    def price(self, side: int, level: int) -> int:
        """Return the price of a level."""
        return -side * int(self.book[_index(side), ops.KEY, level])

    def reachable(self, side: int, limit: int, at_ns: int, depth_age_ns: int) -> Iterator[int]:
        """Yield the levels that an order of the other side may take, best first.

        Parameters
        ----------
        limit : worst price
        depth_age_ns : how old a book may be for the levels behind the best one to be believed
        """
        index = _index(side)
        book_ns = int(self.head[ops.WHOLE, ops.BOOK_NS])
        deep = book_ns >= 0 and at_ns - book_ns <= depth_age_ns
        first, end = self._range(index)
        end = end if deep else min(end, first + 1)
        for level, key in enumerate(self.book[index, ops.KEY, first:end].tolist(), first):
            if key > -side * limit:
                return
            yield level

    @property
    def mid2_e8(self) -> int:
        """Best bid + best ask; 0 before the first sound state."""
        bid, ask = self.best(1)[0], self.best(-1)[0]
        return bid + ask if bid and ask else 0

    def _range(self, index: int) -> tuple[int, int]:
        return int(self.head[index, ops.FIRST]), int(self.head[index, ops.END])


def _index(side: int) -> int:
    return ops.BIDS if side > 0 else ops.ASKS
