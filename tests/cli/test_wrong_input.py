"""Files and numbers that are not what is asked for: what is said of them names what to do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("exchange", "--duration", "0", "--port", "0", "--accounts", "{here}/none"), 4),
        (("exchange", "--duration", "0", "--port", "0", "--accounts", "{here}/odd"), 4),
        (("exchange", "--port", "0", "--recording", "{here}/odd", "--instruments", "{here}/odd"), 1),
        (("data", "info", "{here}/loop"), 1),
        (("backtest", "show", "{here}/run"), 1),
        (("status", "{here}/session"), 2),
        (("verify", "{here}/session"), 4),
        (("model", "show", "{here}/model"), 8),
    ],
    ids=lambda each: each if isinstance(each, int) else " ".join(each[:2]),
)
def test_what_is_said_of_a_wrong_file_names_what_to_do(
    cli: Any, tmp_path: Path, words: tuple[str, ...], code: int
) -> None:
    """CONTRIBUTING.md promises it; of accounts, listings, archives, runs and sessions nothing was said."""
    odd = b"\x00\xff[]"
    (tmp_path / "odd").write_bytes(odd)
    (tmp_path / "loop").symlink_to("loop")
    for folder, name in (
        ("run", "result.json"),
        ("run", "config.json"),
        ("run", "trades.parquet"),
        ("session", "session.json"),
        ("model", "contract.json"),
    ):
        (tmp_path / folder).mkdir(exist_ok=True)
        (tmp_path / folder / name).write_bytes(odd)
    answer = cli(*(word.format(here=tmp_path) for word in words), "--json")
    error = json.loads(answer.stdout)["error"]
    assert (answer.code, answer.stderr) == (code, "")
    assert str(tmp_path) in error["where"]
    assert error["fix"]


@pytest.mark.parametrize(
    "words", [("logs", "--lines"), ("retrain", "--memory-mb"), ("bench", "batch", "--frames")]
)
def test_number_that_no_machine_has_is_wrong_usage(cli: Any, words: tuple[str, ...]) -> None:
    """It was an OverflowError, with a traceback."""
    answer = cli(*words, 10**24, "--json")
    error = json.loads(answer.stdout)["error"]
    assert (answer.code, answer.stderr) == (2, "")
    assert words[-1] in error["what"]
    assert error["fix"]
