"""The real recordings: what they are known to hold must come out, with nothing lost."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from gpuscalp.archive import Archive
from gpuscalp.archive.ingest import import_sources
from gpuscalp.archive.manifest import load
from gpuscalp.archive.verify import verify
from gpuscalp.schema import TickKind

BTC_2023 = ("usdm/btcusdt_20230404.dat.gz", "usdm/btcusdt_20230405.dat.gz")
USDM_2024 = tuple(f"usdm/{name}usdt_202407{day}.gz" for name in ("btc", "eth") for day in ("18", "19"))
NEXO = ("spot/nexousdt_20240723.dat.gz", "spot/nexousdt_20240724.dat.gz")
SAND = ("usdm/cryptofeed_BINANCE_FUTURES-1125a2.0.gz",)
SUSHI = tuple(f"usdm/cryptofeed_BINANCE_FUTURES.{name}.gz" for name in ("0", "http.0.0", "ws.1.0"))


def counted(path: Path) -> Counter[str]:
    """Count messages by kind, without any code of ours."""
    kinds: Counter[str] = Counter()
    with gzip.open(path, "rt") as lines:
        for line in lines:
            frame = json.loads(line[line.index("{") :])
            if "stream" in frame:
                kinds[frame["stream"].partition("@")[2].partition("@")[0]] += 1
    return kinds


@pytest.mark.parametrize(
    ("names", "venue", "symbols"),
    [
        (USDM_2024, "binance_usdm", ("BTCUSDT", "ETHUSDT")),
        (BTC_2023, "binance_usdm", ("BTCUSDT",)),
        (NEXO, "binance_spot", ("NEXOUSDT",)),
    ],
    ids=["2024", "2023", "nexo"],
)
def test_recording_imports_whole(
    recordings: Path, tmp_path: Path, names: tuple[str, ...], venue: str, symbols: tuple[str, ...]
) -> None:
    paths = [recordings / name for name in names]
    answer = import_sources(paths, tmp_path / "archive", strict=True).to_dict()
    assert [answer[key] for key in ("rejects", "gaps", "crossed_books", "crossed_quotes")] == [0] * 4
    assert [answer[key] for key in ("duplicates", "late", "out_of_order")] == [0] * 3
    assert answer["unsynced"] == {}
    kinds = sum((counted(path) for path in paths), Counter[str]())
    not_market = answer["set_aside"].get("not_market", 0)
    assert not_market == (1 if names is BTC_2023 else 0), "one fill of the insurance fund in 2023"
    assert answer["rows_by_table"]["trades"] == kinds["trade"] - not_market
    assert answer["rows_by_table"]["marks"] == kinds["markPrice"]
    assert kinds["bookTicker"] <= answer["rows_by_table"]["quotes"] <= kinds["bookTicker"] + 1
    assert answer["messages"]["depth"] + answer["set_aside"].get("before_snapshot", 0) == kinds["depth"]
    archive = Archive.open(tmp_path / "archive")
    assert archive.symbols(venue) == symbols
    ticks = np.concatenate(list(archive.tick_batches(venue)))
    assert len(ticks) == answer["rows"]
    assert (np.diff(ticks["recv_ns"]) >= 0).all()
    assert not ticks["quality"].any()
    quotes = ticks[(ticks["kind"] == TickKind.QUOTE) | (ticks["kind"] == TickKind.BOOK)]
    assert (quotes["px0"] < quotes["px1"]).all()
    checked = verify(tmp_path / "archive")
    assert checked.problems == []
    assert checked.missing_ids_outside_gaps == not_market


@pytest.mark.parametrize(("names", "symbol_count"), [(SAND, 5), (SUSHI, 4)], ids=["2021-04", "2021-07"])
def test_capture_of_cryptofeed_imports_whole(
    recordings: Path, tmp_path: Path, names: tuple[str, ...], symbol_count: int
) -> None:
    answer = import_sources(
        [recordings / name for name in names], tmp_path / "archive", strict=True
    ).to_dict()
    assert [answer[key] for key in ("rejects", "gaps", "crossed_books", "duplicates", "out_of_order")] == [
        0
    ] * 5
    assert answer["unsynced"] == {}, "every book found its REST snapshot, in whichever file it is"
    assert len(Archive.open(tmp_path / "archive").symbols("binance_usdm")) == symbol_count
    assert min(answer["rows_by_table"][name] for name in ("trades", "quotes", "books")) > 50


@pytest.mark.parametrize(
    ("name", "trades", "kinds"),
    [
        ("usdm/trxusdt_trades_20250304.csv.gz", 9_999, set()),
        ("usdm/trxusdt_merged_20250414.csv.gz", 199, set()),
        # Only the spot file is known to have holes.
        ("spot/ltcusdt_trades_20250621.csv.gz", 53_325, {"trade_id"}),
    ],
)
def test_csv_imports_whole(recordings: Path, tmp_path: Path, name: str, trades: int, kinds: set[str]) -> None:
    venue = "binance_spot" if name.startswith("spot") else "binance_usdm"
    answer = import_sources([recordings / name], tmp_path / "archive", venue=venue, strict=True).to_dict()
    assert answer["rows_by_table"]["trades"] == trades
    assert answer["rejects"] == answer["crossed_books"] == 0
    assert {gap.kind for gap in load(tmp_path / "archive").gaps} == kinds


def test_snapshot_of_a_quiet_symbol_is_not_the_book_of_the_other(recordings: Path, tmp_path: Path) -> None:
    """ETH with a snapshot and 28 trades among 20,000 lines of BTC: its prices stood in BTC's book."""
    with gzip.open(recordings / "usdm/btcusdt_20240718.gz") as file:
        lines = file.read().splitlines()
    with gzip.open(recordings / "usdm/ethusdt_20240718.gz") as file:
        ether = file.read().splitlines()
    place = next(index for index, line in enumerate(lines) if b"lastUpdateId" in line)
    snapshot = next(line for line in ether if b"lastUpdateId" in line).partition(b" ")[2]
    lines.insert(place, b"%d %s" % (int(lines[place].partition(b" ")[0]) - 1, snapshot))
    lines += [line for line in ether if b"ethusdt@trade" in line][:28]
    lines[place + 2 :] = sorted(lines[place + 2 :], key=lambda line: int(line.partition(b" ")[0]))
    path = tmp_path / "both.gz"
    path.write_bytes(gzip.compress(b"\n".join(lines) + b"\n", 1))
    answer = import_sources([path], tmp_path / "archive").to_dict()
    assert answer["rejects_by_reason"] == {
        "snapshot without a symbol in a recording that is not of one symbol": 2
    }
    assert (answer["rows_by_table"]["books"], answer["crossed_books"]) == (0, 0)
    assert list(answer["unsynced"]) == ["BTCUSDT"]


def test_spot_recording_without_a_snapshot_has_quotes_and_trades_only(
    recordings: Path, tmp_path: Path
) -> None:
    answer = import_sources([recordings / "spot/btcusdt_20230405.dat.gz"], tmp_path / "archive").to_dict()
    assert answer["rows_by_table"] == {"trades": 3_144, "quotes": 8_015, "books": 0, "marks": 0}
    assert answer["unsynced"] == {"BTCUSDT": 3_929}


def test_undated_spot_quotes_lie_between_dated_messages(recordings: Path, tmp_path: Path) -> None:
    import_sources([recordings / "spot/btcusdt_20230405.dat.gz"], tmp_path / "archive")
    batches = Archive.open(tmp_path / "archive").tick_batches("binance_spot")
    ticks = np.concatenate(list(batches))
    lateness_ns = np.maximum.accumulate(ticks["exch_ns"]) - ticks["exch_ns"]
    assert np.percentile(lateness_ns, 99) < 20 * 10**6


def test_instruments_of_the_venue_fit_the_recordings(recordings: Path, tmp_path: Path) -> None:
    info = recordings / "rest" / "fapi_exchangeInfo_2025.json"
    path = recordings / "usdm" / "btcusdt_20240718.gz"
    report = import_sources([path], tmp_path / "archive", instruments=info)
    (instrument,) = Archive.open(tmp_path / "archive").instruments("binance_usdm")
    assert (report.misfits, instrument.source) == ([], "exchange_info")
    assert instrument.tick_size_e8 == 10**7
