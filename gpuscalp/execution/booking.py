"""Between a trader and a broker: orders become requests, reports become bookings.

Owns: which call of the trader each kind of report means. Never: sends, waits, or decides.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from gpuscalp.errors import ExecutionError
from gpuscalp.execution.filters import Reject
from gpuscalp.execution.lifecycle import ENDED, OrderState
from gpuscalp.execution.messages import OrderRequest, Report, ReportKind
from gpuscalp.orders import Fill, Order
from gpuscalp.trader import Trader


@dataclass(frozen=True, slots=True)
class BookedFill:
    """One execution as the trader booked it.

    Attributes
    ----------
    order : ours; None for an order of the exchange itself (liquidation)
    realised_e8 : profit that the execution realised, before its fee
    maker : whether the order had been resting
    """

    fill: Fill
    order: Order | None
    realised_e8: int
    maker: bool


def request_of(order: Order) -> OrderRequest:
    """Return an order of the trader as a broker takes it."""
    return OrderRequest(
        order_id=order.order_id,
        symbol_index=order.symbol_index,
        side=order.side,
        qty_e8=order.qty_e8,
        price_e8=order.price_e8,
        kind=order.kind,
        time_in_force=order.time_in_force,
        reduce_only=order.reduce_only,
    )


def in_turn(
    orders: Iterable[tuple[Order, int]], cancels: Iterable[tuple[int, int]]
) -> Iterator[tuple[Order | int, int]]:
    """Yield orders and ids to be cancelled in the order in which they have to leave, with their times.

    Cancellations come first, so that what is replaced is gone before what replaces it, but for one of an
    order that leaves only now: several frames were decided on at once.
    """
    orders = tuple(orders)
    new, late = {order.order_id for order, _ in orders}, []
    for order_id, at_ns in cancels:
        if order_id in new:
            late.append((order_id, at_ns))
        else:
            yield order_id, at_ns
    yield from orders
    yield from late


def book(trader: Trader, report: Report) -> BookedFill | None:
    """Apply one report to a trader; reports must come in their order, each once.

    Returns
    -------
    BookedFill for an execution, None for everything else

    Raises
    ------
    ExecutionError
        the report is about an order of ours that is not open; nothing has been booked
    """
    if report.kind is ReportKind.FUNDING:
        trader.on_funding(report.symbol_index, report.money_e8)
        return None
    order = trader.open_orders.get(report.order_id)
    ended = report.state in ENDED
    if report.kind is not ReportKind.FILL or report.fill is None:
        if ended:
            _known(order, report)
            # A post-only order that would have taken is an ordinary one that got nothing: the next may rest.
            refused = report.state is OrderState.REJECTED and report.code != Reject.POST_ONLY
            trader.on_done(report.order_id, refused=refused)
        return None
    if report.order_id < 0:
        return BookedFill(report.fill, None, trader.on_foreign_fill(report.fill), report.maker)
    order = _known(order, report)
    realised = trader.on_fill(report.fill)
    if ended:
        trader.on_done(report.order_id)
    return BookedFill(report.fill, order, realised, report.maker)


def _known(order: Order | None, report: Report) -> Order:
    if order is None:
        raise ExecutionError(
            f"the broker reports {report.kind} for an order that is not open",
            where=f"order {report.order_id}",
            fix="halt, and compare orders and positions with the exchange before trading on",
        )
    return order
