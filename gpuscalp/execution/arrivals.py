"""What becomes of an order when it reaches the exchange: refused, taken, left to rest.

Owns: the decisions that need the rules, the money and the book together, and what they look at beside them.
Never: changes an order.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import final

from gpuscalp.config import PaperConfig
from gpuscalp.errors import ExecutionError
from gpuscalp.execution.conditional import Conditional
from gpuscalp.execution.custody import Custody
from gpuscalp.execution.filters import Reject, SymbolRules, check
from gpuscalp.execution.lifecycle import OrderState
from gpuscalp.execution.matching import Matcher
from gpuscalp.execution.messages import OrderKind, OrderRequest, TimeInForce
from gpuscalp.execution.rates import OrderRates
from gpuscalp.execution.working import WorkingOrder
from gpuscalp.orders import BUY, SELL
from gpuscalp.schema import E8

_NO_LIMIT = 1 << 62


@final
class Arrivals:
    """The exchange's judgement.

    Parameters
    ----------
    rules, matchers : S
    orders : all orders that are open or on their way; read only

    Attributes
    ----------
    stops : the orders that wait for their price
    rates : how many orders have come lately
    """

    def __init__(
        self,
        rules: Sequence[SymbolRules],
        custody: Custody,
        matchers: Sequence[Matcher],
        orders: Mapping[int, WorkingOrder],
        config: PaperConfig,
    ) -> None:
        self._rules = rules
        self._custody = custody
        self._matchers = matchers
        self._orders = orders
        self.stops = Conditional([matcher.display for matcher in matchers])
        self.rates = OrderRates(config)
        self._config = config

    def most_of(self, order: WorkingOrder) -> int:
        """Return how much of an order may fill now: a reduce-only one never turns a position around."""
        if not order.reduce_only:
            return order.left_e8
        held = self._custody.held_e8(order.symbol_index)
        return min(order.left_e8, abs(held)) if held * order.side < 0 else 0

    def limit_e8(self, order: WorkingOrder, at_ns: int) -> int:
        """Return the worst price at which an order may take."""
        if order.kind is OrderKind.LIMIT:
            return order.price_e8
        bound = self._rules[order.symbol_index].take_bound_e8
        mark = self._custody.known_mark_e8(order.symbol_index, at_ns)
        if not bound or not mark:
            return _NO_LIMIT if order.side > 0 else 1
        return mark * (E8 + order.side * bound) // E8

    def judge_stop(self, order: WorkingOrder, at_ns: int) -> Reject:
        """Return why a new stop is refused, or NONE. What it would meet is asked when it goes off."""
        index = order.symbol_index
        mark = self._custody.known_mark_e8(index, at_ns)
        code = check(self._rules[index], order, price_e8=order.trigger_e8, mark_e8=mark)
        return code if code is not Reject.NONE else self.stops.judge(order, mark)

    def judge(self, order: WorkingOrder, at_ns: int) -> Reject:
        """Return why a new order, or a stop that has gone off, is refused, or NONE."""
        index = order.symbol_index
        matcher = self._matchers[index]
        mark = self._custody.known_mark_e8(index, at_ns)
        code = check(self._rules[index], order, price_e8=order.price_e8, mark_e8=mark)
        if code is not Reject.NONE:
            return code
        if order.reduce_only and not self.most_of(order):
            return Reject.REDUCE_ONLY
        if len(matcher.queues) >= self._config.max_open_orders:
            return Reject.MAX_ORDERS
        if not self._affords(order):
            return Reject.MARGIN
        limit = self.limit_e8(order, at_ns)
        if order.kind is OrderKind.MARKET and not matcher.crosses(order.side, limit):
            return Reject.TAKE_BOUND
        if order.time_in_force is TimeInForce.GTX and matcher.crosses(order.side, limit):
            return Reject.POST_ONLY
        if (
            order.time_in_force is TimeInForce.FOK
            and matcher.fillable_e8(order, limit, at_ns) < order.left_e8
        ):
            return Reject.FILL_OR_KILL
        return Reject.NONE

    def why_not_rest(self, order: WorkingOrder) -> str:
        """Return why what is left of an order ends after it has taken; "" if it rests."""
        if not self.most_of(order):
            return "reduce_only"
        if order.time_in_force in (TimeInForce.IOC, TimeInForce.FOK):
            return "immediate"
        return ""

    def closing_order(self, order_id: int, symbol_index: int, held_e8: int) -> WorkingOrder:
        """Return the exchange's own order that closes a position."""
        return WorkingOrder(
            order_id=order_id,
            symbol_index=symbol_index,
            side=-1 if held_e8 > 0 else 1,
            qty_e8=abs(held_e8),
            price_e8=0,
            kind=OrderKind.MARKET,
            time_in_force=TimeInForce.IOC,
            reduce_only=True,
            state=OrderState.ACCEPTED,
        )

    def closing_fills(self, order: WorkingOrder, at_ns: int) -> Iterator[tuple[int, int]]:
        """Yield price and quantity of a forced close: the display, then the worse of its end and the mark."""
        matcher = self._matchers[order.symbol_index]
        worst = self._custody.mark_e8[order.symbol_index]
        if matcher.display.sound:
            for price, qty in matcher.sweep(order, at_ns):
                worst = max(worst, price) if order.side > 0 else min(worst, price)
                yield price, qty
        if order.left_e8:
            yield worst, order.left_e8

    def _affords(self, order: WorkingOrder) -> bool:
        """Whether the account can carry an order on top of everything else."""
        if order.reduce_only:
            return True
        open_e8: dict[int, list[int]] = {order.symbol_index: [0, 0]}
        for other in self._orders.values():
            if other is order or other.reduce_only or other.kind is OrderKind.STOP_MARKET:
                continue
            if other.is_open:
                open_e8.setdefault(other.symbol_index, [0, 0])[other.side < 0] += other.left_e8
        positions = self._custody.account.positions
        exposures = {index: _exposure(positions[index].qty_e8, *sums) for index, sums in open_e8.items()}
        for index, position in enumerate(positions):
            if position.qty_e8 and index not in exposures:
                exposures[index] = abs(position.qty_e8)
        before = exposures.pop(order.symbol_index)
        sums = open_e8[order.symbol_index]
        sums[order.side < 0] += order.left_e8
        after = _exposure(positions[order.symbol_index].qty_e8, *sums)
        return self._custody.affords(order.symbol_index, before, after, exposures)


def _exposure(held_e8: int, buys_e8: int, sells_e8: int) -> int:
    return max(abs(held_e8 + buys_e8), abs(held_e8 - sells_e8))


def check_new(request: OrderRequest, last_id: int, symbol_count: int) -> None:
    """Refuse what can only be a mistake of the caller.

    Raises
    ------
    ExecutionError
        the order id is not larger than all before it, or the symbol or the side does not exist
    """
    if request.order_id <= last_id:
        raise ExecutionError(
            "order ids must grow: one is never used twice", where="submit", value=request.order_id
        )
    if not 0 <= request.symbol_index < symbol_count or request.side not in (BUY, SELL):
        raise ExecutionError("no such symbol or side", where="submit", value=request)
