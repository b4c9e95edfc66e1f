"""What many rows of one symbol show at the prices where our orders have taken.

Owns: counting takes against rows that no display was told of, as ``Side`` would have. Never: chooses rows.

Prices count outwards from the best here, for both sides alike: a larger one is farther away.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, final

import numpy as np

from gpuscalp.execution.display import Side
from gpuscalp.schema import I64

_NO_CHANGE: Final = -1
FAR: Final = 1 << 62
_BLOCK: Final = 16  # prices that are counted at once


@final
@dataclass(frozen=True, slots=True)
class ShownSide:
    """One side of Q quotes and B books, in the order of arrival. Prices and quantities in 1e-8.

    Attributes
    ----------
    sign : +1 bids, −1 asks
    quote_rows, book_rows : int64[Q], int64[B], which rows they are
    best, best_qty : int64[Q]
    price, qty : int64[B, levels]; quantity 0: no such level
    untold : int64[B], the best price, if the book went behind it and says nothing of it; else FAR
    far : int64[B], the last level of each book; −FAR if there is none
    """

    sign: int
    quote_rows: I64
    best: I64
    best_qty: I64
    book_rows: I64
    price: I64
    qty: I64
    untold: I64
    far: I64

    def count(self, side: Side, first: int, last: int) -> None:
        """Count what was taken of a side against the rows from one to another."""
        quotes = slice(*self.quote_rows.searchsorted((first, last)).tolist())
        books = slice(*self.book_rows.searchsorted((first, last)).tolist())
        best, far = self.best[quotes], self.far[books]
        reach = max(best.max(initial=-FAR), far.max(initial=-FAR))
        # What never comes into view is as it was.
        prices = [each for each in side.taken_prices if -self.sign * each <= reach]
        if not prices:
            return
        best_qty, untold = self.best_qty[quotes], self.untold[books]
        price, qty = self.price[books], self.qty[books]
        rows = np.concatenate([self.quote_rows[quotes], self.book_rows[books]])
        order = rows.argsort()
        for start in range(0, len(prices), _BLOCK):
            part = prices[start : start + _BLOCK]
            at = -self.sign * np.array(part, np.int64)[:, None]
            shown = np.empty((len(part), len(rows)), np.int64)
            of_quotes, of_books = shown[:, : len(best)], shown[:, len(best) :]
            # A best level farther out: there is nothing any more; nearer: this level is behind it, untold.
            of_quotes[:] = np.where(best > at, 0, _NO_CHANGE)
            np.copyto(of_quotes, best_qty, where=best == at)
            of_books[:] = ((price == at[:, :, None]) * qty).sum(axis=2)
            of_books[(far < at) | (untold == at)] = _NO_CHANGE
            for each, values in zip(part, shown[:, order], strict=True):
                _count_one(side, each, values[values != _NO_CHANGE])


def _count_one(side: Side, price: int, shown: I64) -> None:
    """Count what was taken at one price against the quantities that were shown there in turn."""
    before = _NO_CHANGE
    for value in shown.tolist():
        if value != before and not side.count(price, value):
            return
        before = value
