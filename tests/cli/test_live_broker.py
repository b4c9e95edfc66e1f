"""Two words stand between a command and an account, and every way round them is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from gpuscalp.cli.session_words import ended
from gpuscalp.config import LiveConfig, NautilusConfig
from gpuscalp.errors import ConfigError
from gpuscalp.live.directory import SessionFile
from gpuscalp.live.start import check_same
from gpuscalp.nautilus.installed import LIVE
from tests.conftest import CliResult
from tests.tools import no_nautilus

Cli = Callable[..., CliResult]
LOCAL = "http://127.0.0.1:9"
ENDED = {"state": "active"}
NEEDS_NAUTILUS = pytest.mark.skipif(bool(no_nautilus(LIVE)), reason=no_nautilus(LIVE))


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


@pytest.mark.parametrize("kept", ["paper", pytest.param("nautilus", marks=NEEDS_NAUTILUS)])
def test_the_same_words_go_on_with_a_session(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kept: str
) -> None:
    """The broker of the command line counted for a new session only: the same command was refused later."""
    place = NautilusConfig(
        where="local", rest_url=LOCAL, stream_url="ws://127.0.0.1:9", ws_api_url="ws://127.0.0.1:9"
    )
    config = LiveConfig(broker=kept, nautilus=place)  # type: ignore[arg-type]
    about = SessionFile("s", 0, "v", "cpu", "b", config, ())
    (tmp_path / "session.json").write_bytes(msgspec.json.encode(about))
    other = "" if kept == "nautilus" else 'broker = "nautilus"\n'
    file = tmp_path / "live.toml"
    file.write_text(
        f'{other}[nautilus]\nwhere = "local"\nrest_url = "{LOCAL}"\n'
        'stream_url = "ws://127.0.0.1:9"\nws_api_url = "ws://127.0.0.1:9"\n'
    )
    monkeypatch.setenv("GPUSCALP_LOCAL_API_KEY", "one")
    monkeypatch.setenv("GPUSCALP_LOCAL_API_SECRET", "two")
    gone_on: list[LiveConfig] = []

    def run_live(path: Path, chosen: LiveConfig, **_: object) -> dict[str, object]:
        check_same(path, chosen, None, environment={})
        gone_on.append(chosen)
        return ENDED

    monkeypatch.setattr("gpuscalp.live.run.run_live", run_live)
    confirm = ["--confirm-live"] if kept == "nautilus" else []
    words = ["--session", str(tmp_path), "--config", str(file), "--broker", kept, *confirm]
    assert cli("live", *words, "--json").code == 0
    assert [each.broker for each in gone_on] == [kept]


@pytest.mark.parametrize(("kept", "safe"), [("paper", False), ("nautilus", True)])
def test_nobody_is_sent_away_from_real_positions(cli: Cli, tmp_path: Path, kept: str, safe: bool) -> None:
    config = LiveConfig(broker=kept, nautilus=NautilusConfig())  # type: ignore[arg-type]
    about = SessionFile("s", 0, "v", "cpu", "b", config, ())
    (tmp_path / "session.json").write_bytes(msgspec.json.encode(about))
    with pytest.raises(ConfigError) as refused:
        check_same(tmp_path, LiveConfig(broker=config.broker, venue="other"), None, environment={})
    other = "paper" if kept == "nautilus" else "nautilus"
    result = cli("live", "--session", str(tmp_path), "--broker", other, "--confirm-live", "--json")
    for fix in (str(refused.value.fix), json.loads(result.stdout)["error"]["fix"]):
        assert fix.endswith("once this one holds no position" if safe else "or begin a new session")


@pytest.mark.parametrize(("broker", "first"), [("paper", "Paper result +1"), ("nautilus", "Result +1")])
def test_a_result_of_real_orders_is_not_called_one_on_paper(broker: str, first: str) -> None:
    status = {"broker": broker, "reason": "time is up", "frames": 1, "uptime_s": 1.0, "pnl_usdt": 1.0}
    status |= {"fees_usdt": 0.0, "state": "active", "positions": [], "session": "s"}
    line = ended(status | {"market": "synthetic"}).splitlines()[1]
    assert line.startswith(first)
    assert "of fees, synthetic market; the gate is active" in line
