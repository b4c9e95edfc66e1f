"""Each accepted form of a line, literally, and what is refused."""

from __future__ import annotations

import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gpuscalp.archive.arrival import Record
from gpuscalp.archive.formats import LineReader, recognise
from gpuscalp.archive.tabular import symbol_of
from gpuscalp.errors import DecodeError, UsageError
from gpuscalp.feeds.messages import DepthSnapshot, DepthUpdate, Ignored, Ticker, Trade

MS = 1_721_347_022_504
NS = MS * 10**6
BODY = b'{"stream":"btcusdt@bookTicker","data":{"e":"bookTicker","X":""}}'
SNAPSHOT = b'{"lastUpdateId":4,"bids":[["1.5","2"]],"asks":[]}'


def reader(tmp_path: Path, content: bytes, name: str = "um/x.dat", **options: Any) -> LineReader:
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return recognise(path, **options).reader()


@pytest.mark.parametrize(
    ("line", "recv_ns"),
    [
        (b"1721347022504 " + BODY, NS),
        (b"1721347022504123 " + BODY, NS + 123_000),
        (b"1721347022504123456 " + BODY, NS + 123_456),
        (b"1721347022.504: " + BODY, NS),
        (b"1721347022.5041234: " + BODY, NS + 123_400),
    ],
)
def test_recording_line_has_a_receive_time_and_a_message(tmp_path: Path, line: bytes, recv_ns: int) -> None:
    subject = reader(tmp_path, b"1721347022504 " + BODY)
    assert subject.read(line, 7) == (recv_ns, 7, BODY)


def test_recorded_snapshot_takes_the_one_symbol_of_its_recording(tmp_path: Path) -> None:
    line = b"1721347022504 " + SNAPSHOT
    expected = DepthSnapshot("BTCUSDT", 0, 4, [(150_000_000, 200_000_000)], [])
    assert reader(tmp_path, line + b"\n1721347022504 " + BODY).read(line, 1) == (NS, 1, expected)
    both = b"1721347022504 " + BODY + b"\n1721347022504 " + BODY.replace(b"btc", b"eth")
    with pytest.raises(DecodeError, match="snapshot without a symbol"):
        reader(tmp_path, both).read(line, 1)


@pytest.mark.parametrize(
    ("late", "is_taken"),
    [
        (BODY.replace(b"btc", b"eth"), False),
        (b'{"e":"trade","s":"ETHUSDT"}', False),
        # Damage: of the two names of a message one is wrong.
        (BODY.replace(b"btc", b"b\x07c").replace(b'"X"', b'"s":"BTCUSDT","X"'), True),
        (b'{"stream":"!markPrice@arr","data":[{"e":"markPriceUpdate","s":"ETHUSDT"}]}', True),
    ],
)
def test_recording_is_of_one_symbol_only_if_no_later_line_names_another(
    tmp_path: Path, late: bytes, is_taken: bool
) -> None:
    """A symbol that was quiet for the first 256 KiB, or had under a hundredth of the lines, was not seen,
    and its snapshot became the book of the other one."""
    lines = [b"1721347022504 " + BODY] * 4_000 + [b"1721347022504 " + late]
    subject = reader(tmp_path, b"\n".join(lines))
    snapshot = b"1721347022504 " + SNAPSHOT
    if is_taken:
        assert subject.read(snapshot, 1) == (
            NS,
            1,
            DepthSnapshot("BTCUSDT", 0, 4, [(150_000_000, 200_000_000)], []),
        )
    else:
        with pytest.raises(DecodeError, match="snapshot without a symbol"):
            subject.read(snapshot, 1)


def test_symbol_that_is_given_is_that_of_a_file_of_snapshots(tmp_path: Path) -> None:
    line = b"1721347022504 " + SNAPSHOT
    path = tmp_path / "snapshots.dat"
    path.write_bytes(line)
    file = recognise(path, venue="binance_usdm", symbol="ETHUSDT")
    assert file.symbols == ("ETHUSDT",)
    record = file.reader().read(line, 1)
    assert record is not None
    assert record[2] == DepthSnapshot("ETHUSDT", 0, 4, [(150_000_000, 200_000_000)], [])


def test_capture_lines_of_a_connection(tmp_path: Path) -> None:
    connect = b"wss://fstream.binance.com/stream?streams=btcusdt@trade/ethusdt@depth@100ms <-> 1721347022.5"
    path = tmp_path / "capture.0"
    path.write_bytes(b"configuration: {}\n" + connect + b"\n")
    file = recognise(path)
    assert (file.symbols, file.venue, file.format) == (("BTCUSDT", "ETHUSDT"), "binance_usdm", "recording")
    subject = file.reader()
    assert subject.read(connect, 1) is None
    assert subject.read(b"configuration: {}", 2) is None
    rest = b"https://fapi.binance.com/fapi/v1/depth?symbol=ETHUSDT&limit=1000 -> 1721347022.504: " + SNAPSHOT
    assert subject.read(rest, 3) == (NS, 3, DepthSnapshot("ETHUSDT", 0, 4, [(150_000_000, 200_000_000)], []))
    other = b"https://fapi.binance.com/fapi/v1/exchangeInfo -> 1721347022.504: {}"
    assert subject.read(other, 4) == (NS, 4, Ignored("rest_exchangeInfo"))


@pytest.mark.parametrize(
    "line",
    [
        b"\x07721347022504 " + BODY,
        b"172134702250 " + BODY,
        b"1721347x22504 " + BODY,
        b"9921347022504 " + BODY,
        b"1721347022504:" + BODY,
        b"1721347022.x: " + BODY,
        b"https://fapi.binance.com/fapi/v1/depth 1721347022.504: " + SNAPSHOT,
        b"https://[/depth -> 1721347022.504: " + SNAPSHOT,
        b"1721347022504 " + SNAPSHOT[:30],
        b"hello",
    ],
)
def test_damaged_recording_line_is_refused(tmp_path: Path, line: bytes) -> None:
    with pytest.raises(DecodeError):
        reader(tmp_path, b"1721347022504 " + BODY).read(line, 1)


AGG = "agg_trade_id,price,quantity,first_trade_id,last_trade_id,transact_time,is_buyer_maker"
TRADES = "id,price,qty,quote_qty,time,is_buyer_maker"
TICKERS = "update_id,best_bid_price,best_bid_qty,best_ask_price,best_ask_qty,transaction_time,event_time"
CSV_CASES = [
    (
        "BTCUSDT-aggTrades-2024-07-18.csv",
        AGG,
        f"26,0.5,2,1,3,{MS},true",
        Trade("BTCUSDT", NS, 26, 5, 2, -1, True, True),
    ),
    (
        "BTCUSDT-trades-2024-07.csv",
        TRADES,
        f"26,0.5,2,1,{MS},false",
        Trade("BTCUSDT", NS, 26, 5, 2, 1, False, True),
    ),
    (
        "BTCUSDT-trades-2025-01-01.csv",
        TRADES,
        f"26,0.5,2,1,{MS}123,False",
        Trade("BTCUSDT", NS + 123_000, 26, 5, 2, 1, False, True),
    ),
    (
        "BTCUSDT-bookTicker-2023-06-01.csv",
        TICKERS,
        f"7,0.5,2,0.6,3,{MS - 5},{MS}",
        Ticker("BTCUSDT", NS, 7, 5, 2, 6, 3),
    ),
    (
        "ltcusdt_trades.csv",
        "timestamp,price,quantity,side,tradeId",
        f"{MS},0.5,2,sell,9",
        Trade("LTCUSDT", NS, 9, 5, 2, -1, False, True),
    ),
    (
        "any.csv",
        "Symbol,Trade ID,Price,Size,Time,Taker Side",
        f"XYZ,9,0.5,2,{MS // 1000},BUY",
        Trade("XYZ", NS - 504 * 10**6, 9, 5, 2, 1, False, True),
    ),
]


@pytest.mark.parametrize(("name", "header", "row", "short"), CSV_CASES)
def test_csv_rows_become_messages(tmp_path: Path, name: str, header: str, row: str, short: Any) -> None:
    # The cases are written in tenths for prices and units for quantities.
    fields = {
        key: value * (10**7 if "price" in key else 10**8)
        for key in short.__struct_fields__
        if key.endswith("_e8") and (value := getattr(short, key)) is not None
    }
    expected = type(short)(**{key: fields.get(key, getattr(short, key)) for key in short.__struct_fields__})
    subject = reader(tmp_path, f"{header}\n{row}\n".encode(), f"um/{name}", trade_delay_ms=0)
    assert subject.read(header.encode(), 1) is None
    assert subject.read(row.encode(), 2) == (expected.exch_ns, 2, expected)
    if name.startswith("BTCUSDT-"):
        # Binance Vision's older files have no header.
        bare = reader(tmp_path, f"{row}\n".encode(), f"um/bare/{name}", trade_delay_ms=0)
        assert bare.read(row.encode(), 1) == (expected.exch_ns, 1, expected)


@pytest.mark.parametrize(
    ("name", "symbol"),
    [
        ("BTCUSDT-aggTrades-2024-07-18.csv", "BTCUSDT"),
        ("BTCUSDT_240927-aggTrades-2024-07-18.csv", "BTCUSDT_240927"),
        ("copy of ETHBTC-trades-2024-07.zip", "ETHBTC"),
        ("币安人生USDT-trades-2026-01.zip", "币安人生USDT"),
        ("binance_BTCUSDT-trades-2024-07.csv", None),
        ("ltcusdt_trades_20250621.csv.gz", "LTCUSDT"),
        ("1000SHIBUSDC.csv", "1000SHIBUSDC"),
        ("trades.csv", None),
        ("binance_btcusdt.csv", None),
        # The day of a perpetual or the delivery of a quarterly: nobody can tell.
        ("btcusdt_240927.csv", None),
        ("btcusdt_240927_trades.csv", None),
    ],
)
def test_symbol_of_a_file_name_is_whole_or_none(name: str, symbol: str | None) -> None:
    assert symbol_of(name) == symbol


@pytest.mark.parametrize("name", ["um/trades.csv", "um/binance_btcusdt.csv", "um/btcusdt_240927.csv"])
def test_word_before_an_underscore_is_no_symbol(tmp_path: Path, name: str) -> None:
    content = b"id,price,qty,time,side\n1,2,3,1721347022504,buy\n"
    with pytest.raises(UsageError, match="neither the file name nor a column"):
        reader(tmp_path, content, name)
    told = reader(tmp_path, content, name, symbol="BTCUSDT", trade_delay_ms=0)
    record = told.read(content.splitlines()[1], 2)
    assert record is not None
    assert record[2] == Trade("BTCUSDT", NS, 1, 2 * 10**8, 3 * 10**8, 1, False, True)


def test_receive_time_and_kind_columns_are_used(tmp_path: Path) -> None:
    header = "TimestampOfReceive,EventTime,TransactionTime,Symbol,TradeId,Price,Quantity,"
    header += "IsBuyerMarketMaker,XUnknownParameter"
    row = f"{MS + 3},{MS},{MS - 1},TRXUSDT,5,0.23,1.0,1,"
    subject = reader(tmp_path, f"{header}\n{row}MARKET\n".encode(), "um/t.csv")
    for kind, market in (("MARKET", True), ("INSURANCE_FUND", False)):
        expected = Trade("TRXUSDT", NS, 5, 23_000_000, 10**8, -1, False, market)
        assert subject.read((row + kind).encode(), 2) == (NS + 3 * 10**6, 2, expected)


ROWS = {
    AGG: f"26,0.5,2,1,3,{MS},true",
    TRADES: f"26,0.5,2,1,{MS},false",
    "timestamp,price,quantity,side,tradeId": f"{MS},0.5,2,sell,9",
    "eventTime,transactTime,price,quantity,side,id": f"{MS},{MS - 150},0.5,2,sell,9",
    "timestamp,local_timestamp,price,amount,side,id": f"{MS},{MS},0.5,2,sell,9",
    TICKERS: f"7,0.5,2,0.6,3,{MS - 5},{MS}",
}


@pytest.mark.parametrize(
    ("header", "folder", "default_ms"),
    [
        *((header, folder, ms) for header in list(ROWS)[:3] for folder, ms in (("um", 200), ("spot", 100))),
        *((header, folder, None) for header in list(ROWS)[3:] for folder in ("um", "spot")),
    ],
)
def test_a_trade_of_which_a_file_tells_only_when_it_was_made_counts_as_sent_later(
    tmp_path: Path, header: str, folder: str, default_ms: int | None
) -> None:
    """Published trades were dated when they were made; a session hears of them when they are sent."""
    path = tmp_path / folder / "BTCUSDT.csv"
    path.parent.mkdir()
    path.write_text(f"{header}\n{ROWS[header]}\n")
    for asked_ms in (None, 0, 57):
        ms = None if default_ms is None else default_ms if asked_ms is None else asked_ms
        file = recognise(path, trade_delay_ms=asked_ms)
        assert file.trade_delay_ns == (None if ms is None else ms * 10**6)
        record = file.reader().read(ROWS[header].encode(), 2)
        assert record is not None
        assert isinstance(record[2], Trade | Ticker)
        assert (record[0], record[2].exch_ns) == (NS + (ms or 0) * 10**6,) * 2


@pytest.mark.parametrize(
    "row",
    [
        "26,0.5,2,1,3,x,true",
        "26,0.5,2,1,3",
        "26,0.5,2,1,3,1721347022504,maybe",
        "26,-1,2,1,3,1721347022504,true",
        "a,1,2,1,3,1721347022504,true",
        'a,1,2,1,3,1721347022504,"true"\rb',
        "\xff",
    ],
)
def test_damaged_csv_row_is_refused(tmp_path: Path, row: str) -> None:
    subject = reader(tmp_path, f"{AGG}\n".encode(), "um/BTCUSDT-aggTrades-2024-07-18.csv")
    with pytest.raises(DecodeError):
        subject.read(row.encode("latin-1"), 2)


MERGED = (
    "TimestampOfReceiveUS,TimestampOfReceive,Stream,EventType,EventTime,TransactionTime,Symbol,FirstUpdateId,"
    "FinalUpdateId,FinalUpdateIdInLastStream,IsAsk,Price,Quantity,PSUnknownField,TradeId,IsBuyerMarketMaker,"
    "XUnknownParameter,TimestampOfRequest,MessageOutputTime,LastUpdateId,StreamType,Market,IsLast,ServiceId"
)


def merged(kind: str, ids: str, is_ask: str, price: str, *, trade: str = ",,", last: str = "") -> bytes:
    event = "" if last else str(MS)
    return f"{MS}000,{MS},s,e,{event},{MS},X,{ids},{is_ask},{price},2,,{trade},,,{last},{kind},M,0,0".encode()


def test_merged_rows_are_put_together_into_messages(tmp_path: Path) -> None:
    rows = [
        merged("FINAL_DEPTH_SNAPSHOT", "1,5,0", "0", "0.5"),
        merged("FINAL_DEPTH_SNAPSHOT", "6,9,5", "1", "0.6"),
        merged("DIFFERENCE_DEPTH_STREAM", "10,12,9", "0", "0.5"),
        merged("DIFFERENCE_DEPTH_STREAM", "10,12,9", "1", "0.7"),
        merged("DIFFERENCE_DEPTH_STREAM", "14,15,12", "1", "0.7"),
        merged("TRADE_STREAM", ",,", "", "0.6", trade="77,0,MARKET"),
        merged("DEPTH_SNAPSHOT", ",,", "0", "0.4", last="20"),
    ]
    subject = reader(tmp_path, b"# note\n" + MERGED.encode() + b"\n" + b"\n".join(rows), "um/merged.csv")
    found: list[Record | None] = [subject.read(row, number) for number, row in enumerate(rows)]
    found.append(subject.finish())
    messages = [record[2] for record in found if record is not None]
    p, q = 10**7, 2 * 10**8
    assert messages == [
        DepthSnapshot("X", NS, 9, [(5 * p, q)], [(6 * p, q)]),
        DepthUpdate("X", NS, 10, 12, 9, [(5 * p, q)], [(7 * p, q)]),
        DepthUpdate("X", NS, 14, 15, 12, [], [(7 * p, q)]),
        Trade("X", NS, 77, 6 * p, q, 1, False, True),
        DepthSnapshot("X", 0, 20, [(4 * p, q)], []),
    ]


NEWEST_FIRST = b"id,price,qty,time,side\n" + b"".join(
    b"%d,2,3,%d,buy\n" % (number, MS + number) for number in range(20, 0, -1)
)


@pytest.mark.parametrize(
    ("name", "content", "options", "what"),
    [
        ("x.dat", b"", {}, "empty"),
        ("x.dat", b"\x00\x01\x02 binary", {}, "neither text nor gzip"),
        ("x.gz", np.random.default_rng(1).bytes(5_000), {}, "neither text nor gzip"),
        ("x.txt", "Größe, Wert\n".encode(), {}, "no column of trades"),
        ("README.txt", b"hello\n", {}, "no column of trades"),
        ("um/x.json", b'{"id": 1,\n', {}, "no column of trades"),
        ("um/x.csv", b"1,2,3\n", {}, "no header"),
        ("um/x.csv", b"id,price,qty,time\n", {}, "which side"),
        ("um/x.csv", b"id,price,time,side\n", {}, "no column for qty"),
        ("um/x.csv", b"id,price,qty,time,side\n", {}, "tells the symbol"),
        ("um/BTCUSDT-x.csv", NEWEST_FIRST, {}, "newest first"),
        ("elsewhere/ltcusdt_trades.csv", b"id,price,qty,time,side\n", {}, "does not tell its venue"),
        ("x.dat", b"1721347022504 " + BODY, {"venue": "binance_spot"}, "messages are of binance_usdm"),
    ],
)
def test_file_that_cannot_be_told_is_refused(
    tmp_path: Path, name: str, content: bytes, options: dict[str, Any], what: str
) -> None:
    with pytest.raises(UsageError, match=what) as caught:
        reader(tmp_path, content, name, **options)
    assert caught.value.where is not None


@pytest.mark.parametrize(
    ("row", "what"),
    [
        ("26,0.5,2,1,3,2024-07-18T23:57:02Z,true", "not a time"),
        ("26, 0.5, 2, 1, 3, 1721347022504, true", "not a time"),
        ("26,0.5,1e-3,1,3,1721347022504,true", "not a decimal number"),
        ("26,0.5,2,1,3,1721347022504,true,", "wrong number of columns"),
    ],
)
def test_csv_of_which_no_row_can_be_read_is_refused(tmp_path: Path, row: str, what: str) -> None:
    """It was imported: no rows, exit code 0, and known from then on."""
    path = tmp_path / "um" / "BTCUSDT-aggTrades-2024-07-18.csv"
    path.parent.mkdir()
    path.write_text(f"{AGG}\n{row}\n{row}\n")
    with pytest.raises(UsageError, match=f"none of the first rows can be read: .*{what}") as caught:
        recognise(path)
    assert f"{path}, line 2" in str(caught.value.where)
    path.write_text(f"{AGG}\n{row}\n26,0.5,2,1,3,{MS},true\n")
    assert recognise(path).begin_ns == NS + 200 * 10**6


def test_recognised_file_is_small(tmp_path: Path) -> None:
    """Each kept its first 256 KiB until the last one was imported."""
    for name, line in (("a.dat", b"1721347022504 " + BODY), ("BTCUSDT-x.csv", f"1,2,3,{MS},buy".encode())):
        path = tmp_path / name
        header = b"id,price,qty,time,side\n" if name.endswith(".csv") else b""
        path.write_bytes(header + (line + b"\n") * 6_000)
        file = recognise(path, venue="binance_usdm")
        assert sum(sys.getsizeof(getattr(file, each.name)) for each in fields(file)) < 4_000


def test_venue_of_a_csv_is_told_by_its_folder(tmp_path: Path) -> None:
    for folder, venue in (("spot", "binance_spot"), ("um", "binance_usdm")):
        path = tmp_path / folder / "BTCUSDT-trades-2024-07-18.csv"
        path.parent.mkdir()
        path.write_text(f"{TRADES}\n")
        assert recognise(path).venue == venue
