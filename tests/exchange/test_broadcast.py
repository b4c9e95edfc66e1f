"""Market streams, checked with the reader that the importer and the live feed use."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from gpuscalp.exchange.session import Session
from gpuscalp.exchange.source import RecordingSource
from gpuscalp.exchange.venue import Venue
from gpuscalp.feeds.binance import Decoder
from gpuscalp.feeds.book import BookState, LocalBook
from gpuscalp.feeds.messages import DepthSnapshot, DepthUpdate, Ticker, Trade
from tests.exchange.conftest import Bench, e8


def test_snapshots_fit_the_differences_of_every_speed(recordings: Path) -> None:
    source = RecordingSource([recordings / "usdm" / "btcusdt_20240718.gz"])
    venue, decoder = Venue(source.instruments, []), Decoder()
    books = {name: LocalBook() for name in ("depth@0ms", "depth@100ms", "depth", "depth@500ms")}

    def hear(message: bytes) -> None:
        wrapped = msgspec.json.decode(message)
        update = decoder.decode(msgspec.json.encode(wrapped["data"]))
        assert isinstance(update, DepthUpdate)
        books[wrapped["stream"].partition("@")[2]].on_diff(update)

    names = "/".join(f"btcusdt@{name}" for name in books)
    venue.hub.open(Session(1, "/public/stream", f"streams={names}", lenient=False, send=hear))
    listing = venue.listings["BTCUSDT"]
    now_ms, checked = 0, 0
    for number, message in enumerate(source.messages()):
        now_ms = max(now_ms, message.exch_ns // 1_000_000)
        venue.advance(now_ms)
        venue.on_message(message, 0)
        if number == 3_000:
            raw = msgspec.json.encode(listing.snapshot(1_000, now_ms))
            for book in books.values():
                snapshot = decoder.decode(raw)
                assert isinstance(snapshot, DepthSnapshot)
                book.on_snapshot(snapshot)
        if number == 9_000:
            break
    for name, book in books.items():
        # A moment at which nothing waits: after the slowest speed's next event.
        venue.advance(now_ms + 1_000)
        assert book.state is BookState.SYNCED, name
        assert book.last_id == listing.book.last_id, name
        assert book.best() == (*listing.book.bids.best(), *listing.book.asks.best()), name
        assert not book.crossed
        checked += 1
    assert checked == 4


def test_quotes_trades_and_marks_decode_as_what_the_source_said(bench: Bench) -> None:
    decoder, heard = Decoder(), []

    def hear(message: Any) -> None:
        heard.append(decoder.decode(msgspec.json.encode(message)))

    bench.listen("/public/ws/btcusdt@bookTicker/btcusdt@trade", hear)
    bench.send(Ticker("BTCUSDT", 0, 9, e8(100.0), e8(7.0), e8(100.1), e8(3.0)))
    bench.trade(100.1, 2.5, 1)
    quote, trade = heard
    assert isinstance(quote, Ticker)
    assert (quote.bid_price_e8, quote.bid_qty_e8, quote.ask_qty_e8) == (e8(100.0), e8(7.0), e8(3.0))
    assert isinstance(trade, Trade)
    assert (trade.price_e8, trade.qty_e8, trade.side) == (e8(100.1), e8(2.5), 1)


def test_a_quote_removes_levels_that_it_has_passed_and_an_older_book_cannot_bring_them_back(
    bench: Bench,
) -> None:
    listing = bench.venue.listings["BTCUSDT"]
    bench.send(Ticker("BTCUSDT", 0, 50, e8(99.9), e8(1.0), e8(100.0), e8(4.0)))
    assert (listing.book.bids.best(), listing.book.asks.best()) == ((e8(99.9), e8(1.0)), (e8(100.0), e8(4.0)))
    bench.book([(100.0, 1.0)], [(100.1, 1.0)], update_id=49)
    assert (listing.book.bids.best()[0], listing.book.asks.best()[0]) == (e8(99.9), e8(100.0))
    bench.book([(100.0, 1.0)], [(100.1, 1.0)], update_id=51)
    assert (listing.book.bids.best()[0], listing.book.asks.best()[0]) == (e8(100.0), e8(100.1))


def test_trades_of_one_price_and_side_within_100_ms_are_one_aggregate(bench: Bench) -> None:
    heard: list[Any] = []
    bench.listen("/market/ws/btcusdt@aggTrade", heard.append)
    for price, side in ((100.1, 1), (100.1, 1), (100.1, -1), (100.2, -1)):
        bench.trade(price, 1.0, side)
    assert [(item["q"], item["f"], item["l"], item["m"]) for item in heard] == [
        ("2.000", 1, 2, False),
        ("1.000", 3, 3, True),
    ]
    bench.venue.advance(bench.venue.now_ms + 200)
    assert heard[-1]["p"] == "100.2"
    assert [item["a"] for item in heard] == [1, 2, 3]
    rows = bench.call("GET", "/fapi/v1/aggTrades", symbol="BTCUSDT")
    assert [row["q"] for row in rows] == ["2.000", "1.000", "1.000"]


@pytest.mark.parametrize(
    ("stream", "kind"),
    [
        ("btcusdt@kline_1m", "kline"),
        ("btcusdt@ticker", "24hrTicker"),
        ("btcusdt@miniTicker", "24hrMiniTicker"),
        ("btcusdt@markPrice", "markPriceUpdate"),
        ("btcusdt@markPrice@1s", "markPriceUpdate"),
    ],
)
def test_streams_by_the_clock_come(bench: Bench, stream: str, kind: str) -> None:
    heard: list[Any] = []
    bench.listen(f"/market/ws/{stream}", heard.append)
    bench.trade(100.1, 2.0, 1)
    bench.venue.advance(bench.venue.now_ms + 4_000)
    assert heard
    assert {item["e"] for item in heard} == {kind}


def test_partial_books_hold_the_top_levels(bench: Bench) -> None:
    heard: list[Any] = []
    bench.listen("/public/ws/btcusdt@depth5@100ms", heard.append)
    bench.venue.advance(bench.venue.now_ms + 100)
    assert heard[0]["b"] == [["100.0", "1.000"], ["99.9", "2.000"], ["99.8", "3.000"]]
    bench.venue.advance(bench.venue.now_ms + 500)
    assert len(heard) == 1


def test_klines_hold_every_trade(bench: Bench) -> None:
    for price, qty, side in ((100.1, 1.0, 1), (100.5, 2.0, -1), (99.9, 3.0, 1)):
        bench.trade(price, qty, side)
    row = bench.call("GET", "/fapi/v1/klines", symbol="BTCUSDT", interval="1m")[-1]
    assert row[1:6] == ["100.1", "100.5", "99.9", "99.9", "6.000"]
    assert (row[8], row[9]) == (3, "4.000")
