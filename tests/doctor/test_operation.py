"""What a session needs to be operated: an account, a place for its log, an answer when asked."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest

from gpuscalp.config import LiveConfig, NautilusConfig
from gpuscalp.doctor import operation
from gpuscalp.doctor.operation import (
    check_log_folder,
    check_nautilus,
    check_notify,
    check_running,
    check_secrets,
    read_running,
)
from gpuscalp.doctor.port import check_port
from gpuscalp.errors import ConfigError, DeadlineError, StartingError, UsageError
from gpuscalp.monitoring.server import HEALTH, served
from tests.planted import ENVIRONMENT, words_in
from tests.privileges import bound_by_rights

REAL = LiveConfig(broker="nautilus", nautilus=NautilusConfig(where="live"))
STATUS = {
    "pid": 7,
    "state": "active",
    "cause": None,
    "last_frame_age_ms": 80.0,
    "logs": {"dropped": 0},
    "feeds": {"silent": [], "off_tick": [], "unsynced": []},
    "journal": {"records": 10, "durable": 8},
}


def test_paper_needs_no_account():
    assert check_nautilus(LiveConfig(), {}).status == "skip"
    assert check_nautilus(None, {}).status == "skip"


def test_keys_are_looked_for_and_not_shown(monkeypatch):
    monkeypatch.setattr("gpuscalp.nautilus.keys.require", lambda least: least)
    found = check_nautilus(REAL, ENVIRONMENT)
    assert found.status == "ok"
    assert not words_in(json.dumps(found.to_dict()))
    missing = check_nautilus(REAL, {"BINANCE_API_KEY": "x"})
    assert (missing.status, missing.code) == ("fail", ConfigError.exit_code)
    assert "BINANCE_API_SECRET" in str(missing.value)
    assert missing.fix


def test_version_is_looked_at(monkeypatch):
    def old(least: str) -> str:
        raise ConfigError("too old", where="extra nautilus", value="1.0", fix="install it")

    monkeypatch.setattr("gpuscalp.nautilus.keys.require", old)
    assert (check_nautilus(REAL, ENVIRONMENT).status, check_nautilus(REAL, ENVIRONMENT).value) == (
        "fail",
        "1.0",
    )


def test_those_to_be_told_are_named_by_their_service_alone(tmp_path):
    assert check_notify({}).status == "skip"
    found = check_notify({"GPUSCALP_NOTIFY_URLS": "json://user:PELICANpassword@localhost/secretpath"})
    assert (found.status, found.value) == ("ok", {"services": ["JSON"]})
    assert "PELICAN" not in json.dumps(found.to_dict())
    unknown = check_notify({"GPUSCALP_NOTIFY_URLS": "nosuch://PELICANtoken"})
    assert (unknown.status, unknown.code) == ("fail", ConfigError.exit_code)
    assert "PELICAN" not in json.dumps(unknown.to_dict())
    file = tmp_path / "urls"
    file.write_text("json://localhost\n")
    file.chmod(0o644)
    assert check_notify({"GPUSCALP_NOTIFY_FILE": str(file)}).status == "fail"
    file.chmod(0o600)
    assert check_notify({"GPUSCALP_NOTIFY_FILE": str(file)}).status == "ok"


def test_secret_that_is_an_ordinary_word_is_named_by_its_variable():
    env = {"DB_PASSWORD": "gpuscalp", "BOT_TOKEN": "20261126", "API_KEY": "k1k1k1k1k1", "PIN_KEY": "1234"}
    found = check_secrets(env)
    assert (found.status, found.value) == ("warn", {"variables": ["DB_PASSWORD", "BOT_TOKEN"]})
    assert "20261126" not in json.dumps(found.to_dict())
    assert check_secrets(ENVIRONMENT).status == "ok"


def test_log_folder(tmp_path):
    assert check_log_folder(None).status == "skip"
    assert check_log_folder(tmp_path / "new" / "session").status == "ok"
    assert not (tmp_path / "new").exists()
    (tmp_path / "file").write_text("")
    assert check_log_folder(tmp_path / "file").status == "fail"


def test_log_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "logs").mkdir(mode=0o500)
    assert bound_by_rights(lambda: check_log_folder(tmp_path)).status == "fail"


def test_log_folder_is_judged_by_what_the_system_says(tmp_path, monkeypatch):
    monkeypatch.setattr(operation.os, "access", lambda path, mode: False)
    found = check_log_folder(tmp_path)
    assert found.status == "fail"
    assert str(tmp_path) in found.what


def test_nobody_runs_a_session(tmp_path):
    assert read_running(None) is None
    assert read_running(tmp_path) is None
    assert check_running(None).status == "skip"


def test_session_that_runs_well():
    assert check_running(STATUS).status == "ok"


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"state": "halted", "cause": "drawdown"}, "halted (drawdown)"),
        ({"last_frame_age_ms": 6_000.0}, "6.0 s ago"),
        ({"last_frame_age_ms": None}, "none yet"),
        ({"feeds": {"silent": ["BTCUSDT"], "off_tick": [], "unsynced": []}}, "no data of BTCUSDT"),
        ({"feeds": {"silent": [], "off_tick": ["BTCUSDT"], "unsynced": []}}, "off the tick size of BTCUSDT"),
        ({"feeds": {"silent": [], "off_tick": [], "unsynced": ["BTCUSDT"]}}, "no whole book of BTCUSDT"),
        ({"logs": {"dropped": 3}}, "3 entries"),
    ],
)
def test_session_that_runs_badly(changes, word):
    found = check_running(STATUS | changes)
    assert found.status == "warn"
    assert word in found.what
    assert found.fix


def test_session_that_does_not_answer_fails():
    found = check_running(DeadlineError("the session does not answer"))
    assert (found.status, found.code) == ("fail", 1)


def test_session_that_is_starting_need_not_be_ended():
    found = check_running(StartingError("a process holds the session", fix="again in a while"))
    assert (found.status, found.what, found.fix) == (
        "warn",
        "a process holds the session",
        "again in a while",
    )


def test_session_that_this_user_may_not_ask_is_not_said_to_hang():
    found = check_running(UsageError("this user may not command the session", fix="as its user"))
    assert (found.status, found.what, found.fix) == (
        "fail",
        "this user may not command the session",
        "as its user",
    )


def test_port_of_a_session_that_runs_is_no_failure():
    with served(
        "127.0.0.1", 0, [], {HEALTH: lambda: {"ok": True, "phase": "running", "reasons": []}}
    ) as port:
        assert check_port(port, running=True).status == "ok"
        # It was taken for ours: the doctor said 0 where the second of two sessions ended with 4.
        other = check_port(port, running=False)
        assert (other.status, "cannot be opened" in other.what) == ("fail", True)
    with served("127.0.0.1", 0, []) as port:
        assert check_port(port, running=True).status == "fail"


def test_doctor_tells_of_them_all(cli, tmp_path: Path):
    config = tmp_path / "live.toml"
    config.write_text(
        'broker = "nautilus"\n[nautilus]\nwhere = "local"\nrest_url = "http://joe:k5CORMORANTk5@h"'
    )
    answer = cli("doctor", "--offline", "--device", "cpu", "--config", str(config), "--json")
    checks = {each["name"]: each for each in json.loads(answer.stdout)["checks"]}
    assert {"nautilus", "log_folder", "notify", "secrets", "session_running", "port"} <= checks.keys()
    assert checks["config"]["status"] == "fail"
    assert not words_in(answer.stdout + answer.stderr)
    assert not words_in(cli("doctor", "--offline", "--device", "cpu", "--config", str(config)).stdout)
    documented = (Path(__file__).resolve().parents[2] / "docs" / "doctor.md").read_text()
    for name in checks:
        assert f"`{name}`" in documented or name == "stream", name
    assert msgspec.json.decode(answer.stdout)["code"] == ConfigError.exit_code
