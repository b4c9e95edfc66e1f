"""Configurations to begin with, and what one comes to."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pytest

from gpuscalp.cli.config import Name
from gpuscalp.config import flat
from gpuscalp.config.examples import EXAMPLES

Cli = Callable[..., Any]
CONFIGS = Path(__file__).parents[2] / "configs"


def test_there_is_a_file_for_every_name_and_a_name_for_every_file() -> None:
    assert set(get_args(Name)) == set(EXAMPLES) == {path.stem for path in CONFIGS.glob("*.toml")}


@pytest.mark.parametrize("name", EXAMPLES)
def test_what_is_written_is_the_commented_file_and_can_be_read(cli: Cli, name: str, tmp_path: Path) -> None:
    out = tmp_path / "mine.toml"
    assert cli("config", "init", name, "--out", out).code == 0
    assert out.read_bytes() == (CONFIGS / f"{name}.toml").read_bytes()
    assert cli("config", "init", name).stdout.rstrip("\n") == out.read_text().rstrip("\n")
    answer = json.loads(cli("config", "show", name, "--config", out, "--json").stdout)
    values = {each["key"]: each["value"] for each in answer["values"]}
    written = dict(flat(tomllib.loads(out.read_text())))
    assert {key: values[key] for key in written} == written


def test_every_value_says_where_it_comes_from(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "mine.toml"
    path.write_text("[grid]\nframe_ms = 50\nlateness_ms = 10\n")
    monkeypatch.setenv("GPUSCALP__GRID__LATENESS_MS", "15")
    answer = json.loads(cli("config", "show", "train", "--config", path, "--json").stdout)
    values = {each["key"]: (each["value"], each["source"]) for each in answer["values"]}
    assert values["grid.frame_ms"] == (50, "file")
    assert values["grid.lateness_ms"] == (15, "GPUSCALP__GRID__LATENESS_MS")
    assert values["venue"] == ("binance_usdm", "default")
    assert "GPUSCALP__GRID__LATENESS_MS" in cli("config", "show", "train", "--config", path).stdout


def test_what_is_wrong_is_refused(cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text("[grid]\nframe_mss = 50\n")
    result = cli("config", "show", "train", "--config", path, "--json")
    assert result.code == 4
    assert "frame_ms" in json.loads(result.stdout)["error"]["fix"]
    assert cli("config", "init", "train", "--out", path).code == 2
    assert path.read_text() == "[grid]\nframe_mss = 50\n"
    assert cli("config", "init", "nothing").code == 2


def test_what_a_session_would_refuse_is_not_shown(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """It was shown as a value of `live`, which takes none from the environment unless a file is named."""
    monkeypatch.setenv("GPUSCALP__FEED__REDUNDANCY", "1")
    result = cli("config", "show", "paper", "--json")
    assert result.code == 4
    assert "--config" in json.loads(result.stdout)["error"]["fix"]
    named = json.loads(cli("config", "show", "paper", "--config", CONFIGS / "paper.toml", "--json").stdout)
    values = {each["key"]: (each["value"], each["source"]) for each in named["values"]}
    assert values["feed.redundancy"] == (1, "GPUSCALP__FEED__REDUNDANCY")
