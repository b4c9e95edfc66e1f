"""The paper broker over a recording: compiled code reads the rows, and the broker hears what matters.

Owns: which recorded rows the broker is told of, and when. Never: fills (the broker does), decides, or reads
ahead of the position that it is asked to play to.

Rows happen in the order of arrival, as in a live session. The broker is told of all marks (margin,
liquidation, funding), of the row at whose time something is due (an arrival, funding, the value of what is
held), and of the rows of a symbol that may fill an order or that an order has waited for. All others are
skimmed: the broker's own book and queues of the symbol take them, nothing else would have changed. That waits
until somebody looks: the broker, or an order of the symbol that is about to be sent, or is alive. All rows
drive the broker's clock.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import final

from gpuscalp.archive import BookSeries
from gpuscalp.backtest.tape import Tape
from gpuscalp.backtest.track import Take, Track
from gpuscalp.config import CostConfig, PaperConfig
from gpuscalp.execution.broker import PaperBroker
from gpuscalp.execution.inbox import Inbox
from gpuscalp.execution.messages import OrderKind, OrderRequest, Report, TimeInForce
from gpuscalp.ops.skim import DOUBT
from gpuscalp.schema import E8, NS_PER_MS, Instrument, TickKind

# (symbol index, start_ns, end_ns) in exchange time, half-open
ReadBooks = Callable[[int, int, int], BookSeries]


@final
class Venue:
    """One account at an exchange made of a recording.

    The caller adds rows, plays up to a position, hears what is known by then, sends orders, and so on.

    Parameters
    ----------
    instruments : S
    cost, paper : as the live broker takes them
    start_e8 : wallet at the start
    read_books : reads the levels of books, in the order of arrival

    Attributes
    ----------
    tape : the rows
    broker : as of the position played to
    inbox : what it has reported and is not known yet
    announced : symbols whose funding has been announced
    position : of the first row that has not been played
    resting_count : orders that may rest; while there are none, no model of the queue has decided anything
    """

    def __init__(
        self,
        instruments: Sequence[Instrument],
        *,
        cost: CostConfig,
        paper: PaperConfig,
        start_e8: int,
        read_books: ReadBooks,
    ) -> None:
        self.broker = PaperBroker(
            instruments, cost=cost, paper=paper, start_e8=start_e8, before_look=self._look
        )
        self.inbox = Inbox()
        self.announced: set[int] = set()
        self.position = self.resting_count = 0

        def reader(index: int) -> Callable[[int, int], BookSeries]:
            return lambda start_ns, end_ns: read_books(index, start_ns, end_ns)

        self.tape = Tape([Track(each, reader(index)) for index, each in enumerate(instruments)])
        self._takes = [self._take(index) for index in range(len(instruments))]
        self._busy: list[int] = []  # symbols that are read as we go, by index

    def play(self, until: int, *, clocks: Iterable[tuple[int, int]] = ()) -> None:
        """Let all rows before a position happen, and the exchange's time go on to others on the way.

        ``clocks``: positions and exchange times.
        """
        for position, at_ns in clocks:
            self.play(position)
            self._put(self.broker.advance(at_ns))
        tape = self.tape
        while self.position < until:
            stop = min(until, tape.mark_position)
            due_ns = self.broker.due_ns
            if tape.clock_before(stop) >= due_ns:
                stop = tape.reaching(due_ns, self.position, stop)
            for index in self._busy:
                stop = tape.tracks[index].take(stop, self._takes[index])
            self._pass(stop)
            if stop < until:
                self._tell(stop)

    def submit(self, request: OrderRequest, now_ns: int) -> int:
        """Send an order; return when it arrives."""
        self.resting_count += request.kind is OrderKind.LIMIT and request.time_in_force in (
            TimeInForce.GTC,
            TimeInForce.GTX,
        )
        self._look(request.symbol_index)
        if request.symbol_index not in self._busy:
            self._busy.append(request.symbol_index)
        return self.broker.submit(request, now_ns)

    def drop(self) -> None:
        """Forget what has been played."""
        for index, (track, display) in enumerate(zip(self.tape.tracks, self.broker.displays, strict=True)):
            used = index in self._busy or display.is_taken
            track.drop(self.position, self._takes[index], idle=None if used else display)
        self.tape.drop(self.position)

    def show_again(self, at_ns: int) -> None:
        """Show the last sound quote of every symbol with an open order once more: the end of a recording."""
        for index in sorted({order.symbol_index for order in self.broker.orders.values()}):
            display = self.broker.displays[index]
            best = (*display.best(1), *display.best(-1))
            if display.mid2_e8:
                self._put(self.broker.on_quote(index, at_ns, *best))

    def _look(self, index: int) -> None:
        """Bring the book of a symbol up to date."""
        self.tape.tracks[index].take(self.position, self._takes[index])

    def _take(self, index: int) -> Take:
        return lambda rows, row, stop: self.broker.skim(index, rows, row, stop)

    def _pass(self, position: int) -> None:
        """Let the time of the rows before a position pass: nothing is due in it."""
        self.position = position
        clock_ns = self.tape.clock_before(position)
        if clock_ns > self.broker.now_ns:
            self._put(self.broker.advance(clock_ns))

    def _tell(self, position: int) -> None:
        """Tell the broker of a row."""
        tape = self.tape
        if position == tape.mark_position:
            reports = self._tell_mark()
        else:
            for index in self._busy:
                if tape.tracks[index].next_position == position:
                    reports = self._tell_row(index)
                    break
            else:
                # Nothing of ours, but its time has come.
                reports = self.broker.advance(tape.time_of(position))
        self.position = position + 1
        self._put(reports)

    def _tell_mark(self) -> Sequence[Report]:
        exch_ns, _, _, _, mark, _, rate, funding_ms, index, _, _, _ = self.tape.next_mark()
        mark_e8 = round(mark * E8) if mark == mark else 0
        rate_e8 = round(rate * E8) if rate == rate else None
        funding_ns = round(funding_ms) * NS_PER_MS if funding_ms == funding_ms else 0
        if mark_e8 and rate_e8 is not None and funding_ns > exch_ns:
            self.announced.add(index)
        return self.broker.on_mark(index, exch_ns, mark_e8, rate_e8, funding_ns)

    def _tell_row(self, index: int) -> Sequence[Report]:
        track, broker = self.tape.tracks[index], self.broker
        exch_ns, _, bid, ask, bid_qty, ask_qty, _, _, _, kind, side, quality = track.told()
        unit, sound = track.unit, not quality & DOUBT
        if kind == TickKind.TRADE:
            return broker.on_trade(index, exch_ns, bid * unit, round(bid_qty * E8), side)
        if kind == TickKind.BOOK:
            return broker.on_book(index, exch_ns, *track.levels(), sound=sound)
        best = (bid * unit, round(bid_qty * E8), ask * unit, round(ask_qty * E8))
        return broker.on_quote(index, exch_ns, *best, sound=sound)

    def _put(self, reports: Sequence[Report]) -> None:
        if reports:
            self.inbox.put(reports)
            busy = self.broker.busy()
            self._busy = [index for index in self._busy if index in busy]
