"""Tables for people: the columns as stored, in units and with what is not known left open."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from gpuscalp.archive import Archive, ArchiveWriter
from gpuscalp.archive.tables import BOOKS, MARKS, TRADES
from gpuscalp.errors import UsageError

DAY_NS = 19_923 * 86_400 * 10**9


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    at = DAY_NS + np.array([1, 2, 3], np.int64) * 10**9
    common = {"recv_ns": at + 5, "exch_ns": at, "seq": np.arange(3)}
    levels = np.zeros((3, 20), np.int64)
    levels[:, :2] = 30_000_000, 10_000_000
    with ArchiveWriter(tmp_path / "archive", "synthetic") as writer:
        writer.write(
            TRADES,
            "AAA",
            {
                **common,
                "trade_id": np.array([7, 8, 9]),
                "price_e8": np.array([10_000_000, 20_000_000, 30_000_000]),
                "qty_e8": np.array([1, 150_000_000, 2_000_000_000]),
                "side": np.array([1, -1, 1]),
            },
        )
        sides = {f"{side}_{what}_e8": levels for side in ("bid", "ask") for what in ("price", "qty")}
        writer.write(BOOKS, "AAA", {**common, "update_id": np.arange(3), **sides})
        writer.write(
            MARKS,
            "AAA",
            {
                **common,
                "mark_price_e8": np.array([10_000_000, 0, 10_000_000]),
                "index_price_e8": np.array([0, 0, 5]),
                "funding_rate_e8": np.array([0, -10_000, 10_000]),
                "next_funding_ns": np.array([0, DAY_NS, DAY_NS]),
            },
        )
        writer.finish()
    return Archive.open(tmp_path / "archive")


def test_prices_are_numbers_and_times_are_timestamps(archive: Archive) -> None:
    trades = archive.table("synthetic", "AAA", "trades")
    assert trades.column_names == ["recv_ns", "exch_ns", "seq", "quality", "trade_id", "price", "qty", "side"]
    assert trades["price"].to_pylist() == [0.1, 0.2, 0.3]
    assert trades["qty"].to_pylist() == [1e-8, 1.5, 20.0]
    assert trades["side"].to_pylist() == [1, -1, 1]
    assert trades.schema.field("exch_ns").type == pa.timestamp("ns", tz="UTC")
    assert trades["exch_ns"].cast("int64").to_pylist()[0] == DAY_NS + 10**9
    cut = archive.table("synthetic", "AAA", "trades", start_ns=DAY_NS + 2 * 10**9, end_ns=DAY_NS + 3 * 10**9)
    assert cut["trade_id"].to_pylist() == [8]


def test_level_that_is_not_there_has_no_price(archive: Archive) -> None:
    bids = archive.table("synthetic", "AAA", "books")["bid_price"].to_pylist()
    assert [len(row) for row in bids] == [20] * 3
    assert bids[0][:2] == [0.3, 0.1]
    assert np.isnan(bids[0][2:]).all()


def test_what_the_exchange_did_not_say_is_not_zero(archive: Archive) -> None:
    marks = archive.table("synthetic", "AAA", "marks")
    np.testing.assert_array_equal(marks["mark_price"], [0.1, np.nan, 0.1])
    np.testing.assert_array_equal(marks["index_price"], [np.nan, np.nan, 5e-8])
    assert marks["funding_rate"].to_pylist() == [0.0, -1e-4, 1e-4]
    assert marks["next_funding_ns"].null_count == 1


def test_empty_range_has_the_same_columns(archive: Archive) -> None:
    for name in ("trades", "books", "marks"):
        empty = archive.table("synthetic", "AAA", name, end_ns=5)
        assert empty.num_rows == 0
        assert empty.schema == archive.table("synthetic", "AAA", name).schema


def test_unknown_table_is_refused(archive: Archive) -> None:
    with pytest.raises(UsageError, match="no such table"):
        archive.table("synthetic", "AAA", "candles")
