"""Oracle of the local book: two dicts, sorted anew whenever something is asked. It imports nothing of ours.

Event and state are the values of the package's enums. It does not know the rule by which a wrong id far ahead
is outvoted: ids drawn for it must not trigger that. Nor that of what a whole book keeps near its edge only
the newest updates are kept.
"""

from __future__ import annotations

from collections.abc import Container
from itertools import pairwise

Levels = list[tuple[int, int]]
TOP = 20


class NaiveBook:
    def __init__(self, levels_max: int, limits: Container[int] = ()) -> None:
        self.chain = "unsynced"
        self.limits = limits
        self.edges: list[int | None] = [None, None]  # the outermost bid and ask that are known
        self.near = self.beyond = False
        self.bids: dict[int, int] = {}
        self.asks: dict[int, int] = {}
        self.kept: list[tuple[int, int, Levels, Levels]] = []
        self.newest: tuple[int, int] | None = None  # first and last id
        self.expected_from: int | None = None  # a snapshot that no update has reached
        self.missing = (0, 0)
        self.levels_max = levels_max

    @property
    def state(self) -> str:
        return "resync" if self.chain == "synced" and self.beyond else self.chain

    def on_diff(self, first: int, last: int, previous: int, bids: Levels, asks: Levels) -> str:
        known = self.newest
        if known is not None and last <= known[1]:
            return "duplicate" if (first, last) == known else "late"
        gap = known is not None and previous != known[1]
        if gap and known is not None:
            self.missing = (known[1] + 1, previous)
        self.newest = (first, last)
        if self.expected_from is not None and self.chain == "synced":
            if last <= self.expected_from:
                return "contained"
            gap = previous > self.expected_from
            if gap:
                self.missing = (self.expected_from + 1, previous)
            self.expected_from = None
        if self.chain == "synced" and gap:
            self.chain = "resync"
        if self.chain != "synced" or self.near:
            self.kept.append((last, previous, bids, asks))
        if self.chain == "unsynced":
            return "gap" if gap else "buffered"
        event = self._apply(bids, asks)
        return "gap" if gap else event

    def on_snapshot(self, last: int, bids: Levels, asks: Levels) -> str:
        ahead = self.expected_from or (self.newest[1] if self.newest else 0)
        if self.chain == "synced" and not self.near and ahead >= last:
            return "unneeded"
        after = [update for update in self.kept if update[0] > last]
        if after and after[0][1] > last:
            return "too_old"
        if not after and ahead > last:
            return "too_old"
        if any(later[1] != sooner[0] for sooner, later in pairwise(after)):
            return "too_old"
        self.bids = {price: qty for price, qty in bids if qty}
        self.asks = {price: qty for price, qty in asks if qty}
        cut = len(bids) in self.limits and self.bids, len(asks) in self.limits and self.asks
        self.edges = [min(self.bids) if cut[0] else None, max(self.asks) if cut[1] else None]
        self._judge()
        for _, _, more_bids, more_asks in after:
            self._apply(more_bids, more_asks)
        self.kept = []
        self.chain = "synced"
        self.expected_from = None if after else last
        return "synced"

    def top(self) -> tuple[list[int], list[int], list[int], list[int]]:
        bids = sorted(self.bids, reverse=True)[:TOP]
        asks = sorted(self.asks)[:TOP]
        columns = bids, [self.bids[price] for price in bids], asks, [self.asks[price] for price in asks]
        a, b, c, d = (column + [0] * (TOP - len(column)) for column in columns)
        return a, b, c, d

    def sums(self, count: int) -> tuple[float, float]:
        _, bid_qty, _, ask_qty = self.top()
        bids = asks = 0.0
        for index in range(count):
            # A float64 divided: beyond 2^53 that is not the nearest float64 of Python's own quotient.
            bids += float(bid_qty[index]) / 1e8
            asks += float(ask_qty[index]) / 1e8
        return bids, asks

    @property
    def crossed(self) -> bool:
        return bool(self.bids and self.asks) and max(self.bids) >= min(self.asks)

    def _apply(self, bids: Levels, asks: Levels) -> str:
        touched = self._set(self.bids, bids, -1)
        touched = self._set(self.asks, asks, 1) or touched
        repaired = self.chain == "resync" and self.crossed
        if repaired:
            alive_bids = [price for price, qty in bids if qty]
            alive_asks = [price for price, qty in asks if qty]
            self.asks = {p: q for p, q in self.asks.items() if not any(p <= bid for bid in alive_bids)}
            self.bids = {p: q for p, q in self.bids.items() if not any(p >= ask for ask in alive_asks)}
        if touched or repaired:
            self._judge()
        return "top" if touched else "applied"

    def _judge(self) -> None:
        bid, ask = self.edges
        if not self.crossed:
            if bid is not None and self.asks:
                bid = min(bid, *self.asks)
            if ask is not None and self.bids:
                ask = max(ask, *self.bids)
        self.edges = [bid, ask]
        known = [
            count
            for count, edge in (
                (sum(price >= (bid or 0) for price in self.bids), bid),
                (sum(price <= (ask or 0) for price in self.asks), ask),
            )
            if edge is not None
        ]
        self.beyond, self.near = min(known, default=TOP) < TOP, min(known, default=2 * TOP) < 2 * TOP
        if self.chain == "synced" and not self.near:
            self.kept = []

    def _set(self, side: dict[int, int], levels: Levels, sign: int) -> bool:
        order = sorted(sign * price for price in side)
        touched = False
        for price, qty in levels:
            if side.get(price, 0) == qty:
                continue
            if qty:
                side[price] = qty
            else:
                del side[price]
            touched |= len(order) < TOP or sign * price <= order[TOP - 1]
        for key in sorted(sign * price for price in side)[self.levels_max :]:
            del side[sign * key]
        return touched
