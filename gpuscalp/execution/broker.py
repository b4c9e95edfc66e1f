"""The paper broker: an exchange made of a recorded or live market, latencies and rules.

Owns: the order of events in time, orders from arrival to end, and the reports about them. The parts are
elsewhere: display and matching (one symbol), queueing, filters, custody (money), latency, lifecycle.
Never: reads a clock, draws unseeded numbers, or lets an order be earlier than its arrival.

At one instant the market comes first: a state of the book and its fills, then requests that arrive, then
funding, then a look at the margin of what has no mark price. See docs/paper_broker.md for every assumption.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import final

from gpuscalp.config import CostConfig, PaperConfig
from gpuscalp.execution.arrivals import Arrivals, check_new
from gpuscalp.execution.custody import NEVER, Custody
from gpuscalp.execution.filters import Reject, SymbolRules
from gpuscalp.execution.latency import legs
from gpuscalp.execution.lifecycle import OrderEvent
from gpuscalp.execution.matching import Matcher, Rows, compile_ahead
from gpuscalp.execution.messages import OrderRequest, Report, ReportKind
from gpuscalp.execution.outbox import Outbox, execution
from gpuscalp.execution.timetable import Due, RequestKind, Timetable
from gpuscalp.execution.working import WorkingOrder
from gpuscalp.orders import OrderKind
from gpuscalp.schema import NS_PER_MS, NS_PER_S, Instrument


@final
class PaperBroker:
    """One account at a paper exchange of S symbols.

    Tell it the market by ``on_*`` in the order of arrival and the time by :meth:`advance`; both return what
    happened meanwhile, in the order of time. Its clock is the exchange's and never goes back: a late market
    event is taken at the present. Reports carry ``known_ns``: put them into an Inbox to hear of them no
    sooner than a real client would.

    Parameters
    ----------
    instruments : S
    cost : maker and taker fees
    paper : latencies, queue model, margin; see PaperConfig
    start_e8 : wallet at the start, 1e-8 of the quote currency
    before_look : called with each symbol whose book is about to be read out of its turn, for whoever leaves
        rows untaken: until it returns, :meth:`skim` may bring that book up to date

    Attributes
    ----------
    account : exact; what is true at the exchange, before its reports have come back
    orders : open or on their way, by id
    displays : S books as the broker has been told of them
    now_ns : exchange time of the last event
    """

    def __init__(
        self,
        instruments: Sequence[Instrument],
        *,
        cost: CostConfig,
        paper: PaperConfig,
        start_e8: int,
        before_look: Callable[[int], None] | None = None,
    ) -> None:
        compile_ahead()
        count = len(instruments)
        each_rules = tuple(SymbolRules.of(each, paper) for each in instruments)
        self._paper = paper
        self._custody = Custody(
            start_e8,
            count,
            cost=cost,
            leverage=paper.leverage,
            liquidation_fee_bps=paper.liquidation_fee_bps,
        )
        self.account = self._custody.account
        there, back = legs(paper.request, paper.reply, paper.seed)
        self._timetable, self._outbox = Timetable(there), Outbox(back)
        self._matchers = tuple(
            Matcher(rules.step_e8, paper, most_of=self._most_of, on_match=self._on_match)
            for rules in each_rules
        )
        self.displays = tuple(matcher.display for matcher in self._matchers)
        self._before_look = before_look
        self.orders: dict[int, WorkingOrder] = {}
        self._arrivals = Arrivals(each_rules, self._custody, self._matchers, self.orders, paper)
        # By symbol: what has arrived and waits for a state of the book to meet.
        self._waiting: tuple[list[Due], ...] = tuple([] for _ in range(count))
        self._last_id = self._own_id = 0
        # The next whole second at which positions are valued; NEVER while there are none.
        self._value_ns = NEVER
        self.now_ns = -1

    # What we ask for. Nothing happens before the request has arrived.

    def submit(self, request: OrderRequest, now_ns: int) -> int:
        """Send a new order; return when it arrives at the exchange.

        Raises
        ------
        ExecutionError
            the order id is not larger than all before it, or the symbol or the side does not exist
        """
        check_new(request, self._last_id, len(self._matchers))
        self._last_id = request.order_id
        self.orders[request.order_id] = WorkingOrder.of(request)
        return self._timetable.send(RequestKind.SUBMIT, request.order_id, now_ns, self.now_ns)

    def cancel(self, order_id: int, now_ns: int) -> int:
        """Ask for the end of an order; return when the request arrives. A fill on the way comes first."""
        return self._timetable.send(RequestKind.CANCEL, order_id, now_ns, self.now_ns)

    def cancel_all(self, now_ns: int) -> int:
        """Ask for the end of every order sent so far; return when the last of the requests arrives."""
        for order_id in tuple(self.orders):
            self.cancel(order_id, now_ns)
        return self._timetable.last_arrival_ns

    # What the market does. Prices and quantities in 1e-8, times in exchange time.

    def advance(self, now_ns: int) -> tuple[Report, ...]:
        """Let time pass up to and including a moment."""
        self._run(now_ns, inclusive=True)
        return self._outbox.flush()

    def on_quote(self, symbol_index: int, at_ns: int, *best: int, sound: bool = True) -> tuple[Report, ...]:
        """Take a best bid and ask: bid, its quantity, ask, its quantity.

        ``sound`` is False where a gap or a resync makes it doubtful; of a book as well.
        """
        self._run(at_ns, inclusive=False)
        if self.displays[symbol_index].on_quote(at_ns, *best, sound=sound):
            self._after_state(symbol_index)
        return self._close(at_ns)

    def on_book(
        self, symbol_index: int, at_ns: int, *top: Sequence[int], sound: bool = True
    ) -> tuple[Report, ...]:
        """Take the best levels of both sides, best first: bid prices, quantities, ask prices, quantities."""
        self._run(at_ns, inclusive=False)
        if self.displays[symbol_index].on_book(at_ns, *top, sound=sound):
            self._after_state(symbol_index)
        return self._close(at_ns)

    def on_trade(
        self, symbol_index: int, at_ns: int, price_e8: int, qty_e8: int, taker_side: int
    ) -> tuple[Report, ...]:
        """Take a trade; ``taker_side`` +1: its taker bought."""
        self._run(at_ns, inclusive=False)
        self._matchers[symbol_index].on_trade(price_e8, qty_e8, taker_side, at_ns)
        for order in self._arrivals.stops.set_off(symbol_index, price_e8):
            self._meet(self._timetable.now(RequestKind.TRIGGER, order.order_id, self.now_ns), order)
        return self._close(at_ns)

    def on_mark(
        self,
        symbol_index: int,
        at_ns: int,
        mark_e8: int,
        rate_e8: int | None = None,
        next_funding_ns: int = 0,
    ) -> tuple[Report, ...]:
        """Take a mark price with the running funding rate; then see whether the account still stands."""
        self._run(at_ns, inclusive=False)
        custody = self._custody
        if custody.due_ns(symbol_index) <= at_ns < next_funding_ns:
            # The first message after the funding time: what was announced before it counts.
            self._fund(symbol_index)
        if mark_e8 > 0:
            custody.announce(symbol_index, at_ns, mark_e8, rate_e8, next_funding_ns)
            if custody.is_liquidated():
                self._liquidate()
        return self._close(at_ns)

    def skim(self, symbol_index: int, rows: Rows, row: int, stop: int) -> int:
        """Take recorded rows of a symbol until one at which something may happen; return which that is.

        For whoever has a recording. The rows are taken as if they had been told, but for the clock: that is
        the caller's, and no request may arrive before the position ``stop``, where they end.
        """
        waits, triggers = bool(self._waiting[symbol_index]), self._arrivals.stops.bounds(symbol_index)
        return self._matchers[symbol_index].skim(rows, row, stop, waits=waits, triggers=triggers)

    @property
    def due_ns(self) -> int:
        """When time alone may change something; NEVER if no request is on its way and nothing is held."""
        return min(self._timetable.next_ns(NEVER), self._value_ns + 1)

    def busy(self) -> set[int]:
        """Return the symbols, by index, with an order, or a request that waits for a book."""
        waiting = {index for index, due in enumerate(self._waiting) if due}
        return waiting.union(order.symbol_index for order in self.orders.values())

    # Time

    def _run(self, until_ns: int, *, inclusive: bool) -> None:
        """Let arrivals and funding happen before (or up to) a time, in the order of time."""
        last_ns = until_ns if inclusive else until_ns - 1
        while True:
            arrival, funding = self._timetable.next_ns(last_ns + 1), self._custody.funding_due_ns
            value = self._value_ns
            if arrival <= last_ns and arrival <= min(funding, value):
                due = self._timetable.pop()
                self.now_ns = max(self.now_ns, due.at_ns)
                self._arrive(due)
            elif funding < until_ns and funding <= value:
                self.now_ns = max(self.now_ns, funding)
                self._fund(self._custody.next_due())
            elif value < until_ns:
                # Until the next event no book moves: of all whole seconds the last one says the most.
                last_second = (min(arrival, funding, until_ns) - 1) // NS_PER_S * NS_PER_S
                self.now_ns = max(self.now_ns, value, last_second)
                self._value_unmarked()
            else:
                break
        self.now_ns = max(self.now_ns, until_ns)

    def _close(self, at_ns: int) -> tuple[Report, ...]:
        """Let those arrive that come at the very time of a market event, after it."""
        if self._timetable.next_ns(at_ns + 1) <= at_ns:
            self._run(at_ns, inclusive=True)
        return self._outbox.flush()

    def _fund(self, symbol_index: int) -> None:
        paid, unsaid = self._custody.settle(symbol_index)
        if self._custody.held_e8(symbol_index):
            self._outbox.add(
                ReportKind.FUNDING, self.now_ns, symbol_index=symbol_index, money_e8=paid, reason=unsaid
            )

    def _value_unmarked(self) -> None:
        """See whether the account still stands where no mark price would say so: the mid stands in."""
        unmarked = self._custody.unmarked(self.now_ns)
        for index in unmarked:
            if self._before_look is not None:
                self._before_look(index)
            display = self.displays[index]
            if display.sound:
                self._custody.stand_in(index, self.now_ns, display.mid2_e8 // 2)
        if unmarked and self._custody.is_liquidated():
            self._liquidate()
        held = any(position.qty_e8 for position in self.account.positions)
        self._value_ns = (self.now_ns // NS_PER_S + 1) * NS_PER_S if held else NEVER

    # Requests at the exchange

    def _after_state(self, symbol_index: int) -> None:
        """Resting orders first, then those that have waited for this state."""
        self._matchers[symbol_index].on_state()
        while (due := self._waiting[symbol_index]) and self._meets(symbol_index, due[0].at_ns):
            self._execute(due.pop(0))

    def _meets(self, symbol_index: int, arrival_ns: int) -> bool:
        """Whether the book as it stands is one that a request may meet."""
        display = self.displays[symbol_index]
        return display.sound and (self._paper.meets == "last" or display.state_ns >= arrival_ns)

    def _arrive(self, due: Due) -> None:
        order = self.orders.get(due.order_id)
        if due.kind is RequestKind.CANCEL:
            if order is None or not order.arrived:  # the request may have been sent before its order
                code = Reject.CANCEL_UNKNOWN
                self._outbox.add(ReportKind.CANCEL_REJECTED, self.now_ns, order_id=due.order_id, code=code)
            else:
                self._end(order, OrderEvent.CANCEL)
        elif order is None:
            return  # it has ended, and would have given up now
        elif due.kind is RequestKind.GIVE_UP:
            if self._waits(order):
                self._end(order, OrderEvent.EXPIRE, "no_market")
        else:
            order.arrived = True
            self._admit(due, order)

    def _admit(self, due: Due, order: WorkingOrder) -> None:
        """Let a new order in, or refuse it."""
        if not self._arrivals.rates.admit(self.now_ns):
            self._end(order, OrderEvent.REJECT, code=Reject.TOO_MANY)
        elif order.kind is not OrderKind.STOP_MARKET:
            self._meet(due, order)
        elif code := self._arrivals.judge_stop(order, self.now_ns):
            self._end(order, OrderEvent.REJECT, code=code)
        else:
            self._accept(order)
            self._arrivals.stops.add(order)

    def _accept(self, order: WorkingOrder) -> None:
        order.happen(OrderEvent.ACCEPT)
        self._outbox.add(ReportKind.ACCEPTED, self.now_ns, order)

    def _waits(self, order: WorkingOrder) -> bool:
        """Whether an order waits for a book to meet."""
        return any(due.order_id == order.order_id for due in self._waiting[order.symbol_index])

    def _meet(self, due: Due, order: WorkingOrder) -> None:
        """Put an order to the book, now or when there is one that it may meet."""
        if self._meets(order.symbol_index, due.at_ns):
            self._execute(due)
        else:
            self._waiting[order.symbol_index].append(due)
            give_up_ns = self.now_ns + self._paper.max_wait_ms * NS_PER_MS
            self._timetable.set(RequestKind.GIVE_UP, due.order_id, give_up_ns)

    def _execute(self, due: Due) -> None:
        """Put an order to the book that it meets."""
        order = self.orders.get(due.order_id)
        if order is None:
            return  # it was cancelled, or gave up, while it waited
        matcher = self._matchers[order.symbol_index]
        self._custody.stand_in(order.symbol_index, self.now_ns, matcher.display.mid2_e8 // 2)
        new = due.kind is RequestKind.SUBMIT  # else a stop, which is accepted already
        if code := self._arrivals.judge(order, self.now_ns):
            self._end(order, OrderEvent.REJECT if new else OrderEvent.EXPIRE, code=code)
            return
        if new:
            self._accept(order)
        limit = self._arrivals.limit_e8(order, self.now_ns)
        matcher.take(order, limit, self.now_ns)
        if not order.is_open:
            return
        if reason := self._arrivals.why_not_rest(order):
            self._end(order, OrderEvent.EXPIRE, reason)
        else:
            matcher.queues.enter(order, self.now_ns)

    # Matches and ends

    def _most_of(self, order: WorkingOrder) -> int:
        return self._arrivals.most_of(order)

    def _on_match(self, order: WorkingOrder, price_e8: int, qty_e8: int, maker: bool) -> None:
        index = order.symbol_index
        before = self._custody.held_e8(index)
        order.fill(qty_e8)
        self._book(order, price_e8, qty_e8, maker=maker)
        if not order.left_e8:
            self._forget(order)
        after = self._custody.held_e8(index)
        if before and before * after <= 0:
            for other in self._matchers[index]:
                if other.reduce_only and not self._most_of(other):
                    self._end(other, OrderEvent.EXPIRE, "reduce_only")

    def _book(
        self, order: WorkingOrder, price_e8: int, qty_e8: int, *, maker: bool, liquidation: bool = False
    ) -> None:
        index = order.symbol_index
        fee = self._custody.fee_e8(price_e8, qty_e8, maker=maker, liquidation=liquidation)
        realised = self.account.apply_fill(index, order.side * qty_e8, price_e8, fee)
        if self._value_ns == NEVER:
            self._value_ns = (self.now_ns // NS_PER_S + 1) * NS_PER_S
        fill = execution(
            order, self.displays[index], price_e8, qty_e8, maker=maker, fee_e8=fee, at_ns=self.now_ns
        )
        self._outbox.fill(order, fill, maker=maker, money_e8=realised, liquidation=liquidation)

    def _end(
        self, order: WorkingOrder, event: OrderEvent, reason: str = "", code: Reject = Reject.NONE
    ) -> None:
        order.happen(event)
        self._forget(order)
        self._outbox.end(event, self.now_ns, order, reason=reason, code=code)

    def _forget(self, order: WorkingOrder) -> None:
        self._matchers[order.symbol_index].queues.leave(order)
        self._arrivals.stops.remove(order)
        del self.orders[order.order_id]

    def _liquidate(self) -> None:
        """End every order and close every position, at the book and then at the worse of book and mark."""
        self._outbox.add(ReportKind.LIQUIDATION, self.now_ns)
        for order in tuple(self.orders.values()):
            if order.is_open or self._waits(order):
                self._end(order, OrderEvent.EXPIRE, "liquidation")
        for index in range(len(self._matchers)):
            held = self._custody.held_e8(index)
            if held:
                if self._before_look is not None:
                    self._before_look(index)
                self._own_id -= 1
                order = self._arrivals.closing_order(self._own_id, index, held)
                for price, qty in self._arrivals.closing_fills(order, self.now_ns):
                    order.fill(qty)
                    self._book(order, price, qty, maker=False, liquidation=True)
