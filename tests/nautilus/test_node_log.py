"""What NautilusTrader writes into its files comes into our log, without secrets, and leaves no file."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from pathlib import Path

import pytest

from gpuscalp.config import LogsConfig
from gpuscalp.logs import LogWriter, Wanted, read
from gpuscalp.nautilus import node_log
from gpuscalp.nautilus.node_log import passed_on
from gpuscalp.redaction import keep_environment
from tests.planted import ENVIRONMENT, EVERYTHING, files_with_words


def test_lines_come_in_order_with_level_and_part(tmp_path: Path) -> None:
    keep_environment(ENVIRONMENT)
    writer = LogWriter(LogsConfig())
    writer.open(tmp_path)
    with passed_on(tmp_path) as folder:
        assert folder.stat().st_mode & 0o077 == 0
        line = {"timestamp": "2026-11-26T00:00:00Z", "trader_id": "T", "color": "NORMAL"}
        first = line | {"level": "WARN", "component": "ExecEngine", "message": f"late {EVERYTHING}"}
        second = line | {"level": "ERROR", "component": "DataEngine", "message": "gone"}
        with (folder / "nautilus.json").open("w") as file:
            file.write(json.dumps(first) + "\n" + json.dumps(second)[:20])
            file.flush()
            file.write(json.dumps(second)[20:] + "\nno json\n")
    writer.close()
    assert not folder.exists()
    found = list(read(tmp_path, Wanted(logger="nautilus")))
    assert [(each.level, each.logger) for each in found] == [
        ("WARNING", "nautilus.ExecEngine"),
        ("ERROR", "nautilus.DataEngine"),
        ("INFO", "nautilus"),
    ]
    assert found[0].text.startswith("late ***")
    assert [each.text for each in found[1:]] == ["gone", "no json"]
    assert files_with_words(tmp_path) == {}


def test_folder_is_gone_after_a_failure_and_after_a_kill(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), passed_on(tmp_path) as folder:
        raise RuntimeError
    assert not folder.exists()
    folder.mkdir()  # as a killed process leaves it
    (folder / "nautilus.json").write_text("left behind\n")
    with passed_on(tmp_path) as again:
        assert not folder.exists()
        assert not list(again.iterdir())
    assert logging.getLogger("nautilus").handlers == []


def test_folder_of_another_user_stays_and_keeps_nobody_from_starting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The name was always the same one: whoever made a folder of that name kept the session from starting."""
    memory, uid = tmp_path / "memory", os.getuid() + 1
    memory.mkdir()
    monkeypatch.setattr(node_log, "_MEMORY", memory)
    monkeypatch.setattr(os, "getuid", lambda: uid)  # so that what is made here is another one's
    session = hashlib.sha256(os.fsencode(tmp_path.resolve())).hexdigest()[:16]
    planted = [memory / f"gpuscalp-nautilus-{uid}-{session}{end}" for end in ("", "-", "-x")]
    for path in planted:
        path.mkdir()
        (path / "theirs").touch()
    for _ in range(2):
        with passed_on(tmp_path) as folder:
            assert folder.stat().st_mode & 0o777 == 0o700
            assert folder.parent == memory
            assert folder not in planted
    assert all((path / "theirs").exists() for path in planted)
    assert sorted(memory.iterdir()) == sorted(planted)
