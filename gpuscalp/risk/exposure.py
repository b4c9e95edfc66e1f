"""What is held and what is on its way, at prices to be believed: the values that sizes and limits look at.

Owns: the last two-sided quote of each symbol, what values it, and the arithmetic. Never: decides, or books.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import final

from gpuscalp.account import Account, notional_e8
from gpuscalp.open_orders import OpenOrders
from gpuscalp.ops.skim import DOUBT
from gpuscalp.orders import MarketRow
from gpuscalp.schema import E8, NS_PER_MS, Instrument


@final
class Exposure:
    """Values of S symbols, in units.

    Parameters
    ----------
    instruments : S
    account, orders : of the trader; read only
    old_ms : beyond this age a quote alone is not believed

    Attributes
    ----------
    account, orders : as given
    bid_e8, ask_e8 : last two-sided quote, 0 before the first
    holding : indices of symbols with a position; the trader keeps it
    """

    def __init__(
        self, instruments: Sequence[Instrument], account: Account, orders: OpenOrders, *, old_ms: int
    ) -> None:
        self.bid_e8 = [0] * len(instruments)
        self.ask_e8 = [0] * len(instruments)
        self.holding: set[int] = set()
        self._old_ns = old_ms * NS_PER_MS
        # The last sound quote with its time, and what is made of it: the worst prices that a long position
        # and a short one may have to be closed at.
        self._sound = [(0, 0, 0)] * len(instruments)
        self._worst_e8 = [(0, 0)] * len(instruments)
        self._tick_e8 = [instrument.tick_size_e8 for instrument in instruments]
        self.account = account
        self.orders = orders

    def watched(self) -> set[int]:
        """Symbols that carry risk: held, or with an order on its way."""
        if not len(self.orders):
            return self.holding
        return self.holding | {alive.order.symbol_index for alive in self.orders.by_id.values()}

    def note_quote(self, market: MarketRow, index: int) -> None:
        """Remember the last two-sided quote, and value the symbol.

        One in doubt values nothing that was at stake before it: the value of before stays. Where the last
        sound quote is old, the mark counts as well, if it is worse: the exchange goes by it, and a quote that
        stands still hides what a position has lost.
        """
        bid, ask = int(market.bid_px[index]), int(market.ask_px[index])
        if bid > 0 and ask > 0:
            bid, ask = bid * self._tick_e8[index], ask * self._tick_e8[index]
            self.bid_e8[index], self.ask_e8[index] = bid, ask
            at_stake = index in self.holding or self.orders.waiting[index]
            if not (at_stake and int(market.quality[index]) & DOUBT):
                age_ms = float(market.age_ms[index])
                since_ns = market.end_ns - round(age_ms * NS_PER_MS) if math.isfinite(age_ms) else 0
                self._sound[index] = (bid, ask, since_ns)
        low, high, since_ns = self._sound[index]
        mark = float(market.mark[index])
        if mark > 0 and market.end_ns - since_ns > self._old_ns:
            mark_e8 = round(mark * E8)
            low, high = min(low or mark_e8, mark_e8), max(high, mark_e8)
        self._worst_e8[index] = (low, high)

    def touch_e8(self, index: int, side: int) -> int:
        """Return the price that stands on one side of the quote: the bid for +1, the ask for -1."""
        return (self.bid_e8 if side > 0 else self.ask_e8)[index]

    def sound_e8(self, market: MarketRow, index: int, side: int) -> int:
        """Return the same, 0 where that quote is in doubt."""
        return 0 if int(market.quality[index]) & DOUBT else self.touch_e8(index, side)

    def forget(self, index: int) -> None:
        """Let nothing that was seen before value a position that is about to be taken over."""
        if index not in self.holding:
            self._sound[index], self._worst_e8[index] = (0, 0, 0), (0, 0)

    def closing_values_e8(self) -> dict[int, int]:
        """Signed value of each open position at the side of the quote it would be closed at; see note_quote.

        Before the first price it is what the position has cost: one that was taken over may be older.
        """
        values = {}
        for index in sorted(self.holding):
            position = self.account.positions[index]
            price_e8 = self._worst_e8[index][position.side < 0]
            values[index] = position.value_e8(price_e8) if price_e8 else position.cost_e8
        return values

    def equity_e8(self, values: dict[int, int]) -> int:
        """Return the equity with positions at these values."""
        return self.account.wallet_e8 + sum(
            value - self.account.positions[index].cost_e8 for index, value in values.items()
        )

    def others_e8(self, index: int) -> tuple[int, int]:
        """Return what is on its way in a symbol, and all that is held or on its way in the others.

        At the ask, the larger side; a position as if it were short, or at its cost. An order on its way is
        counted in full on top of the position, whichever side it has, unless it can only reduce.
        """
        opened: dict[int, int] = {}
        for alive in self.orders.by_id.values():
            if not alive.order.reduce_only:
                at = alive.order.symbol_index
                opened[at] = opened.get(at, 0) + notional_e8(self.ask_e8[at], alive.left_e8)
        held = 0
        for other in self.holding - {index}:
            position, price_e8 = self.account.positions[other], self._worst_e8[other][1]
            held += abs(position.value_e8(price_e8) if price_e8 else position.cost_e8)
        here = opened.pop(index, 0)
        return here, held + sum(opened.values())
