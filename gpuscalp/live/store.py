"""What a session must know again whatever happens: orders, fills, positions, risk state, in SQLite.

Owns: ``state.sqlite``. It follows from the journal and is written after it, in one transaction for each step
of the engine, so that it is never ahead of the journal; a start that repeats the journal brings it up to
date. It is there to be read while the session runs and after it has died, and as a second witness: ids that
it has seen are not given out again, and a gate that it knows as closed is not open after a restart.

WAL mode with ``synchronous=NORMAL``: a killed process loses nothing, a power cut at most what the journal
loses too.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Final, final
from urllib.parse import quote

import msgspec

from gpuscalp.account import Account
from gpuscalp.errors import DataError
from gpuscalp.execution.lifecycle import ENDED, OrderState
from gpuscalp.journal.blocks import RecordKind
from gpuscalp.live.records import FillRecord, OrderRecord, StateRecord

_VERSION: Final = 1
_FIX: Final = "check the disk; without this file the next start makes it again from the journal"
_WAL_PAGES_MAX: Final = 25_000  # 100 MB
_PATH_BYTES_MAX: Final = 504  # of SQLite's 512, less the end of its journal's name
_OPEN: Final = "state NOT IN ({})".format(", ".join(f"'{state}'" for state in sorted(ENDED)))
_SCHEMA: Final = f"""
CREATE TABLE IF NOT EXISTS orders (
    order_id INTEGER PRIMARY KEY, client_id TEXT NOT NULL UNIQUE, symbol TEXT NOT NULL, side INTEGER NOT NULL,
    qty_e8 INTEGER NOT NULL, reduce_only INTEGER NOT NULL, decided_ns INTEGER NOT NULL,
    sent_ns INTEGER NOT NULL, reason TEXT NOT NULL, state TEXT NOT NULL, left_e8 INTEGER NOT NULL,
    code INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE INDEX IF NOT EXISTS open_orders ON orders (order_id) WHERE {_OPEN};
CREATE TABLE IF NOT EXISTS fills (
    seq INTEGER PRIMARY KEY, order_id INTEGER NOT NULL, symbol TEXT NOT NULL, side INTEGER NOT NULL,
    qty_e8 INTEGER NOT NULL, price_e8 INTEGER NOT NULL, fee_e8 INTEGER NOT NULL, maker INTEGER NOT NULL,
    realised_e8 INTEGER NOT NULL, at_ns INTEGER NOT NULL, known_ns INTEGER NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS funding (
    seq INTEGER PRIMARY KEY, symbol TEXT NOT NULL, payment_e8 INTEGER NOT NULL, at_ns INTEGER NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS positions (
    symbol TEXT PRIMARY KEY, qty_e8 INTEGER NOT NULL, cost_e8 INTEGER NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS account (
    one INTEGER PRIMARY KEY CHECK (one = 1), start_e8 INTEGER NOT NULL, cash_e8 INTEGER NOT NULL,
    realised_e8 INTEGER NOT NULL, fees_e8 INTEGER NOT NULL, funding_e8 INTEGER NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS risk_states (
    seq INTEGER PRIMARY KEY, at_ns INTEGER NOT NULL, event TEXT NOT NULL, state TEXT NOT NULL,
    risk TEXT NOT NULL
) STRICT;
"""

_NEWEST_STATE: Final = "SELECT state FROM risk_states ORDER BY seq DESC LIMIT 1"
# What SQLite raises of a file that is damaged or none of ours. What it quotes of it need not be text.
REFUSED: Final = (sqlite3.Error, UnicodeDecodeError)
# (sequence number of the journal, kind, body)
Written = tuple[int, RecordKind, msgspec.Struct]


@dataclass(frozen=True, slots=True)
class Witness:
    """What the store knows that a restart must not contradict.

    Attributes
    ----------
    last_order_id : 0 if there was none
    state : of the gate; "" before the first
    seq : sequence number of the newest record that it holds; -1 if none
    """

    last_order_id: int
    state: str
    seq: int


@final
class Store:
    """The database of one session.

    Parameters
    ----------
    path : of the file; made if it is not there
    symbols : names, in the order of axis S

    Attributes
    ----------
    is_new : nothing was there, or a start that should have filled it was cut short

    Raises
    ------
    DataError    the file is none of ours, or damaged
    """

    def __init__(self, path: Path, symbols: Sequence[str]) -> None:
        self._symbols = tuple(symbols)
        self._path = path
        with ExitStack() as undo:  # whoever is refused holds nothing
            try:
                self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
                undo.callback(self._db.close)
                self._db.execute("PRAGMA journal_mode = WAL")
                self._db.execute("PRAGMA synchronous = NORMAL")
                version = self._db.execute("PRAGMA user_version").fetchone()[0]
                if version not in (0, _VERSION):
                    raise DataError("database of another version", where=str(path), value=version)
                self._db.executescript(_SCHEMA + f"PRAGMA user_version = {_VERSION};")
                if not _tables(self._db) >= _own_tables():
                    raise DataError(
                        "the database has other tables than a session's", where=str(path), fix=_FIX
                    )
                # Whatever is written writes the account too, in one transaction.
                self.is_new = self._db.execute("SELECT 1 FROM account").fetchone() is None
                # ``tidy`` waits for the disk, in another thread; this is a bound for those who never call it.
                self._db.execute(f"PRAGMA wal_autocheckpoint = {_WAL_PAGES_MAX}")
                rows = self._db.execute("SELECT symbol, qty_e8, cost_e8 FROM positions")
                self._written = {symbol: (qty, cost) for symbol, qty, cost in rows}
            except REFUSED as error:
                raise _damaged(path, error) from None
            undo.pop_all()

    def witness(self) -> Witness:
        """Return what a restart is checked against.

        Raises
        ------
        DataError    the file is damaged
        """
        try:
            order = self._db.execute("SELECT max(order_id) FROM orders").fetchone()[0]
            state = self._db.execute(_NEWEST_STATE).fetchone()
            newest = self._db.execute(
                "SELECT max(seq) FROM (SELECT max(seq) AS seq FROM fills"
                " UNION ALL SELECT max(seq) FROM risk_states)"
            ).fetchone()[0]
        except REFUSED as error:
            raise _damaged(self._path, error) from None
        found = Witness(order or 0, state[0] if state else "", -1 if newest is None else newest)
        # A damaged row may have values of other types than its table.
        if [type(value) for value in (found.last_order_id, found.state, found.seq)] != [int, str, int]:
            raise _damaged(self._path, ValueError("a value of another type"))
        return found

    def write(self, records: Iterable[Written], account: Account) -> None:
        """Take what one step has written into the journal; whatever is there already stays as it is.

        Raises
        ------
        DataError    the disk refuses
        """
        try:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                for seq, kind, body in records:
                    self._write(seq, kind, body)
                held = self._write_account(account)
                self._db.execute("COMMIT")
                self._written = held
            except BaseException:
                if self._db.in_transaction:  # on a full disk SQLite has ended it
                    self._db.execute("ROLLBACK")
                raise
        except REFUSED as error:
            raise _damaged(self._path, error) from None

    def tidy(self) -> None:
        """Move what was written from the log into the database; waits for the disk, so for another thread.

        Raises
        ------
        DataError    the disk refuses
        """
        try:
            # A connection of its own: on the other one ``write`` would wait as well.
            with closing(sqlite3.connect(self._path, isolation_level=None)) as database:
                database.execute("PRAGMA wal_checkpoint(PASSIVE)")
        except REFUSED as error:
            raise _damaged(self._path, error) from None

    def close(self) -> None:
        self._db.close()

    def _write(self, seq: int, kind: RecordKind, body: msgspec.Struct) -> None:
        if kind is RecordKind.ORDER:
            assert isinstance(body, OrderRecord)
            if not body.cancel:
                self._write_order(body)
        elif kind is RecordKind.FILL:
            assert isinstance(body, FillRecord)
            self._write_fill(seq, body)
        elif kind is RecordKind.STATE:
            assert isinstance(body, StateRecord)
            risk = msgspec.json.encode(body.risk).decode()
            self._db.execute(
                "INSERT INTO risk_states VALUES (?, ?, ?, ?, ?) ON CONFLICT (seq) DO NOTHING",
                (seq, body.at_ns, body.event, str(body.risk.state), risk),
            )

    def _write_order(self, order: OrderRecord) -> None:
        self._db.execute(
            "INSERT INTO orders VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 0)"
            " ON CONFLICT (order_id) DO NOTHING",
            (
                order.order_id,
                order.client_id,
                self._symbols[order.symbol],
                order.side,
                order.qty_e8,
                int(order.reduce_only),
                order.decided_ns,
                order.sent_ns,
                order.reason,
                str(OrderState.NEW),
                order.qty_e8,
            ),
        )

    def _write_fill(self, seq: int, report: FillRecord) -> None:
        symbol = self._symbols[report.symbol] if report.symbol >= 0 else ""
        if report.kind == "fill":
            self._db.execute(
                "INSERT INTO fills VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (seq) DO NOTHING",
                (
                    seq,
                    report.order_id,
                    symbol,
                    report.side,
                    report.qty_e8,
                    report.price_e8,
                    report.fee_e8,
                    int(report.maker),
                    report.money_e8,
                    report.at_ns,
                    report.known_ns,
                ),
            )
        elif report.kind == "funding":
            self._db.execute(
                "INSERT INTO funding VALUES (?, ?, ?, ?) ON CONFLICT (seq) DO NOTHING",
                (seq, symbol, report.money_e8, report.at_ns),
            )
        if report.state and report.order_id > 0:
            # A row that has ended stays what it is: a repeated journal tells the whole life once more.
            self._db.execute(
                f"UPDATE orders SET state = ?, left_e8 = ?, code = ? WHERE order_id = ? AND {_OPEN}",  # noqa: S608
                (report.state, report.left_e8, report.code, report.order_id),
            )

    def _write_account(self, account: Account) -> dict[str, tuple[int, int]]:
        """Write the account and what has changed of its positions; return all that then stand there."""
        self._db.execute(
            "INSERT OR REPLACE INTO account VALUES (1, ?, ?, ?, ?, ?)",
            (account.start_e8, account.cash_e8, account.realised_e8, account.fees_e8, account.funding_e8),
        )
        held = {
            symbol: (position.qty_e8, position.cost_e8)
            for symbol, position in zip(self._symbols, account.positions, strict=True)
            if position.qty_e8
        }
        changed = [
            (symbol, *position) for symbol, position in held.items() if self._written.get(symbol) != position
        ]
        if changed:
            self._db.executemany(
                "INSERT INTO positions VALUES (?, ?, ?)"
                " ON CONFLICT (symbol) DO UPDATE SET qty_e8 = excluded.qty_e8, cost_e8 = excluded.cost_e8",
                changed,
            )
        # No rows of zeros: the database is the same however the session came to where it stands.
        closed = [(symbol,) for symbol in self._written if symbol not in held]
        if closed:
            self._db.executemany("DELETE FROM positions WHERE symbol = ?", closed)
        return held


def open_to_read(path: Path, *, timeout_s: float = 5.0) -> sqlite3.Connection:
    """Open the database of a session that may run; nothing can be written through it, and no file is made.

    Parameters
    ----------
    timeout_s : how long a statement waits for who writes

    Raises
    ------
    REFUSED    it is not there, or no database; so may whatever is asked of it
    """
    # Where no log is, nobody writes. Told so, SQLite makes none: it would stay behind.
    log = path.with_name(f"{path.name}-wal")
    alone = "" if log.exists() else "&immutable=1"
    return sqlite3.connect(f"file:{quote(str(path))}?mode=ro{alone}", uri=True, timeout=timeout_s)


def sent_ns_of(path: Path, order_id: int) -> int | None:
    """Return when an order was sent (exchange time); None where the database does not know.

    It may belong to a session that runs: it is opened to be read, and let go at once.
    """
    try:
        with closing(open_to_read(path)) as db:
            row = db.execute("SELECT sent_ns FROM orders WHERE order_id = ?", (order_id,)).fetchone()
    except REFUSED:
        return None
    return None if row is None else int(row[0])


def state_of(path: Path) -> str:
    """Return the state that a session's gate was last in; "" before the first.

    Raises
    ------
    REFUSED    it is not there, or no database
    """
    with closing(open_to_read(path)) as db:
        row = db.execute(_NEWEST_STATE).fetchone()
    return str(row[0]) if row else ""


def _tables(db: sqlite3.Connection) -> set[tuple[str, str]]:
    return set(db.execute("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL"))


def _own_tables() -> set[tuple[str, str]]:
    with closing(sqlite3.connect(":memory:")) as fresh:
        fresh.executescript(_SCHEMA)
        return _tables(fresh)


def _damaged(path: Path, error: Exception) -> DataError:
    fix = _FIX
    if len(os.fsencode(path.absolute())) > _PATH_BYTES_MAX:
        fix = f"give the session a shorter path: this file's may have {_PATH_BYTES_MAX} bytes"
    return DataError(f"the session's database cannot be used: {error}", where=str(path), fix=fix)
