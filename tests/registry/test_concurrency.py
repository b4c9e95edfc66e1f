"""Several processes write, others read: no act is lost, none is doubled, readers never see a half."""

from __future__ import annotations

import fcntl
import subprocess
import sys
import time
from pathlib import Path

import pytest

from gpuscalp.errors import DeadlineError
from gpuscalp.registry import Registry

ROOT = Path(__file__).resolve().parents[2]
COUNT = 30


def test_two_writers_lose_no_act_and_a_reader_sees_whole_states_only(tiny, tmp_path):
    registry = Registry(tmp_path / "models")
    writers = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.registry.writing", registry.path, who, str(COUNT), *tiny.values()],
            cwd=ROOT,
        )
        for who in ("ann", "bob")
    ]
    reads, lengths = 0, [0]
    while any(writer.poll() is None for writer in writers):
        history = registry.history()  # raises where a line is not whole or does not follow
        reads += bool(history.acts)
        assert len(history.acts) >= lengths[-1]
        lengths.append(len(history.acts))
        state = history.state()
        there = set(registry.digests())
        assert {state.current("champion"), state.current("shadow")} <= there | {None}
        time.sleep(0.002)  # the writers have work to do
    assert [writer.wait() for writer in writers] == [0, 0]
    assert reads > 0
    acts = registry.history().acts
    assert sum(act.action == "add" for act in acts) == len(tiny)
    for who in ("ann", "bob"):
        mine = [act.why for act in acts if act.who == who and act.action == "promote"]
        assert mine == [str(index) for index in range(COUNT)]
    # Each act says where its alias pointed before: no other writer came between.
    now: dict[str, str] = {}
    for act in acts:
        if act.action == "promote":
            assert act.old == now.get(act.alias)
            now[act.alias] = act.new


def test_writer_that_waits_too_long_says_so_and_changes_nothing(tmp_path):
    registry = Registry(tmp_path / "models")
    with registry.writing():
        pass
    with (registry.path / "lock").open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(DeadlineError, match="another process"), registry.writing(wait_s=0.05):
            raise AssertionError("the lock was given to two")
    with registry.writing(wait_s=0.05):
        pass
    assert not registry.history_path.exists()
