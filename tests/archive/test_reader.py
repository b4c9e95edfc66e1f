"""Reading against rows that are kept in memory."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet as pq

from gpuscalp.archive import Archive, ArchiveWriter
from gpuscalp.archive.manifest import NAME
from gpuscalp.archive.streams import PartReader
from gpuscalp.archive.tables import MARKS, QUOTES, TABLES, TRADES
from gpuscalp.errors import ArchiveError, UsageError
from gpuscalp.schema import NS_PER_DAY, TICK, Instrument, TickKind

MIDNIGHT = 19_923 * NS_PER_DAY
SYMBOLS = ("BBB", "AAA", "CCC")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Archive, list[tuple[Any, ...]]]:
    """An archive over midnight, in two imports, and its rows as (recv, seq, symbol, kind, exch, payload)."""
    rng = np.random.default_rng(5)
    path = tmp_path_factory.mktemp("reader") / "archive"
    expected: list[tuple[Any, ...]] = []
    for turn in range(2):
        with ArchiveWriter(path, "synthetic") as writer:
            for symbol in SYMBOLS:
                for kind, count in (
                    (TickKind.TRADE, 20_000),
                    (TickKind.QUOTE, 18_000),
                    (TickKind.BOOK, 3_000),
                ):
                    columns = _columns(rng, kind, count, turn)
                    writer.write(_table(kind), symbol, columns)
                    expected += _rows(columns, symbol, kind)
            if turn:
                marks = _columns(rng, TickKind.MARK, 10, turn)
                writer.write(MARKS, "AAA", marks)
                expected += _rows(marks, "AAA", TickKind.MARK)
            writer.finish()
    return Archive.open(path), expected


def _table(kind: TickKind) -> Any:
    return next(table for table in TABLES.values() if table.kind is kind)


def _columns(rng: np.random.Generator, kind: TickKind, count: int, turn: int) -> dict[str, Any]:
    span = 4 * 3_600 * 10**9
    recv = np.sort(rng.integers(MIDNIGHT - span, MIDNIGHT + span, count) // 10**6 * 10**6)
    columns: dict[str, Any] = {
        "recv_ns": recv,
        "exch_ns": recv - rng.integers(-(10**9), 10**9, count),
        "seq": turn * 10**7 + np.arange(count) * 4 + int(kind),
        "quality": (rng.random(count) < 0.1).astype(np.uint16),
    }
    shape = (count, 20) if kind is TickKind.BOOK else (count,)
    if kind is TickKind.TRADE:
        columns |= {"trade_id": np.arange(count), "side": rng.choice([-1, 1], count)}
        columns |= {
            "price_e8": rng.integers(1, 10**5, count) * 5 * 10**6,
            "qty_e8": rng.integers(1, 10**12, count),
        }
    elif kind is TickKind.MARK:
        columns |= {"mark_price_e8": np.arange(count) * 10**8, "index_price_e8": np.zeros(count, np.int64)}
        columns |= {"funding_rate_e8": -np.arange(count), "next_funding_ns": np.arange(count) * 10**6}
    else:
        columns["update_id"] = np.arange(count)
        for name in ("bid_price_e8", "ask_price_e8"):
            columns[name] = rng.integers(0, 10**5, shape) * 5 * 10**6
        for name in ("bid_qty_e8", "ask_qty_e8"):
            columns[name] = rng.integers(0, 10**12, shape)
    return columns


def _rows(columns: dict[str, Any], symbol: str, kind: TickKind) -> list[tuple[Any, ...]]:
    return [
        (
            int(columns["recv_ns"][i]),
            int(columns["seq"][i]),
            symbol,
            kind,
            int(columns["exch_ns"][i]),
            columns,
            i,
        )
        for i in range(len(columns["recv_ns"]))
    ]


def _tick(row: tuple[Any, ...], symbols: tuple[str, ...]) -> tuple[Any, ...]:
    recv, _, symbol, kind, exch, columns, i = row
    at = {name: values[i] for name, values in columns.items()}
    px0 = px1 = side = 0
    q: list[float] = [0.0] * 4
    if kind is TickKind.TRADE:
        px0, q[0], side = at["price_e8"] // 5_000_000, at["qty_e8"] / 1e8, at["side"]
    elif kind is TickKind.QUOTE:
        px0, px1 = at["bid_price_e8"] // 5_000_000, at["ask_price_e8"] // 5_000_000
        q[:2] = at["bid_qty_e8"] / 1e8, at["ask_qty_e8"] / 1e8
    elif kind is TickKind.BOOK:
        px0, px1 = at["bid_price_e8"][0] // 5_000_000, at["ask_price_e8"][0] // 5_000_000
        for place, (name, depth) in enumerate((("bid", 5), ("ask", 5), ("bid", 20), ("ask", 20))):
            for qty in at[f"{name}_qty_e8"][:depth].tolist():
                q[place] += qty / 1e8
    else:
        q = [at["mark_price_e8"] / 1e8 or np.nan, np.nan, at["funding_rate_e8"] / 1e8]
        q.append(at["next_funding_ns"] / 1e6 or np.nan)
    return (exch, recv, px0, px1, *q, symbols.index(symbol), int(kind), side, at["quality"])


def test_all_symbols_and_tables_are_merged_in_arrival_order(made: Any) -> None:
    archive, rows = made
    found = np.concatenate(list(archive.tick_batches("synthetic", SYMBOLS)))
    order = sorted(rows, key=lambda row: (row[0], row[1], SYMBOLS.index(row[2])))
    expected = np.array([_tick(row, SYMBOLS) for row in order], TICK)
    for name in TICK.names:
        np.testing.assert_array_equal(found[name], expected[name], err_msg=name)


def test_rows_with_all_columns_come_in_the_same_order(made: Any) -> None:
    """Ids and levels, which ticks have no room for, as objects."""
    archive, rows = made

    def with_id(columns: Any, table: Any, symbol: int) -> Any:
        name = "trade_id" if table.kind is TickKind.TRADE else "update_id"
        ids = zip(columns[name].tolist(), columns["seq"].tolist(), strict=True)
        return np.fromiter(((table.kind, symbol, *each) for each in ids), object, len(columns["seq"]))

    tables = ("trades", "books")
    pieces = list(archive.arrivals(with_id, "synthetic", SYMBOLS[1:], tables=tables, end_ns=MIDNIGHT))
    assert all(len(piece) for piece in pieces)
    kept = [
        row
        for row in rows
        if row[2] != SYMBOLS[0] and row[3] in (TickKind.TRADE, TickKind.BOOK) and row[4] < MIDNIGHT
    ]
    expected = [
        (kind, SYMBOLS.index(symbol) - 1, index, seq)
        for _, seq, symbol, kind, _, _, index in sorted(
            kept, key=lambda row: (row[0], row[1], SYMBOLS.index(row[2]))
        )
    ]
    assert np.concatenate(pieces).tolist() == expected


@pytest.mark.parametrize("max_ticks", [1_000, 4_096, 99_991, 10**9])
def test_batch_size_does_not_change_the_stream(made: Any, max_ticks: int) -> None:
    archive, _ = made
    whole = np.concatenate(list(archive.tick_batches("synthetic")))
    batches = list(archive.tick_batches("synthetic", max_ticks=max_ticks))
    assert all(len(batch) == max_ticks for batch in batches[:-1])
    assert np.concatenate(batches).tobytes() == whole.tobytes()


def test_reading_is_lazy(made: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first batch needs one or two row groups of each part that has begun, not the files."""
    archive, _ = made
    reads: list[str] = []
    read = PartReader.read
    monkeypatch.setattr(PartReader, "read", lambda self: (reads.append(self.part.path), read(self))[1])
    batches = archive.tick_batches("synthetic", max_ticks=100)
    next(batches)
    assert len(reads) <= 2 * len({part.path for part in archive.manifest.parts if part.day == "2024-07-18"})
    assert max(reads.count(path) for path in reads) == 1
    batches.close()


@pytest.mark.parametrize("work", [Archive.tick_batches, Archive.digest])
def test_the_parts_are_looked_through_once_for_all_symbols(
    made: Any, monkeypatch: pytest.MonkeyPatch, work: Any
) -> None:
    """They were for each symbol anew: 500 of 16 days took 1.9 s before the first row, of whatever range."""
    archive, _ = made
    looks: list[Any] = []
    parts = Archive._parts
    monkeypatch.setattr(
        Archive, "_parts", lambda *args, **words: (looks.append(args), parts(*args, **words))[1]
    )
    assert work(archive, "synthetic", SYMBOLS)
    assert len(looks) == 1


def test_single_ticks_come_one_by_one(made: Any) -> None:
    archive, _ = made
    start = MIDNIGHT
    some = archive.tick_batches("synthetic", start_ns=start, end_ns=start + 10**10, max_ticks=1)
    assert {len(batch) for batch in some} == {1}


def test_range_and_kinds_select(made: Any) -> None:
    archive, rows = made
    start, end = MIDNIGHT - 10**12, MIDNIGHT + 10**9
    kinds = (TickKind.QUOTE, TickKind.MARK)
    found = np.concatenate(
        list(archive.tick_batches("synthetic", ("AAA",), start_ns=start, end_ns=end, kinds=kinds))
    )
    expected = sorted(
        (row[0], row[1]) for row in rows if row[2] == "AAA" and row[3] in kinds and start <= row[4] < end
    )
    assert found["recv_ns"].tolist() == [recv for recv, _ in expected]
    assert set(found["kind"]) <= set(kinds)


def test_ranges_are_half_open_at_the_very_time_of_a_row(made: Any) -> None:
    """What is trained on until an instant and tested from it on must not share the rows of that instant."""
    archive, rows = made
    exch = sorted(row[4] for row in rows if row[2] == "AAA" and row[3] is TickKind.QUOTE)
    for start, end in ((exch[0], exch[1]), (exch[900], exch[9_000]), (exch[-1], exch[-1] + 1)):
        wanted = [at for at in exch if start <= at < end]
        batches = archive.tick_batches(
            "synthetic", ("AAA",), start_ns=start, end_ns=end, kinds=(TickKind.QUOTE,)
        )
        assert sorted(np.concatenate(list(batches))["exch_ns"].tolist()) == wanted
        assert sorted(archive.quotes("synthetic", "AAA", start_ns=start, end_ns=end).exch_ns) == wanted
    assert list(archive.tick_batches("synthetic", ("AAA",), end_ns=exch[0], kinds=(TickKind.QUOTE,))) == []


def test_empty_range_yields_nothing(made: Any) -> None:
    archive, _ = made
    assert list(archive.tick_batches("synthetic", end_ns=5)) == []
    assert len(archive.quotes("synthetic", "AAA", end_ns=5)) == 0
    assert archive.books("synthetic", "AAA", end_ns=5).bid_px.shape == (0, 20)


def test_series_hold_the_same_rows_as_the_ticks(made: Any) -> None:
    archive, _ = made
    for kind, series in (
        (TickKind.QUOTE, archive.quotes("synthetic", "CCC")),
        (TickKind.BOOK, archive.books("synthetic", "CCC")),
    ):
        ticks = np.concatenate(list(archive.tick_batches("synthetic", ("CCC",), kinds=(kind,))))
        bid, ask = series.bid_px, series.ask_px
        if kind is TickKind.BOOK:
            assert (series.bid_qty[:, :5].cumsum(axis=1)[:, 4] == ticks["q0"]).all()
            bid, ask = bid[:, 0], ask[:, 0]
        np.testing.assert_array_equal(series.recv_ns, ticks["recv_ns"])
        np.testing.assert_array_equal(bid, ticks["px0"])
        np.testing.assert_array_equal(ask, ticks["px1"])
        np.testing.assert_array_equal(series.quality, ticks["quality"])


def test_time_range_is_half_open(made: Any) -> None:
    archive, rows = made
    times = [row[4] for row in rows]
    assert archive.time_range("synthetic") == (min(times), max(times) + 1)
    assert archive.symbols("synthetic") == ("AAA", "BBB", "CCC")
    assert archive.venues() == ("synthetic",)


def test_observed_tick_size_is_the_common_divisor(made: Any) -> None:
    archive, _ = made
    assert [item.tick_size_e8 for item in archive.instruments("synthetic", ("CCC", "AAA"))] == [5_000_000] * 2


def test_digest_depends_on_what_is_read(made: Any) -> None:
    archive, _ = made
    same = archive.digest("synthetic", ("AAA",))
    assert same == archive.digest("synthetic", ("AAA",))
    others = {
        archive.digest("synthetic", ("BBB",)),
        archive.digest("synthetic", ("AAA", "BBB")),
        archive.digest("synthetic", ("BBB", "AAA")),
        archive.digest("synthetic", ("AAA",), MIDNIGHT, None),
    }
    assert len(others | {same}) == 5


@pytest.mark.parametrize(
    ("venue", "symbols", "what"),
    [
        ("nowhere", (), "no such venue"),
        ("synthetic", ("ZZZ",), "no such symbol"),
        ("synthetic", ("AAA",) * 2, "twice"),
    ],
)
def test_wrong_names_are_refused_with_what_there_is(made: Any, venue: str, symbols: Any, what: str) -> None:
    with pytest.raises(UsageError, match=what):
        list(made[0].tick_batches(venue, symbols))


def small(path: Path, price_e8: int = 150, instruments: tuple[Instrument, ...] = ()) -> Path:
    with ArchiveWriter(path, "synthetic", instruments=instruments) as writer:
        one = np.array([MIDNIGHT])
        writer.write(
            TRADES,
            "AAA",
            {
                "recv_ns": one,
                "exch_ns": one,
                "seq": np.array([0]),
                "trade_id": np.array([1]),
                "price_e8": np.array([price_e8]),
                "qty_e8": np.array([1]),
                "side": np.array([1]),
            },
        )
        writer.finish()
    return path


def test_price_off_the_tick_grid_is_an_error(tmp_path: Path) -> None:
    instrument = Instrument("AAA", "synthetic", 100, 1, 1, 0, "synthetic")
    archive = Archive.open(small(tmp_path, 150, (instrument,)))
    with pytest.raises(ArchiveError, match="no multiple of the tick size"):
        list(archive.tick_batches("synthetic"))


def test_price_of_more_than_31_bits_is_an_error(tmp_path: Path) -> None:
    instrument = Instrument("AAA", "synthetic", 1, 1, 1, 0, "synthetic")
    archive = Archive.open(small(tmp_path, 2**31, (instrument,)))
    with pytest.raises(ArchiveError, match="32 bits.*take its line out"):
        list(archive.tick_batches("synthetic"))


def test_damaged_archives_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no manifest"):
        Archive.open(tmp_path)
    root = small(tmp_path / "a")
    (file,) = root.rglob("*.parquet")
    whole, text = file.read_bytes(), (root / NAME).read_text()
    file.write_bytes(whole[:-1])
    with pytest.raises(ArchiveError, match="was changed"):
        Archive.open(root)
    file.write_bytes(whole[:-40] + bytes(40))
    with pytest.raises(ArchiveError, match="damaged"):
        list(Archive.open(root).tick_batches("synthetic"))
    file.unlink()
    with pytest.raises(ArchiveError, match="missing"):
        Archive.open(root)
    for change in (
        (text[:50], "damaged"),
        (text.replace('"format": 1', '"format": 9'), "format 9"),
        (text.replace('"table": "trades"', '"table": "trade"'), "damaged"),
        (text.replace('"path": "', '"path": "../'), "damaged"),
        (text.replace('"path": "', '"path": "/'), "damaged"),
        (text.replace('"path": "', '"path": "\\u0000'), "damaged"),
        # Parts had no checksum once.
        (text.replace('"footer_crc32"', '"footer"'), "earlier version.*import the sources"),
    ):
        (root / NAME).write_text(change[0])
        with pytest.raises(ArchiveError, match=change[1]):
            Archive.open(root)


def test_one_flipped_bit_is_never_read_as_other_ticks(tmp_path: Path) -> None:
    """Of the flips in pages two of three gave other prices and quantities; of those in a footer some ended
    the process."""
    quotes = _columns(np.random.default_rng(6), TickKind.QUOTE, 2_000, 0)
    with ArchiveWriter(tmp_path, "synthetic") as writer:
        writer.write(QUOTES, "AAA", quotes)
        writer.finish()
    part = Archive.open(tmp_path).manifest.parts[0]
    file = tmp_path / part.path
    whole, intact = file.read_bytes(), _ticks(tmp_path)
    footer_at = len(whole) - 8 - int.from_bytes(whole[-8:-4], "little")
    refused = 0
    places = [*range(4, footer_at, footer_at // 40), *range(footer_at, len(whole), 71)]
    for count, place in enumerate(places):
        flipped = bytearray(whole)
        flipped[place] ^= 1 << count % 8
        file.write_bytes(flipped)
        try:
            found = _ticks(tmp_path)
        except ArchiveError:
            refused += 1
        else:
            assert found == intact, f"bit {count % 8} of byte {place}"
    assert refused > len(places) // 2


def _ticks(root: Path) -> bytes:
    return np.concatenate(list(Archive.open(root).tick_batches("synthetic"))).tobytes()


@pytest.mark.parametrize("method", ["__init__", "read_row_group"])
@pytest.mark.parametrize("system", [False, True], ids=["of Arrow", "of the system"])
def test_lack_of_memory_is_no_damage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str, system: bool
) -> None:
    """A retraining that did not fit into its memory was told that its archive was damaged."""

    def refuse(*_: object, **__: object) -> None:
        if system:
            raise OSError(errno.ENOMEM, "Cannot allocate memory")
        pa.allocate_buffer(1 << 62)

    archive = Archive.open(small(tmp_path))
    monkeypatch.setattr(pq.ParquetFile, method, refuse)
    with pytest.raises(OSError if system else pa.ArrowMemoryError) as caught:
        list(archive.tick_batches("synthetic"))
    assert isinstance(caught.value, MemoryError) or caught.value.errno == errno.ENOMEM
