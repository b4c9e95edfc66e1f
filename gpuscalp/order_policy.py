"""How a position is entered, and what protects it: post-only entries, brackets, and when they end.

Owns: which orders of a trader are to be cancelled, which protective ones to be placed, at which prices.
Never: sends, sizes an entry, judges an order (the risk gate does), or acts between two steps of the trader.

An entry that rests is cancelled when its time is up, when it would not be opened now, or when the model has
changed its mind. What it has not got is then taken once, if the model still wants it, or left.

A bracket is compared with the position at every step, and brought in line with it: after a part of an entry,
after a part of a take-profit, after a restart alike. All of it can only reduce. A stop that the exchange has
ended without being asked protects nothing any more: the position is closed at the market.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final, final

import numpy as np

from gpuscalp.account import Position, fee_rate_e8
from gpuscalp.config import OrdersConfig
from gpuscalp.open_orders import Alive, OpenOrders, is_protective
from gpuscalp.orders import Intent, IntentKind, Order, OrderKind, TimeInForce
from gpuscalp.schema import E8, I64, NS_PER_MS, NS_PER_S, Instrument

TAKE_PROFIT: Final = "take_profit"
STOP_LOSS: Final = "stop_loss"
# How long the answer to a cancellation is waited for before the next try, or a refused take-profit or exit.
_AGAIN_NS: Final = 2 * NS_PER_S
# So often that doubles while all entries of a symbol are refused: to half a minute, or GpuscalpOrderRejects
# would fall silent while the exchange still refuses.
_DOUBLINGS: Final = 4


@dataclass(frozen=True, slots=True)
class Wanted:
    """An order that would protect a position; at the market where ``kind`` is MARKET."""

    symbol_index: int
    side: int
    qty_e8: int
    reason: str
    kind: OrderKind
    price_e8: int

    def intent(self) -> Intent:
        """Return it in the terms of the risk gate."""
        return Intent(self.symbol_index, self.side, IntentKind.EXIT, None, self.reason, 0.0, 0.0, 0.0, 0.0)

    def shape(self, order: Order) -> Order:
        """Return a market order as this one."""
        if self.kind is OrderKind.MARKET:
            return order
        return replace(
            order,
            qty_e8=self.qty_e8,
            kind=self.kind,
            time_in_force=TimeInForce.GTC,
            price_e8=self.price_e8,
        )


@final
class OrderPolicy:
    """The rules for S symbols.

    Parameters
    ----------
    config : section ``orders``
    instruments : S
    orders : of the trader
    hold_ns : how long a position is held; no entry rests longer

    Attributes
    ----------
    rests_e8 : int64[S] or None  signed rest of an entry that may be taken at this step; None = never
    again_ns : int64[S]          until then no entry or exit of a symbol follows one that was refused
    """

    def __init__(
        self, config: OrdersConfig, instruments: Sequence[Instrument], orders: OpenOrders, *, hold_ns: int
    ) -> None:
        self._config = config
        self._instruments = tuple(instruments)
        self._orders = orders
        self._rest_ns = min(config.post_only_ms * NS_PER_MS, hold_ns)
        takes = config.entry == "post_only" and config.then == "take"
        self.rests_e8: I64 | None = np.zeros(len(instruments), np.int64) if takes else None
        self.again_ns = np.zeros(len(instruments), np.int64)
        self._refusals = [0] * len(instruments)  # of entries, one after the other
        # Symbols whose stop has ended unasked, and until when no new take-profit is tried.
        self._bare: set[int] = set()
        self._later_ns: dict[int, int] = {}

    # Entries

    @property
    def rests_first(self) -> bool:
        """Whether entries rest."""
        return self._config.entry == "post_only"

    def rest_of(self, intent: Intent) -> int:
        """Return how much of an ended entry may be taken by an intent to enter; 0 = it is an entry anew."""
        if self.rests_e8 is None:
            return 0
        return max(0, intent.side * int(self.rests_e8[intent.symbol_index]))

    def shape_entry(self, order: Order, price_e8: int) -> Order:
        """Return an entry as the limit order that it is to be."""
        kind, time_in_force = OrderKind.LIMIT, TimeInForce.GTX
        return replace(order, kind=kind, time_in_force=time_in_force, price_e8=price_e8)

    def forget_rests(self) -> None:
        """Leave what was not taken at this step."""
        if self.rests_e8 is not None:
            self.rests_e8[:] = 0

    # Cancellations

    def to_cancel(self, now_ns: int, end_ns: int, held: I64, unwanted: Callable[[Order], bool]) -> list[int]:
        """Return the open orders whose end is due, oldest first, and note that it is asked for.

        Parameters
        ----------
        now_ns, end_ns : of the decision, and of its frame
        held : int64[S]  signs of the positions
        unwanted : whether nobody wants an entry any more that rests
        """
        due = []
        for alive in self._orders.by_id.values():
            order, asked_ns = alive.order, alive.asked_ns
            if is_protective(order):
                # A position that somebody else has turned is held too; and what was replaced is to end,
                # whatever is held: nothing counts it as protection any more.
                over = held[order.symbol_index] * order.side >= 0 or asked_ns is not None
            elif order.kind is OrderKind.LIMIT:
                over = end_ns - order.decided_ns >= self._rest_ns or unwanted(order)
            else:
                continue
            if over and (asked_ns is None or now_ns - asked_ns >= _AGAIN_NS):
                due.append(alive)
        return self._orders.ask(due, now_ns)

    def on_done(self, alive: Alive, now_ns: int, *, held: bool, refused: bool) -> None:
        """Draw the conclusions from the end of an order.

        Parameters
        ----------
        held : there is a position; without one nothing needs protection
        refused : the exchange has not taken it, and not because it would not have rested
        """
        order, index = alive.order, alive.order.symbol_index
        if not (refused or order.reduce_only):
            self._refusals[index] = 0
        if not alive.left_e8:
            return
        if is_protective(order):
            if alive.asked_ns is not None or not held:
                return
            if order.kind is OrderKind.STOP_MARKET:
                self._bare.add(index)
            else:
                self._later_ns[index] = now_ns + _AGAIN_NS
        elif order.reduce_only:
            if refused and held:
                self.again_ns[index] = now_ns + _AGAIN_NS
        elif refused:
            if not held:  # else the exit would wait for an entry; and a rest is taken once
                self.again_ns[index] = now_ns + (_AGAIN_NS << self._refusals[index])
                self._refusals[index] = min(self._refusals[index] + 1, _DOUBLINGS)
        elif order.kind is OrderKind.LIMIT and self.rests_e8 is not None:
            self.rests_e8[index] = order.side * alive.left_e8

    # Brackets

    @property
    def protects(self) -> bool:
        """Whether positions get a bracket."""
        return self._config.take_profit_bps is not None or self._config.stop_loss_bps is not None

    def protection(
        self, index: int, position: Position, closing_e8: int, now_ns: int
    ) -> list[tuple[Wanted, list[Alive]]]:
        """Return what a held symbol lacks, each with the open orders that it would replace.

        Nothing of it is noted: whoever sends it asks for the end of what it replaces.

        Parameters
        ----------
        closing_e8 : price at which the position could be closed now; 0 = not known
        """
        side, qty = -position.side, abs(position.qty_e8)
        at_once: list[tuple[Wanted, list[Alive]]] = []
        if now_ns >= self.again_ns[index]:
            at_once.append((Wanted(index, side, qty, STOP_LOSS, OrderKind.MARKET, 0), []))
        if index in self._bare:
            return at_once
        guards = self._orders.guards(index)
        target, stop = self._prices(index, position)
        lacking: list[tuple[Wanted, list[Alive]]] = []
        # A stop is a market order once it has gone off: of a larger position it protects so much.
        for reason, kind, price, size in (
            (STOP_LOSS, OrderKind.STOP_MARKET, stop, self._instruments[index].at_market_e8(qty)),
            (TAKE_PROFIT, OrderKind.LIMIT, target, qty),
        ):
            there = [each for each in guards if (each.order.kind, each.order.side) == (kind, side)]
            if price <= 0 or any(each.left_e8 == size for each in there):
                continue
            if kind is OrderKind.STOP_MARKET and closing_e8 and side * (closing_e8 - price) >= 0:
                return at_once  # the exchange would refuse it: it would trigger at once
            if kind is OrderKind.STOP_MARKET or now_ns >= self._later_ns.get(index, now_ns):
                lacking.append((Wanted(index, side, size, reason, kind, price), there))
        return lacking

    def on_flat(self, index: int) -> None:
        """Forget what was known of a position that is closed."""
        self._bare.discard(index)
        self.again_ns[index] = 0
        self._later_ns.pop(index, None)

    def _prices(self, index: int, position: Position) -> tuple[int, int]:
        """Return take-profit and stop; 0 = none.

        Distances from the average entry price. The tick is rounded in our favour: a target never gives less
        than was asked for, a stop never loses more.
        """
        side, tick = position.side, self._instruments[index].tick_size_e8
        target, stop = (
            0 if bps is None else bracket_price_e8(position, bps, sign, tick)
            for bps, sign in (
                (self._config.take_profit_bps, side),
                (self._config.stop_loss_bps, -side),
            )
        )
        return target, stop


def bracket_price_e8(position: Position, bps: float, sign: int, tick_size_e8: int) -> int:
    """Return the price at a distance from a position's average entry price, to the tick.

    Parameters
    ----------
    sign : above the entry price, or below
    """
    value = abs(position.cost_e8) * (E8 + sign * fee_rate_e8(bps))
    unit = abs(position.qty_e8) * tick_size_e8
    return tick_size_e8 * (-(-value // unit) if position.side > 0 else value // unit)
