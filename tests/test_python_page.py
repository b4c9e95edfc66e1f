"""docs/python.md: its blocks run as they stand, one after the other, and the names that it promises exist."""

from __future__ import annotations

import importlib
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from gpuscalp.config import JournalConfig, LiveConfig
from gpuscalp.journal import JournalWriter, RecordKind
from gpuscalp.live.directory import SESSION_FILE, SessionFile
from gpuscalp.live.records import SignalRecord
from gpuscalp.synthetic import MarketSpec, instruments, write
from gpuscalp.synthetic.spec import DEFAULT_SYMBOLS

PAGE = Path(__file__).resolve().parent.parent / "docs" / "python.md"
SPEC = MarketSpec(duration_s=45, symbols=DEFAULT_SYMBOLS[:2])


def _blocks() -> Iterator[tuple[int, str]]:
    """Yield the blocks of the page and the lines at which they begin."""
    text = PAGE.read_text()
    for found in re.finditer(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE):
        yield text.count("\n", 0, found.start(1)), found.group(1)


def _write_session(path: Path) -> None:
    """Write a session that has predicted one frame; tests/live/test_replay.py reads a real one."""
    made = instruments(SPEC)
    (path / "journal").mkdir(parents=True)
    about = SessionFile("s", SPEC.start_ns, "", "cpu", "", LiveConfig(), tuple(made))
    (path / SESSION_FILE).write_bytes(msgspec.json.encode(about))
    said = np.full((len(made), 4), 0.25, np.float32).tobytes()
    signal = SignalRecord(SPEC.start_ns, SPEC.start_ns, (0, 0, 0), b"", b"", said, 10**12, ())
    with JournalWriter(path / "journal", JournalConfig(), now_ns=SPEC.start_ns) as journal:
        journal.append_batch(
            RecordKind.SIGNAL, [msgspec.json.encode(signal)], recv_ns=SPEC.start_ns, connection=0
        )


def _write_results(folder: Path) -> None:
    (folder / "tune").mkdir()
    (folder / "tune" / "result.json").write_text(json.dumps({"table": [{"trial": 0, "params": {"a": 1}}]}))
    (folder / "walk" / "runs").mkdir(parents=True)
    (folder / "walk" / "result.json").write_text("{}")
    shutil.copytree(folder / "run", folder / "walk" / "runs" / "base")


@pytest.fixture(scope="module")
def notebook(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Return the names that are there when all blocks have run."""
    folder = tmp_path_factory.mktemp("notebook")
    write(SPEC, folder / "archive")
    _write_session(folder / "session")
    names: dict[str, Any] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for line, code in _blocks():
            if "tune/result.json" in code:
                _write_results(folder)
            exec(compile("\n" * line + code, str(PAGE), "exec"), names)
    return names


def test_blocks_run_as_they_stand(notebook: dict[str, Any]) -> None:
    assert set(notebook["archive"].symbols("synthetic")) == {"BTCUSDT", "ETHUSDT"}
    assert notebook["x"].dtype == np.float32
    assert notebook["x"].shape == (len(notebook["y"]), len(notebook["rows"].table.column_names) - 8)
    assert notebook["held_in"].any()
    assert notebook["held_out"].any()
    assert not (notebook["held_in"] & notebook["held_out"]).any()
    assert np.allclose(notebook["signals"][["p_down", "p_flat", "p_up"]].sum(axis=1), 1.0)
    assert (notebook["spread"] > 0).all()
    assert len(notebook["reverting"]) > 0
    assert notebook["said"]["edge_bps"].tolist() == [0.25, 0.25]
    assert notebook["equity"]["equity_usdt"].tolist() == [10_000.0]
    assert notebook["trials"].columns.tolist() == ["trial", "params.a"]


def test_newest_row_of_the_stream_is_the_last_of_the_batch(notebook: dict[str, Any]) -> None:
    batch, stream = notebook["table"], notebook["newest"]
    last = batch.slice(batch.num_rows - stream.num_rows)
    assert last.schema == stream.schema
    for name in last.schema.names[1:]:
        assert last[name].to_numpy().tobytes() == stream[name].to_numpy().tobytes(), name


def test_frames_are_those_of_the_features(notebook: dict[str, Any]) -> None:
    frames = notebook["frames"]
    features = notebook["features"].to_pandas()
    frames = frames[frames["end_ns"] >= features["end_ns"].iloc[0]].reset_index(drop=True)
    assert (frames["end_ns"] == features["end_ns"]).all()
    assert (frames["symbol"].astype(str) == features["symbol"].astype(str)).all()
    assert np.allclose((frames["bid"] + frames["ask"]) / 2, features["mid"], rtol=1e-12)


def _promised() -> list[tuple[list[str], list[str]]]:
    table = PAGE.read_text().partition("## What is stable")[2]
    cells = [line.split("|")[1:3] for line in table.splitlines() if line.startswith("| `gpuscalp")]
    return [(re.findall(r"`([\w.]+)`", left), re.findall(r"`(\w[\w.]*)`", right)) for left, right in cells]


def _found(modules: list[str], name: str) -> object | None:
    """Return what a name means in one of the modules, or in a module below it."""
    *below, last = name.split(".")
    for module in modules:
        found = getattr(importlib.import_module(".".join([module, *below])), last, None)
        if found is not None:
            return found
    return None


@pytest.mark.parametrize(("modules", "names"), _promised(), ids=lambda value: value[0] if value else "")
def test_names_that_are_promised_exist(modules: list[str], names: list[str]) -> None:
    of: Any = None
    for name in names:
        found = _found(modules, name)
        if isinstance(found, type):
            of = found
        assert found is not None or hasattr(of, name) or name in of.__dataclass_fields__, name
