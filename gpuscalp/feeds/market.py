"""The state of one symbol's market: messages in, archive rows out, every message accounted for.

Owns: which stream makes which rows, duplicates and late messages, the dating of undated messages, quality
bits. Pure: no sockets, files or clock; used alike by the importer and by a live feed.

Rows
- trades from ``trade`` or ``aggTrade``, whichever the symbol sends first: both would count volume twice.
- quotes from ``bookTicker``; before its first message, or where there is none, from the book's best level.
- books after every update that changes the best 20 levels, at most one per interval where one is asked for.
  Where there are no updates, partial books take their place, the deepest that come; from the first update on
  they are set aside.
- marks from ``markPriceUpdate``.

Where the venue's ids begin anew the trades, quotes or books do too (``gpuscalp.feeds.chain.Restart``): the
first row after it bears a gap, and a book waits for its snapshot.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Protocol

from gpuscalp.feeds.book import BookEvent, BookState, LocalBook, level_array
from gpuscalp.feeds.chain import Ascent, Link, Restart, TradeChain
from gpuscalp.feeds.messages import DepthSnapshot, DepthUpdate, MarkPrice, PartialBook, Ticker, Trade
from gpuscalp.schema import I64, Quality

# What became of a message. Anything else that a feed returns is the reason why it was set aside.
TAKEN: Final = "taken"
DUPLICATE: Final = "duplicate"
LATE: Final = "late"
# An update that came while there was no book; those that follow the snapshot are applied when it comes.
BEFORE_SNAPSHOT: Final = "before_snapshot"
_OTHER_BOOK: Final = "other_book_stream"

_CROSSED: Final = int(Quality.CROSSED)
_GAP: Final = int(Quality.GAP)
_BROKEN: Final = int(Quality.GAP | Quality.RESYNC)
# What nearly every message is. An enum's member costs five times as much to look up as a name.
_NEXT: Final = Link.NEXT
_TOP: Final = BookEvent.TOP


class RowSink(Protocol):
    """Where rows go. One sink serves one symbol; rows come in arrival order."""

    def trade(self, recv_ns: int, exch_ns: int, quality: int, trade: Trade) -> None: ...

    def quote(self, recv_ns: int, exch_ns: int, quality: int, update_id: int, best: Sequence[int]) -> None:
        """``best``: bid price, bid quantity, ask price, ask quantity, × 1e8."""

    def book(self, recv_ns: int, exch_ns: int, quality: int, update_id: int, book: LocalBook) -> None:
        """``book``: to read what the row needs of it, now: the next update changes it."""

    def mark(self, recv_ns: int, exch_ns: int, quality: int, mark: MarkPrice) -> None: ...

    def gap(self, kind: str, from_ns: int, to_ns: int, first_id: int, last_id: int) -> None:
        """Note messages that are known to be missing."""


class SymbolMarket:
    """One symbol. Give it every message in arrival order; each method returns what became of it.

    Parameters
    ----------
    sink : receives the rows
    book_interval_ns : least exchange time between two book rows; 0 = every change of the best 20 levels
    """

    def __init__(self, sink: RowSink, *, book_interval_ns: int = 0) -> None:
        self.book = LocalBook()
        self._sink = sink
        self._interval_ns = book_interval_ns
        self._trades = TradeChain()
        self._trade_ns = 0  # event time of the last trade
        self._trade_restart = Restart()
        self._aggregate: bool | None = None
        self._ticker: Ticker | None = None
        self._ticker_ids = Ascent()
        self._ticker_restart = Restart()
        self._mark: MarkPrice | None = None
        self._mark_times = Ascent()
        self._book_quote: tuple[int, int, int, int] | None = None
        self._book_ns = 0  # exchange time of the last book row
        self._book_owed = False  # the interval held a row back
        self._diff_recv_ns = self._diff_ns = 0  # receive and event time of the last update or partial book
        self._diff_restart = Restart()
        self._partial_depth = 0  # of the partial books that are the book; 0 = none are
        self._dated: tuple[int, int] | None = None  # (exch_ns, recv_ns) of the newest dated message

    def on_trade(self, recv_ns: int, trade: Trade) -> str:
        exch_ns = self._date(recv_ns, trade.exch_ns)
        if self._aggregate is None:
            self._aggregate = trade.aggregate
        elif self._aggregate != trade.aggregate:
            return "other_trade_stream"
        quality = 0
        link = self._trades.on_id(trade.trade_id, recv_ns)
        if link is not _NEXT:
            if link is Link.DUPLICATE or link is Link.LATE:
                if not self._trade_restart.on_refused(trade.trade_id, exch_ns, self._trade_ns):
                    return DUPLICATE if link is Link.DUPLICATE else LATE
                self.close_gaps()
                self._trades, link = TradeChain(), Link.GAP
                self._trades.on_id(trade.trade_id, recv_ns)
            quality = _GAP if link is Link.GAP else 0
        if exch_ns > self._trade_ns:  # not so where it fills a gap
            self._trade_ns = exch_ns
        if not trade.market:
            return "not_market"
        self._sink.trade(recv_ns, exch_ns, quality, trade)
        return TAKEN

    def on_ticker(self, recv_ns: int, ticker: Ticker) -> str:
        exch_ns = self._date(recv_ns, ticker.exch_ns)
        link, quality = self._ticker_ids.on_id(ticker.update_id), 0
        if link is not _NEXT:
            if link is Link.LATE:
                taken_ns = 0 if self._ticker is None else self._ticker.exch_ns
                if not self._ticker_restart.on_refused(ticker.update_id, ticker.exch_ns, taken_ns):
                    return LATE
                self._ticker_ids, quality = Ascent(), _GAP
                self._ticker_ids.on_id(ticker.update_id)
            elif ticker == self._ticker:
                return DUPLICATE
        self._ticker = ticker
        bid, ask = ticker.bid_price_e8, ticker.ask_price_e8
        if bid >= ask > 0:
            quality |= _CROSSED
        best = (bid, ticker.bid_qty_e8, ask, ticker.ask_qty_e8)
        self._sink.quote(recv_ns, exch_ns, quality, ticker.update_id, best)
        return TAKEN

    def on_mark(self, recv_ns: int, mark: MarkPrice) -> str:
        link = self._mark_times.on_id(mark.exch_ns)
        if link is not _NEXT:
            return DUPLICATE if mark == self._mark else LATE
        self._mark = mark
        # Not self._date: the venue dates marks on the whole second and sends them later.
        self._sink.mark(recv_ns, mark.exch_ns, 0, mark)
        return TAKEN

    def on_diff(self, recv_ns: int, diff: DepthUpdate) -> str:
        levels = level_array(diff.bids, diff.asks)
        return self.on_update(
            *(recv_ns, diff.exch_ns, diff.first_id, diff.last_id, diff.previous_id),
            *(levels, 0, len(diff.bids), len(diff.asks)),
        )

    def on_update(
        self,
        recv_ns: int,
        exch_ns: int,
        first_id: int,
        last_id: int,
        previous_id: int,
        levels: I64,
        start: int,
        bid_count: int,
        ask_count: int,
    ) -> str:
        """Take a depth update whose levels lie in an array (see ``LocalBook.on_update``)."""
        exch_ns = self._date(recv_ns, exch_ns)
        if self._partial_depth:
            # The best levels alone cannot be carried on by updates.
            self.book, self._partial_depth = LocalBook(), 0
        event = self.book.on_update(first_id, last_id, previous_id, levels, start, bid_count, ask_count)
        if event is _TOP:
            # Only a book that is there has a top, and this is what nearly every update does.
            self._diff_recv_ns, self._diff_ns = recv_ns, exch_ns
            self._emit_book(recv_ns, exch_ns, last_id)
            return TAKEN
        if event is BookEvent.DUPLICATE:
            return DUPLICATE
        if event is BookEvent.LATE:
            if not self._diff_restart.on_refused(last_id, exch_ns, self._diff_ns):
                return LATE
            self._begin_book()
            event = self.book.on_update(first_id, last_id, previous_id, levels, start, bid_count, ask_count)
        if event is BookEvent.GAP:
            first, last = self.book.missing
            self._sink.gap("depth", self._diff_recv_ns, recv_ns, first, last)
        self._diff_recv_ns, self._diff_ns = recv_ns, exch_ns
        if self.book.state is BookState.UNSYNCED:
            return BEFORE_SNAPSHOT
        if event is BookEvent.APPLIED and self._book_owed:
            self._emit_book(recv_ns, exch_ns, last_id)
        elif event is BookEvent.GAP:
            self._emit_book(recv_ns, exch_ns, last_id, now=True)
        return TAKEN

    def on_partial_book(self, recv_ns: int, partial: PartialBook) -> str:
        levels = level_array(partial.bids, partial.asks)
        ids = partial.first_id, partial.last_id, partial.previous_id
        sizes = len(partial.bids), len(partial.asks)
        return self.on_partial(recv_ns, partial.exch_ns, partial.depth, *ids, levels, 0, *sizes)

    def on_partial(
        self,
        recv_ns: int,
        exch_ns: int,
        depth: int,
        first_id: int,
        last_id: int,
        previous_id: int,
        levels: I64,
        start: int,
        bid_count: int,
        ask_count: int,
    ) -> str:
        """Take a partial book of ``depth`` levels a side (see ``LocalBook.on_partial``)."""
        exch_ns = self._date(recv_ns, exch_ns)
        if depth < self._partial_depth or (not self._partial_depth and self.book.last_id is not None):
            return _OTHER_BOOK
        self._partial_depth = depth
        event = self.book.on_partial(first_id, last_id, previous_id, levels, start, bid_count, ask_count)
        if event is BookEvent.DUPLICATE:
            return DUPLICATE
        if event is BookEvent.LATE:
            if not self._diff_restart.on_refused(last_id, exch_ns, self._diff_ns):
                return LATE
            self._begin_book()
            self.book.on_partial(first_id, last_id, previous_id, levels, start, bid_count, ask_count)
            self._emit_book(recv_ns, exch_ns, last_id, now=True, doubt=_BROKEN)
        elif event is BookEvent.GAP:
            first, last = self.book.missing
            self._sink.gap("depth", self._diff_recv_ns, recv_ns, first, last)
            self._emit_book(recv_ns, exch_ns, last_id, now=True, doubt=_BROKEN)
        elif event is _TOP or self._book_owed:
            self._emit_book(recv_ns, exch_ns, last_id)
        self._diff_recv_ns, self._diff_ns = recv_ns, exch_ns
        return TAKEN

    def on_snapshot(self, recv_ns: int, snapshot: DepthSnapshot) -> str:
        if self._partial_depth:
            return "snapshot_not_needed"
        event = self.book.on_snapshot(snapshot)
        if event is BookEvent.TOO_OLD:
            return "snapshot_too_old"
        if event is BookEvent.UNNEEDED:
            return "snapshot_not_needed"
        exch_ns = self._date(recv_ns, 0)
        update_id = max(snapshot.last_id, self.book.last_id or 0)
        self._emit_book(recv_ns, exch_ns, update_id, now=True)
        return TAKEN

    def settle(self) -> int:
        """Forget the trade gaps that are no longer open, and return how many they were."""
        return self._trades.settle()

    def close_gaps(self) -> None:
        """Tell the sink of the trade gaps that nothing has filled. Call before a commit, and at the end."""
        kind = "agg_trade_id" if self._aggregate else "trade_id"
        for gap in self._trades.close_gaps():
            self._sink.gap(kind, gap.from_ns, gap.to_ns, gap.first_id, gap.last_id)

    def _begin_book(self) -> None:
        """Begin a new book, because the ids of the old one lead no further; its counts go on."""
        old, self.book = self.book, LocalBook()
        self.book.resync_count = old.resync_count + (old.state is BookState.SYNCED)
        self.book.unused = old.unused + old.waiting

    def _emit_book(
        self, recv_ns: int, exch_ns: int, update_id: int, *, now: bool = False, doubt: int = 0
    ) -> None:
        book, quality = self.book, self.book.quality | doubt
        if self._ticker is None:
            best = book.best()
            if best != self._book_quote and best[0] and best[2]:
                self._book_quote = best
                self._sink.quote(recv_ns, exch_ns, quality, update_id, best)
        if not now and exch_ns - self._book_ns < self._interval_ns:
            self._book_owed = True
            return
        self._book_ns, self._book_owed = exch_ns, False
        self._sink.book(recv_ns, exch_ns, quality, update_id, book)

    def _date(self, recv_ns: int, exch_ns: int) -> int:
        """Return the exchange time of a message. An undated one (spot bookTicker, REST snapshot) gets the
        newest dated message's time plus the receive time passed since, so that an offset of the receiver's
        clock cancels; before any dated message, its receive time."""
        if exch_ns:
            self._dated = (exch_ns, recv_ns)
            return exch_ns
        if self._dated is None:
            return recv_ns
        dated_exch_ns, dated_recv_ns = self._dated
        return dated_exch_ns + max(0, recv_ns - dated_recv_ns)
