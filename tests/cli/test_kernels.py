"""``gpuscalp kernels``: keys of the answers, their text, exit codes."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Cli = Callable[..., Any]

pytestmark = pytest.mark.skipif(importlib.util.find_spec("cupy") is None, reason="CuPy is not installed")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GPUSCALP_KERNEL_CACHE", str(tmp_path / "kernels"))
    # Two that compile soon; tests/test_warm.py has all of them.
    monkeypatch.setattr("gpuscalp.warm.kernel_stems", lambda: ("forest", "frames"))
    return tmp_path / "kernels"


def test_compile_answers_with_its_keys_and_is_warm_the_second_time(cli: Cli, folder: Path) -> None:
    result = cli("kernels", "compile", "--arch", "90", "--json")
    assert (result.code, result.stderr) == (0, "")
    answer = json.loads(result.stdout)
    assert answer["folder"] == str(folder)
    row = answer["kernels"][0]
    assert set(row) == {"kernel", "arch", "bytes", "registers", "spill_bytes", "seconds", "cached", "kept"}
    assert all(row["kept"] for row in answer["kernels"])
    assert "error" not in answer
    assert answer["cpu"] is None
    text = cli("kernels", "compile", "--arch", "90").stdout
    assert text.count("was there") == len(answer["kernels"])
    assert str(folder) in text


def test_compile_where_nothing_can_be_kept_exits_4_and_says_so(cli: Cli, folder: Path) -> None:
    # It said "compiled", named the folder as where they are kept, and exited 0.
    folder.write_text("not a folder")
    result = cli("kernels", "compile", "--arch", "90", "--json")
    answer = json.loads(result.stdout)
    assert result.code == answer["error"]["code"] == 4
    assert "GPUSCALP_KERNEL_CACHE" in answer["error"]["fix"]
    assert answer["error"]["value"] == str(folder)
    assert answer["kernels"]
    assert not any(row["kept"] for row in answer["kernels"])
    result = cli("kernels", "compile", "--arch", "90")
    assert result.code == 4
    assert result.stdout.count("not kept") == len(answer["kernels"])
    assert "are kept in" not in result.stdout
    assert "GPUSCALP_KERNEL_CACHE" in result.stderr


def test_list_shows_and_clears(cli: Cli, folder: Path) -> None:
    assert cli("kernels", "list").stdout == f"0 in {folder}, 0 bytes\n"
    cli("kernels", "compile", "--arch", "75")
    assert "sm_75" in cli("kernels", "list").stdout
    answer = json.loads(cli("kernels", "list", "--clear", "--json").stdout)
    assert answer["cleared"] == len(answer["entries"]) > 0
    assert json.loads(cli("kernels", "list", "--json").stdout)["entries"] == []


def test_unknown_architecture_exits_2(cli: Cli) -> None:
    result = cli("kernels", "compile", "--arch", "7.5", "--json")
    assert result.code == 2
    assert json.loads(result.stdout)["error"]["value"] == "7.5"
