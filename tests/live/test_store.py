"""The database of a session: a second witness that a repeated journal does not change."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import msgspec
import pytest

from gpuscalp.account import Account
from gpuscalp.config import RiskConfig
from gpuscalp.errors import DataError
from gpuscalp.journal.blocks import RecordKind
from gpuscalp.live.records import FillRecord, OrderRecord, StateRecord
from gpuscalp.live.store import Store, Witness, Written, sent_ns_of
from gpuscalp.risk.gate import RiskEvent, RiskGate

E8 = 10**8


def order(number: int, *, cancel: bool = False) -> OrderRecord:
    return OrderRecord(number, f"gs-x-{number}", 0, 1, 2 * E8, False, 5, 6, 7, "edge", cancel)


def fill(number: int, qty: int, left: int) -> FillRecord:
    state = "filled" if left == 0 else "partially_filled"
    return FillRecord(
        "fill", number, 0, 8, 9, state, left_e8=left, side=1, qty_e8=qty, price_e8=100 * E8, fee_e8=3
    )


def state(event: RiskEvent) -> StateRecord:
    gate = RiskGate(RiskConfig(), start_e8=E8, symbol_count=1)
    gate.apply(event, 1)
    return StateRecord(1, str(event), gate.snapshot())


LIFE: list[Written] = [
    (1, RecordKind.ORDER, order(1)),
    (2, RecordKind.FILL, FillRecord("accepted", 1, 0, 7, 8, "accepted", left_e8=2 * E8)),
    (3, RecordKind.FILL, fill(1, E8, E8)),
    (4, RecordKind.FILL, fill(1, E8, 0)),
    (5, RecordKind.FILL, FillRecord("funding", 0, 0, 10, 11, money_e8=-4)),
    (6, RecordKind.ORDER, order(2)),
    (7, RecordKind.FILL, FillRecord("rejected", 2, 0, 12, 13, "rejected", -2019, left_e8=2 * E8)),
    (8, RecordKind.ORDER, order(3)),
    (9, RecordKind.ORDER, order(3, cancel=True)),
    (10, RecordKind.STATE, state(RiskEvent.HALT_ENTRIES)),
]


def dump(path: Path) -> list[str]:
    with closing(sqlite3.connect(path)) as db, db:
        return list(db.iterdump())


def positions(path: Path) -> list[tuple[str, int, int]]:
    with closing(sqlite3.connect(path)) as db, db:
        return db.execute("SELECT symbol, qty_e8, cost_e8 FROM positions ORDER BY symbol").fetchall()


def account() -> Account:
    made = Account(1_000 * E8, 2)
    made.apply_fill(0, 2 * E8, 100 * E8, 6)
    return made


def test_life_of_orders_is_kept(tmp_path: Path) -> None:
    store = Store(tmp_path / "state.sqlite", ["BTCUSDT", "ETHUSDT"])
    store.write(LIFE, account())
    assert store.witness() == Witness(3, "reducing", 10)
    assert positions(tmp_path / "state.sqlite") == [("BTCUSDT", 2 * E8, 200 * E8)]
    store.close()
    with closing(sqlite3.connect(tmp_path / "state.sqlite")) as db, db:
        states = dict(db.execute("SELECT order_id, state FROM orders"))
        assert states == {1: "filled", 2: "rejected", 3: "new"}
        assert db.execute("SELECT code FROM orders WHERE order_id = 2").fetchone() == (-2019,)
        assert db.execute("SELECT sum(qty_e8), sum(fee_e8) FROM fills").fetchone() == (2 * E8, 6)
        assert db.execute("SELECT payment_e8 FROM funding").fetchall() == [(-4,)]


@pytest.mark.parametrize("start", range(len(LIFE)))
def test_repeated_journal_changes_nothing(tmp_path: Path, start: int) -> None:
    """A restart repeats the journal from its checkpoint, wherever that is."""
    path = tmp_path / "state.sqlite"
    store = Store(path, ["BTCUSDT", "ETHUSDT"])
    store.write(LIFE, account())
    before = dump(path)
    for step in LIFE[start:]:
        store.write([step], account())
    assert dump(path) == before
    store.close()


def test_closed_position_is_told_as_closed(tmp_path: Path) -> None:
    store = Store(tmp_path / "state.sqlite", ["BTCUSDT", "ETHUSDT"])
    money = account()
    store.write([], money)
    money.apply_fill(0, -2 * E8, 101 * E8, 6)
    store.write([], money)
    assert positions(tmp_path / "state.sqlite") == []
    store.close()


def test_step_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    store = Store(tmp_path / "state.sqlite", ["BTCUSDT", "ETHUSDT"])
    bad = FillRecord("fill", 1, 0, 8, 9, "filled", side=1, qty_e8=None)  # type: ignore[arg-type]
    with pytest.raises(DataError, match="cannot be used"):
        store.write([(1, RecordKind.ORDER, order(1)), (2, RecordKind.FILL, bad)], account())
    assert store.witness() == Witness(0, "", -1)
    store.close()


def test_file_of_something_else_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "state.sqlite"
    path.write_bytes(b"no database" * 100)
    with pytest.raises(DataError, match="cannot be used"):
        Store(path, ["BTCUSDT"])


def test_path_that_is_too_long_for_the_database_is_told_as_that(tmp_path: Path) -> None:
    """The advice was to check the disk."""
    folder = tmp_path / ("a" * 240) / ("b" * 120)
    folder.mkdir(parents=True)
    rest = 504 - len(str(folder)) - 1
    Store(folder / ("c" * rest), ["BTCUSDT"]).close()
    with pytest.raises(DataError, match="cannot be used") as refused:
        Store(folder / ("c" * (rest + 1)), ["BTCUSDT"])
    assert "shorter path" in str(refused.value.fix)


def test_a_full_disk_is_named_and_what_was_there_stays(tmp_path: Path) -> None:
    """SQLite may end the transaction itself: "cannot rollback - no transaction is active", said the error."""
    store = Store(tmp_path / "state.sqlite", ["BTCUSDT"])
    account = Account(1_000 * E8, 1)
    store.write(LIFE[:1], account)
    before = dump(tmp_path / "state.sqlite")
    store._db.execute(f"PRAGMA max_page_count = {store._db.execute('PRAGMA page_count').fetchone()[0]}")
    large = msgspec.structs.replace(order(2), reason="x" * 1_000_000)
    with pytest.raises(DataError, match="disk is full"):
        store.write([(2, RecordKind.ORDER, large)], account)
    store._db.execute("PRAGMA max_page_count = 1000000")
    assert dump(tmp_path / "state.sqlite") == before
    store.write([(2, RecordKind.ORDER, large)], account)
    assert store.witness().last_order_id == 2
    store.close()


def test_file_of_another_version_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "state.sqlite"
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("PRAGMA user_version = 99")
    with pytest.raises(DataError, match="another version"):
        Store(path, ["BTCUSDT"])


def whole(tmp_path: Path) -> Path:
    path = tmp_path / "state.sqlite"
    store = Store(path, ["BTCUSDT"])
    store.write(LIFE, Account(E8, 1))
    store.tidy()
    store.close()
    return path


@pytest.mark.parametrize("filler", [b"\x00", b"\xff", b"s"], ids=["zeros", "ones", "text"])
def test_damaged_page_is_told_whoever_comes_upon_it(tmp_path: Path, filler: bytes) -> None:
    """One of a table that a start only looks into was a traceback, and so was a name that is no text."""
    path = whole(tmp_path)
    content, size, told = path.read_bytes(), 4_096, 0
    for page in range(len(content) // size):
        start = page * size + (100 if page == 0 else 0)  # behind the file's own header
        path.write_bytes(content[:start] + filler * (size - start % size) + content[(page + 1) * size :])
        try:
            with closing(Store(path, ["BTCUSDT"])) as store:
                store.witness()
        except DataError as error:
            told += "cannot be used" in str(error)
    assert told >= 3


def test_name_that_is_no_text_is_told(tmp_path: Path) -> None:
    path = whole(tmp_path)
    content = path.read_bytes()
    assert b"CREATE TABLE orders" in content
    path.write_bytes(content.replace(b"CREATE TABLE orders", b"CREATE TABLE or\xffers"))
    with pytest.raises(DataError, match="cannot be used"):
        Store(path, ["BTCUSDT"])
    assert sent_ns_of(path, 1) is None


@pytest.mark.parametrize(
    "other",
    ["CREATE TABLE fills (seq, order_id)", "CREATE TABLE positions (symbol TEXT, qty_e8 TEXT, cost_e8 TEXT)"],
)
def test_tables_of_another_program_are_refused(tmp_path: Path, other: str) -> None:
    path = tmp_path / "state.sqlite"
    with closing(sqlite3.connect(path)) as db, db:
        db.execute(other)
    with pytest.raises(DataError, match="other tables"):
        Store(path, ["BTCUSDT"])


def test_value_of_another_type_is_damage(tmp_path: Path) -> None:
    """Without its tables' word for it a number can be text: it could not be compared with the journal's."""
    path = whole(tmp_path)
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("PRAGMA writable_schema = ON")
        (schema,) = db.execute("SELECT sql FROM sqlite_master WHERE name = 'risk_states'").fetchone()
        db.execute("UPDATE sqlite_master SET sql = replace(sql, 'STRICT', '') WHERE name = 'risk_states'")
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("UPDATE risk_states SET state = x'00'")
        db.execute("PRAGMA writable_schema = ON")
        db.execute("UPDATE sqlite_master SET sql = ? WHERE name = 'risk_states'", (schema,))
    with closing(Store(path, ["BTCUSDT"])) as store, pytest.raises(DataError, match="another type"):
        store.witness()


def test_tidying_moves_the_log_into_the_database_beside_writes(tmp_path: Path) -> None:
    """Without the log's file the database alone must have everything."""
    path = tmp_path / "state.sqlite"
    store = Store(path, ["BTCUSDT", "ETHUSDT"])
    store.write(LIFE[:5], account())
    store.tidy()
    alone = tmp_path / "alone.sqlite"
    alone.write_bytes(path.read_bytes())
    with closing(sqlite3.connect(alone)) as db, db:
        assert db.execute("SELECT count(*) FROM fills").fetchone() == (2,)
        assert db.execute("SELECT qty_e8 FROM positions").fetchall() == [(2 * E8,)]
    store.write(LIFE[5:], account())
    assert store.witness() == Witness(3, "reducing", 10)
    store.close()


def test_position_of_an_earlier_life_is_corrected(tmp_path: Path) -> None:
    """Only what has changed is written: against the file, not against what this process has written."""
    path, money = tmp_path / "state.sqlite", account()
    store = Store(path, ["BTCUSDT", "ETHUSDT"])
    store.write([], money)
    store.close()
    store = Store(path, ["BTCUSDT", "ETHUSDT"])
    store.write([], Account(1_000 * E8, 2))
    assert positions(path) == []
    store.write([], money)
    assert positions(path) == [("BTCUSDT", 2 * E8, 200 * E8)]
    store.close()
