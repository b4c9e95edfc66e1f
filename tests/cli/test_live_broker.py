"""Two words stand between a command and an account, and every way round them is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from gpuscalp.cli.session_words import ended
from gpuscalp.config import LiveConfig, NautilusConfig
from gpuscalp.live.directory import SessionFile
from tests.conftest import CliResult

Cli = Callable[..., CliResult]


def refused(cli: Cli, *words: str) -> tuple[int, str]:
    """Return exit code and text of a refusal."""
    result = cli("live", *words, "--json")
    return result.code, json.loads(result.stdout)["error"]["what"]


@pytest.mark.parametrize(
    ("words", "code", "what"),
    [
        (("--broker", "nautilus"), 2, "sends orders to an account"),
        (("--broker", "binance"), 2, "no such broker"),
        (("--confirm-live",), 2, "nothing to confirm"),
        (("--broker", "paper", "--confirm-live"), 2, "nothing to confirm"),
        # Whoever follows the other refusals must not end there: confirming and keys help nothing.
        (("--embedded", "--broker", "nautilus"), 2, "embedded exchange fills on paper"),
        (("--embedded", "--broker", "nautilus", "--confirm-live"), 2, "embedded exchange fills on paper"),
    ],
)
def test_one_word_is_not_enough(
    cli: Cli, tmp_path: Path, words: tuple[str, ...], code: int, what: str
) -> None:
    found = refused(cli, "--session", str(tmp_path / "session"), *words)
    assert found[0] == code
    assert what in found[1]
    assert not (tmp_path / "session").exists()


@pytest.mark.parametrize("command", ["live", "replay"])
def test_values_of_the_environment_are_refused_where_no_file_is_named(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    """They were ignored: a session traded with a loss limit of 500 where the environment said 50."""
    monkeypatch.setenv("GPUSCALP__RISK__MAX_DAILY_LOSS_USDT", "50")
    monkeypatch.setenv("GPUSCALP__RISK__MISSPELLED", "1")
    source = [str(tmp_path / "recording")] if command == "replay" else []
    result = cli(command, *source, "--session", str(tmp_path / "session"), "--json")
    error = json.loads(result.stdout)["error"]
    assert (result.code, error["where"]) == (4, "--config")
    assert error["value"] == "GPUSCALP__RISK__MAX_DAILY_LOSS_USDT, GPUSCALP__RISK__MISSPELLED"
    assert not (tmp_path / "session").exists()


def test_a_configuration_alone_is_not_enough(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "live.toml").write_text('broker = "nautilus"\n[nautilus]\nwhere = "live"\n')
    code, what = refused(cli, "--session", str(tmp_path / "session"), "--config", str(tmp_path / "live.toml"))
    assert (code, "sends orders to an account" in what) == (2, True)


@pytest.mark.parametrize(
    ("kept", "asked"), [("nautilus", None), ("nautilus", "paper"), ("paper", "nautilus")]
)
def test_a_session_keeps_its_broker_and_its_question(
    cli: Cli, tmp_path: Path, kept: str, asked: str | None
) -> None:
    config = LiveConfig(broker=kept, nautilus=NautilusConfig())  # type: ignore[arg-type]
    about = SessionFile("s", 0, "v", "cpu", "b", config, ())
    (tmp_path / "session.json").write_bytes(msgspec.json.encode(about))
    words = ["--session", str(tmp_path)] + ([] if asked is None else ["--broker", asked, "--confirm-live"])
    code, what = refused(cli, *words)
    assert code == (2 if asked is None else 4)
    assert ("sends orders to an account" if asked is None else "another broker") in what


@pytest.mark.parametrize(("broker", "first"), [("paper", "Paper result +1"), ("nautilus", "Result +1")])
def test_a_result_of_real_orders_is_not_called_one_on_paper(broker: str, first: str) -> None:
    status = {"broker": broker, "reason": "time is up", "frames": 1, "uptime_s": 1.0, "pnl_usdt": 1.0}
    status |= {"fees_usdt": 0.0, "state": "active", "positions": [], "session": "s"}
    line = ended(status | {"market": "synthetic"}).splitlines()[1]
    assert line.startswith(first)
    assert "of fees, synthetic market; the gate is active" in line
