"""What the writer refuses, and that an archive is whole at every moment."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from gpuscalp.archive import Archive, ArchiveWriter
from gpuscalp.archive import writer as writer_module
from gpuscalp.archive.manifest import load, writer_lock
from gpuscalp.archive.tables import TRADES
from gpuscalp.errors import ArchiveError, DeadlineError, UsageError
from gpuscalp.schema import NS_PER_DAY, Instrument

MIDNIGHT = 19_923 * NS_PER_DAY


def trades(count: int, *, start_ns: int = MIDNIGHT, step_ns: int = 10**6, seq: int = 0) -> dict[str, Any]:
    number = np.arange(count)
    return {
        "recv_ns": start_ns + number * step_ns + 5,
        "exch_ns": start_ns + number * step_ns,
        "seq": seq + number,
        "trade_id": number,
        "price_e8": (1_000 + number % 17) * 10**7,
        "qty_e8": (1 + number % 5) * 10**5,
        "side": np.where(number % 2, 1, -1),
    }


def test_rows_come_back_as_they_were_written_split_by_day(tmp_path: Path) -> None:
    rows = trades(40_000, start_ns=MIDNIGHT - 20_000 * 10**6)
    with ArchiveWriter(tmp_path / "a", "synthetic") as writer:
        for start in range(0, 40_000, 7_001):
            writer.write(
                TRADES, "AAA", {name: values[start : start + 7_001] for name, values in rows.items()}
            )
        writer.finish()
    parts = load(tmp_path / "a").parts
    assert [part.day for part in parts] == ["2024-07-18", "2024-07-19"]
    assert [part.rows for part in parts] == [20_000, 20_000]
    assert parts[0].path == "venue=synthetic/symbol=AAA/date=2024-07-18/trades.parquet"
    tables = [pq.read_table(tmp_path / "a" / part.path, partitioning=None) for part in parts]
    for name, values in rows.items():
        found = np.concatenate([table[name].to_numpy() for table in tables])
        assert (found == values).all(), name
    assert parts[0].price_gcd_e8 == 10**7
    assert (parts[0].qty_gcd_e8, parts[0].min_qty_e8) == (10**5, 10**5)
    assert (parts[1].first_exch_ns, parts[1].last_seq) == (MIDNIGHT, 39_999)


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"side": None}, "missing column"),
        ({"recv_ns": None}, "missing column"),
        ({"colour": np.zeros(5, np.int64)}, "unknown column"),
        ({"price_e8": np.zeros(5)}, "must be integers"),
        ({"price_e8": np.zeros((5, 20), np.int64)}, "must be integers"),
        ({"seq": np.zeros(4, np.int64)}, "must be integers"),
        ({"recv_ns": np.array([5, 4, 6, 7, 8])}, "not in arrival order"),
        ({"recv_ns": np.full(5, 7), "seq": np.array([0, 1, 1, 2, 3])}, "not in arrival order"),
    ],
)
def test_bad_columns_are_refused(tmp_path: Path, change: dict[str, Any], what: str) -> None:
    rows = {name: values for name, values in (trades(5) | change).items() if values is not None}
    with ArchiveWriter(tmp_path, "synthetic") as writer, pytest.raises(ArchiveError, match=what):
        writer.write(TRADES, "AAA", rows)


def test_rows_behind_the_last_write_are_refused(tmp_path: Path) -> None:
    with ArchiveWriter(tmp_path, "synthetic") as writer:
        writer.write(TRADES, "AAA", trades(5))
        writer.write(TRADES, "BBB", trades(5))
        with pytest.raises(ArchiveError, match="arrival order"):
            writer.write(TRADES, "AAA", trades(5))


@pytest.mark.parametrize("symbol", ["", "..", "A/B", "A B", "x" * 65])
def test_symbol_that_is_no_folder_name_is_refused(tmp_path: Path, symbol: str) -> None:
    with ArchiveWriter(tmp_path, "synthetic") as writer, pytest.raises(ArchiveError, match="folder name"):
        writer.write(TRADES, symbol, trades(5))


def test_nothing_uncommitted_stays(tmp_path: Path) -> None:
    with ArchiveWriter(tmp_path, "synthetic") as writer:
        writer.write(TRADES, "AAA", trades(5))
        writer.commit()
    with ArchiveWriter(tmp_path, "synthetic") as writer:
        writer.write(TRADES, "AAA", trades(50_000, seq=10))
    assert sum(part.rows for part in load(tmp_path).parts) == 5
    assert [path.name for path in tmp_path.rglob("*.parquet")] == ["trades.parquet"]


def test_later_writes_to_a_day_add_parts(tmp_path: Path) -> None:
    for turn in range(3):
        with ArchiveWriter(tmp_path, "synthetic") as writer:
            seq = writer.next_seq("AAA")
            assert seq == 5 * turn
            writer.write(TRADES, "AAA", trades(5, start_ns=MIDNIGHT + turn * 2 * 10**6, seq=seq))
            writer.finish()
    names = [part.path.rpartition("/")[2] for part in load(tmp_path).parts]
    assert sorted(names) == ["trades.1.parquet", "trades.2.parquet", "trades.parquet"]
    ticks = np.concatenate(list(Archive.open(tmp_path).tick_batches("synthetic")))
    assert len(ticks) == 15
    assert (np.diff(ticks["recv_ns"]) >= 0).all()


def test_open_files_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer_module, "OPEN_PARTS_MAX", 2)
    with ArchiveWriter(tmp_path, "synthetic") as writer:
        for turn in range(3):
            for symbol in ("AAA", "BBB", "CCC"):
                writer.write(TRADES, symbol, trades(5, start_ns=MIDNIGHT + turn * 10**9, seq=turn * 5))
        writer.finish()
    archive = Archive.open(tmp_path)
    assert len(np.concatenate(list(archive.tick_batches("synthetic")))) == 45
    assert len(archive.manifest.parts) > 3


def test_two_writers_exclude_each_other(tmp_path: Path) -> None:
    """It was said with the exit code of damaged data; a lock has one of its own."""
    with writer_lock(tmp_path), pytest.raises(DeadlineError, match="another process") as caught:
        ArchiveWriter(tmp_path, "synthetic")
    assert caught.value.exit_code == 5
    ArchiveWriter(tmp_path, "synthetic").close()


def test_directory_that_is_no_archive_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("important")
    with pytest.raises(UsageError, match="not an archive"):
        ArchiveWriter(tmp_path, "synthetic")
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_given_instrument_is_kept(tmp_path: Path) -> None:
    instrument = Instrument("AAA", "synthetic", 10**6, 10**5, 10**5, 5 * 10**8, "synthetic")
    with ArchiveWriter(tmp_path, "synthetic", instruments=[instrument]) as writer:
        writer.write(TRADES, "AAA", trades(5))
        writer.finish()
    assert Archive.open(tmp_path).instruments("synthetic") == (instrument,)
