"""The commands around a session, with a process that really runs it: answers, exit codes, what survives.

The process is ``gpuscalp live --embedded``; the other commands are run in this one, where they do the same.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gpuscalp.cli import run
from gpuscalp.journal import RecordKind, read_records
from gpuscalp.live.verify import verify
from tests.conftest import ROOT, CliResult
from tests.live.sessions import PATIENCE_S, write_eager_bundle

SYMBOLS = ("BTCUSDT", "ETHUSDT")
VENUE = "synthetic"
NOT_RUNNING, USAGE, OTHER, MODEL, HALTED = 3, 2, 4, 8, 9

# Nothing but doubt stops an entry, as in tests.live.sessions.
CONFIG = """
venue = "synthetic"
[strategy]
order_usdt = 600.0
[sizing]
target_volatility_bps = "off"
kelly_fraction = "off"
[risk]
max_losses = "off"
max_trade_risk_pct = "off"
max_orders_per_minute = 10_000
[cost]
taker_fee_bps = 0.01
[session]
status_ms = 100
"""

Cli = Callable[..., CliResult]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a model, another one, a configuration and another one."""
    path = tmp_path_factory.mktemp("commands")
    write_eager_bundle(path / "model", SYMBOLS, venue=VENUE, hold_ms=3_000)
    write_eager_bundle(path / "other-model", SYMBOLS, venue=VENUE, seed=1)
    write_eager_bundle(path / "next-model", SYMBOLS, venue=VENUE, hold_ms=3_000, seed=2)
    (path / "live.toml").write_text(CONFIG)
    (path / "other.toml").write_text(CONFIG + "[account]\nstart_usdt = 1.0\n")
    return path


class Process:
    """A process that runs a session, with pipes where a person has a terminal."""

    def __init__(self, session: Path, *words: object) -> None:
        self.session = session
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "80"}
        command = [sys.executable, "-m", "gpuscalp", "live", "--embedded", "--session", str(session)]
        self.child = subprocess.Popen(
            [*command, *(str(word) for word in words)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
            cwd=ROOT,
        )

    def wait(self, true: Callable[[dict[str, Any]], bool], what: str) -> dict[str, Any]:
        """Return the first status of which something is true."""
        until = time.monotonic() + 4 * PATIENCE_S
        status: dict[str, Any] = {}
        while time.monotonic() < until:
            assert self.child.poll() is None, (
                f"ended with {self.child.returncode}: {self.child.communicate()}"
            )
            code, status = answer("status", self.session)
            if code == 0 and true(status):
                return status
            time.sleep(0.05)
        raise AssertionError(f"{what} has not come true: {status}")

    def end(self) -> tuple[int, str, str]:
        """Return exit code, stdout and stderr of a process that is about to end."""
        out, err = self.child.communicate(timeout=4 * PATIENCE_S)
        return self.child.returncode, out, err


def answer(*words: object) -> tuple[int, dict[str, Any]]:
    """Run a command with --json in this process; return exit code and answer."""
    with contextlib.redirect_stdout(io.StringIO()) as told:
        code = run([*(str(word) for word in words), "--json"])
    return code, json.loads(told.getvalue())


@contextlib.contextmanager
def started(home: Path, session: Path, *words: object) -> Iterator[Process]:
    process = Process(session, "--model", home / "model", "--config", home / "live.toml", *words)
    try:
        yield process
    finally:
        if process.child.poll() is None:
            process.child.kill()
            process.child.communicate()


def _holds(status: dict[str, Any]) -> bool:
    return bool(status["positions"])


def _kinds(session: Path) -> list[int]:
    return [record.kind for record in read_records(session / "journal")]


@pytest.fixture(scope="module")
def process(home: Path) -> Iterator[Process]:
    """A session that runs and has positions; the tests that share it leave it running."""
    with started(home, home / "session", "--json") as running:
        running.wait(_holds, "a position")
        yield running


# A session that runs.


def test_status_tells_people_and_programs_how_it_stands(process: Process, cli: Cli) -> None:
    code, status = answer("status", process.session)
    assert code == 0
    assert status["running"] is True
    assert status["pid"] == process.child.pid
    assert (status["broker"], status["market"]) == ("paper", "synthetic")
    assert {each["route"] for each in status["feeds"]["connections"]} == {"public", "market"}
    shown = cli("status", process.session)
    assert shown.code == 0
    for word in ("ACTIVE", "BTCUSDT", "equity", "public", "session  synthetic market  paper, cpu"):
        assert word in shown.stdout
    assert shown.stderr == ""


def test_halt_stops_entries_reduce_only_too_and_resume_lets_them_again(process: Process, cli: Cli) -> None:
    assert answer("halt", process.session) == (0, {"command": "halt", "state": "reducing"})
    status = process.wait(lambda status: not status["positions"] and not status["open_orders"], "exits")
    assert status["state"] == "reducing"
    told = cli("halt", process.session, "--reduce-only")
    assert (told.code, told.stdout) == (0, "reduce: the gate is reducing.\n")
    before = answer("status", process.session)[1]["fees_usdt"]
    frames = answer("status", process.session)[1]["frames"]
    process.wait(lambda status: status["frames"] > frames + 20, "a second of frames")
    assert answer("status", process.session)[1]["fees_usdt"] == before, "something was opened"
    assert answer("resume", process.session) == (0, {"command": "resume", "state": "active"})
    process.wait(_holds, "an entry")


def test_resume_of_a_session_that_is_active_is_refused_and_changes_nothing(
    process: Process, cli: Cli
) -> None:
    """It once ended the session: the gate's refusal was taken for a defect of the engine."""
    code, refused = answer("resume", process.session)
    assert (code, refused["error"]["code"]) == (USAGE, USAGE)
    told = cli("resume", process.session)
    assert (told.code, told.stdout) == (USAGE, "")
    assert "no transition from active" in told.stderr
    frames = answer("status", process.session)[1]["frames"]
    assert process.wait(lambda status: status["frames"] > frames, "a frame")["state"] == "active"


def test_a_paper_session_has_nothing_to_adopt(process: Process) -> None:
    code, refused = answer("adopt", process.session)
    assert code == USAGE
    assert "paper session" in refused["error"]["what"]


def test_flatten_closes_everything_and_only_resume_leads_back(process: Process, cli: Cli) -> None:
    process.wait(_holds, "a position")
    told = cli("flatten", process.session)
    assert (told.code, told.stdout) == (0, "flatten: the gate is halted.\n")
    process.wait(lambda status: not status["positions"] and not status["flattening"], "no position")
    code, refused = answer("halt", process.session)
    # A weaker command does not open what a stronger one has closed.
    assert (code, answer("status", process.session)[1]["state"]) == (0, "halted")
    assert refused["command"] == "halt"
    assert answer("resume", process.session)[1]["state"] == "active"
    process.wait(_holds, "an entry")


def test_another_model_leads_when_it_is_answered_and_back_is_the_one_before(
    process: Process, home: Path, cli: Cli
) -> None:
    first = answer("status", process.session)[1]["model"]["bundle"]
    code, used = answer("use", process.session, home / "next-model", "--why", "a test")
    assert (code, used["before"]) == (0, first)
    model = answer("status", process.session)[1]["model"]
    assert (model["bundle"], model["reason"]) == (used["bundle"], "a test")
    assert used["bundle"][:12] in cli("status", process.session).stdout
    assert cli("use", process.session, home / "model", "--shadow").code == 0
    assert answer("status", process.session)[1]["model"]["shadow"]["bundle"] == first
    told = cli("use", process.session, "--back")
    assert (told.code, told.stdout.split(",")[0]) == (0, f"{first[:12]} leads")
    assert answer("status", process.session)[1]["model"]["shadow"] is None, "it leads"
    assert cli("use", process.session, home / "next-model", "--shadow").code == 0
    assert answer("use", process.session, "--no-shadow")[1]["before"] == used["bundle"]
    model = answer("status", process.session)[1]["model"]
    assert (model["bundle"], model["shadow"], model["before"]) == (first, None, None)
    assert answer("use", process.session, "--back")[0] == USAGE, "nobody led before"
    assert answer("use", process.session)[0] == USAGE
    code, refused = answer("use", process.session, home / "other-model")
    assert (code, refused["error"]["code"]) == (MODEL, MODEL)
    assert "another label" in refused["error"]["what"]


def test_a_second_process_is_refused_and_the_first_goes_on(process: Process, home: Path, cli: Cli) -> None:
    refused = cli("live", "--embedded", "--session", process.session)
    assert refused.code == USAGE
    assert f"process {process.child.pid}" in refused.stderr
    frames = answer("status", process.session)[1]["frames"]
    process.wait(lambda status: status["frames"] > frames, "a frame")


def test_nobody_else_may_command_and_nothing_secret_is_written(process: Process) -> None:
    assert (process.session / "control.sock").stat().st_mode & 0o077 == 0
    written = (process.session / "session.json").read_text() + (process.session / "status.json").read_text()
    for word in ("secret", "api_key", "token", "password"):
        assert word not in written.lower()


@contextlib.contextmanager
def _somebody_silent(session: Path) -> Iterator[None]:
    """Connect to a session and say nothing."""
    folder = os.open(session, os.O_RDONLY)
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
            client.connect(f"/proc/self/fd/{folder}/control.sock")
            yield
    finally:
        os.close(folder)


def test_stop_ends_it_and_the_last_status_stays(process: Process, cli: Cli) -> None:
    with _somebody_silent(process.session):  # must not keep it from ending
        assert answer("stop", process.session) == (0, {"command": "stop", "state": "active"})
        code, out, err = process.end()
    assert (code, err) == (0, "")
    last = json.loads(out)
    assert last["running"] is False
    assert last["reason"].startswith("stop, by ")
    code, status = answer("status", process.session)
    assert (code, status) == (NOT_RUNNING, last)
    shown = cli("status", process.session)
    assert shown.code == NOT_RUNNING
    assert "Not running" in shown.stdout
    assert _kinds(process.session)[-1] == RecordKind.END
    found = verify(process.session)
    assert (found["differing"], found["verdicts_differing"], found["ended"]) == (0, 0, True)


@pytest.mark.parametrize(
    "words",
    [("halt",), ("halt", "--reduce-only"), ("resume",), ("flatten",), ("stop",), ("stop", "--flatten")],
)
def test_commands_to_a_session_that_has_ended_say_so(
    process: Process, cli: Cli, words: tuple[str, ...]
) -> None:
    process.child.wait(PATIENCE_S)
    told = cli(words[0], process.session, *words[1:])
    assert told.code == NOT_RUNNING
    assert "gpuscalp live --session" in told.stderr
    code, error = answer(words[0], process.session, *words[1:])
    assert (code, error["error"]["code"]) == (NOT_RUNNING, NOT_RUNNING)


@pytest.mark.parametrize("command", ["status", "halt", "resume", "flatten", "stop", "verify"])
@pytest.mark.parametrize("there", [True, False])
def test_where_no_session_is_every_command_says_so(
    tmp_path: Path, cli: Cli, command: str, there: bool
) -> None:
    path = tmp_path if there else tmp_path / "nothing"
    told = cli(command, path)
    assert (told.code, told.stdout) == (USAGE, "")
    assert str(path) in told.stderr
    assert not list(tmp_path.iterdir()), "a question left something behind"


@pytest.mark.parametrize(
    ("option", "name", "word", "code"),
    [
        ("--config", "other.toml", "account.start_usdt", OTHER),
        ("--model", "other-model", "other-model", MODEL),
    ],
)
def test_a_session_is_not_gone_on_with_under_another_configuration_or_model(
    process: Process, home: Path, cli: Cli, option: str, name: str, word: str, code: int
) -> None:
    process.child.wait(PATIENCE_S)
    told = cli("live", "--embedded", "--session", process.session, option, home / name)
    assert told.code == code
    assert word in told.stderr


# Ends of other kinds.


def test_sigterm_before_a_session_runs_ends_its_start_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It ended the process at once, whose folders stayed. In a container it was lost, and a session began to
    trade that had been told to stop."""
    (folder := tmp_path / "temporary").mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    process = Process(tmp_path / "session")
    try:
        until = time.monotonic() + 4 * PATIENCE_S
        while not list(folder.glob("gpuscalp-embedded-*")):  # from here on it trains its model
            assert process.child.poll() is None
            assert time.monotonic() < until
            time.sleep(0.005)
        time.sleep(0.05)  # not in the very instant in which the folder is made
        process.child.send_signal(signal.SIGTERM)
        code, _, err = process.end()
    finally:
        process.child.kill()
    assert code == 130, err
    assert not list(folder.glob("gpuscalp-embedded-*"))
    assert not (tmp_path / "session").exists()


def test_sigterm_is_a_clean_stop_and_the_next_start_goes_on(home: Path, tmp_path: Path) -> None:
    session = tmp_path / "session"
    with started(home, session) as process:
        process.wait(_holds, "a position")
        process.child.send_signal(signal.SIGTERM)
        code, out, err = process.end()
    assert (code, err) == (0, "")
    assert "Stopped: SIGTERM." in out
    assert _kinds(session)[-1] == RecordKind.END
    assert answer("status", session)[1]["reason"] == "SIGTERM"
    # Again, without a word about model and configuration: they are the session's.
    again = Process(session, "--duration", 1, "--json")
    code, out, err = again.end()
    assert (code, err) == (0, "")
    assert json.loads(out)["reason"] == "time is up"
    found = verify(session)
    assert (found["differing"], found["verdicts_differing"], found["ended"]) == (0, 0, True)


def test_a_halt_survives_a_kill_and_stop_flatten_leaves_no_position(home: Path, tmp_path: Path) -> None:
    session = tmp_path / "session"
    with started(home, session, "--json") as process:
        process.wait(_holds, "a position")
        assert answer("halt", session)[1]["state"] == "reducing"
        # What has been answered is true, whatever happens now.
        process.child.kill()
        process.end()
    code, status = answer("status", session)
    assert (code, status["running"]) == (NOT_RUNNING, False)
    assert answer("halt", session)[0] == NOT_RUNNING, "the socket of a dead process"
    with started(home, session, "--json") as process:
        status = process.wait(lambda status: status["frames"] > 0, "the process after the kill")
        assert (status["state"], status["cause"]) == ("reducing", "halt_entries")
        assert answer("resume", session)[1]["state"] == "active"
        process.wait(_holds, "a position")
        assert answer("stop", session, "--flatten") == (
            0,
            {"command": "stop", "state": "halted", "flat": True},
        )
        code, out, err = process.end()
    last = json.loads(out)
    assert (code, err, last["positions"], last["open_orders"]) == (HALTED, "", [], [])
    found = verify(session)
    assert (found["differing"], found["verdicts_differing"], found["ended"]) == (0, 0, True)


def test_stop_flatten_waits_for_nothing_where_no_frame_has_closed(home: Path, tmp_path: Path) -> None:
    """With a dead feed it once waited its 30 s and said that positions were left."""
    session = tmp_path / "session"
    with started(home, session, "--json", "--fault", "silent:streams=*") as process:
        status = process.wait(lambda status: status["running"], "the process")
        assert status["frames"] == 0
        assert answer("stop", session, "--flatten") == (
            0,
            {"command": "stop", "state": "halted", "flat": True},
        )
        code, out, err = process.end()
    last = json.loads(out)
    assert (code, err, last["frames"], last["positions"]) == (HALTED, "", 0, [])
    assert verify(session)["ended"]
