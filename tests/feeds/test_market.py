"""What each message becomes, on a sink that writes everything down."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from gpuscalp.feeds.book import BookState, LocalBook
from gpuscalp.feeds.market import SymbolMarket
from gpuscalp.feeds.messages import DepthSnapshot, DepthUpdate, Levels, MarkPrice, PartialBook, Ticker, Trade
from gpuscalp.schema import NS_PER_S, Quality

CROSSED, GAP, RESYNC = int(Quality.CROSSED), int(Quality.GAP), int(Quality.RESYNC)


@dataclass
class Notes:
    rows: list[tuple[Any, ...]] = field(default_factory=list)

    def trade(self, recv_ns: int, exch_ns: int, quality: int, trade: Trade) -> None:
        self.rows.append(("trade", recv_ns, exch_ns, quality, trade.trade_id))

    def quote(self, recv_ns: int, exch_ns: int, quality: int, update_id: int, best: Sequence[int]) -> None:
        self.rows.append(("quote", recv_ns, exch_ns, quality, update_id, tuple(best)))

    def book(self, recv_ns: int, exch_ns: int, quality: int, update_id: int, book: LocalBook) -> None:
        self.rows.append(("book", recv_ns, exch_ns, quality, update_id, book.best()[0], book.best()[2]))

    def mark(self, recv_ns: int, exch_ns: int, quality: int, mark: MarkPrice) -> None:
        self.rows.append(("mark", recv_ns, exch_ns, quality, mark.mark_price_e8))

    def gap(self, kind: str, from_ns: int, to_ns: int, first_id: int, last_id: int) -> None:
        self.rows.append(("gap", kind, from_ns, to_ns, first_id, last_id))


def market(**options: int) -> tuple[SymbolMarket, list[tuple[Any, ...]]]:
    notes = Notes()
    return SymbolMarket(notes, **options), notes.rows


def trade(trade_id: int, *, aggregate: bool = False, market: bool = True) -> Trade:
    return Trade("X", 1_000 + trade_id, trade_id, 5, 6, 1, aggregate, market)


def ticker(update_id: int, bid: int = 99, ask: int = 101, exch_ns: int = 500) -> Ticker:
    return Ticker("X", exch_ns, update_id, bid, 1, ask, 2)


def diff(last: int, previous: int, bids: Levels, exch_ns: int = 600) -> DepthUpdate:
    return DepthUpdate("X", exch_ns, previous + 1, last, previous, bids, [])


SNAPSHOT = DepthSnapshot("X", 0, 10, [(90, 1)], [(110, 1)])


def test_trades_follow_their_ids() -> None:
    subject, rows = market()
    ids = [5, 6, 6, 9, 7, 4, 10]
    fates = [subject.on_trade(recv_ns, trade(trade_id)) for recv_ns, trade_id in enumerate(ids)]
    assert fates == ["taken", "taken", "duplicate", "taken", "taken", "late", "taken"]
    assert [(row[4], row[3]) for row in rows] == [(5, 0), (6, 0), (9, GAP), (7, 0), (10, 0)]
    subject.close_gaps()
    assert rows[-1] == ("gap", "trade_id", 1, 3, 8, 8)


def test_trade_outside_the_market_keeps_the_chain_whole_without_a_row() -> None:
    subject, rows = market()
    fates = [subject.on_trade(0, trade(number, market=number != 6)) for number in (5, 6, 7)]
    assert fates == ["taken", "not_market", "taken"]
    assert [row[3] for row in rows] == [0, 0]
    subject.close_gaps()
    assert len(rows) == 2


def test_second_kind_of_trades_is_set_aside() -> None:
    subject, rows = market()
    assert subject.on_trade(0, trade(1, aggregate=True)) == "taken"
    assert subject.on_trade(0, trade(900)) == "other_trade_stream"
    assert subject.on_trade(0, trade(4, aggregate=True)) == "taken"
    subject.close_gaps()
    assert rows[-1][:2] == ("gap", "agg_trade_id")


def test_quotes_come_from_the_book_until_a_ticker_comes() -> None:
    subject, rows = market()
    subject.on_snapshot(1, SNAPSHOT)
    subject.on_diff(2, diff(11, 10, [(95, 1)]))
    subject.on_diff(3, diff(12, 11, [(80, 1)]))
    subject.on_ticker(4, ticker(12))
    subject.on_diff(5, diff(13, 12, [(96, 1)]))
    assert [row[0] for row in rows] == ["quote", "book", "quote", "book", "book", "quote", "book"]
    assert [row[5] for row in rows if row[0] == "quote"] == [
        (90, 1, 110, 1),
        (95, 1, 110, 1),
        (99, 1, 101, 2),
    ]


def test_tickers_are_taken_once_and_in_order() -> None:
    subject, rows = market()
    cases = [ticker(5), ticker(5), ticker(5, bid=98), ticker(4), ticker(6, bid=101), ticker(7, bid=0, ask=0)]
    fates = [subject.on_ticker(0, case) for case in cases]
    assert fates == ["taken", "duplicate", "taken", "late", "taken", "taken"]
    assert [row[3] for row in rows] == [0, 0, CROSSED, 0]


def test_marks_are_taken_once_and_in_order() -> None:
    subject, rows = market()
    marks = [MarkPrice("X", exch_ns, price, 0, 0, 0) for exch_ns, price in ((5, 1), (5, 1), (4, 1), (6, 2))]
    assert [subject.on_mark(7, mark) for mark in marks] == ["taken", "duplicate", "late", "taken"]
    assert [row[2] for row in rows] == [5, 6]


def test_undated_message_is_dated_by_the_newest_dated_one() -> None:
    # The receiver's clock is 1,500 behind: its offset must not show in the quotes.
    subject, rows = market()
    subject.on_ticker(9_000, ticker(1, exch_ns=0))
    subject.on_diff(9_100, diff(11, 10, [], exch_ns=10_600))
    subject.on_ticker(9_130, ticker(2, exch_ns=0))
    assert [row[2] for row in rows] == [9_000, 10_630]


def test_gap_in_the_book_is_noted_and_flags_its_rows() -> None:
    subject, rows = market()
    subject.on_snapshot(1, SNAPSHOT)
    subject.on_diff(2, diff(11, 10, [(91, 1)]))
    subject.on_diff(3, diff(15, 13, [(92, 1)]))
    subject.on_diff(4, diff(16, 15, [(93, 1)]))
    subject.on_snapshot(5, DepthSnapshot("X", 0, 16, [(94, 1)], [(110, 1)]))
    assert [row for row in rows if row[0] == "gap"] == [("gap", "depth", 2, 3, 12, 13)]
    assert [row[3] for row in rows if row[0] == "book"] == [0, 0, GAP | RESYNC, GAP | RESYNC, 0]
    assert [row[3] for row in rows if row[0] == "quote"] == [0, 0, GAP | RESYNC, GAP | RESYNC, 0]
    assert [row[1:3] for row in rows if row[0] == "book"] == [
        (1, 1),
        *((at, 600) for at in (2, 3, 4)),
        (5, 601),
    ]


def test_updates_before_the_snapshot_make_no_rows() -> None:
    subject, rows = market()
    assert subject.on_diff(1, diff(9, 8, [(80, 1)])) == "before_snapshot"
    assert subject.on_diff(2, diff(12, 9, [(95, 1)])) == "before_snapshot"
    assert rows == []
    assert subject.on_snapshot(3, SNAPSHOT) == "taken"
    assert rows[-1][4:] == (12, 95, 110)
    assert subject.on_snapshot(4, SNAPSHOT) == "snapshot_not_needed"


def test_interval_thins_book_rows_and_never_holds_the_last_state_for_long() -> None:
    subject, rows = market(book_interval_ns=100)
    subject.on_ticker(0, ticker(1, exch_ns=1))
    subject.on_snapshot(0, SNAPSHOT)
    for step, price in enumerate((91, 92, 93, 94), 1):
        subject.on_diff(step, diff(10 + step, 9 + step, [(price, 1)], exch_ns=1 + 40 * step))
    subject.on_diff(9, diff(15, 14, [(1, 0)], exch_ns=1_000))
    books = [(row[2], row[5]) for row in rows if row[0] == "book"]
    assert books == [(1, 90), (121, 93), (1_000, 94)]


# Ids that begin anew: a symbol was listed again, or a testnet was reset. Everything after was late for good.


def test_trades_begin_anew_with_their_ids() -> None:
    subject, rows = market()
    for number in (1_000, 1_001, 1_004):
        subject.on_trade(1, trade(number))
    fresh = [Trade("X", (9 + number) * NS_PER_S, number, 5, 6, 1, False, True) for number in range(1, 7)]
    fates = [subject.on_trade(2, each) for each in fresh]
    assert fates == ["late", "late", "taken", "taken", "taken", "taken"]
    taken = [(row[4], row[3]) for row in rows if row[0] == "trade"]
    assert taken == [(1_000, 0), (1_001, 0), (1_004, GAP), (3, GAP), (4, 0), (5, 0), (6, 0)]
    assert ("gap", "trade_id", 1, 1, 1_002, 1_003) in rows, "what was missing before is told"


def test_late_trades_that_fill_a_gap_and_their_copies_are_no_new_beginning() -> None:
    subject, _ = market()

    def at(number: int) -> Trade:
        return Trade("X", number * NS_PER_S, number, 5, 6, 1, False, True)

    ids = [10, *range(12, 60), 11, *range(12, 60), 60]
    fates = [subject.on_trade(1, at(number)) for number in ids]
    assert fates == ["taken"] * 50 + ["duplicate"] * 48 + ["taken"]


def test_quotes_begin_anew_with_their_ids() -> None:
    subject, rows = market()
    subject.on_ticker(1, ticker(1_000))
    fates = [subject.on_ticker(2, ticker(n, exch_ns=(9 + n) * NS_PER_S)) for n in (1, 2, 3, 4)]
    assert fates == ["late", "late", "taken", "taken"]
    assert [row[3] for row in rows] == [0, GAP, 0]


def test_book_begins_anew_with_its_ids_and_waits_for_its_snapshot() -> None:
    subject, rows = market()
    subject.on_diff(1, diff(1_010, 1_000, [(90, 1)]))
    subject.on_snapshot(1, DepthSnapshot("X", 0, 1_005, [(90, 1)], [(110, 1)]))
    assert subject.book.state is BookState.SYNCED
    fates = [subject.on_diff(2, diff(n, n - 1, [(80, n)], exch_ns=(9 + n) * NS_PER_S)) for n in range(7, 12)]
    assert fates == ["late", "late"] + ["before_snapshot"] * 3
    assert (subject.book.resync_count, subject.book.waiting, subject.book.unused) == (1, 3, 0)
    count = len(rows)
    assert subject.on_snapshot(3, DepthSnapshot("X", 0, 10, [(70, 1)], [(115, 1)])) == "taken"
    assert rows[count][0] == "quote"
    assert rows[-1][3:] == (0, 11, 80, 115)


def test_updates_that_never_met_a_snapshot_are_counted_when_ids_begin_anew() -> None:
    subject, _ = market()
    for number in (1_001, 1_002):
        subject.on_diff(1, diff(number, number - 1, [(90, 1)]))
    for number in (1, 2, 3):
        subject.on_diff(2, diff(number, number - 1, [(90, 1)], exch_ns=(9 + number) * NS_PER_S))
    assert (subject.book.waiting, subject.book.unused) == (1, 2)


def test_partial_books_begin_anew_with_their_ids() -> None:
    subject, rows = market()

    def partial(last: int, exch_ns: int) -> PartialBook:
        return PartialBook("X", exch_ns, 20, last, last, last - 1, [(90, last)], [(110, 1)])

    subject.on_partial_book(1, partial(1_000, 1))
    fates = [subject.on_partial_book(2, partial(n, (9 + n) * NS_PER_S)) for n in (1, 2, 3, 4)]
    assert fates == ["late", "late", "taken", "taken"]
    assert [row[3] for row in rows if row[0] == "book"] == [0, GAP | RESYNC, 0]
    assert [row[1:3] for row in rows if row[0] == "book"] == [(1, 1), (2, 12 * NS_PER_S), (2, 13 * NS_PER_S)]
