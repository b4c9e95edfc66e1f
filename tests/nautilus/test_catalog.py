"""Archives as catalogs of NautilusTrader and back."""

from __future__ import annotations

import datetime
import json
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gpuscalp.archive import Archive, ArchiveWriter
from gpuscalp.archive.ingest import import_sources
from gpuscalp.archive.tables import BOOKS, MARKS, QUOTES, TABLES, TRADES
from gpuscalp.archive.verify import verify
from gpuscalp.errors import DataError
from gpuscalp.schema import BOOK_LEVELS, NS_PER_DAY, Instrument, Quality
from tests.nautilus.conftest import CONFIG

pytestmark = pytest.mark.nautilus

COIN = Instrument(
    "COINUSDT", "binance_usdm", 1_000_000, 100_000, 100_000, 5 * 10**8, "exchange_info", 120 * 10**8
)


def tables(path: Path) -> dict[tuple[str, str], Any]:
    """Return all rows of an archive by symbol and table, in the order of arrival."""
    archive = Archive.open(path)
    found: dict[tuple[str, str], list[Any]] = {}
    for part in archive.manifest.parts:
        found.setdefault((part.symbol, part.table), []).append(pq.read_table(archive.path / part.path))
    return {
        key: pa.concat_tables(parts).sort_by([("recv_ns", "ascending"), ("seq", "ascending")])
        for key, parts in found.items()
    }


def round_trip(archive: Path, folder: Path, **settings: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    from gpuscalp.nautilus.export import export_catalog
    from gpuscalp.nautilus.ingest import import_catalog

    told = export_catalog(archive, folder / "catalog", **settings)
    return told, import_catalog(folder / "catalog", folder / "back")


def check_same(archive: Path, back: Path) -> None:
    before, after = tables(archive), tables(back)
    assert before.keys() == after.keys()
    for key, rows in before.items():
        assert rows.equals(after[key]), key
    mine, other = Archive.open(archive), Archive.open(back)
    for venue in mine.venues():
        assert mine.instruments(venue) == other.instruments(venue)


def awkward(path: Path) -> Path:
    """Write what is hard to keep: ties, doubts, unknown numbers, one-sided and repeated books, midnight."""
    start_ns = 20_000 * NS_PER_DAY - 50
    rng = np.random.default_rng(3)

    def common(count: int, seq: int) -> dict[str, Any]:
        recv_ns = start_ns + np.arange(count) * 10
        recv_ns[count // 2 :] -= 10 * (np.arange(count - count // 2) % 2)  # pairs of the same instant
        quality = np.where(np.arange(count) % 3 == 0, int(Quality.GAP | Quality.RESYNC), 0)
        return {
            "recv_ns": np.sort(recv_ns), "exch_ns": np.sort(recv_ns) + 7, "quality": quality,
            "seq": seq + 4 * np.arange(count),
        }  # fmt: skip

    with ArchiveWriter(path, "binance_usdm", instruments=[COIN]) as writer:
        trades = common(10, 0) | {
            "trade_id": np.arange(10) + 10**9, "price_e8": np.arange(10) * 1_000_000 + 10**10,
            "qty_e8": np.arange(10) * 100_000 + 100_000, "side": np.where(np.arange(10) % 2, 1, -1),
        }  # fmt: skip
        writer.write(TRADES, "COINUSDT", trades)
        sides = ("bid_price_e8", "bid_qty_e8", "ask_price_e8", "ask_qty_e8")
        quote = dict(zip(sides, (10**10, 5 * 10**5, 10**10 - 10**6, 10**5), strict=True))  # crossed
        writer.write(QUOTES, "COINUSDT",
            common(10, 1) | {"update_id": np.arange(10) + 77}
            | {name: np.full(10, value) for name, value in quote.items()},
        )  # fmt: skip
        books = np.zeros((4, 10, BOOK_LEVELS), np.int64)
        for row in (0, 1, 2, 4, 5, 6, 7, 8):
            depth = int(rng.integers(1, BOOK_LEVELS + 1)) if row != 2 else BOOK_LEVELS
            books[0, row, :depth] = 10**10 - 10**6 * np.arange(1, depth + 1)
            books[1, row, :depth] = rng.integers(1, 9, depth) * 100_000
            if row != 6:  # one-sided
                books[2, row, :depth] = 10**10 + 10**6 * np.arange(1, depth + 1)
                books[3, row, :depth] = rng.integers(1, 9, depth) * 100_000
        books[:, 5] = books[:, 4]  # the same once more
        writer.write(
            BOOKS,
            "COINUSDT",
            common(10, 2) | {"update_id": np.arange(10) + 99} | dict(zip(sides, books, strict=True)),
        )
        writer.write(MARKS, "COINUSDT",
            common(10, 3) | {
                "mark_price_e8": np.where(np.arange(10) % 4 == 1, 0, 10**10 + np.arange(10)),
                "index_price_e8": np.where(np.arange(10) % 4 >= 1, 0, 10**10 - 1),
                "funding_rate_e8": np.arange(10) * 3 - 9,
                "next_funding_ns": np.where(np.arange(10) % 5 == 0, 0, start_ns + 10**13),
            },
        )  # fmt: skip
        writer.finish()
    return path


@pytest.mark.parametrize("file_events", [250_000, 500])
def test_an_archive_comes_back_as_it_was(archive: Path, tmp_path: Path, file_events: int) -> None:
    told, back = round_trip(archive, tmp_path, file_events=file_events)
    check_same(archive, tmp_path / "back")
    assert told["rows"] == back["rows"]
    assert back["exact"]
    assert back["left_out"] == {}
    assert (told["files"] > 20) == (file_events == 500)


@pytest.mark.parametrize("file_events", [250_000, 2])
def test_what_is_awkward_comes_back_as_well(tmp_path: Path, file_events: int) -> None:
    archive = awkward(tmp_path / "archive")
    told, _ = round_trip(archive, tmp_path, file_events=file_events)
    check_same(archive, tmp_path / "back")
    assert told["beside"]["doubtful_rows"] == 16


@pytest.mark.slow
def test_a_recording_comes_back_as_it_was(recordings: Path, tmp_path: Path) -> None:
    names = ("btcusdt_20230404.dat.gz", "btcusdt_20230405.dat.gz")
    import_sources([recordings / "usdm" / name for name in names], tmp_path / "archive")
    round_trip(tmp_path / "archive", tmp_path, file_events=10_000)
    check_same(tmp_path / "archive", tmp_path / "back")


def test_without_what_lies_beside_it_a_catalog_keeps_what_nautilus_holds(
    archive: Path, tmp_path: Path
) -> None:
    from gpuscalp.nautilus.export import export_catalog
    from gpuscalp.nautilus.ingest import import_catalog

    export_catalog(archive, tmp_path / "catalog")
    shutil.rmtree(tmp_path / "catalog" / "gpuscalp")
    told = import_catalog(tmp_path / "catalog", tmp_path / "back")
    assert not told["exact"]
    assert told["left_out"] == {"IndexPriceUpdate: this version of NautilusTrader does not read it": 2}
    before, after = tables(archive), tables(tmp_path / "back")
    kept = {
        "trades": ("recv_ns", "exch_ns", "trade_id", "price_e8", "qty_e8", "side"),
        "quotes": ("recv_ns", "exch_ns", "bid_price_e8", "bid_qty_e8", "ask_price_e8", "ask_qty_e8"),
        "books": ("recv_ns", "exch_ns", "update_id", "bid_price_e8", "bid_qty_e8", "ask_qty_e8"),
        "marks": ("recv_ns", "exch_ns", "mark_price_e8"),
    }
    for (symbol, table), rows in before.items():
        for name in kept[table]:
            assert rows[name].combine_chunks().equals(after[symbol, table][name].combine_chunks()), (
                table,
                name,
            )


@pytest.mark.parametrize("kind", ["trade_tick", "crypto_perpetual", "gpuscalp"])
def test_damaged_file_of_a_catalog_is_named(archive: Path, tmp_path: Path, kind: str) -> None:
    """Each library has errors of its own for it."""
    from gpuscalp.nautilus.export import export_catalog
    from gpuscalp.nautilus.ingest import import_catalog

    export_catalog(archive, tmp_path / "catalog")
    file = next(each for each in sorted((tmp_path / "catalog").rglob("*.parquet")) if kind in each.parts)
    file.write_bytes(file.read_bytes()[:-9])
    with pytest.raises(DataError, match="catalog cannot be read"):
        import_catalog(tmp_path / "catalog", tmp_path / "back")


def test_no_window_is_asked_for_where_a_catalog_has_nothing() -> None:
    """Two days a year apart took an hour."""
    from gpuscalp.nautilus.catalog_rows import _WINDOW_NS, _windows

    later = 365 * NS_PER_DAY
    spans = [(later, later), (5, 6), (0, _WINDOW_NS)]
    last = 2 * _WINDOW_NS - 1
    assert list(_windows(spans)) == [
        (0, _WINDOW_NS - 1), (_WINDOW_NS, last), (later, later + _WINDOW_NS - 1)
    ]  # fmt: skip


def test_trade_id_that_no_archive_can_hold_is_left_out() -> None:
    from gpuscalp.nautilus.catalog_rows import _Symbol

    subject = object.__new__(_Symbol)
    subject._left_out = Counter()
    size = SimpleNamespace(raw=0)
    tick = SimpleNamespace(aggressor_side=1, trade_id="1" * 19, price=size, size=size, ts_event=1, ts_init=2)
    assert subject._trade(tick) == (1, 2, (0, 0, 0, 1))
    assert subject._left_out == {"trade ids that are no numbers": 1}


def test_largest_market_order_is_known_from_us_or_from_binance() -> None:
    from nautilus_trader.model.instruments import CryptoPerpetual

    from gpuscalp.nautilus.instruments import from_nautilus, to_nautilus

    assert from_nautilus(to_nautilus(COIN)) == COIN
    told = CryptoPerpetual.to_dict(to_nautilus(COIN))
    for filters, expected in (
        ([{"filterType": "MARKET_LOT_SIZE", "maxQty": "7.5"}], 75 * 10**7),
        ([{"filterType": "MAX_NUM_ORDERS", "maxQty": None}], 0),
    ):
        theirs = CryptoPerpetual.from_dict(told | {"info": {"filters": filters}})
        assert from_nautilus(theirs).max_market_qty_e8 == expected


def test_nautilus_reads_what_was_written(archive: Path, tmp_path: Path) -> None:
    from nautilus_trader.model.book import OrderBook
    from nautilus_trader.model.data import OrderBookDelta, QuoteTick
    from nautilus_trader.model.enums import BookType
    from nautilus_trader.model.identifiers import InstrumentId
    from nautilus_trader.persistence.catalog import ParquetDataCatalog

    from gpuscalp.nautilus.export import export_catalog

    export_catalog(archive, tmp_path / "catalog")
    catalog = ParquetDataCatalog(tmp_path / "catalog")
    name = "BTCUSDT-PERP.SYNTHETIC"
    quotes = catalog.query(QuoteTick, identifiers=[name])
    series = Archive.open(archive).quotes("synthetic", "BTCUSDT")
    assert len(quotes) == len(series)
    tick = 10**8 / Archive.open(archive).instruments("synthetic")[0].tick_size_e8
    assert [round(float(each.bid_price) * tick) for each in quotes] == series.bid_px.tolist()
    books = Archive.open(archive).books("synthetic", "BTCUSDT")
    book = OrderBook(InstrumentId.from_str(name), BookType.L2_MBP)
    row = 0
    for delta in catalog.query(OrderBookDelta, identifiers=[name]):
        book.apply_delta(delta)
        if delta.flags & 128:
            shown = [round(float(level.price) * tick) for level in book.bids()]
            assert shown == [px for px in books.bid_px[row].tolist() if px]
            assert [level.size() for level in book.asks()] == [
                qty for qty in books.ask_qty[row].tolist() if qty
            ]
            row += 1
    assert row == len(books)


def test_a_backtest_from_the_catalog_is_that_of_the_archive(
    archive: Path, bundle: Path, tmp_path: Path, cli: Callable[..., Any]
) -> None:
    config = tmp_path / "config.toml"
    config.write_text(
        '[strategy]\nmin_edge_bps = -100.0\n[sizing]\nkelly_fraction = "off"\n'
        '[risk]\nmax_losses = "off"\nmax_collar_bps = "off"\nblocked_quality = []\n'
        "[cost]\ntaker_fee_bps = 2.0\n"
    )
    exported = cli("nautilus", "export", archive, tmp_path / "catalog", "--json")
    assert exported.code == 0, exported
    words = ("nautilus", "backtest", archive, "--model", bundle, "--config", config, "--json")
    from_archive = cli(*words, "--out", tmp_path / "one")
    from_catalog = cli(*words, "--out", tmp_path / "two", "--catalog", tmp_path / "catalog")
    assert from_archive.code == from_catalog.code == 0, (from_archive, from_catalog)
    assert json.loads(from_archive.stdout)["trades"] > 50
    for name in ("signals.parquet", "fills.parquet", "equity.parquet"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes(), name
    half = Archive.open(archive).time_range("synthetic")[0] + 30 * 10**9
    moment = datetime.datetime.fromtimestamp(half // 10**9, tz=datetime.UTC)
    assert (
        cli("nautilus", "export", archive, tmp_path / "half", "--to", f"{moment:%Y-%m-%dT%H:%M:%S}").code == 0
    )
    refused = cli(*words, "--out", tmp_path / "three", "--catalog", tmp_path / "half")
    assert refused.code == 2
    assert "not an export of this archive" in json.loads(refused.stdout)["error"]["what"]
    assert not (tmp_path / "three").exists()


def test_folders_that_are_taken_or_empty_are_refused(
    archive: Path, tmp_path: Path, cli: Callable[..., Any]
) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "something").touch()
    assert cli("nautilus", "export", archive, tmp_path / "full").code == 2
    assert cli("nautilus", "import", tmp_path / "full", tmp_path / "new").code == 2
    assert cli("nautilus", "export", archive, tmp_path / "catalog", "--symbols", "ETHUSDT").code == 0
    assert cli("nautilus", "import", tmp_path / "catalog", tmp_path / "full").code == 2
    words = (
        "nautilus",
        "import",
        tmp_path / "catalog",
        tmp_path / "new",
        "--instruments",
        "BTCUSDT-PERP.SYNTHETIC",
    )
    result = cli(*words, "--json")
    assert result.code == 2
    assert json.loads(result.stdout)["error"]["fix"] == "it has: ETHUSDT-PERP.SYNTHETIC"


def test_interrupted_import_begins_again(
    archive: Path, tmp_path: Path, cli: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was refused: the lock of the first one lay there."""
    from gpuscalp.nautilus import ingest

    def stopped(*_: object) -> None:
        raise KeyboardInterrupt

    assert cli("nautilus", "export", archive, tmp_path / "catalog", "--symbols", "ETHUSDT").code == 0
    words = ("nautilus", "import", tmp_path / "catalog", tmp_path / "new")
    with monkeypatch.context() as patch:
        patch.setattr(ingest, "_write", stopped)
        assert cli(*words).code == 130
    assert (tmp_path / "new" / ".lock").exists()
    assert cli(*words).code == 0
    assert verify(tmp_path / "new").problems == []
    assert cli(*words).code == 2


def test_clock_of_a_backtest_goes_on_where_the_recorders_was_set_forward() -> None:
    """All times behind it were late by as much, to the end of the data."""
    from gpuscalp.nautilus.events import FastestWay

    clock, ms = FastestWay(), 10**6
    sent = range(1_700_000_000_000 * ms, 1_700_000_180_000 * ms, 200 * ms)
    set_ns = sent[450]
    given = [clock(at + (1_605 * ms if at >= set_ns else 5 * ms), at) for at in sent]
    late = np.array(given) - np.array(sent)
    assert set(late[:450].tolist()) == {0}
    assert (late >= 0).all()
    assert (np.diff(given) >= 0).all()
    assert late[451] == 1_600 * ms
    assert set(late[450 + 62 * 5 :].tolist()) == {0}


assert CONFIG.risk.blocked_quality == (), "the configuration above says the same in another form"
assert set(TABLES) == {"trades", "quotes", "books", "marks"}
