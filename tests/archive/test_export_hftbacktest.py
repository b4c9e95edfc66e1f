"""The export for hftbacktest against a book in dictionaries, row by row, under both clocks."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuscalp.archive import ArchiveWriter
from gpuscalp.archive.export_clocks import WAIT_NS, TwoClocks
from gpuscalp.archive.export_hftbacktest import export_hftbacktest
from gpuscalp.archive.export_rows import RowBatch, chosen
from gpuscalp.archive.ingest import import_sources
from gpuscalp.archive.tables import TABLES
from gpuscalp.errors import ArchiveError, UsageError
from gpuscalp.ops.fused_book import EVENT
from gpuscalp.schema import TickKind
from tests.archive.plain_book import (
    CROSSED,
    GAP,
    RESYNC,
    Replay,
    Row,
    archive_rows,
    check_against,
    read_events,
)
from tests.archive.test_recordings import BTC_2023, NEXO, SUSHI, USDM_2024

E8 = 10**8
DAY_NS = 86_400 * 10**9
START_NS = 20_000 * DAY_NS + 3_600 * 10**9
KINDS = {"trades": TickKind.TRADE, "quotes": TickKind.QUOTE, "books": TickKind.BOOK}


# Synthetic rows, straight into the two clocks --------------------------------------------------------------


def batch_of(rows: Sequence[Row]) -> RowBatch:
    table = np.zeros((len(rows), 10), np.int64)
    levels = np.zeros((sum(row.kind == "books" for row in rows), 4, 20), np.int64)
    book_count = 0
    for index, row in enumerate(rows):
        head = (KINDS[row.kind], row.exch_ns, row.recv_ns, row.seq, row.quality, row.update_id)
        table[index, :6] = head
        if row.kind == "books":
            for side, ladder in enumerate(row.payload):
                for level, (price, quantity) in enumerate(ladder):
                    levels[book_count, 2 * side : 2 * side + 2, level] = price, quantity
            table[index, 6] = book_count
            book_count += 1
        else:
            table[index, 6 : 6 + len(row.payload)] = row.payload
    return RowBatch(table, levels)


def told(rows: Sequence[Row], cuts: Sequence[int] = (), clocks: TwoClocks | None = None) -> np.ndarray:
    """Return the events of rows, given in batches that end at ``cuts``."""
    clocks, whole = clocks or TwoClocks(offset_ns=0), batch_of(rows)
    ends = sorted({min(cut, len(rows)) for cut in cuts} | {0, len(rows)})
    pieces = [np.zeros(0, EVENT)]
    for first, last in itertools.pairwise(ends):
        pieces += [events.copy() for events in clocks.add(chosen(whole, slice(first, last)))]
    pieces += [events.copy() for events in clocks.finish()]
    return np.concatenate(pieces)


@st.composite
def ladders(draw: st.DrawFn) -> Any:
    """Two sides that do not cross, of 0 to 20 levels on a narrow band of prices, so that
    levels come and go: which ones, and how much is there, as the digits of two numbers."""
    middle = draw(st.integers(40, 60))
    sides = []
    for prices in (range(middle - 1, middle - 31, -1), range(middle, middle + 30)):
        taken, amounts = draw(st.integers(0, 2**30 - 1)), draw(st.integers(0, 3**30 - 1))
        levels = [
            (price * E8, (amounts // 3**index % 3 + 1) * E8)
            for index, price in enumerate(prices)
            if taken >> index & 1
        ]
        sides.append(levels[:20])
    return sides


@st.composite
def markets(draw: st.DrawFn) -> list[Row]:
    """Rows in order of arrival; some overtake others, some are older than they look, some are unsound."""
    count = draw(st.integers(1, 25))
    sent = draw(st.lists(st.integers(0, 400), min_size=count, max_size=count))
    rows = []
    for index in range(count):
        kind = draw(st.sampled_from(("trades", "quotes", "quotes", "books", "books")))
        quality = 0
        payload: Any
        if kind == "trades":
            payload = (
                draw(st.integers(30, 70)) * E8,
                draw(st.integers(1, 5)) * E8,
                draw(st.sampled_from((-1, 1))),
            )
        elif kind == "quotes":
            bid, spread = draw(st.integers(30, 69)), draw(st.integers(1, 5))
            payload = (
                bid * E8,
                draw(st.integers(1, 3)) * E8,
                (bid + spread) * E8,
                draw(st.integers(1, 3)) * E8,
            )
            if draw(st.integers(0, 9)) == 0:
                payload = (0, 0, *payload[2:])
        else:
            payload = draw(ladders())
        if kind != "trades":
            quality = draw(st.sampled_from((0,) * 8 + (GAP | RESYNC, RESYNC, CROSSED)))
        exch_ns = START_NS + sent[index] * 10**6
        recv_ns = START_NS + (500 + index) * 10**6
        rows.append(Row(kind, recv_ns, exch_ns, index, quality, draw(st.integers(0, 40)), payload))
    return rows


@given(markets(), st.lists(st.integers(0, 25), max_size=3))
def test_both_clocks_know_what_the_rows_say_after_every_row(rows: list[Row], cuts: list[int]) -> None:
    events = told(rows, cuts)
    check_against(events, rows)
    assert events.tobytes() == told(rows).tobytes(), "batches leave a trace"


@given(markets())
def test_rows_in_order_need_one_event_for_both_clocks(rows: list[Row]) -> None:
    ordered = [row._replace(exch_ns=START_NS + index) for index, row in enumerate(rows)]
    events = told(ordered)
    if len(events):
        assert set((events["ev"] >> np.uint64(30)).tolist()) <= {3}
    check_against(events, ordered)


def book(index: int, bids: Sequence[int], *, quality: int = 0, asks: Sequence[int] = (500,)) -> Row:
    sides = [[(price * E8, E8) for price in side] for side in (bids, asks)]
    time_ns = START_NS + index * 10**6
    return Row("books", time_ns, time_ns, index, quality, index, sides)


def test_level_that_leaves_the_window_is_removed_and_marked() -> None:
    """A new best level pushes the last of 20 out of the record: it must not stay, and was not deleted."""
    first, second = book(0, range(100, 80, -1)), book(1, range(101, 81, -1))
    replay = Replay(told([first, second]), "local_ts")
    bids, _ = replay.finish()
    assert sorted(bids) == [price * E8 for price in range(82, 102)]
    assert replay.left == [81 * E8]


def test_level_that_is_missing_inside_the_window_is_deleted() -> None:
    first = book(0, range(100, 80, -1))
    second = book(1, [price for price in range(100, 79, -1) if price != 90])
    replay = Replay(told([first, second]), "local_ts")
    replay.finish()
    assert 90 * E8 not in replay.bids
    assert (replay.left, len(replay.bids)) == ([], 20)


def test_level_below_a_short_book_is_deleted() -> None:
    """With fewer than 20 levels the record shows all there are."""
    replay = Replay(told([book(0, (100, 99, 98)), book(1, (100, 99))]), "local_ts")
    assert (len(replay.finish()[0]), replay.left) == (2, [])


def test_gap_clears_the_book_once_and_a_snapshot_follows() -> None:
    rows = [book(0, (100, 99)), *(book(k, (98,), quality=GAP | RESYNC) for k in (1, 2)), book(3, (97, 96))]
    events = told(rows)
    kinds = (events["ev"] & np.uint64(0xFF)).tolist()
    assert kinds == [3, 4, 4, 4, 3, 3, 4, 4, 4]
    assert events["local_ts"][4] == rows[1].recv_ns
    assert Replay(events, "exch_ts").up_to(rows[2].exch_ns) == ({}, {})
    check_against(events, rows)


def test_row_that_is_too_late_is_dated_when_its_turn_came_and_counted() -> None:
    early = book(0, (100,))
    later = [
        book(k, (100 + k,))._replace(exch_ns=START_NS + k * WAIT_NS, recv_ns=START_NS + k * WAIT_NS)
        for k in (1, 3)
    ]
    late = book(9, (90,))._replace(recv_ns=later[1].recv_ns + 1)
    clocks = TwoClocks(offset_ns=0)
    events = told([early, *later, late], (1, 2, 3), clocks)
    raised = later[0].exch_ns - late.exch_ns
    assert clocks.shifts.exch_ts.to_dict() == {"rows": 1, "max_ns": raised}
    assert clocks.shifts.local_ts.to_dict() == {"rows": 0, "max_ns": 0}
    check_against(events, [early, *later, late._replace(exch_ns=later[0].exch_ns)])


def test_local_times_that_the_offset_leaves_too_early_are_raised_and_counted() -> None:
    rows = [book(0, (100,)), book(1, (101,))._replace(exch_ns=START_NS + 5_000_000), book(2, (102,))]
    clocks = TwoClocks(offset_ns=1_000_000)
    events = told(rows, (), clocks)
    assert clocks.shifts.local_ts.to_dict() == {"rows": 2, "max_ns": 3_000_000}
    assert sorted(set(events["local_ts"].tolist())) == [START_NS + 1_000_000, START_NS + 5_000_000]
    assert (events["local_ts"] >= events["exch_ts"]).all()


# Archives ---------------------------------------------------------------------------------------------------


def write_archive(path: Path, rows: Sequence[Row], symbol: str = "BTCUSDT") -> Path:
    with ArchiveWriter(path, "binance_usdm") as writer:
        for name in KINDS:
            mine = [row for row in rows if row.kind == name]
            if not mine:
                continue
            columns: dict[str, Any] = {
                column: np.array([getattr(row, column) for row in mine])
                for column in ("recv_ns", "exch_ns", "seq", "quality")
            }
            payload = batch_of(mine)
            if name == "trades":
                columns |= {"trade_id": np.arange(len(mine))}
                names: tuple[str, ...] = ("price_e8", "qty_e8", "side")
            else:
                columns |= {"update_id": np.array([row.update_id for row in mine])}
                names = ("bid_price_e8", "bid_qty_e8", "ask_price_e8", "ask_qty_e8")
            for index, column in enumerate(names):
                columns[column] = payload.levels[:, index] if name == "books" else payload.rows[:, 6 + index]
            writer.write(TABLES[name], symbol, columns)
        writer.finish()
    return path


def small_market(start_ns: int = START_NS, count: int = 40) -> list[Row]:
    rows = []
    for index in range(count):
        now_ns = start_ns + index * 10**7
        payload: Any = (100 * E8, E8 + index, 1)
        kind = ("books", "quotes", "trades")[index % 3]
        if kind == "books":
            payload = [[(99 * E8, E8 + index), (98 * E8, E8)], [(101 * E8, E8)]]
        elif kind == "quotes":
            payload = (99 * E8, 2 * E8 + index, 101 * E8, E8)
        rows.append(Row(kind, now_ns + 10**6, now_ns, index, 0, index, payload))
    return rows


def test_files_are_cut_at_midnight_and_each_stands_alone(tmp_path: Path) -> None:
    rows = small_market(20_001 * DAY_NS - 2 * 10**8)
    archive = write_archive(tmp_path / "archive", rows)
    report = export_hftbacktest(archive, tmp_path / "out")
    assert [Path(file.path).name for file in report.files] == [
        "BTCUSDT_20241004.npz",
        "BTCUSDT_20241005.npz",
    ]
    for file in report.files:
        mine = [row for row in rows if (row.exch_ns >= 20_001 * DAY_NS) == file.day.endswith("05")]
        events = read_events(Path(file.path))
        kinds = (events["ev"] & np.uint64(0xFF)).tolist()
        assert next(kind for kind in kinds if kind != 2) == 3, "what another file left is cleared"
        check_against(events, mine)
        assert (file.events, file.rows["trades"]) == (len(events), sum(row.kind == "trades" for row in mine))
    day = export_hftbacktest(archive, tmp_path / "one", start_ns=20_001 * DAY_NS)
    assert Path(day.files[0].path).read_bytes() == Path(report.files[1].path).read_bytes()


def test_local_times_do_not_fall_from_one_file_to_the_next(tmp_path: Path) -> None:
    midnight = 20_001 * DAY_NS
    late = Row("trades", midnight + 10**9, midnight - 1, 0, 0, 0, (100 * E8, E8, 1))
    early = Row("trades", midnight + 10**6, midnight, 1, 0, 0, (100 * E8, E8, 1))
    archive = write_archive(tmp_path / "archive", [early, late])
    report = export_hftbacktest(archive, tmp_path / "out")
    assert report.files[0].last_local_ns == report.files[1].first_local_ns == late.recv_ns
    assert report.to_dict()["shifted"]["local_ts"]["raised"] == {"rows": 1, "max_ns": 10**9 - 10**6}


def test_auto_offset_is_the_largest_lead_of_the_exchange_and_told(tmp_path: Path) -> None:
    rows = [row._replace(recv_ns=row.recv_ns - 10**9) for row in small_market()]
    rows[7] = rows[7]._replace(recv_ns=rows[7].recv_ns - 5)
    archive = write_archive(tmp_path / "archive", rows)
    report = export_hftbacktest(archive, tmp_path / "out")
    shifted = report.to_dict()["shifted"]["local_ts"]
    assert shifted["offset_ns"] == 10**9 - 10**6 + 5
    assert (shifted["offset_from"], shifted["offset_rows"], shifted["raised"]["rows"]) == ("auto", 40, 0)
    events = read_events(Path(report.files[0].path))
    assert (events["local_ts"] - events["exch_ts"]).min() == 0
    check_against(events, rows, offset_ns=shifted["offset_ns"])
    given = export_hftbacktest(archive, tmp_path / "given", latency_offset_ns=2 * 10**9)
    check_against(read_events(Path(given.files[0].path)), rows, offset_ns=2 * 10**9)


def test_unsound_rows_are_counted_by_reason(tmp_path: Path) -> None:
    rows = small_market()
    rows[3] = rows[3]._replace(quality=GAP | RESYNC)
    rows[4] = rows[4]._replace(payload=(101 * E8, E8, 101 * E8, E8))  # crossed, though nobody flagged it
    rows[6] = rows[6]._replace(quality=GAP | RESYNC)
    rows[8] = rows[8]._replace(quality=GAP)
    report = export_hftbacktest(write_archive(tmp_path / "archive", rows), tmp_path / "out").to_dict()
    assert report["skipped"] == {"quotes": {"crossed": 1}, "books": {"gap|resync": 2}}
    assert report["gaps"] == {"cleared_books": 1, "trades_after_gap": 1}
    rows[4] = rows[4]._replace(quality=CROSSED)
    check_against(read_events(tmp_path / "out" / "BTCUSDT_20241004.npz"), rows)


def test_files_that_are_there_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    archive = write_archive(tmp_path / "archive", small_market())
    (path,) = (Path(file.path) for file in export_hftbacktest(archive, tmp_path / "out").files)
    content = path.read_bytes()
    path.write_bytes(b"mine")
    with pytest.raises(UsageError, match="there already"):
        export_hftbacktest(archive, tmp_path / "out")
    assert path.read_bytes() == b"mine"
    export_hftbacktest(archive, tmp_path / "out", overwrite=True)
    assert path.read_bytes() == content


def test_export_that_fails_leaves_no_file_behind(tmp_path: Path) -> None:
    archive = write_archive(tmp_path / "archive", small_market())
    damaged = next(archive.rglob("books.parquet"))
    damaged.write_bytes(bytes(damaged.stat().st_size))
    with pytest.raises(ArchiveError):
        export_hftbacktest(archive, tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        ({"venue": "nowhere"}, "no such venue"),
        ({"symbols": ("DOGEUSDT",)}, "no such symbol"),
        ({"start_ns": START_NS + DAY_NS}, "no trades, quotes or books"),
        ({"latency_offset_ns": -1}, "0 and a day"),
        ({"latency_offset_ns": 2**63 - 1}, "0 and a day"),  # times went round, to 1677
        ({"latency_offset_ns": 10**24}, "0 and a day"),
    ],
)
def test_requests_that_make_no_sense_are_refused(tmp_path: Path, arguments: Any, what: str) -> None:
    archive = write_archive(tmp_path / "archive", small_market())
    with pytest.raises(UsageError, match=what):
        export_hftbacktest(archive, tmp_path / "out", **arguments)


# Recordings -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("names", "venue"),
    [
        pytest.param(USDM_2024, "binance_usdm", marks=pytest.mark.thorough),
        (BTC_2023, "binance_usdm"),
        pytest.param(NEXO, "binance_spot", marks=pytest.mark.thorough),
        (SUSHI, None),
    ],
    ids=["2024", "2023", "nexo", "capture"],
)
def test_recording_is_told_whole(
    recordings: Path, tmp_path: Path, names: tuple[str, ...], venue: str | None
) -> None:
    archive = tmp_path / "archive"
    import_sources([recordings / name for name in names], archive)
    report = export_hftbacktest(archive, tmp_path / "out", venue=venue)
    shifted = report.to_dict()["shifted"]
    assert shifted["exch_ts"]["raised"]["rows"] == shifted["local_ts"]["raised"]["rows"] == 0
    assert report.files
    for file in report.files:
        (parts,) = archive.glob(f"venue=*/symbol={file.symbol}/date={file.day}")
        rows = archive_rows(parts)
        exchange, local = check_against(read_events(Path(file.path)), rows, offset_ns=report.offset_ns)
        assert sum(file.rows.values()) == len(rows)
        assert len(exchange.trades) == len(local.trades) == file.rows["trades"]
    assert report.kinds["local"]["trade_buy"] + report.kinds["local"]["trade_sell"] == report.rows["trades"]
