"""Files of a run with entries missing or of other types: refused by name, whichever command reads them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gpuscalp.backtest import run_backtest
from gpuscalp.cli import run as command
from gpuscalp.synthetic.spec import DEFAULT_SYMBOLS, MarketSpec
from gpuscalp.synthetic.write import write
from tests.backtest.model import CONFIG, write_stump_bundle


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("saved")
    write(MarketSpec(duration_s=60, symbols=DEFAULT_SYMBOLS[:2]), path / "archive")
    bundle = write_stump_bundle(path / "bundle", path / "archive")
    run_backtest(path / "archive", bundle, config=CONFIG, out=path / "run")
    return path / "run"


# Entries that a command reads, by file; each of them in a form that it cannot have.
_MANGLED = {
    "result.json": (
        "trades", "pnl_usdt", "fees_usdt", "hit_rate", "symbols", "warnings", "intents", "orders", "start",
        "sharpe_interval_s", "trials", "start_usdt", "max_drawdown_pct", "unclosed_usdt",
        "report", "like", "band",
    ),
    "config.json": ("scope", "backtest", "version", "hash", "executor"),
}  # fmt: skip
_ODD = (b"", b"{", b"[]", b"null", b"\xff\x00\xfe", b"NaN", b"{}", b"[" * 100_000, b"1e999", b'"text"')


@pytest.fixture
def copied(finished: Path, tmp_path: Path) -> Path:
    return shutil.copytree(finished, tmp_path / "copied")


def assert_refused(run: Path, capsys: Any, where: str) -> None:
    """Every command that reads runs says what is wrong with which file, in words and in JSON."""
    for words in (["show", str(run)], ["show", str(run), "--trade", "0"], ["compare", str(run), str(run)]):
        assert command(["backtest", *words, "--json"]) == 1
        error = json.loads(capsys.readouterr().out)["error"]
        assert error["kind"] == "DataError"
        assert error["where"] == str(run / where)
        assert error["fix"]
        assert command(["backtest", *words]) == 1
        told = capsys.readouterr()
        assert "Traceback" not in told.out + told.err


@pytest.mark.parametrize("name", _MANGLED)
@pytest.mark.parametrize("data", _ODD, ids=lambda data: repr(data[:8]))
def test_file_of_a_run_that_is_no_object_is_refused(
    copied: Path, capsys: Any, name: str, data: bytes
) -> None:
    (copied / name).write_bytes(data)
    assert_refused(copied, capsys, name)


@pytest.mark.parametrize(("name", "key"), [(name, key) for name, keys in _MANGLED.items() for key in keys])
def test_entry_of_another_type_is_refused(copied: Path, capsys: Any, name: str, key: str) -> None:
    """They ended in a traceback: only that the file was an object had been looked at."""
    whole = json.loads((copied / name).read_bytes())
    for value in ([None], {"a": [1]}, True, -1.5 if key in ("trades", "trials") else "\ud83d"):
        (copied / name).write_bytes(json.dumps({**whole, key: value}).encode())
        if isinstance(value, str) and isinstance(whole.get(key), str):
            continue  # any text will do
        if isinstance(value, dict) and key == "backtest":
            continue  # it is shown as it is
        assert_refused(copied, capsys, name)
    if key in whole:
        del whole[key]
        (copied / name).write_bytes(json.dumps(whole).encode())
        assert_refused(copied, capsys, name)


@pytest.mark.parametrize(
    ("file", "column", "other"),
    [
        ("trades", "symbol", 1),
        ("trades", "pnl_usdt", "much"),
        ("trades", "entry_decided", 1_700_000_000),
        ("trades", "qty", None),
        ("trades", "side", "nowhere"),
        ("fills", "price", [1.0]),
        ("fills", "trade_index", "nowhere"),
        ("columns", "median", "much"),
        ("columns", "name", "nowhere"),
        ("entries", "ensemble:up", "nowhere"),
        ("entries", "leader.price.move.4", "much"),
    ],
)
def test_table_of_other_columns_is_refused(
    copied: Path, capsys: Any, file: str, column: str, other: object
) -> None:
    path = copied / f"{file}.parquet"
    table = pq.read_table(path)
    table = table.remove_column(table.schema.get_field_index(column))
    if other != "nowhere":
        kind = pa.float64() if other is None else None
        table = table.append_column(column, pa.array([other] * table.num_rows, kind))
    pq.write_table(table, path)
    if file == "trades":
        assert_refused(copied, capsys, path.name)
    else:
        assert command(["backtest", "show", str(copied), "--trade", "0", "--json"]) == 1
        assert json.loads(capsys.readouterr().out)["error"]["where"] == str(path)


def test_entries_of_other_trades_are_refused(copied: Path, capsys: Any) -> None:
    path = copied / "entries.parquet"
    pq.write_table(pq.read_table(path).slice(0, 0), path)
    assert command(["backtest", "show", str(copied), "--trade", "0", "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["error"]["where"] == str(path)
