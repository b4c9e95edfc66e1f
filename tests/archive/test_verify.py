"""Each kind of damage to an archive, and the sentence that names it."""

from __future__ import annotations

import gzip
import hashlib
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gpuscalp.archive.info import describe
from gpuscalp.archive.ingest import import_sources
from gpuscalp.archive.tables import footer_crc32
from gpuscalp.archive.verify import verify
from gpuscalp.errors import ArchiveError
from tests.archive import market

VISION_TRADES = "id,price,qty,quote_qty,time,is_buyer_maker"
VISION_AGG = "agg_trade_id,price,quantity,first_trade_id,last_trade_id,transact_time,is_buyer_maker"
VISION_TICKER = (
    "update_id,best_bid_price,best_bid_qty,best_ask_price,best_ask_qty,transaction_time,event_time"
)


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    import_sources([market.write(tmp_path / "a.gz", market.lines(300))], tmp_path / "archive")
    return tmp_path / "archive"


def trades(archive: Path) -> Path:
    return next(archive.rglob("trades.parquet"))


def rewrite(file: Path, change: Callable[[pa.Table], pa.Table]) -> None:
    """Change a part and make the manifest agree on its bytes, as a careless tool would."""
    pq.write_table(change(pq.read_table(file, partitioning=None)), file)
    manifest = file.parents[3] / "manifest.json"
    content: dict[str, Any] = json.loads(manifest.read_text())
    for part in content["parts"]:
        if (file.parents[3] / part["path"]) == file:
            part["bytes"] = file.stat().st_size
            part["sha256"] = hashlib.sha256(file.read_bytes()).hexdigest()
            with file.open("rb") as written:
                part["footer_crc32"] = footer_crc32(written)
    manifest.write_text(json.dumps(content))


def test_intact_archive_has_no_problems(archive: Path) -> None:
    report = verify(archive)
    assert report.to_dict()["ok"]
    assert (report.files, report.rows) == (3, 301)
    report.raise_if_damaged(archive)


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(bytes(content))


DAMAGE: list[tuple[Callable[[Path], None], str]] = [
    (lambda file: file.unlink(), "missing"),
    (flip, "size or sha256 differ"),
    (lambda file: rewrite(file, lambda table: table.slice(1)), "rows is"),
    (
        lambda file: rewrite(file, lambda table: table.take(pa.array([1, 0, *range(2, len(table))]))),
        "not sorted",
    ),
    (lambda file: rewrite(file, lambda table: pa.concat_tables([table, table])), "trades are there twice"),
    (lambda file: rewrite(file, lambda table: table.drop_columns(["side"])), "columns are not those"),
]


@pytest.mark.parametrize(("damage", "what"), DAMAGE, ids=[what for _, what in DAMAGE])
def test_damage_is_named(archive: Path, damage: Callable[[Path], None], what: str) -> None:
    damage(trades(archive))
    report = verify(archive)
    assert any(what in problem for problem in report.problems), report.problems
    with pytest.raises(ArchiveError, match="the archive is damaged"):
        report.raise_if_damaged(archive)


def csv(path: Path, header: str, rows: list[str]) -> Path:
    return market.write(path, [header.encode(), *(row.encode() for row in rows)])


def trade_rows(first: int, last: int) -> list[str]:
    """Ten trades a second."""
    start_ms = market.START_NS // 10**6
    return [f"{5_000 + at},100.1,1,100.1,{start_ms + 100 * at},true" for at in range(first, last)]


def aggregate_rows(first: int, last: int) -> list[str]:
    """The same ones, two in each."""
    start_ms = market.START_NS // 10**6
    return [
        f"{900 + at // 2},100.1,2,{5_000 + at},{5_001 + at},{start_ms + 100 * at},true"
        for at in range(first, last, 2)
    ]


def ticker_rows(first: int, last: int) -> list[str]:
    start_ms = market.START_NS // 10**6
    return [f"{at},100,1,100.1,2,{start_ms + at // 3},{start_ms + at // 3}" for at in range(first, last)]


def mark_lines(first: int, last: int) -> list[bytes]:
    lines = []
    for at in range(first, last):
        now_ms = market.START_NS // 10**6 + 1_000 * at
        data = {"e": "markPriceUpdate", "E": now_ms, "s": "BTCUSDT", "p": "100.1", "i": "100.2"}
        data |= {"P": "100.1", "r": "0.0001", "T": market.START_NS // 10**6 + 60_000}
        message = {"stream": "btcusdt@markPrice@1s", "data": data}
        lines.append(f"{(now_ms + 80) * 10**6} {json.dumps(message)}".encode())
    return lines


def overlapping(kind: str, folder: Path) -> tuple[Path, Path, list[str]]:
    """Write two sources that overlap; return them and what verify says of them imported apart."""
    apart = "(overlapping sources imported separately)"
    twice, one = f"there twice {apart}", folder / "BTCUSDT-one-2024-07-18.csv"
    other = folder / "BTCUSDT-two-2024-07-18.csv"
    if kind == "aggregates":
        csv(one, VISION_AGG, aggregate_rows(0, 500))
        csv(other, VISION_TRADES, trade_rows(0, 500))
        wanted = [
            f"trades and aggregate trades of the same time are there, so that volume counts twice {apart}"
        ]
    elif kind == "quotes":
        csv(one, VISION_TICKER, ticker_rows(0, 3_000))
        csv(other, VISION_TICKER, ticker_rows(0, 2_000))
        wanted = [f"2000 quotes are {twice}"]
    elif kind == "marks":
        market.write(one, mark_lines(0, 30))
        market.write(other, mark_lines(10, 40))
        wanted = [f"20 marks are {twice}"]
    else:
        market.write(one, market.lines(900))
        market.write(other, market.lines(600))
        wanted = [f"200 trades are {twice}", f"200 books are {twice}", f"201 quotes are {twice}"]
    return one, other, [f"binance_usdm BTCUSDT: {text}" for text in wanted]


@pytest.mark.parametrize("kind", ["aggregates", "quotes", "marks", "recordings"])
@pytest.mark.parametrize("reverse", [False, True])
def test_what_two_imports_have_both_is_no_intact_archive(kind: str, reverse: bool, tmp_path: Path) -> None:
    """Only trades with equal ids were seen."""
    one, other, problems = overlapping(kind, tmp_path)
    for path in (other, one) if reverse else (one, other):
        import_sources([path], tmp_path / "archive", venue="binance_usdm")
    assert sorted(verify(tmp_path / "archive").problems) == sorted(problems)
    import_sources([one, other], tmp_path / "together", venue="binance_usdm")
    assert verify(tmp_path / "together").problems == []


@pytest.mark.parametrize("rows", [trade_rows, aggregate_rows])
def test_imports_that_fill_one_another_are_intact(rows: Callable[..., list[str]], tmp_path: Path) -> None:
    header = VISION_TRADES if rows is trade_rows else VISION_AGG
    outer = csv(tmp_path / "BTCUSDT-a.csv", header, [*rows(0, 1_000), *rows(2_000, 3_000)])
    inner = csv(tmp_path / "BTCUSDT-b.csv", header, rows(1_000, 2_000))
    for path in (outer, inner):
        import_sources([path], tmp_path / "archive", venue="binance_usdm", symbol="BTCUSDT")
    assert verify(tmp_path / "archive").problems == []


@pytest.mark.parametrize("later", [[], [(120, 180)], [(120, 180), (150, 240), (430, 440)]])
def test_missing_ids_are_counted_in_gaps_and_outside_of_them(
    later: list[tuple[int, int]], tmp_path: Path
) -> None:
    """Beside gaps of thousands of ids stood "missing ids 0"."""
    of_fund = {50, 51, 350}
    rows = [
        f"{row},{'INSURANCE_FUND' if number in of_fund else 'MARKET'}"
        for number, row in enumerate(trade_rows(0, 500))
    ]
    first = [(0, 100), (200, 300), (301, 400), (450, 500)]
    there: set[int] = set()
    for name, spans in enumerate([first, *([span] for span in later)]):
        numbers = [number for begin, end in spans for number in range(begin, end)]
        header = f"{VISION_TRADES},x_unknown_parameter"
        source = csv(tmp_path / f"BTCUSDT-{name}.csv", header, [rows[number] for number in numbers])
        import_sources([source], tmp_path / "archive", venue="binance_usdm")
        there.update(numbers)
    report = verify(tmp_path / "archive")
    assert report.missing_ids_in_gaps == len(set(range(500)) - there)
    assert report.missing_ids_outside_gaps == len(of_fund)


def test_day_that_was_never_imported_is_lost_not_made_by_no_market(tmp_path: Path) -> None:
    """One import does not see where the other has ended, so there is no gap."""
    days = [csv(tmp_path / f"BTCUSDT-{at}.csv", VISION_TRADES, trade_rows(at, at + 500)) for at in (0, 2_000)]
    for day in days:
        import_sources([day], tmp_path / "archive", venue="binance_usdm")
    report = verify(tmp_path / "archive")
    missing = report.missing_ids_in_gaps, report.missing_ids_between_imports, report.missing_ids_outside_gaps
    assert (report.problems, missing) == ([], (0, 1_500, 0))


def test_first_half_of_a_recording_again_is_no_intact_archive(recordings: Path, tmp_path: Path) -> None:
    whole = recordings / "usdm" / "cryptofeed_BINANCE_FUTURES-1125a2.0.gz"
    lines = gzip.decompress(whole.read_bytes()).splitlines()
    half = market.write(tmp_path / "half.gz", lines[: len(lines) // 2])
    import_sources([whole], tmp_path / "archive")
    rows = import_sources([half], tmp_path / "archive").to_dict()["rows_by_table"]
    counts: Counter[str] = Counter()
    for problem in verify(tmp_path / "archive").problems:
        _, _, count, table, *_ = problem.split()
        counts[table] += int(count)
    assert counts == {table: count for table, count in rows.items() if count}
    assert min(counts.values()) > 10


def test_file_that_the_manifest_does_not_name_is_listed(archive: Path) -> None:
    trades(archive).with_name("trades.7.parquet").write_bytes(b"")
    report = verify(archive)
    assert report.problems == []
    assert [Path(name).name for name in report.unlisted] == ["trades.7.parquet"]


def test_description_counts_what_is_there(archive: Path) -> None:
    answer = describe(archive)
    (symbol,) = answer["symbols"]
    assert symbol["rows"] == {"trades": 100, "quotes": 101, "books": 100, "marks": 0}
    assert symbol["instrument"]["tick_size_e8"] == 10**7
    assert answer["totals"]["rows"] == sum(day["rows"] for day in answer["days"]) == 301
    assert answer["totals"]["rejects"] == 0
    assert [source["name"] for source in answer["sources"]] == ["a.gz"]
