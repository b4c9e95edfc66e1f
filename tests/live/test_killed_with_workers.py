"""A session over real sockets whose workers fail, and which is killed and started again.

A process of its own for each run, because it is killed, with everything that belongs to it.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

import msgspec
import pytest

from gpuscalp.config import EngineConfig, MetricsConfig, SessionConfig
from gpuscalp.exchange.embedded import Exchange
from gpuscalp.journal import RecordKind
from gpuscalp.live.control import Request, ask
from gpuscalp.live.records import SignalRecord, VerdictRecord, decode
from gpuscalp.live.verify import verify
from gpuscalp.strategy import PREDICTED_REASONS
from tests.live.journals import Story
from tests.live.sessions import Running, eager_config, feed_of
from tests.ports import free_port
from tests.waiting import until
from tests.worker.test_failures import _alive

_RUN = """
import signal
import sys
from pathlib import Path
import msgspec
from gpuscalp.config import LiveConfig
from gpuscalp.live.run import run_live
from gpuscalp.worker import parse_fault
path, config, model, *faults = sys.argv[1:]
# Whoever runs the tests in the background of a script has them ignore it, and so does a session then.
signal.signal(signal.SIGINT, signal.default_int_handler)
run_live(Path(path), msgspec.json.decode(config, type=LiveConfig), model=Path(model), device="cpu",
    worker_faults=[parse_fault(text) for text in faults])
"""
PATIENCE_S = 40.0
ENGINE = EngineConfig(
    workers="cpu", gpus=2, agree_batches=10, restart_ms=300, canary_ms=100, deadline_ms=5_000, answer_ms=2_000
)


class Child:
    """One process that runs the session."""

    def __init__(self, path: Path, config: Any, bundle: Path, *faults: str) -> None:
        command = [sys.executable, "-c", _RUN, str(path), msgspec.json.encode(config).decode(), str(bundle)]
        self.path = path
        self.process = subprocess.Popen([*command, *faults], stderr=subprocess.PIPE, start_new_session=True)

    def wait(self, true: Any, what: str) -> dict[str, Any]:
        until, status = time.monotonic() + PATIENCE_S, None
        while time.monotonic() < until:
            assert self.process.poll() is None, self.process.stderr.read().decode()
            try:
                status = ask(self.path, Request("status"), timeout_s=10.0)
            except Exception:
                status = None
            if status is not None and status["pid"] == self.process.pid and true(status["engine"]):
                return status["engine"]
            time.sleep(0.02)
        raise AssertionError(f"{what} has not come true: {status and status['engine']}")

    def end(self, number: int, *, group: bool = False) -> int:
        (os.killpg if group else os.kill)(self.process.pid, number)
        try:
            return self.process.wait(PATIENCE_S)
        finally:
            self.process.kill()  # one that does not end must not go on beside the other tests
            self.process.stderr.close()


def _gone(pids: list[int]) -> None:
    until(lambda: not any(map(_alive, pids)), "the end of its workers", seconds=10.0)


def _pids(engine: dict[str, Any]) -> list[int]:
    return [each["pid"] for each in engine["workers"] if each["pid"] is not None]


def test_session_whose_workers_fail_is_killed_and_goes_on(exchange: Exchange, bundle: Path, tmp_path: Path):
    path = tmp_path / "session"
    port = free_port()
    config = eager_config(
        feed_of(exchange),
        engine=ENGINE,
        session=SessionConfig(status_ms=100, checkpoint_s=1.0),
        metrics=MetricsConfig(port=port),
    )
    lost_before = 0
    for fault in ("illegal_address:at_frame=40",):
        child = Child(path, config, bundle, fault)
        kind = fault.partition(":")[0]
        engine = child.wait(
            lambda engine, kind=kind: engine["leading"] and engine["faults"] == {kind: 1}, "a new leader"
        )
        assert engine["lost_frames"] == lost_before + 1, "what was lost before the kill is still known"
        lost_before += 1
        ckpts = path / "checkpoints"
        newest = max(ckpts.glob("*.ckpt"), default=None)
        while max(ckpts.glob("*.ckpt"), default=None) == newest:  # one that was made while workers led
            time.sleep(0.05)
        pids = _pids(engine)
        assert len(pids) == 2
        scraped = urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10).read().decode()
        assert f"gpuscalp_engine_lost_frames_total {lost_before}.0" in scraped
        assert child.end(signal.SIGKILL) == -signal.SIGKILL
        _gone(pids)
    child = Child(path, config, bundle)
    engine = child.wait(lambda engine: engine["leading"], "a leader after the kill")
    assert engine["lost_frames"] == lost_before
    child.wait(lambda engine: engine["workers"][0]["frames_answered"] > 60, "some frames more")
    pids = _pids(engine)
    assert child.end(signal.SIGINT, group=True) == 0
    _gone(pids)
    _check(path, lost_before)


def _check(path: Path, lost: int) -> None:
    """Assert what the journal has to say, read by nobody's code but the decoder's."""
    found = verify(path)
    assert (found["differing"], found["verdicts_differing"], found["unproved_differing"]) == (0, 0, 0)
    assert found["ended"]
    story = Story(path)
    story.check_no_entry_in_doubt()
    signals = [decode(each, SignalRecord) for each in story.records if each.kind == RecordKind.SIGNAL]
    verdicts = [decode(each, VerdictRecord) for each in story.records if each.kind == RecordKind.VERDICT]
    lost_frames = {each.end_ns for each in signals if each.lost}
    assert len(lost_frames) == lost
    acted = {each.end_ns for each in verdicts if each.reason in PREDICTED_REASONS}
    assert len(acted) > 20
    assert not acted & lost_frames


@pytest.mark.parametrize("when", ["at once", "starting", "failing"])
def test_session_that_is_stopped_while_workers_come_and_go_leaves_none(
    exchange: Exchange, bundle: Path, tmp_path: Path, when: str
):
    config = eager_config(
        feed_of(exchange), engine=msgspec.structs.replace(ENGINE, start_ms=1, restart_ms=50)
    )
    if when == "starting":
        config = eager_config(feed_of(exchange), engine=ENGINE)
    path = tmp_path / "session"
    pids: set[int] = set()
    with Running(path, config, bundle) as running:
        status = running.wait(lambda status: True, "an answer")
        pids.update(_pids(status["engine"]))
        if when == "failing":
            # A session that is held up itself may find them ready at its first look: then they lead.
            status = running.wait(
                lambda status: (
                    status["engine"]["leading"] or status["engine"]["faults"].get("start_failed", 0) > 4
                ),
                "faults",
            )
            pids.update(_pids(status["engine"]))
        ended = running.stop()
    assert when != "starting" or pids
    _gone(list(pids))
    if when == "failing":
        ended.check()
