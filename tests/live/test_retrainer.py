"""The process that retrains a session: when it is begun, and what is made of each of its ends."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import pytest

from gpuscalp.config import RetrainingConfig
from gpuscalp.errors import ConfigError
from gpuscalp.live import retrainer as module
from gpuscalp.live.retrainer import Retrainer
from gpuscalp.retrain.folder import FOLDER

MINUTE = 60 * 10**9
HOUR = 60 * MINUTE
BEGUN_NS = 1_700_000_000 * 10**9
REFUSED = {"error": {"what": "too few rows", "value": 7}}
PLACED = {"error": {"what": "cannot be written", "where": "/models", "value": "Is full"}}
GOOD = {"digest": "d", "bundle": "b", "rows": 5, "metrics": {}}


@pytest.fixture
def code() -> Iterator[list[str]]:
    """Yield a list with the Python code that runs in the place of ``gpuscalp retrain``."""
    code = [""]
    popen = subprocess.Popen

    def instead(_: list[str], **more: Any) -> subprocess.Popen[bytes]:
        return popen([sys.executable, "-c", code[0]], **more)

    with patch.object(module.subprocess, "Popen", instead):
        yield code


def ended(retrainer: Retrainer, now_ns: int) -> dict[str, Any] | None:
    """Return what it answers when its process has ended."""
    until = time.monotonic() + 60
    while retrainer.state == "running" and time.monotonic() < until:
        found = retrainer.poll(now_ns)
        if found is not None:
            return found
        time.sleep(0.01)
    return None


def test_it_is_due_after_its_hours_and_again_after_each_attempt(tmp_path, code):
    retrainer = Retrainer(tmp_path, RetrainingConfig(every_hours=2.0), begun_ns=BEGUN_NS)
    assert not retrainer.due(BEGUN_NS + 2 * HOUR - 1)
    assert retrainer.due(BEGUN_NS + 2 * HOUR)
    code[0] = f"print({json.dumps(GOOD)!r})"
    retrainer.start(tmp_path / "bundle", BEGUN_NS + 3 * HOUR)
    assert (retrainer.state, retrainer.next_ns()) == ("running", None)
    assert ended(retrainer, BEGUN_NS + 3 * HOUR) == GOOD
    assert (retrainer.state, retrainer.result) == ("idle", GOOD)
    assert not retrainer.due(BEGUN_NS + 5 * HOUR - 1)
    assert retrainer.due(BEGUN_NS + 5 * HOUR)


@pytest.mark.parametrize(
    ("registry", "folder"),
    [("~/models", "{home}/models"), ("/srv/models", "/srv/models"), ("", None)],
)
def test_registry_below_the_home_folder_is_there(tmp_path, monkeypatch, registry, folder):
    """The models once lay in a folder named ``~``, wherever the session had been begun."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    commands: list[list[str]] = []

    def instead(command: list[str], **_: Any) -> None:
        commands.append(command)
        raise OSError("not begun")

    monkeypatch.setattr(module.subprocess, "Popen", instead)
    config = RetrainingConfig(every_hours=1.0, registry=registry)
    Retrainer(tmp_path, config, begun_ns=BEGUN_NS).start(tmp_path, BEGUN_NS)
    given = dict(zip(commands[0], commands[0][1:], strict=False))
    assert given.get("--registry") == (folder and folder.format(home=tmp_path / "home"))


@pytest.mark.parametrize("registry", ["models", "./models", "~nobody-of-that-name/models"])
def test_registry_that_depends_on_where_the_session_is_begun_is_refused(tmp_path, registry):
    with pytest.raises(ConfigError, match="no absolute path") as caught:
        Retrainer(tmp_path, RetrainingConfig(registry=registry), begun_ns=BEGUN_NS)
    assert (caught.value.where, caught.value.value) == ("retraining.registry", registry)


def test_never_is_never(tmp_path):
    retrainer = Retrainer(tmp_path, RetrainingConfig(), begun_ns=0)
    assert (retrainer.state, retrainer.next_ns(), retrainer.due(2**62)) == ("off", None, False)


@pytest.mark.parametrize(
    ("script", "told"),
    [
        ("import os; os.kill(os.getpid(), 9)", "exit code -9"),  # of the kernel, where memory runs out
        ("import sys; sys.exit('std::bad_alloc')", "exit code 1: std::bad_alloc"),
        (f"print({json.dumps(REFUSED)!r}); raise SystemExit(2)", "too few rows: 7"),
        (f"print({json.dumps(PLACED)!r}); raise SystemExit(1)", "cannot be written: Is full (/models)"),
        ("print('nonsense')", "exit code 0"),
    ],
    ids=["killed", "out of memory", "an error of ours", "an error at a place", "no answer"],
)
def test_a_bad_end_is_told_and_the_next_attempt_waits_its_hours(tmp_path, code, script, told):
    retrainer = Retrainer(tmp_path, RetrainingConfig(every_hours=1.0), begun_ns=BEGUN_NS)
    code[0] = script
    retrainer.start(tmp_path, BEGUN_NS + HOUR)
    assert ended(retrainer, BEGUN_NS + HOUR) is None
    assert (retrainer.state, retrainer.reason) == ("failed", told)
    assert retrainer.next_ns() == BEGUN_NS + 2 * HOUR


def test_candidate_that_the_registry_refused_is_taken_up_and_the_status_says_so(tmp_path, code, caplog):
    retrainer = Retrainer(tmp_path, RetrainingConfig(every_hours=1.0), begun_ns=BEGUN_NS)
    answer = GOOD | {"registered": None, "not_registered": "No space left on device"}
    code[0] = f"print({json.dumps(answer)!r})"
    retrainer.start(tmp_path, BEGUN_NS + HOUR)
    assert ended(retrainer, BEGUN_NS + HOUR) == answer
    told = "the registry refused the candidate: No space left on device"
    assert (retrainer.state, retrainer.status()["reason"]) == ("idle", told)
    assert [each.levelname for each in caplog.records if told in each.message] == ["WARNING"]


def test_one_that_takes_too_long_is_ended(tmp_path, code):
    config = RetrainingConfig(every_hours=1.0, timeout_hours=0.5)
    retrainer = Retrainer(tmp_path, config, begun_ns=BEGUN_NS)
    code[0] = "import time; time.sleep(600)"
    retrainer.start(tmp_path, BEGUN_NS)
    assert retrainer.poll(BEGUN_NS + HOUR // 2) is None
    assert retrainer.state == "running"
    retrainer.poll(BEGUN_NS + HOUR // 2 + 1)
    assert (retrainer.state, retrainer.reason) == ("failed", "it took more than 0.5 hours")
    retrainer.close()


def test_nobody_waits_for_one_that_was_killed(tmp_path, code):
    """The loop's thread once waited until the kernel had freed 4 GiB at idle priority, or for a driver that
    hung. Nothing else is begun beside it."""
    config = RetrainingConfig(every_hours=1.0, timeout_hours=0.5)
    retrainer = Retrainer(tmp_path, config, begun_ns=BEGUN_NS)
    code[0] = "import time; time.sleep(600)"
    retrainer.start(tmp_path, BEGUN_NS)
    process = retrainer._process
    with patch.object(process, "kill"), patch.object(module, "_WAIT_S", 0.01):  # it does not die
        began = time.monotonic()
        retrainer.poll(BEGUN_NS + HOUR)
        assert retrainer.state == "failed"
        assert retrainer.due(BEGUN_NS + 9 * HOUR)
        assert retrainer.obstacle() == "the process before has not ended yet"
        retrainer.close()
        assert time.monotonic() - began < 30
    process.kill()
    process.wait()
    assert cleared(retrainer, BEGUN_NS + HOUR) == ""


def cleared(retrainer: Retrainer, now_ns: int) -> str:
    """Return what keeps it from being started once it has looked for what is left."""
    until = time.monotonic() + 60
    while True:
        retrainer.poll(now_ns)
        found = retrainer.obstacle()
        if found != "what a process before has left is being removed" or time.monotonic() > until:
            return found
        time.sleep(0.01)


def left_work(session: Path) -> Path:
    work = session / FOLDER / "work"
    (work / "archive").mkdir(parents=True)
    return work


def test_what_a_killed_process_has_left_is_gone_after_a_start(tmp_path, monkeypatch):
    """It once stayed until the next attempt, which it put off for ever where the disk was full of it."""
    work = left_work(tmp_path)
    usage = SimpleNamespace(free=8 << 30)
    monkeypatch.setattr(
        module.shutil, "disk_usage", lambda _: SimpleNamespace(free=0) if work.exists() else usage
    )
    retrainer = Retrainer(tmp_path, RetrainingConfig(), begun_ns=BEGUN_NS)
    assert retrainer.obstacle() == "what a process before has left is being removed"
    assert cleared(retrainer, BEGUN_NS) == ""
    assert not work.exists()


def test_what_another_process_works_on_is_left_alone(tmp_path):
    work = left_work(tmp_path)
    retrainer = Retrainer(tmp_path, RetrainingConfig(every_hours=1.0), begun_ns=BEGUN_NS)
    with (work.parent / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert cleared(retrainer, BEGUN_NS + HOUR) == "another process retrains this session"
        assert work.exists()
    retrainer._clearing.join(60)  # while it ends no other one begins
    retrainer.poll(BEGUN_NS + HOUR + MINUTE - 1)
    assert retrainer.obstacle() == "another process retrains this session"
    retrainer.poll(BEGUN_NS + HOUR + MINUTE)
    retrainer._clearing.join(60)
    assert retrainer.obstacle() == ""
    assert not work.exists()
    assert retrainer.next_ns() == BEGUN_NS + HOUR, "no attempt was made"


def test_none_is_begun_while_somebody_retrains_by_hand(tmp_path):
    """It once was where nothing had been left to remove: it failed, and the day was lost."""
    retrainer = Retrainer(tmp_path, RetrainingConfig(every_hours=1.0), begun_ns=BEGUN_NS)
    (tmp_path / "retraining").mkdir()
    assert cleared(retrainer, BEGUN_NS) == ""
    with (tmp_path / "retraining" / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert retrainer.obstacle() == "another process retrains this session"
    assert retrainer.obstacle() == ""


def test_its_process_shares_out_processors_with_ours_by_priority(tmp_path, code):
    """Between sessions of processes Linux may share them out evenly, whatever is said of priorities."""
    code[0] = f"import json, os; print(json.dumps({GOOD!r} | {{'at': [os.getsid(0), os.getpgrp()]}}))"
    retrainer = Retrainer(tmp_path, RetrainingConfig(every_hours=1.0), begun_ns=BEGUN_NS)
    retrainer.start(tmp_path / "bundle", BEGUN_NS)
    pid = retrainer._process.pid
    found = ended(retrainer, BEGUN_NS)
    assert found is not None
    assert found["at"] == [os.getsid(0), pid], "a group of its own: Ctrl-C is meant for us"


def test_after_one_that_took_too_long_its_work_is_gone_before_the_next(tmp_path, code):
    config = RetrainingConfig(every_hours=1.0, timeout_hours=0.5)
    retrainer = Retrainer(tmp_path, config, begun_ns=BEGUN_NS)
    assert cleared(retrainer, BEGUN_NS) == ""
    code[0] = "import time; time.sleep(600)"
    retrainer.start(tmp_path, BEGUN_NS)
    work = left_work(tmp_path)
    retrainer.poll(BEGUN_NS + HOUR)
    assert retrainer.state == "failed"
    assert retrainer.obstacle()
    until = time.monotonic() + 60
    while retrainer.obstacle() and time.monotonic() < until:
        retrainer.poll(BEGUN_NS + HOUR)
        time.sleep(0.01)
    assert not work.exists()


def test_the_journal_has_the_disk(tmp_path, code, monkeypatch):
    """An archive was looked at before it was begun and never again: the session ended of a full disk."""
    free = [9 << 30]
    monkeypatch.setattr(module.shutil, "disk_usage", lambda path: SimpleNamespace(free=free[0]))
    retrainer = Retrainer(tmp_path, RetrainingConfig(every_hours=1.0), begun_ns=BEGUN_NS)
    assert cleared(retrainer, BEGUN_NS) == ""
    code[0] = "import time; time.sleep(600)"
    retrainer.start(tmp_path, BEGUN_NS)
    for free[0], second, state in (
        (5 << 30, 10, "running"),
        (3 << 30, 19, "running"),
        (3 << 30, 20, "failed"),
    ):
        retrainer.poll(BEGUN_NS + second * 10**9)
        assert retrainer.state == state
    assert retrainer.reason == "the journal needs the disk, which had 3,072 MiB left"
    until = time.monotonic() + 60
    while retrainer._dying is not None and time.monotonic() < until:
        retrainer.poll(BEGUN_NS + HOUR)
        time.sleep(0.01)
    assert cleared(retrainer, BEGUN_NS + HOUR) == "the disk has 3,072 MiB left, which the journal needs"
    free[0] = 9 << 30
    assert retrainer.obstacle() == ""


def test_the_last_attempt_of_an_earlier_process_counts(tmp_path, code):
    config = RetrainingConfig(every_hours=1.0)
    code[0] = f"print({json.dumps(GOOD)!r})"
    before = Retrainer(tmp_path, config, begun_ns=BEGUN_NS)
    before.start(tmp_path, BEGUN_NS)
    assert ended(before, BEGUN_NS) == GOOD
    next_ns = Retrainer(tmp_path, config, begun_ns=BEGUN_NS).next_ns()
    assert next_ns is not None
    assert abs(next_ns - HOUR - time.time_ns()) < 600 * 10**9


def test_an_attempt_that_ended_with_its_session_does_not_count(tmp_path, code):
    """A daily restart in the middle of each would have left the session without a new model for ever."""
    config = RetrainingConfig(every_hours=1.0)
    code[0] = "import time; time.sleep(60)"
    before = Retrainer(tmp_path, config, begun_ns=BEGUN_NS)
    before.start(tmp_path, BEGUN_NS)
    before.close()
    assert Retrainer(tmp_path, config, begun_ns=BEGUN_NS).next_ns() == BEGUN_NS + HOUR
