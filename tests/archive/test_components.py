"""Which files belong together, and which symbol theirs is."""

from __future__ import annotations

import weakref
from pathlib import Path

import pytest

from gpuscalp.archive import Archive
from gpuscalp.archive.formats import LineReader, SourceFile, recognise
from gpuscalp.archive.ingest import import_sources
from gpuscalp.archive.verify import verify
from tests.archive import market

VENUE = "binance_usdm"


def test_days_of_many_symbols_chain(tmp_path: Path) -> None:
    """Of 120 symbols none has a hundredth of the lines: the files were taken for ones that share nothing, and
    the second had no books."""
    names = [f"S{number:03}USDT" for number in range(120)]
    head = [b"wss://fstream.binance.com/stream?streams=btcusdt@kline_1m <-> 1721347140.0"]
    body = sorted(
        (line for name in names for line in _by_rest(market.lines(60, symbol=name), name)), key=_received
    )
    half = len(body) // 2
    days = market.write(tmp_path / "1.0", head + body[:half]), market.write(tmp_path / "2.0", body[half:])
    answer = import_sources(days, tmp_path / "archive").to_dict()
    assert (answer["set_aside"].get("before_snapshot", 0), answer["gaps"], answer["unsynced"]) == (0, 0, {})
    assert answer["rows_by_table"]["books"] == 120 * 20


@pytest.mark.parametrize("names", [("export1", "export2"), ("BTCUSDT_1", "ALLUSDT_2")])
def test_tables_of_one_symbol_belong_together_whatever_their_names(
    tmp_path: Path, names: tuple[str, str]
) -> None:
    """Grouped by file name, two exports that overlap were imported apart, and their rows stood twice."""
    header = "symbol,id,price,qty,time,side\n"
    rows = [f"BTCUSDT,{number},100.5,1,{market.START_NS // 10**6 + number},buy\n" for number in range(1, 451)]
    (tmp_path / "um").mkdir()
    for name, part in zip(names, (rows[:300], rows[150:]), strict=True):
        (tmp_path / "um" / f"{name}.csv").write_text(header + "".join(part))
    answer = import_sources([tmp_path / "um"], tmp_path / "archive").to_dict()
    assert (answer["rows"], answer["duplicates"]) == (450, 150)
    assert verify(tmp_path / "archive").problems == []


def test_file_whose_symbols_are_not_known_may_belong_to_any(tmp_path: Path) -> None:
    """The snapshots of two streams, behind an answer that fills the first 256 KiB."""
    long = b"https://fapi.binance.com/fapi/v1/exchangeInfo -> 1721347140.0: {%s}" % (b" " * 2**18)
    streams = {name: market.lines(300, symbol=name) for name in ("BTCUSDT", "ETHUSDT")}
    rest = [long, *(_by_rest(lines, name)[0] for name, lines in streams.items())]
    sources = [market.write(tmp_path / "http.0", rest)]
    sources += [market.write(tmp_path / f"{name}.0", lines[1:]) for name, lines in streams.items()]
    assert recognise(sources[0]).symbols == ()
    assert import_sources(sources, tmp_path / "archive").unsynced == {}


def test_streams_over_all_symbols_belong_to_every_file(tmp_path: Path) -> None:
    """Two recordings, of which each names one symbol and has the marks of both: the marks stood twice."""
    marks = [
        b'%d {"stream":"!markPrice@arr","data":[{"e":"markPriceUpdate","E":%d,"s":"BTCUSDT","p":"100.1",'
        b'"i":"100","r":"0.0001","T":1721376000000}]}'
        % (now := market.START_NS + 10**9 * number, now // 10**6 - 1)
        for number in range(30)
    ]
    sources = [
        market.write(tmp_path / f"{name}.gz", sorted([*market.lines(30, symbol=name), *marks], key=_received))
        for name in ("BTCUSDT", "ETHUSDT")
    ]
    answer = import_sources(sources, tmp_path / "archive").to_dict()
    assert (answer["rows_by_table"]["marks"], answer["duplicates"]) == (30, 30)
    assert answer["rejects"] == 0, "each recording is of one symbol: its snapshot is taken"


def test_nothing_of_a_source_that_has_ended_is_kept_but_its_account(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Readers with their caches stayed to the end: 7 to 16 MB for every day of a symbol."""
    readers: weakref.WeakSet[LineReader] = weakref.WeakSet()
    alive, reader = [], SourceFile.reader

    def counted(file: SourceFile) -> LineReader:
        made = reader(file)
        readers.add(made)
        alive.append(len(readers))
        return made

    monkeypatch.setattr(SourceFile, "reader", counted)
    lines = market.lines(600)
    days = [market.write(tmp_path / f"{day}.0", lines[day * 100 : day * 100 + 100]) for day in range(6)]
    import_sources(days, tmp_path / "archive")
    assert len(alive) >= len(days)
    assert max(alive) <= 2


def test_quarterly_contract_is_not_the_perpetual(tmp_path: Path) -> None:
    (tmp_path / "um").mkdir()
    for name, price in (("BTCUSDT", 100), ("BTCUSDT_240927", 101)):
        path = tmp_path / "um" / f"{name}-trades-2024-07-18.csv"
        path.write_text(f"1,{price},2,200,{market.START_NS // 10**6},true\n")
    import_sources([tmp_path / "um"], tmp_path / "archive")
    assert Archive.open(tmp_path / "archive").symbols(VENUE) == ("BTCUSDT", "BTCUSDT_240927")


def _received(line: bytes) -> int:
    return int(line.partition(b" ")[0]) if line[:1].isdigit() else market.START_NS


def _by_rest(lines: list[bytes], symbol: str) -> list[bytes]:
    """Return recording lines with the snapshot, the first one, as the answer of a REST call."""
    stamp, _, body = lines[0].partition(b" ")
    url = f"https://fapi.binance.com/fapi/v1/depth?symbol={symbol}&limit=1000 -> ".encode()
    return [url + stamp[:10] + b"." + stamp[10:] + b": " + body, *lines[1:]]
