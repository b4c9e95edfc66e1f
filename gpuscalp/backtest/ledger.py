"""Round trips and where their profit came from, exact to the unit.

Owns: trades (flat to flat) and their cost components. Never: decides or fills.

For every fill four prices are known: the mid at the decision, the mid of the book that was hit, the best
price of the side that was hit, and the price paid. Summed over a round trip with the sign of the order they
split the profit without a remainder:

    gross  = −Σ value at the decision's mid           what the signal was worth
    delay  = −Σ (value at the book's mid − above)     what the market did while the order was on its way
    spread = −Σ (value at the best price − above)     half spreads: paid by who takes, earned by who rested
    impact = −Σ (value at the price − above)          levels walked behind the best one; never positive
    profit = gross + delay + spread + impact − fees + funding

Delay and impact together are the slippage. No decision chose the moment of a target, a stop or a liquidation:
the mid of the book stands in for that of the decision, so what the market moved until then is the signal's,
and the price it was closed at counts as spread and impact.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeGuard, final

from gpuscalp.account import divide_half_even, notional_e8
from gpuscalp.open_orders import is_protective
from gpuscalp.orders import Fill, Intent, Order
from gpuscalp.schema import E8


@dataclass(frozen=True, slots=True)
class Execution:
    """One fill of a trade and what it contributed. Money in 1e-8 of the quote currency.

    Attributes
    ----------
    decided_ns : of the order; of the fill itself where no order of ours asked for it
    decision_mid2_e8 : mid from which delay is measured; that of the book where nothing chose the moment
    maker : whether the order had been resting
    gross_e8, delay_e8, spread_e8, impact_e8 : their sum is what was received (positive) or paid
    """

    fill: Fill
    is_entry: bool
    maker: bool
    decided_ns: int
    decision_mid2_e8: int
    gross_e8: int
    delay_e8: int
    spread_e8: int
    impact_e8: int

    @classmethod
    def of(cls, fill: Fill, order: Order | None, *, is_entry: bool, maker: bool) -> Execution:
        """Split what one fill paid; a fill that does not know the best price has no impact."""
        signed = fill.side * fill.qty_e8
        decision_mid2_e8 = order.mid2_e8 if is_chosen(order) else fill.mid2_e8
        at_decision = divide_half_even(decision_mid2_e8 * signed, 2 * E8)
        at_book = divide_half_even(fill.mid2_e8 * signed, 2 * E8)
        at_touch = notional_e8(fill.touch_e8 or fill.price_e8, signed)
        return cls(
            fill=fill,
            is_entry=is_entry,
            maker=maker,
            decided_ns=fill.exec_ns if order is None else order.decided_ns,
            decision_mid2_e8=decision_mid2_e8,
            gross_e8=-at_decision,
            delay_e8=at_decision - at_book,
            spread_e8=at_book - at_touch,
            impact_e8=at_touch - notional_e8(fill.price_e8, signed),
        )


@dataclass(slots=True)
class Trade:
    """One round trip of one symbol. Money in 1e-8 of the quote currency.

    ``entry`` is the intent that opened it; times are exchange times, ``*_ns`` of the decision and of the
    first (entry) or last (exit) fill, which stands in for a decision where none chose its moment;
    ``executions`` are in their order.
    """

    symbol_index: int
    side: int
    entry: Intent
    entry_decided_ns: int
    entry_ns: int
    exit_reason: str = ""
    exit_decided_ns: int = 0
    exit_ns: int = 0
    qty_e8: int = 0  # of all that entered
    entry_notional_e8: int = 0
    exit_notional_e8: int = 0
    exit_qty_e8: int = 0
    gross_e8: int = 0
    delay_e8: int = 0
    spread_e8: int = 0
    impact_e8: int = 0
    fees_e8: int = 0
    funding_e8: int = 0
    executions: list[Execution] = field(default_factory=list)

    @property
    def fill_count(self) -> int:
        return len(self.executions)

    @property
    def moved_e8(self) -> int:
        """Profit before fees and funding: what the prices alone made of it."""
        return self.gross_e8 + self.delay_e8 + self.spread_e8 + self.impact_e8

    @property
    def pnl_e8(self) -> int:
        return self.moved_e8 - self.fees_e8 + self.funding_e8

    @property
    def entry_price(self) -> float:
        return self.entry_notional_e8 / self.qty_e8

    @property
    def exit_price(self) -> float:
        return self.exit_notional_e8 / self.exit_qty_e8 if self.exit_qty_e8 else float("nan")

    @property
    def pnl_bps(self) -> float:
        return 1e4 * self.pnl_e8 / self.entry_notional_e8


@final
@dataclass(slots=True)
class Ledger:
    """Follows fills and funding of all symbols and closes a trade whenever a symbol is flat again.

    It expects what the trader does: entries to one side, and orders that only reduce, which may come between
    them: a target takes its part while the entry still rests. Money in 1e-8.
    """

    closed: list[Trade] = field(default_factory=list)
    open: dict[int, Trade] = field(default_factory=dict)
    _held_e8: dict[int, int] = field(default_factory=dict)

    def on_fill(self, fill: Fill, order: Order | None, *, maker: bool = False) -> None:
        """Book one execution into the trade it belongs to; without an order of ours it is a liquidation's."""
        index = fill.symbol_index
        trade = self.open.get(index)
        if trade is None:
            assert order is not None, "a liquidation closes what an order has opened"
            trade = Trade(index, fill.side, order.intent, order.decided_ns, fill.exec_ns)
            self.open[index] = trade
        signed = fill.side * fill.qty_e8
        paid = notional_e8(fill.price_e8, signed)
        done = Execution.of(fill, order, is_entry=fill.side == trade.side, maker=maker)
        trade.gross_e8 += done.gross_e8
        trade.delay_e8 += done.delay_e8
        trade.spread_e8 += done.spread_e8
        trade.impact_e8 += done.impact_e8
        trade.fees_e8 += fill.fee_e8
        trade.executions.append(done)
        held = self._held_e8.get(index, 0) + signed
        self._held_e8[index] = held
        if done.is_entry:
            trade.qty_e8 += fill.qty_e8
            trade.entry_notional_e8 += abs(paid)
        else:
            assert held * trade.side >= 0, "an exit never turns a position around"
            trade.exit_qty_e8 += fill.qty_e8
            trade.exit_notional_e8 += abs(paid)
            trade.exit_ns = fill.exec_ns
            trade.exit_decided_ns = order.decided_ns if is_chosen(order) else fill.exec_ns
            trade.exit_reason = "liquidation" if order is None else order.intent.reason
        if held == 0:
            self.closed.append(self.open.pop(index))

    def on_funding(self, symbol_index: int, payment_e8: int) -> None:
        """Book funding into the open trade of a symbol."""
        if payment_e8:
            self.open[symbol_index].funding_e8 += payment_e8


def is_chosen(order: Order | None) -> TypeGuard[Order]:
    """Whether a decision chose the moment of a fill: not of a liquidation, nor of a target or a stop.

    Those were placed long before, at a price; that the market came to it is no delay of theirs.
    """
    return order is not None and not is_protective(order)
