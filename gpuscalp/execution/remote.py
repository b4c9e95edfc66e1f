"""Orders that are carried out elsewhere: what was sent, and what an exchange has told of it.

Owns: one book over all that is heard, whichever way it comes: a trade counts once, by the exchange's own
number, and an order has ended when the trades that belong to it are there. Never: sends, asks, or knows a
clock. It follows from its inputs alone, so that a journal of them makes it again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, final

from msgspec import Struct

from gpuscalp.account import Account
from gpuscalp.execution.lifecycle import OrderState
from gpuscalp.execution.messages import OrderKind, OrderRequest, Report, ReportKind
from gpuscalp.orders import Fill

# Ids of the exchange's own orders, and of those that somebody else has sent.
FOREIGN: Final = -1
_ENDS: Final = {
    ReportKind.CANCELED: OrderState.CANCELED,
    ReportKind.EXPIRED: OrderState.EXPIRED,
    ReportKind.REJECTED: OrderState.REJECTED,
}


class Heard(Struct, frozen=True, omit_defaults=True):
    """One thing that was heard of the exchange, by its stream or by asking.

    Attributes
    ----------
    at_ns, known_ns : exchange time, when it happened and when it was heard
    order_id : ours; ``FOREIGN`` for orders of others; 0 where it concerns none
    symbol : index; -1 where it concerns none, or the whole account
    venue_id : the exchange's number of the order; 0 if not known
    trade_id : the exchange's number of the trade; of SEEN: all trades of the symbol up to it are dealt with
    side, qty_e8, price_e8, fee_e8, maker : of a fill; fees in the quote currency
    executed_e8 : of an order that has ended: how much of it was filled; -1 if not told
    money_e8 : of FUNDING: received (negative: paid); of UNEXPLAINED: balance at the exchange less ours
    """

    kind: ReportKind
    at_ns: int
    known_ns: int
    order_id: int = 0
    symbol: int = -1
    venue_id: int = 0
    trade_id: int = 0
    side: int = 0
    qty_e8: int = 0
    price_e8: int = 0
    fee_e8: int = 0
    maker: bool = False
    executed_e8: int = -1
    money_e8: int = 0
    code: int = 0
    reason: str = ""


@dataclass(slots=True)
class RemoteOrder:
    """An order of ours that has not ended.

    Attributes
    ----------
    request : as it was sent
    state : as far as it was told
    left_e8 : not filled yet, by the trades that were told
    venue_id : the exchange's number; 0 until it is known
    cancelling : its end was asked for
    ending : how it has ended, while trades that belong to it are still missing
    executed_e8 : how much of it was filled, as told with its end
    """

    request: OrderRequest
    state: OrderState
    left_e8: int
    venue_id: int = 0
    cancelling: bool = False
    ending: Heard | None = None
    executed_e8: int = -1

    @property
    def filled_e8(self) -> int:
        return self.request.qty_e8 - self.left_e8


@dataclass(frozen=True, slots=True)
class Sending:
    """What has to leave: a new order, or (``request`` is None) the end of one."""

    order_id: int
    request: OrderRequest | None


@final
class RemoteBroker:
    """The broker of a session whose orders go to an exchange.

    The caller sends what ``unsent`` returns, and brings everything that is told to ``take``.

    Parameters
    ----------
    start_e8 : the exchange's wallet when the session began
    symbol_count : S

    Attributes
    ----------
    account : the money and positions as the exchange has told them
    orders : our orders that have not ended, by id
    seen : S trade numbers up to which everything is dealt with; -1 before the first look
    duplicate_count : trades that were told again
    unexplained_e8 : balance at the exchange less ours, as far as it was confirmed that nothing explains it
    moves : S counts of what may have changed what the account has: trades, orders that the exchange has
        taken, and their ends; not stops, and not what it has refused
    """

    def __init__(self, start_e8: int, symbol_count: int) -> None:
        self.account = Account(start_e8, symbol_count)
        self.orders: dict[int, RemoteOrder] = {}
        self.seen = [-1] * symbol_count
        self.duplicate_count = 0
        self.unexplained_e8 = 0
        self.moves = [0] * symbol_count
        self._trades: list[set[int]] = [set() for _ in range(symbol_count)]
        self._unsent: list[Sending] = []

    def submit(self, request: OrderRequest, sent_ns: int) -> None:  # noqa: ARG002
        self.orders[request.order_id] = RemoteOrder(request, OrderState.NEW, request.qty_e8)
        self._unsent.append(Sending(request.order_id, request))

    def cancel(self, order_id: int, sent_ns: int) -> None:  # noqa: ARG002
        if order_id in self.orders:
            self.orders[order_id].cancelling = True
            self._unsent.append(Sending(order_id, None))

    def advance(self, exch_ns: int) -> Sequence[Report]:  # noqa: ARG002
        """Nothing happens by time alone: the exchange tells it."""
        return ()

    def unsent(self) -> list[Sending]:
        """Return what has to leave, once."""
        sending, self._unsent = self._unsent, []
        return sending

    def quiet(self, since: Sequence[int]) -> frozenset[int]:
        """Return the symbols in which nothing has moved since, and nothing is under way."""
        orders = self.orders.values()
        waiting = {each.request.symbol_index for each in orders if each.state is OrderState.NEW}
        return frozenset(
            index
            for index, (before, now) in enumerate(zip(since, self.moves, strict=True))
            if before == now and index not in waiting
        )

    def knows(self, symbol: int, trade_id: int) -> bool:
        """Whether a trade is booked or older than the session."""
        return trade_id <= self.seen[symbol] or trade_id in self._trades[symbol]

    def take(self, heard: Heard) -> list[Report]:
        """Take what was told; return what the trader has to hear of it."""
        kind = heard.kind
        if kind is ReportKind.FILL:
            return self._fill(heard)
        if kind is ReportKind.SEEN:
            self.seen[heard.symbol] = heard.trade_id
            self._trades[heard.symbol] = {
                each for each in self._trades[heard.symbol] if each > heard.trade_id
            }
            return []
        if kind is ReportKind.UNEXPLAINED:
            self.unexplained_e8 = heard.money_e8
            return []
        if kind is ReportKind.FUNDING:
            self.account.receive_funding(heard.money_e8)
            return [_report(heard)]
        if heard.order_id <= 0:
            return [_report(heard)]
        order = self.orders.get(heard.order_id)
        if order is None:  # it has ended: said once more
            return []
        order.venue_id = heard.venue_id or order.venue_id
        if kind is ReportKind.ACCEPTED:
            if order.state is not OrderState.NEW:
                return []
            order.state = OrderState.ACCEPTED
            self._move(order.request)
            return [_report(heard, state=order.state, left_e8=order.left_e8)]
        if kind not in _ENDS:
            order.cancelling &= kind is not ReportKind.CANCEL_REJECTED
            return [_report(heard, state=order.state, left_e8=order.left_e8)]
        order.ending, order.executed_e8 = heard, heard.executed_e8
        return self._end(order)

    def _fill(self, heard: Heard) -> list[Report]:
        index = heard.symbol
        if heard.trade_id:
            if self.knows(index, heard.trade_id):
                self.duplicate_count += 1
                return []
            self._trades[index].add(heard.trade_id)
        self.moves[index] += 1
        order = self.orders.get(heard.order_id)
        realised = self.account.apply_fill(index, heard.side * heard.qty_e8, heard.price_e8, heard.fee_e8)
        if order is None:
            return [_report(heard, order_id=FOREIGN, realised_e8=realised)]
        order.left_e8 -= heard.qty_e8
        order.venue_id = heard.venue_id or order.venue_id
        order.state = OrderState.PARTIALLY_FILLED if order.left_e8 > 0 else OrderState.FILLED
        report = _report(heard, state=order.state, left_e8=order.left_e8, realised_e8=realised)
        if order.left_e8 <= 0:
            del self.orders[heard.order_id]
            return [report]
        return [report, *(self._end(order) if order.ending else ())]

    def _end(self, order: RemoteOrder) -> list[Report]:
        """End an order if no trade of it is missing."""
        ending = order.ending
        assert ending is not None
        if order.filled_e8 < order.executed_e8:
            return []
        del self.orders[order.request.order_id]
        if ending.kind is not ReportKind.REJECTED:
            self._move(order.request)
        return [_report(ending, state=_ENDS[ending.kind], left_e8=order.left_e8)]

    def _move(self, request: OrderRequest) -> None:
        """Note that the exchange has taken or ended an order. A stop changes nothing until it trades."""
        self.moves[request.symbol_index] += request.kind is not OrderKind.STOP_MARKET


def _report(
    heard: Heard,
    *,
    order_id: int | None = None,
    state: OrderState | None = None,
    left_e8: int = 0,
    realised_e8: int = 0,
) -> Report:
    number = heard.order_id if order_id is None else order_id
    fill = None
    if heard.kind is ReportKind.FILL:
        fill = Fill(
            order_id=number,
            symbol_index=heard.symbol,
            side=heard.side,
            qty_e8=heard.qty_e8,
            price_e8=heard.price_e8,
            fee_e8=heard.fee_e8,
            exec_ns=heard.at_ns,
            mid2_e8=0,
        )
    return Report(
        kind=heard.kind,
        order_id=number,
        symbol_index=heard.symbol,
        at_ns=heard.at_ns,
        known_ns=heard.known_ns,
        state=state,
        code=heard.code,
        reason=heard.reason,
        left_e8=left_e8,
        fill=fill,
        maker=heard.maker,
        money_e8=heard.money_e8 + realised_e8,
    )
