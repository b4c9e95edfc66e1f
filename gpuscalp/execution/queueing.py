"""How far ahead of a resting order the queue still is.

Owns: the queue models. Never: fills. Quantities are ints in 1e-8.

The venue shows how much rests at a price, not where in it we stand. Facts that every model shares:

* At its arrival an order is behind everything that is displayed at its price. Where the book does not show
  the price (outside of the visible levels) it is behind whatever is shown when the price comes into view.
* A trade at the price takes from the front.
* Nobody can be behind more than is displayed.

What the models differ in is a displayed quantity d that leaves without a trade, out of D displayed, with A
of it ahead of us and B = D − A behind:

* pessimistic: it left behind us. Only trades advance us.
* proportional: anyone may have cancelled: A shrinks by d·A/D.
* probabilistic: A shrinks by d·Aⁿ/(Aⁿ + Bⁿ): the longer part has more to lose, more so the larger n is
  (n = 1 is the proportional model; hftbacktest has the same family under the name of power functions).

Book and trades are two streams. A trade whose quantity has already left the display at the same exchange
time is not counted a second time, and a drop that follows a trade is explained by it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Literal, final

from gpuscalp.execution.display import Shown

UNSEEN: Final = 1 << 62  # ahead of us: the book did not show the price

Model = Literal["pessimistic", "probabilistic", "proportional"]


@final
@dataclass(slots=True)
class Place:
    """Where one order stands in its queue.

    Attributes
    ----------
    ahead_e8 : quantity before us; 0 = we are first
    since_ns : a trade counts only if it happened later
    advanced_e8, advanced_ns : how much the display brought us forward at that exchange time, so that trades
        of the same time do not do it again
    """

    ahead_e8: int
    since_ns: int
    advanced_e8: int = 0
    advanced_ns: int = -1

    def pass_trade(self, qty_e8: int, at_ns: int) -> int:
        """Let a trade at our price take from the front; return what of it is left for us and those behind."""
        if at_ns <= self.since_ns:
            return 0
        if at_ns == self.advanced_ns:
            known = min(qty_e8, self.advanced_e8)
            self.advanced_e8 -= known
            qty_e8 -= known
        passed = min(qty_e8, self.ahead_e8)
        self.ahead_e8 -= passed
        return qty_e8 - passed

    def shrink(self, ahead_e8: int, at_ns: int) -> None:
        """Come forward because of the display."""
        if self.advanced_ns != at_ns:
            self.advanced_e8, self.advanced_ns = 0, at_ns
        # From an unseen place nothing is known to have gone.
        if self.ahead_e8 < UNSEEN:
            self.advanced_e8 += self.ahead_e8 - ahead_e8
        self.ahead_e8 = ahead_e8


@final
@dataclass(slots=True)
class Level:
    """The displayed queue at one price where orders of ours rest.

    Attributes
    ----------
    shown_e8 : what the book last showed here; None while out of view
    traded_e8, traded_ns : traded here since the display last changed: it explains the next drop
    dropped_e8, dropped_ns : left the display without a known trade at that exchange time
    """

    shown_e8: Shown
    places: list[Place] = field(default_factory=list)
    traded_e8: int = 0
    traded_ns: int = -1
    dropped_e8: int = 0
    dropped_ns: int = -1

    def on_trade(self, qty_e8: int, at_ns: int) -> None:
        """Note a trade at the price; the places are moved by :meth:`Place.pass_trade`."""
        if at_ns == self.dropped_ns:
            known = min(qty_e8, self.dropped_e8)
            self.dropped_e8 -= known
            qty_e8 -= known
        self.traded_e8 += qty_e8
        self.traded_ns = at_ns

    def on_shown(self, shown_e8: Shown, at_ns: int, model: Model, power: int) -> None:
        """Take what the book shows now and bring the places forward as the model says."""
        before, self.shown_e8 = self.shown_e8, shown_e8
        if shown_e8 is None:
            return
        left = 0
        if before is not None and shown_e8 < before:
            drop = before - shown_e8
            left = drop - min(self.traded_e8, drop)
            self.traded_e8 -= drop - left
            if self.dropped_ns != at_ns:
                self.dropped_e8, self.dropped_ns = 0, at_ns
            self.dropped_e8 += left
        if at_ns > self.traded_ns:
            self.traded_e8 = 0
        for place in self.places:
            ahead = place.ahead_e8
            if left and before is not None and model != "pessimistic" and ahead < UNSEEN:
                ahead -= _share(left, ahead, max(ahead, before), 1 if model == "proportional" else power)
            ahead = min(ahead, shown_e8)
            if ahead != place.ahead_e8:
                place.shrink(ahead, at_ns)


def _share(drop: int, ahead: int, shown: int, power: int) -> int:
    """Return how much of a drop was ahead of us; rounded down, in exact integers."""
    front, back = ahead**power, (shown - ahead) ** power
    return min(ahead, drop * front // (front + back)) if front else 0
