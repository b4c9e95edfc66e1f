"""The replayed book of one symbol: what is displayed, and what of it users have already taken.

Owns: sorted levels, update ids, the rule that a displayed unit is taken at most once. Pure.

The ids are the exchange's own, so that they chain whatever the source is and across a restart of it; every
changed level takes one id. Prices and quantities are ints in 1e-8.

Taken units: what a user's order takes from a level stays taken while the level is displayed. When the source
shrinks the level, the units that left are counted against the taken ones first; when it grows the level, the
new units are there for the taking. So all that is ever taken from a level is at most what it first showed
plus what was added to it.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from gpuscalp.feeds.messages import Levels


@dataclass(frozen=True, slots=True)
class BookChange:
    """Levels that changed by one event of the source: absolute quantities, 0 = removed."""

    first_id: int
    last_id: int
    previous_id: int
    bids: Levels
    asks: Levels


class Side:
    """One side, best level first. Keys are prices times the sign that makes the best one the smallest."""

    __slots__ = ("_sign", "keys", "qty", "taken")

    def __init__(self, sign: int) -> None:
        self._sign = sign
        self.keys: list[int] = []
        self.qty: dict[int, int] = {}
        self.taken: dict[int, int] = {}

    def set(self, price: int, qty: int) -> bool:
        """Set one level; return whether it changed."""
        key = self._sign * price
        old = self.qty.get(price, 0)
        if old == qty:
            return False
        if not qty:
            del self.qty[price], self.keys[bisect_left(self.keys, key)]
            self.taken.pop(price, None)
            return True
        if not old:
            insort(self.keys, key)
        elif qty < old and price in self.taken:
            self.taken[price] = max(0, self.taken[price] - (old - qty))
        self.qty[price] = qty
        return True

    def best(self) -> tuple[int, int]:
        """Return price and displayed quantity of the best level; (0, 0) where there is none."""
        if not self.keys:
            return 0, 0
        price = self._sign * self.keys[0]
        return price, self.qty[price]

    def available(self, price: int) -> int:
        """Return what may still be taken at a price."""
        return self.qty.get(price, 0) - self.taken.get(price, 0)

    def take(self, price: int, qty: int) -> None:
        assert 0 < qty <= self.available(price), "a displayed unit is taken once"
        self.taken[price] = self.taken.get(price, 0) + qty

    def prices(self) -> Iterator[int]:
        """Yield prices, best first."""
        return (self._sign * key for key in self.keys)

    def levels(self, count: int) -> Levels:
        """Return up to ``count`` levels, best first."""
        return [(self._sign * key, self.qty[self._sign * key]) for key in self.keys[:count]]

    def better_than(self, price: int) -> list[int]:
        """Return the prices strictly better than one."""
        return [self._sign * key for key in self.keys[: bisect_left(self.keys, self._sign * price)]]


class ReplayBook:
    """Both sides and the id counter.

    Attributes
    ----------
    bids, asks : Side
    last_id : id of the newest change
    source_id : newest update id of the source that a quote brought; older book rows may not undo it
    """

    def __init__(self, first_id: int = 1_000) -> None:
        self.bids = Side(-1)
        self.asks = Side(1)
        self.last_id = first_id
        self._quote: tuple[int, int, int, int, int] | None = None

    def apply(
        self, bids: Sequence[tuple[int, int]], asks: Sequence[tuple[int, int]], source_id: int
    ) -> BookChange | None:
        """Apply a difference of the source; None if nothing changed."""
        changed_bids = [(price, qty) for price, qty in bids if self.bids.set(price, qty)]
        changed_asks = [(price, qty) for price, qty in asks if self.asks.set(price, qty)]
        self._heed_quote(source_id, changed_bids, changed_asks)
        return self._change(changed_bids, changed_asks)

    def replace(
        self, bids: Sequence[tuple[int, int]], asks: Sequence[tuple[int, int]], source_id: int
    ) -> BookChange | None:
        """Set the whole book: levels that are not named are gone."""
        changes: list[Levels] = []
        for side, levels in ((self.bids, bids), (self.asks, asks)):
            named = dict(levels)
            gone = [(price, 0) for price in tuple(side.qty) if price not in named]
            changes.append([pair for pair in (*gone, *named.items()) if side.set(*pair)])
        self._heed_quote(source_id, *changes)
        return self._change(*changes)

    def quote(self, bid: int, bid_qty: int, ask: int, ask_qty: int, source_id: int) -> BookChange | None:
        """Set the best levels: what is better than them is gone."""
        self._quote = (bid, bid_qty, ask, ask_qty, source_id)
        changed_bids: Levels = []
        changed_asks: Levels = []
        self._heed_quote(source_id - 1, changed_bids, changed_asks)
        return self._change(changed_bids, changed_asks)

    def _heed_quote(self, source_id: int, bids: Levels, asks: Levels) -> None:
        """Bring the best levels back to the newest quote where it is newer than what was applied.

        Quotes come in real time, book rows with a delay of up to their interval."""
        if self._quote is None:
            return
        bid, bid_qty, ask, ask_qty, quote_id = self._quote
        if source_id >= quote_id:
            return
        for side, price, qty, changed in ((self.bids, bid, bid_qty, bids), (self.asks, ask, ask_qty, asks)):
            if not price:
                continue
            for better in side.better_than(price):
                side.set(better, 0)
                changed.append((better, 0))
            if side.set(price, qty):
                changed.append((price, qty))

    def _change(self, bids: Levels, asks: Levels) -> BookChange | None:
        if not bids and not asks:
            return None
        previous = self.last_id
        self.last_id += len(bids) + len(asks)
        return BookChange(previous + 1, self.last_id, previous, bids, asks)
