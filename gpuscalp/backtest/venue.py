"""The paper broker over a recording: it is told what matters, and answers as if it had been told everything.

Owns: which recorded rows the broker is told of, and when. Never: fills (the broker does), decides, or reads
ahead of the position that it is asked to play to.

Rows are told in the order of arrival, as a live session would. Marks all are told (margin, liquidation,
funding). Quotes and books of a symbol are told from the moment an order of it has been sent until it has
ended; before the first of them, and before a liquidation, its display is brought up to date (Track). Trades
only reach orders that rest, and none does here. The broker's clock is driven by all rows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, final

from gpuscalp.archive import BookSeries
from gpuscalp.backtest.tape import Tape
from gpuscalp.backtest.track import Track
from gpuscalp.config import CostConfig, PaperConfig
from gpuscalp.execution.broker import PaperBroker
from gpuscalp.execution.inbox import Inbox
from gpuscalp.execution.messages import OrderKind, OrderRequest, Report, TimeInForce
from gpuscalp.schema import E8, NS_PER_MS, Instrument, Quality, TickKind

_DOUBT: Final = int(Quality.GAP | Quality.RESYNC | Quality.CROSSED)

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
        self.broker = PaperBroker(instruments, cost=cost, paper=paper, start_e8=start_e8)
        self.broker.before_close = self._look
        self.inbox = Inbox()
        self.announced: set[int] = set()
        self.position = self.resting_count = 0
        age_ns = paper.depth_age_ms * NS_PER_MS

        def reader(index: int) -> Callable[[int, int], BookSeries]:
            return lambda start_ns, end_ns: read_books(index, start_ns, end_ns)

        self.tape = Tape([Track(each, reader(index), age_ns) for index, each in enumerate(instruments)])
        self._tick_e8 = [instrument.tick_size_e8 for instrument in instruments]
        self._told: list[int] = []  # symbols whose rows are told, by index

    def play(self, until: int) -> None:
        """Let all rows before a position happen."""
        tape = self.tape
        while True:
            position, index = tape.mark_position, -1
            for symbol in self._told:
                if tape.tracks[symbol].told_position < position:
                    position, index = tape.tracks[symbol].told_position, symbol
            if position >= until:
                break
            self._pass(position)
            if index < 0:
                self._tell_mark()
            else:
                self._tell_row(index)
            self.position = position + 1
        self._pass(until)

    def submit(self, request: OrderRequest, now_ns: int) -> int:
        """Send an order that takes or ends; return when it arrives."""
        resting = request.kind is OrderKind.LIMIT and request.time_in_force in (
            TimeInForce.GTC,
            TimeInForce.GTX,
        )
        self.resting_count += resting
        assert not resting, "a display that is built up again has no queues to rest in"
        index = request.symbol_index
        if index not in self._told:
            self._look(index)
            self._told.append(index)
        return self.broker.submit(request, now_ns)

    def drop(self) -> None:
        """Forget what has been played."""
        self.tape.drop(self.position, self.broker.displays)

    def show_again(self, at_ns: int) -> None:
        """Show the last sound quote of every symbol with an open order once more: the end of a recording."""
        for index in sorted({order.symbol_index for order in self.broker.orders.values()}):
            display = self.broker.displays[index]
            bids, asks = display.bids, display.asks
            if bids.prices and asks.prices:
                best = (bids.prices[0], bids.qtys[0], asks.prices[0], asks.qtys[0])
                self.inbox.put(self.broker.on_quote(index, at_ns, *best))

    def _pass(self, position: int) -> None:
        """Let the time of the rows before a position pass."""
        before, self.position = self.position, max(self.position, position)
        broker, clock_ns = self.broker, self.tape.clock_before(position)
        # What arrives at this very instant comes after the first row of the same time, of whatever symbol.
        if clock_ns > broker.now_ns or (
            broker.orders and self.tape.largest_between(before, position) == broker.now_ns
        ):
            self._put(broker.advance(clock_ns))

    def _look(self, index: int) -> None:
        """Bring the display of a symbol up to date."""
        if index not in self._told:
            display = self.broker.displays[index]
            self.tape.tracks[index].catch_up(display, self.position, self.broker.now_ns)

    def _tell_mark(self) -> None:
        exch_ns, _, _, _, mark, _, rate, funding_ms, index, _, _, _ = self.tape.next_mark()
        mark_e8 = round(mark * E8) if mark == mark else 0
        rate_e8 = round(rate * E8) if rate == rate else None
        funding_ns = round(funding_ms) * NS_PER_MS if funding_ms == funding_ms else 0
        if mark_e8 and rate_e8 is not None and funding_ns > exch_ns:
            self.announced.add(index)
        self._put(self.broker.on_mark(index, exch_ns, mark_e8, rate_e8, funding_ns))

    def _tell_row(self, index: int) -> None:
        track, broker = self.tape.tracks[index], self.broker
        row = track.told_row
        exch_ns, _, bid, ask, bid_qty, ask_qty, _, _, _, kind, _, quality = track.ticks[row].item()
        unit, sound = self._tick_e8[index], not quality & _DOUBT
        if kind == TickKind.BOOK:
            reports = broker.on_book(index, exch_ns, *track.levels(row), sound=sound)
        else:
            best = (bid * unit, round(bid_qty * E8), ask * unit, round(ask_qty * E8))
            reports = broker.on_quote(index, exch_ns, *best, sound=sound)
        track.move_to(row + 1)
        self._put(reports)

    def _put(self, reports: Sequence[Report]) -> None:
        if reports:
            self.inbox.put(reports)
            busy = {order.symbol_index for order in self.broker.orders.values()}
            self._told = [index for index in self._told if index in busy]
