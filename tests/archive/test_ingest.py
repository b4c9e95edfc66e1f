"""Imports of a small made-up market: idempotence, order of files, rejects, strictness, memory."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gpuscalp.archive import Archive
from gpuscalp.archive.ingest import ImportReport, import_sources
from gpuscalp.archive.manifest import load
from gpuscalp.archive.verify import verify
from gpuscalp.errors import DecodeError, UsageError
from gpuscalp.schema import TickKind
from tests.archive import market

VENUE = "binance_usdm"


def stream(archive: Path, **options: Any) -> bytes:
    return np.concatenate(list(Archive.open(archive).tick_batches(VENUE, **options))).tobytes()


def adds_up(report: ImportReport) -> bool:
    """Every line of every source is a message, a reject or set aside."""
    return all(
        source.lines
        == sum(source.messages.values()) + sum(source.rejects.values()) + sum(source.set_aside.values())
        for source in report.sources
    )


def two_days(folder: Path) -> tuple[Path, Path]:
    lines = market.lines(1_800)
    return market.write(folder / "day1.gz", lines[:901]), market.write(folder / "day2.gz", lines[901:])


def test_rows_of_a_recording_are_exact(tmp_path: Path) -> None:
    report = import_sources([market.write(tmp_path / "a.gz", market.lines(300))], tmp_path / "archive")
    assert report.to_dict()["rows_by_table"] == {"trades": 100, "quotes": 101, "books": 100, "marks": 0}
    assert adds_up(report)
    archive = Archive.open(tmp_path / "archive")
    (instrument,) = archive.instruments(VENUE)
    assert (instrument.tick_size_e8, instrument.step_size_e8) == (10**7, 10**7)
    (ticks,) = archive.tick_batches(VENUE, ("BTCUSDT",), kinds=(TickKind.TRADE,))
    assert ticks["px0"].tolist() == [1_001] * 100
    assert ticks["q0"].tolist() == [(turn % 9 + 1) / 10 for turn in range(100)]
    assert ticks["side"].tolist() == [-1 if turn % 2 == 0 else 1 for turn in range(100)]
    assert (ticks["recv_ns"] - ticks["exch_ns"] == 10**6).all()
    assert (np.diff(ticks["recv_ns"]) == 3 * 10**8).all()
    assert verify(tmp_path / "archive").problems == []


def test_second_import_of_a_source_is_a_no_op(tmp_path: Path) -> None:
    source = market.write(tmp_path / "a.gz", market.lines(300))
    import_sources([source], tmp_path / "archive")
    before = (tmp_path / "archive" / "manifest.json").read_bytes()
    again = market.write(tmp_path / "other_name.gz", market.lines(300))
    report = import_sources([again, source], tmp_path / "archive")
    assert report.to_dict()["rows"] == 0
    assert sorted(report.skipped) == sorted([str(again), str(source)])
    assert (tmp_path / "archive" / "manifest.json").read_bytes() == before


def test_days_chain_whatever_order_they_are_named_in(tmp_path: Path) -> None:
    days = two_days(tmp_path)
    whole = market.write(tmp_path / "whole.gz", market.lines(1_800))
    report = import_sources(days[::-1], tmp_path / "days")
    assert report.to_dict()["gaps"] == 0
    assert [source.name for source in report.sources] == ["day1.gz", "day2.gz"]
    import_sources([whole], tmp_path / "whole")
    assert stream(tmp_path / "days") == stream(tmp_path / "whole")


def test_day_added_later_with_its_forerunner_is_as_if_imported_together(tmp_path: Path) -> None:
    first, second = two_days(tmp_path)
    import_sources([first, second], tmp_path / "together")
    import_sources([first], tmp_path / "apart")
    report = import_sources([first, second], tmp_path / "apart")
    assert report.skipped == [str(first)]
    assert report.to_dict()["gaps"] == 0
    assert _rows(tmp_path / "apart") == _rows(tmp_path / "together")


def test_day_without_its_forerunner_has_no_book(tmp_path: Path) -> None:
    _, second = two_days(tmp_path)
    report = import_sources([second], tmp_path / "archive")
    assert report.to_dict()["rows_by_table"]["books"] == 0
    assert report.unsynced == {"BTCUSDT": 300}
    assert adds_up(report)


def test_first_line_with_a_damaged_stamp_is_taken(tmp_path: Path) -> None:
    """There is no line before it to give it a receive time: it got 1970, and was refused."""
    lines = market.lines(300)
    lines[0] = lines[0].replace(b"1721", b"1821", 1)
    report = import_sources([market.write(tmp_path / "a.gz", lines)], tmp_path / "archive")
    answer = report.to_dict()
    assert (answer["rejects"], answer["out_of_order"], answer["unsynced"]) == (0, 1, {})
    (ticks,) = Archive.open(tmp_path / "archive").tick_batches(VENUE, kinds=(TickKind.BOOK,))
    assert ticks["recv_ns"][0] == market.START_NS + 10**8


def test_stream_and_snapshots_in_two_files_are_merged_by_time(tmp_path: Path) -> None:
    lines = market.lines(300)
    url = b"https://fapi.binance.com/fapi/v1/depth?symbol=BTCUSDT&limit=1000 -> "
    stamp, _, body = lines[0].partition(b" ")
    rest = url + stamp[:10] + b"." + stamp[10:] + b": " + body
    sources = market.write(tmp_path / "ws.0", lines[1:]), market.write(tmp_path / "http.0", [rest])
    import_sources(sources, tmp_path / "merged")
    import_sources([market.write(tmp_path / "one.gz", lines)], tmp_path / "one")
    assert stream(tmp_path / "merged") == stream(tmp_path / "one")
    assert len(load(tmp_path / "merged").sources) == 2


def test_file_of_few_lines_joins_the_stream_at_its_first_one(tmp_path: Path) -> None:
    """Snapshots 2 s apart were read from the fifth stamp on, when the stream had gone past the first ones:
    the first book was that of 3 s under the stamp of 1 s, a row from the future."""
    lines = market.lines(300)
    depth_ids = [99, *range(100, 200)]
    url = b"https://fapi.binance.com/fapi/v1/depth?symbol=BTCUSDT&limit=1000 -> "
    rest, both = [], lines[1:]
    for place in (250, 200, 150, 100, 50):  # from the end, so that the places stay
        after_ns = int(lines[place].partition(b" ")[0]) + 5 * 10**7
        seconds, rest_ns = divmod(after_ns, 10**9)
        book = {
            "lastUpdateId": depth_ids[(place + 2) // 3],
            "bids": [["99.0", "1"], ["100.0", "3"]],
            "asks": [["100.2", "1"]],
        }
        rest.insert(0, url + b"%d.%09d: " % (seconds, rest_ns) + json.dumps(book).encode())
        both.insert(place, rest[0])
    sources = market.write(tmp_path / "ws.0", lines[1:]), market.write(tmp_path / "http.0", rest)
    import_sources(sources, tmp_path / "merged")
    import_sources([market.write(tmp_path / "one.gz", both)], tmp_path / "one")
    assert stream(tmp_path / "merged") == stream(tmp_path / "one")
    (ticks,) = Archive.open(tmp_path / "merged").tick_batches(VENUE, kinds=(TickKind.BOOK,))
    assert ticks["recv_ns"][0] == market.START_NS + 50 * 10**8 + 5 * 10**7


def test_damaged_stamp_far_behind_the_first_lines_moves_no_time_back(tmp_path: Path) -> None:
    lines = market.lines(300, symbol="ETHUSDT", start_ns=market.START_NS + 10**10)
    lines[101] = lines[101].replace(b"172134", b"172130", 1)  # 11 h before
    sources = market.write(tmp_path / "a.gz", market.lines(300)), market.write(tmp_path / "b.gz", lines)
    # Of one component, because the first file names both symbols.
    head = market.lines(9, symbol="ETHUSDT", start_ns=market.START_NS - 10**9)
    market.write(sources[0], [*head, *market.lines(300)])
    report = import_sources(sources, tmp_path / "archive")
    assert adds_up(report)
    assert report.to_dict()["out_of_order"] == 1
    ticks = np.concatenate(list(Archive.open(tmp_path / "archive").tick_batches(VENUE)))
    assert ticks["recv_ns"].min() >= market.START_NS - 10**9


def test_symbols_are_merged_on_one_clock(tmp_path: Path) -> None:
    sources = [
        market.write(tmp_path / f"{symbol}.gz", market.lines(300, symbol=symbol))
        for symbol in ("ETHUSDT", "BTCUSDT")
    ]
    import_sources(sources, tmp_path / "archive")
    ticks = np.concatenate(list(Archive.open(tmp_path / "archive").tick_batches(VENUE)))
    assert set(ticks["symbol"]) == {0, 1}
    assert (np.diff(ticks["recv_ns"]) >= 0).all()


def test_bad_lines_are_kept_with_number_and_reason(tmp_path: Path) -> None:
    lines = market.lines(300)
    lines[10] = lines[10][:-9]
    lines[20] = b"nonsense"
    lines[29] = lines[29].replace(b'"100.0"', b'"100.x"')
    lines[33] = lines[33].replace(b"1721", b"1821", 1)
    report = import_sources([market.write(tmp_path / "a.gz", lines)], tmp_path / "archive")
    assert adds_up(report)
    (file,) = (tmp_path / "archive" / "rejects").iterdir()
    assert file.name == f"{report.sources[0].digest}.jsonl"
    records = [json.loads(line) for line in file.read_text().splitlines()]
    found = {record["line"]: record["reason"] for record in records}
    assert found == {11: "not JSON", 21: "line of an unknown form", 30: "not a decimal number"}
    assert report.to_dict()["rejects"] == 3
    assert report.to_dict()["out_of_order"] == 1, "a damaged stamp is repaired, not rejected"
    assert next(record for record in records if record["line"] == 21)["raw"] == "nonsense"


def test_trade_that_says_no_time_of_its_making_is_one_line(tmp_path: Path) -> None:
    """It was taken, and rejected as well."""
    line = market.lines(3)[3].replace(b"trade", b"aggTrade").replace(b'"t":', b'"a":')
    made = re.sub(rb'"T": ?\d+', b'"T":0', line)
    report = import_sources([market.write(tmp_path / "a.gz", [made])], tmp_path / "archive")
    assert adds_up(report)
    assert (report.sources[0].rows["trades"], report.sources[0].rejects) == (1, {})


def test_receive_time_of_another_day_is_refused(tmp_path: Path) -> None:
    lines = [line.replace(b"1721", b"1731", 1) for line in market.lines(30)]
    report = import_sources([market.write(tmp_path / "a.gz", lines)], tmp_path / "archive")
    assert report.to_dict()["rejects_by_reason"] == {
        "receive time and event time are more than a day apart": 30
    }


def test_event_time_ahead_of_all_others_is_refused(tmp_path: Path) -> None:
    lines = market.lines(300)
    sent = market.START_NS // 10**6 + 100 * 100 - 1
    assert str(sent).encode() in lines[100]
    lines[100] = lines[100].replace(str(sent).encode(), str(sent + 3_600_000).encode())
    report = import_sources([market.write(tmp_path / "a.gz", lines)], tmp_path / "archive")
    assert report.to_dict()["rejects_by_reason"] == {"event time is ahead of all others": 1}
    archive = Archive.open(tmp_path / "archive")
    assert archive.time_range(VENUE)[1] <= market.START_NS + 300 * 10**8


def test_recorder_whose_clock_is_set_back_goes_on(tmp_path: Path) -> None:
    lines = market.lines(300)
    for number in range(100, 301):
        stamp, _, body = lines[number].partition(b" ")
        lines[number] = b"%d %s" % (int(stamp) - 60 * 10**9, body)
    answer = import_sources([market.write(tmp_path / "a.gz", lines)], tmp_path / "archive").to_dict()
    assert (answer["rejects"], answer["out_of_order"], answer["gaps"]) == (0, 201, 0)


def test_clocks_that_come_apart_cost_eight_lines(tmp_path: Path) -> None:
    lines = market.lines(300)
    for number in range(100, 301):
        ahead = market.lines(300, start_ns=market.START_NS + 3_600 * 10**9)[number]
        lines[number] = lines[number].partition(b" ")[0] + b" " + ahead.partition(b" ")[2]
    report = import_sources([market.write(tmp_path / "a.gz", lines)], tmp_path / "archive")
    assert report.to_dict()["rejects"] == 8
    assert adds_up(report)


def test_strict_import_stops_at_the_bad_line_and_leaves_nothing(tmp_path: Path) -> None:
    lines = market.lines(300)
    lines[200] = b"nonsense"
    source = market.write(tmp_path / "a.gz", lines)
    with pytest.raises(DecodeError, match="line of an unknown form") as caught:
        import_sources([source], tmp_path / "archive", strict=True)
    assert str(caught.value.where).endswith("a.gz, line 201")
    assert not (tmp_path / "archive" / "manifest.json").exists()
    assert import_sources([source], tmp_path / "archive").to_dict()["rejects"] == 1


def test_cut_file_is_imported_as_far_as_it_goes(tmp_path: Path) -> None:
    source = market.write(tmp_path / "a.gz", market.lines(3_000))
    source.write_bytes(source.read_bytes()[:-500])
    report = import_sources([source], tmp_path / "archive")
    assert report.to_dict()["rejects_by_reason"]["compressed file is damaged or cut"] == 1
    assert report.to_dict()["rows"] > 1_000
    assert adds_up(report)


def test_missing_messages_become_gaps_of_the_manifest(tmp_path: Path) -> None:
    lines = market.lines(300)
    kept = [line for number, line in enumerate(lines) if number not in (100, 102, 105)]
    report = import_sources([market.write(tmp_path / "a.gz", kept)], tmp_path / "archive")
    gaps = {(gap.kind, gap.first_id, gap.last_id) for gap in load(tmp_path / "archive").gaps}
    # Line n > 0 is message n - 1: 100 is depth 133, 102 and 105 are trades 533 and 534.
    assert gaps == {("depth", 133, 133), ("trade_id", 533, 534)}
    assert report.sources[0].gaps == 2
    assert verify(tmp_path / "archive").missing_ids_outside_gaps == 0


def test_book_interval_thins_the_books_only(tmp_path: Path) -> None:
    source = market.write(tmp_path / "a.gz", market.lines(900))
    all_of_it = import_sources([source], tmp_path / "all").to_dict()["rows_by_table"]
    thinned = import_sources([source], tmp_path / "thin", book_interval_ms=1_000).to_dict()["rows_by_table"]
    assert thinned["books"] == pytest.approx(all_of_it["books"] * 0.25, abs=3)
    assert (thinned["trades"], thinned["quotes"]) == (all_of_it["trades"], all_of_it["quotes"])


def test_nothing_to_import_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no source files"):
        import_sources([], tmp_path / "archive")
    with pytest.raises(UsageError, match="holds no source files"):
        import_sources([tmp_path], tmp_path / "archive")
    with pytest.raises(UsageError, match="cannot read the source"):
        import_sources([tmp_path / "none.gz"], tmp_path / "archive")


def test_published_files_chain_and_need_no_header(tmp_path: Path) -> None:
    folder = tmp_path / "data" / "futures" / "um" / "daily" / "aggTrades" / "BTCUSDT"
    folder.mkdir(parents=True)
    header = "agg_trade_id,price,quantity,first_trade_id,last_trade_id,transact_time,is_buyer_maker\n"
    for day in range(3):
        start_ms = market.START_NS // 10**6 + day * 86_400_000
        ids = range(day * 100, day * 100 + 100 - (day == 1))  # the second day lacks its last trade
        rows = "".join(
            f"{i},{100 + i % 7}.5,0.{i % 9 + 1},{i},{i},{start_ms + i},{i % 2 == 0}\n" for i in ids
        )
        with zipfile.ZipFile(folder / f"BTCUSDT-aggTrades-2024-07-{18 + day}.zip", "w") as file:
            file.writestr(f"BTCUSDT-aggTrades-2024-07-{18 + day}.csv", (header if day else "") + rows)
    answer = import_sources([folder], tmp_path / "archive", strict=True).to_dict()
    assert (answer["rows"], answer["gaps"], answer["rejects"]) == (299, 1, 0)
    (gap,) = load(tmp_path / "archive").gaps
    assert (gap.kind, gap.first_id, gap.last_id) == ("agg_trade_id", 199, 199)
    assert len({part.day for part in load(tmp_path / "archive").parts}) == 3


def test_two_venues_go_into_one_archive(tmp_path: Path) -> None:
    (tmp_path / "spot").mkdir()
    spot = tmp_path / "spot" / "BTCUSDT-trades-2024-07-18.csv"
    spot.write_text("id,price,qty,quote_qty,time,is_buyer_maker\n1,100,2,200,1721347140000,true\n")
    import_sources([spot, market.write(tmp_path / "a.gz", market.lines(30))], tmp_path / "archive")
    archive = Archive.open(tmp_path / "archive")
    assert archive.venues() == ("binance_spot", "binance_usdm")
    assert archive.symbols("binance_spot") == ("BTCUSDT",)


MEASURED = """
import re, sys
from gpuscalp.archive.ingest import import_sources
import_sources([sys.argv[1]], sys.argv[2])
# Not getrusage: its maximum is inherited from the process that forked this one.
print(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read()).group(1))
"""


@pytest.mark.slow
@pytest.mark.thorough
def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    """Three times the lines (30 MB more of text) may take 5 MB more. The shorter file fills what is bounded:
    up to about 100,000 lines memory grows with the buffers, by some 15 MB, and from there on by nothing."""
    peaks, lines = [], market.lines(300_000, step_ns=10**6)
    for count in (100_000, 300_000):
        source = market.write(tmp_path / f"{count}.gz", lines[: count + 1])
        words = [sys.executable, "-c", MEASURED, str(source), str(tmp_path / str(count))]
        peaks.append(int(subprocess.run(words, check=True, capture_output=True).stdout) / 1024)
    assert peaks[1] - peaks[0] < 5, f"MB: {peaks}"


def _rows(archive: Path) -> list[list[Any]]:
    """Return all columns of all rows, in arrival order and not by part."""
    opened = Archive.open(archive)
    pieces = opened.arrivals(
        lambda rows, table, _: np.fromiter(
            ([table.name, *np.hstack(row).tolist()] for row in zip(*rows.values(), strict=True)), object
        ),
        VENUE,
        opened.symbols(VENUE),
    )
    return [row for piece in pieces for row in piece]
