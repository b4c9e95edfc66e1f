"""A finished backtest, read back from its directory.

Owns: opening a run and refusing what is none. Never: writes, or computes a figure.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final, final

import numpy as np

from gpuscalp.backtest.entries import answer_name
from gpuscalp.backtest.record import TEXTS, TIMES, fill_columns, trade_columns
from gpuscalp.backtest.run import CONFIG_FILE, RESULT_FILE
from gpuscalp.backtest.saved_form import ConfigForm, ResultForm, read_form, unreadable
from gpuscalp.errors import UsageError
from gpuscalp.labels import CLASSES
from gpuscalp.schema import E8, F64, I64

_COLUMNS: Final = ("name", "unit", "median", "spread", "importance_rank")
_TEXTS: Final = TEXTS | {"name", "unit"}
_TIMES: Final = TIMES | {"at"}


@final
@dataclass(frozen=True)
class SavedRun:
    """One run directory.

    Attributes
    ----------
    frozen : config.json: "backtest", "scope", "version", "hash"
    result : result.json
    trades : trades.parquet, a pyarrow table
    """

    path: Path
    frozen: dict[str, Any]
    result: dict[str, Any]
    trades: Any

    @classmethod
    def open(cls, path: Path | str) -> SavedRun:
        """Read a run; fills, equity and entries only when they are asked for.

        Raises
        ------
        UsageError
            there is no finished backtest at ``path``
        DataError
            a file of it cannot be read
        """
        path = Path(path)
        if not all((path / name).is_file() for name in (RESULT_FILE, CONFIG_FILE, "trades.parquet")):
            raise UsageError(
                "this is not the directory of a finished backtest",
                where=str(path),
                fix="give a directory that `gpuscalp backtest` has written (its answer names it: run_dir)",
            )
        return cls(
            path,
            read_form(path / CONFIG_FILE, ConfigForm),
            read_form(path / RESULT_FILE, ResultForm),
            _table(path / "trades.parquet", trade_columns([], ())),
        )

    @property
    def scope(self) -> dict[str, Any]:
        scope: dict[str, Any] = self.frozen["scope"]
        return scope

    @cached_property
    def fills(self) -> Any:
        """fills.parquet."""
        return _table(self.path / "fills.parquet", fill_columns([], ()))

    @cached_property
    def entries(self) -> Any | None:
        """entries.parquet; None where the rows behind the entries were not kept."""
        path = self.path / "entries.parquet"
        if not path.is_file():
            return None
        table = _table(
            path, [*(answer_name(-1, name) for name in CLASSES), *self.columns["name"].to_pylist()]
        )
        if table.num_rows != self.trades.num_rows:
            raise unreadable(path, f"{table.num_rows} rows of {self.trades.num_rows} trades")
        return table

    @cached_property
    def columns(self) -> Any:
        """columns.parquet."""
        return _table(self.path / "columns.parquet", _COLUMNS)

    @cached_property
    def samples(self) -> Any:
        """equity.parquet."""
        return _table(self.path / "equity.parquet", ("at", "equity_usdt"))

    @cached_property
    def equity(self) -> tuple[I64, F64]:
        """Times int64[N], ns, and equity float64[N], USDT."""
        return times(self.samples, "at"), np.asarray(self.samples["equity_usdt"], np.float64)


def units(table: Any, name: str) -> I64:
    """Return a column of USDT as whole units of 1e-8: what was written, exactly."""
    return np.rint(np.asarray(table[name], np.float64) * E8).astype(np.int64)


def times(table: Any, name: str) -> I64:
    """Return a column of times, int64 ns UTC: timestamps of any unit, or integers that are ns already."""
    from gpuscalp.arrow import pa

    column = table[name]
    if pa.types.is_timestamp(column.type):
        column = column.cast(pa.timestamp("ns", tz=column.type.tz))
    return np.asarray(column.cast("int64"), np.int64)


def plain_rows(table: Any) -> list[dict[str, Any]]:
    """Return rows as dictionaries that JSON can hold: times as text to the ns, numbers as they are."""
    rows: list[dict[str, Any]] = table.to_pylist() if table.num_rows else []
    for name in table.column_names:
        if str(table.schema.field(name).type).startswith("timestamp"):
            for row, at_ns in zip(rows, times(table, name).tolist(), strict=True):
                row[name] = exact_utc(at_ns)
    return rows


def exact_utc(at_ns: int) -> str:
    """Return a time as text to the nanosecond, UTC."""
    whole, rest = divmod(at_ns, 10**9)
    return f"{datetime.datetime.fromtimestamp(whole, tz=datetime.UTC):%Y-%m-%d %H:%M:%S}.{rest:09d}"


def _table(path: Path, columns: Iterable[str]) -> Any:
    """Read a table that has at least these columns, of the kinds that a run writes."""
    from gpuscalp.arrow import pa, pq

    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowException) as error:
        raise unreadable(path, str(error)) from error
    for name in columns:
        if table.schema.get_field_index(name) < 0:  # also where it is there twice
            raise unreadable(path, f"no column {name}")
        if not _fits(table.schema.field(name).type, name):
            raise unreadable(path, f"{name} is of type {table.schema.field(name).type}")
        if table[name].null_count and name != "importance_rank":
            raise unreadable(path, f"{name} is empty in {table[name].null_count} row(s)")
    return table


def _fits(kind: Any, name: str) -> bool:
    from gpuscalp.arrow import pa

    if name in _TEXTS:
        return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))
    if name in _TIMES:
        return bool(pa.types.is_timestamp(kind))
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind))
