"""The command: one JSON document or one table, and the code of the worst failure."""

from __future__ import annotations

import json

import pytest

from gpuscalp.cli import doctor as command
from gpuscalp.doctor.check import Diagnosis, fail, ok, skip, warn
from gpuscalp.errors import DeviceError


def test_json_is_one_document_with_the_promised_keys(cli, tmp_path):
    answer = cli("doctor", "--offline", "--device", "cpu", "--session", tmp_path, "--json")
    told = json.loads(answer.stdout)
    assert set(told) == {"status", "code", "checks"}
    assert answer.code == told["code"]
    assert all(set(check) == {"name", "status", "what", "fix", "value"} for check in told["checks"])
    statuses = {check["name"]: check["status"] for check in told["checks"]}
    assert statuses["config"] == statuses["session_lock"] == "ok"
    assert statuses["rest"] == "skip"


def test_worst_failure_decides_the_exit_code_in_both_forms(cli, tmp_path):
    bad = tmp_path / "bad.toml"
    bad.write_text("[feed]\nnonsense = 1\n")
    for more in ([], ["--json"]):
        assert cli("doctor", "--offline", "--device", "cpu", "--config", bad, *more).code == 4
    missing = tmp_path / "none"
    shown = cli("doctor", "--offline", "--device", "cpu", "--model", missing)
    assert shown.code == 8
    assert "gpuscalp train makes one" in shown.stdout
    assert "would not run" in shown.stdout


@pytest.mark.parametrize("worst", [ok("z", "fine"), warn("z", "so-so", "rest"), skip("z", "no")])
def test_ending_says_what_the_checks_amount_to(worst, capsys):
    from rich.console import Console

    Console(width=100).print(command._table(Diagnosis((worst,))))
    shown = capsys.readouterr().out
    assert worst.what in shown
    assert "would not run" not in shown
    assert worst.fix is None or f"→ {worst.fix}" in shown


def test_words_of_a_server_cannot_steer_the_terminal(capsys):
    from rich.console import Console

    check = fail("rest", "said \x1b]0;title\x07 [bold]x[/bold]", "wait", kind=DeviceError)
    Console(width=100).print(command._table(Diagnosis((check,))))
    shown = capsys.readouterr().out
    assert "\x1b]0" not in shown
    assert "[bold]x[/bold]" in shown
