"""Our orders of one symbol against its displayed book and its trades.

Owns: which quantity meets which order at which price; orders that rest are in the queues (see queueing).
Never: money, reports, latencies; the caller is told of every match at once and books it before the next one
is sought.

* A taking order walks the displayed levels, best first, as far as its limit.
* A resting order fills at its own limit: by trades that reach it through the queue (see queueing), by trades
  at a worse price, whose taker would have met it first, and by a book that has moved onto it.
* One trade fills at most its quantity over all of our orders; one displayed unit is taken once.
* Our orders are not part of the displayed book: what others would have done because of them is not known.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import final

from gpuscalp.config import PaperConfig
from gpuscalp.execution.display import Display
from gpuscalp.execution.messages import OrderKind, TimeInForce
from gpuscalp.execution.queueing import Queues
from gpuscalp.execution.working import WorkingOrder
from gpuscalp.ops.skim import skim
from gpuscalp.schema import I64, NS_PER_MS, Ticks

# (order, price_e8, qty_e8, maker)
Match = Callable[[WorkingOrder, int, int, bool], None]


@final
@dataclass(frozen=True, slots=True)
class Rows:
    """Recorded rows of one symbol; the arrays are those of ``gpuscalp.ops.skim``."""

    ticks: Ticks
    positions: I64
    tops: I64
    places: I64
    unit: int


@final
class Matcher:
    """Matching of one symbol.

    Parameters
    ----------
    step_e8 : quantities filled are multiples of it
    paper : the queue model, and how old a book may be for the levels behind the best one to be taken
    most_of : how much of an order may fill now
    on_match : books a match at once
    """

    def __init__(
        self,
        step_e8: int,
        paper: PaperConfig,
        *,
        most_of: Callable[[WorkingOrder], int],
        on_match: Match,
    ) -> None:
        self.display = Display()
        self.queues = Queues(self.display, paper.queue, paper.queue_power)
        self._step_e8 = step_e8
        self._depth_age_ns = paper.depth_age_ms * NS_PER_MS
        self._most_of = most_of
        self._on_match = on_match

    def __iter__(self) -> Iterator[WorkingOrder]:
        """Iterate over a copy: orders may end meanwhile."""
        return iter((*self.queues.orders[1], *self.queues.orders[-1]))

    def crosses(self, side: int, price_e8: int) -> bool:
        """Whether an order at that price would take."""
        opposite, _ = self.display.best(-side)
        return opposite > 0 and side * (price_e8 - opposite) >= 0

    def fillable_e8(self, order: WorkingOrder, limit_e8: int, at_ns: int) -> int:
        """Return how much a taking order could fill now, at most what is left of it."""
        found = sum(
            self._whole(self.display.available(-order.side, level))
            for level in self._reach(order.side, limit_e8, at_ns)
        )
        return min(found, self._most_of(order))

    def take(self, order: WorkingOrder, limit_e8: int, at_ns: int) -> None:
        """Fill a taking order from the display."""
        display, side = self.display, -order.side
        for level in self._reach(order.side, limit_e8, at_ns):
            qty = self._whole(min(self._most_of(order), display.available(side, level)))
            if qty:
                display.take(side, level, qty)
                self._on_match(order, display.price(side, level), qty, False)
            if not order.left_e8:
                return

    def sweep(self, order: WorkingOrder, at_ns: int) -> Iterator[tuple[int, int]]:
        """Yield price and quantity of what a forced close takes; the caller fills each before the next."""
        display, side = self.display, -order.side
        for level in self._reach(order.side, 1 << 62 if order.side > 0 else 1, at_ns):
            qty = self._whole(min(order.left_e8, display.available(side, level)))
            if qty:
                display.take(side, level, qty)
                yield display.price(side, level), qty
            if not order.left_e8:
                return

    def on_state(self) -> None:
        """Follow a sound state of the display: fill what the book has moved onto, then move the queues."""
        if not len(self.queues):
            return
        display = self.display
        for side in (1, -1):
            for order in tuple(self.queues.orders[side]):
                if not self.crosses(side, order.price_e8):
                    break
                for level in self._reach(side, order.price_e8, display.state_ns):
                    if not order.is_open:
                        break
                    qty = self._whole(min(self._most_of(order), display.available(-side, level)))
                    if qty:
                        display.take(-side, level, qty)
                        self._on_match(order, order.price_e8, qty, True)
        self.queues.follow(display.state_ns)

    def on_trade(self, price_e8: int, qty_e8: int, taker_side: int, at_ns: int) -> None:
        """Let a trade of the market reach our orders on the other side of its taker."""
        side = -taker_side
        self.display.last_e8 = price_e8
        orders = self.queues.orders[side]
        if not orders:
            return
        self.queues.note_trade(side, price_e8, qty_e8, at_ns)
        ours = 0
        for order in tuple(orders):
            if side * (order.price_e8 - price_e8) < 0:
                return
            if not order.is_open:
                continue
            # What an earlier order of ours took of the trade does not take from the queue as well.
            reach = self.queues.pass_trade(order, price_e8, qty_e8 - ours, at_ns)
            qty = self._whole(min(self._most_of(order), reach))
            if qty:
                ours += qty
                self._on_match(order, order.price_e8, qty, True)

    def skim(self, rows: Rows, row: int, stop: int, *, waits: bool, triggers: tuple[int, int]) -> int:
        """Take recorded rows until one that may fill an order; see ``gpuscalp.ops.skim``."""
        display, queues = self.display, self.queues
        found: int = skim(
            display.head, display.book, queues.queue, rows.ticks, rows.positions, rows.tops, rows.places,
            row, stop, rows.unit, queues.power, waits, *triggers,
        )  # fmt: skip
        return found

    def _reach(self, side: int, limit_e8: int, at_ns: int) -> Iterator[int]:
        return self.display.reachable(-side, limit_e8, at_ns, self._depth_age_ns)

    def _whole(self, qty_e8: int) -> int:
        return qty_e8 - qty_e8 % self._step_e8


@functools.cache
def compile_ahead() -> None:
    """Compile what an order of a session must not wait for, or load it from the cache, by using it."""
    display = Display()
    queues = Queues(display, "probabilistic", 2)
    display.on_quote(0, 1, 1, 3, 1, sound=True)
    display.on_book(0, [1], [1], [3], [1], sound=True)
    display.take(1, next(display.reachable(1, 1, 0, 0)), 1)
    order = WorkingOrder(1, 0, 1, 1, 1, OrderKind.LIMIT, TimeInForce.GTC, reduce_only=False)
    queues.enter(order, 0)
    queues.note_trade(1, 1, 1, 1)
    queues.pass_trade(order, 1, 1, 1)
    queues.follow(1)
    queues.leave(order)
