"""Folders as people have them: which of their files are imported, and what is said of the others."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gpuscalp.archive import Archive
from gpuscalp.archive.folders import sources_in
from gpuscalp.archive.ingest import import_sources
from gpuscalp.errors import UnusableSourceError, UsageError
from tests.archive import market

MS = market.START_NS // 10**6
AGG = "agg_trade_id,price,quantity,first_trade_id,last_trade_id,transact_time,is_buyer_maker"
KLINES = (
    "open_time,open,high,low,close,volume,close_time,quote_volume,count,taker_buy_volume,"
    "taker_buy_quote_volume,ignore"
)
KLINE = f"{MS},70000.1,70010.0,69990.0,70001.2,12.5,{MS + 59_999},875000.1,321,6.2,434000.5,0"
QUOTES = "quotes without update ids cannot be imported"
BOOKS = "books without update ids cannot be imported"


def zipped(path: Path, *rows: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as file:
        file.writestr(path.with_suffix(".csv").name, "\n".join(rows) + "\n")
    return path


def published(root: Path, folder: str, symbol: str, day: int, *, first_id: int = 1) -> Path:
    """Write ten aggTrades where Binance Vision's layout has them."""
    start_ms = MS + day * 86_400_000
    rows = [f"{first_id + at},100.5,1,{at},{at},{start_ms + at},true" for at in range(10)]
    name = f"{symbol}-aggTrades-2024-07-{18 + day}.zip"
    return zipped(root / folder / "aggTrades" / symbol / name, AGG, *rows)


def test_tree_of_published_files_is_imported_from_its_root(tmp_path: Path) -> None:
    """Only the innermost folders could be given: "the folder holds no source files"."""
    root = tmp_path / "data"
    for folder in ("data/futures/um/daily", "data/spot/daily"):
        for symbol in ("BTCUSDT", "ETHUSDT"):
            for day in range(2):
                published(root, folder, symbol, day, first_id=1 + 10 * day)
    answer = import_sources([root], tmp_path / "archive", strict=True).to_dict()
    assert (answer["rows"], answer["gaps"], len(answer["sources"])) == (80, 0, 8)
    assert answer["passed_over"] == {}
    archive = Archive.open(tmp_path / "archive")
    for venue in ("binance_spot", "binance_usdm"):
        assert archive.symbols(venue) == ("BTCUSDT", "ETHUSDT")
    again = import_sources([root], tmp_path / "archive").to_dict()
    assert (again["rows"], len(again["skipped"])) == (0, 8)


def session(path: Path) -> None:
    (path / "journal").mkdir(parents=True)
    (path / "logs").mkdir()
    (path / "session.json").write_text("{}")
    (path / "logs" / "gpuscalp.jsonl").write_text("{}\n")
    (path / "journal" / "journal-00000000.gsj").write_bytes(b"ours")


def test_what_belongs_to_others_is_passed_over_and_told(tmp_path: Path) -> None:
    root = tmp_path / "mine"
    source = published(root, "um", "BTCUSDT", 0)
    import_sources([published(tmp_path, "um", "ETHUSDT", 0)], root / "b" / "archive")
    # A copy without hidden files, and what a killed first import may leave.
    (root / "copy" / "venue=binance_usdm").mkdir(parents=True)
    (root / "copy" / "manifest.json").write_text("{}")
    (root / "killed" / "venue=binance_usdm").mkdir(parents=True)
    (root / "killed" / "rejects").mkdir()
    (root / "killed" / "rejects" / "ab.jsonl").write_text("{}\n")
    (root / "killed" / ".lock").touch()
    session(root / "s")
    (root / "old journal").mkdir()
    (root / "old journal" / "journal-00000003.gsj").write_bytes(b"ours")
    source.with_name(f"{source.name}.CHECKSUM").write_text("ab")
    os.mkfifo(root / "um" / "pipe.gz")
    (root / ".cache").mkdir()
    for hidden in (".cache/x.csv", "um/._BTCUSDT.zip"):
        (root / hidden).write_text("nothing of ours")
    (root / "um" / "back").symlink_to(root, target_is_directory=True)
    report = import_sources([root], tmp_path / "archive")
    assert [each.name for each in report.sources] == [source.name]
    assert report.passed_over == {
        str(root / "b" / "archive"): "an archive",
        str(root / "copy"): "an archive",
        str(root / "killed"): "an archive",
        str(root / "s"): "a session's folder",
        str(root / "old journal"): "a session's journal",
        f"{source}.CHECKSUM": "no source by its name",
        str(root / "um" / "pipe.gz"): "no regular file",
    }


def test_recordings_below_are_sources(tmp_path: Path) -> None:
    """They were passed over as journals of sessions, and the folder above them "holds no source files"."""
    for name in ("btc", "eth"):
        (tmp_path / name).mkdir()
        for part in ("journal-00000000.gsj", "lock", "exchangeInfo.json"):
            (tmp_path / name / part).touch()
    files, others = sources_in(tmp_path)
    assert ([path.parent.name for path in files], others) == (["btc", "eth"], {})


def test_archive_in_the_folder_that_is_imported_is_no_source_of_itself(tmp_path: Path) -> None:
    market.write(tmp_path / "a.gz", [*market.lines(30), b"nonsense"])
    for rows, others in ((31, []), (0, ["an archive"])):
        answer = import_sources([tmp_path], tmp_path / "archive").to_dict()
        assert (answer["rows"], list(answer["passed_over"].values())) == (rows, others)


def test_folder_of_an_archive_or_a_session_is_refused_with_what_to_name(tmp_path: Path) -> None:
    import_sources([market.write(tmp_path / "a.gz", market.lines(30))], tmp_path / "archive")
    session(tmp_path / "s")
    for name, what, fix in (("archive", "an archive", "imported from"), ("s", "a session's", "journal")):
        with pytest.raises(UsageError, match=f"the folder is {what}") as caught:
            import_sources([tmp_path / name], tmp_path / "other")
        assert fix in str(caught.value.fix)
    assert not (tmp_path / "other").exists()


# name, rows, what is said
OTHER_KINDS = [
    ("BTCUSDT-1m-2024-07-18.zip", (KLINES, KLINE), "klines hold no ticks"),
    ("BTCUSDT-1m-2021-07-18.zip", (KLINE, KLINE), "klines hold no ticks"),
    (
        "BTCUSDT-1m-2025-01-18.zip",
        (f"{MS}000,70000.1,70010.0,69990.0,70001.2,12.5,{MS}999,875000.1,321,6.2,434000.5,0",),
        "klines hold no ticks",
    ),
    (
        "BTCUSDT-bookDepth-2024-07-18.zip",
        ("timestamp,percentage,depth,notional", "2024-07-18 00:00:03,-5,1,2"),
        "bookDepth holds no ticks",
    ),
    (
        "BTCUSDT-bookDepth-2024-07-19.zip",
        ("2024-07-18 00:00:03,-5,8388.123,1.5",),
        "bookDepth holds no ticks",
    ),
    (
        "BTCUSDT-metrics-2024-07-18.zip",
        (
            "create_time,symbol,sum_open_interest,sum_open_interest_value,count_toptrader_long_short_ratio",
            "2024-07-18 00:05:00,BTCUSDT,81000.1,1,2",
        ),
        "metrics hold no ticks",
    ),
    (
        "BTCUSDT-fundingRate-2024-07.zip",
        ("calc_time,funding_interval_hours,last_funding_rate", f"{MS},8,0.0001"),
        "fundingRate holds no ticks",
    ),
    (
        "BTCUSDT-liquidationSnapshot-2024-07-18.zip",
        (
            "time,side,order_type,time_in_force,original_quantity,price,average_price,order_status,"
            "last_fill_quantity,accumulated_fill_quantity",
            f"{MS},SELL,LIMIT,IOC,1,100.5,100.6,FILLED,1,1",
        ),
        "liquidationSnapshot holds no ticks",
    ),
    (
        "binance-futures_quotes_2024-07-18_BTCUSDT.zip",
        (
            "exchange,symbol,timestamp,local_timestamp,ask_amount,ask_price,bid_price,bid_amount",
            f"binance-futures,BTCUSDT,{MS}000,{MS}003,1,100.6,100.5,2",
        ),
        QUOTES,
    ),
    (
        "binance-futures_book_snapshot_25_2024-07-18_BTCUSDT.zip",
        (
            "exchange,symbol,timestamp,local_timestamp,asks[0].price,asks[0].amount,bids[0].price,"
            "bids[0].amount",
            f"binance-futures,BTCUSDT,{MS}000,{MS}003,100.6,1,100.5,2",
        ),
        BOOKS,
    ),
    (
        "binance-futures_incremental_book_L2_2024-07-18_BTCUSDT.zip",
        (
            "exchange,symbol,timestamp,local_timestamp,is_snapshot,side,price,amount",
            f"binance-futures,BTCUSDT,{MS}000,{MS}003,true,bid,100.5,1",
        ),
        BOOKS,
    ),
    (
        "binance-futures_derivative_ticker_2024-07-18_BTCUSDT.zip",
        (
            "exchange,symbol,timestamp,local_timestamp,funding_timestamp,funding_rate,"
            "predicted_funding_rate,open_interest,last_price,index_price,mark_price",
            f"binance-futures,BTCUSDT,{MS}000,{MS}003,,0.0001,,81000.1,100.5,100.5,100.5",
        ),
        "derivative_ticker holds no ticks",
    ),
]


@pytest.mark.parametrize(("name", "rows", "what"), OTHER_KINDS, ids=[case[0] for case in OTHER_KINDS])
def test_published_file_without_ticks_is_told_by_its_kind(
    tmp_path: Path, name: str, rows: tuple[str, ...], what: str
) -> None:
    """They were refused for want of "a column for id", and stopped the import of the good ones beside."""
    good = published(tmp_path, "um", "BTCUSDT", 0)
    other = zipped(tmp_path / "um" / name, *rows)
    with pytest.raises(UnusableSourceError, match=what) as caught:
        import_sources([good, other], tmp_path / "archive")
    assert caught.value.where == str(other)
    assert "aggTrades or trades, and bookTicker" in str(caught.value.fix)
    report = import_sources([tmp_path / "um"], tmp_path / "archive").to_dict()
    assert (report["rows"], report["passed_over"]) == (10, {str(other): what})
    good.unlink()
    with pytest.raises(UsageError, match="holds no source files") as caught_again:
        import_sources([tmp_path / "um"], tmp_path / "archive")
    assert caught_again.value.value == f"{what}: 1"


def dangling(path: Path) -> None:
    path.symlink_to(path.with_name("gone"))


@pytest.mark.parametrize(
    ("make", "what"),
    [
        (dangling, "cannot read the source"),
        (lambda path: path.write_text("\x07\x07\n" * 30), "the format is not known"),
        (lambda path: path.touch(), "the source is empty"),
    ],
)
def test_file_that_cannot_be_read_does_not_vanish(
    tmp_path: Path, make: Callable[[Path], Any], what: str
) -> None:
    published(tmp_path, "um", "BTCUSDT", 0)
    (tmp_path / "um" / "deep" / "deeper").mkdir(parents=True)
    path = tmp_path / "um" / "deep" / "deeper" / "BTCUSDT.csv"
    make(path)
    with pytest.raises(UsageError, match=what) as caught:
        import_sources([tmp_path / "um"], tmp_path / "archive")
    assert caught.value.where == str(path)


def test_folder_that_cannot_be_read_does_not_vanish(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    published(tmp_path, "um", "BTCUSDT", 0)
    locked, scandir = tmp_path / "um" / "locked", os.scandir
    locked.mkdir()

    def denied(path: Any) -> Any:
        if Path(path) == locked:
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", denied)
    with pytest.raises(UsageError, match="cannot read the folder: Permission denied") as caught:
        import_sources([tmp_path / "um"], tmp_path / "archive")
    assert caught.value.where == str(locked)
