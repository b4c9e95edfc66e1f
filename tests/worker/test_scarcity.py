"""What the machine refuses: no process, no memory, no descriptors, no files."""

from __future__ import annotations

import errno
import gc
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from gpuscalp.worker import memory, process
from tests.waiting import until
from tests.worker.rig import Rig, eager, fleet_of, specs
from tests.worker.test_failures import _alive, _descriptors


def refusing(code: int, *, after: int = 0):
    """Return what raises an OSError at each call after so many, and a list that these calls stand in."""
    calls = []

    def refuse(*_: object, **__: object) -> None:
        calls.append(code)
        if len(calls) > after:
            raise OSError(code, os.strerror(code))

    return refuse, calls


@pytest.mark.parametrize(
    ("module", "name", "code"),
    [
        (process.subprocess, "Popen", errno.EAGAIN),
        (memory.os, "memfd_create", errno.ENOMEM),
        pytest.param(memory.mmap, "mmap", errno.ENOMEM, marks=pytest.mark.thorough),
        (process.os, "pipe", errno.EMFILE),
    ],
)
def test_a_process_that_cannot_be_had_is_a_failed_start(rig, monkeypatch, module, name, code):
    run = rig("start_failed:at_frame=0", restart_ms=300)  # the first one; the next one is refused
    run.until(lambda: bool(run.faults()))
    gc.collect()
    refuse, _ = refusing(code)
    with monkeypatch.context() as patched:
        patched.setattr(module, name, refuse)
        before = len(_descriptors())  # the process that has ended may still have its memory
        run.until(lambda: run.faults() == {"start_failed": 2})
        assert os.strerror(code) in run.fleet.status()["workers"][0]["last_fault"]["detail"]
        gc.collect()
        assert len(_descriptors()) <= before
    run.lead()
    assert run.lost == run.rejected == []


@pytest.mark.parametrize(("name", "code"), [("ftruncate", errno.ENOSPC), ("pwrite", errno.ENOSPC)])
def test_a_state_that_there_is_no_memory_for_is_a_failed_start(rig, monkeypatch, name, code):
    run = rig(restart_ms=100)
    run.beat()  # it is ready, and nobody has looked
    before = _descriptors()
    refuse, calls = refusing(code)
    with monkeypatch.context() as patched:
        patched.setattr(memory.os, name, refuse)
        run.until(lambda: bool(calls))
        assert run.faults() == {"start_failed": 1}
        assert "no memory for the state" in run.fleet.status()["workers"][0]["last_fault"]["detail"]
        assert len(_descriptors()) <= len(before)
    run.lead()
    assert run.lost == []


def test_a_state_that_cannot_be_sent_is_a_fault(rig, monkeypatch):
    run = rig(restart_ms=100)
    refuse, calls = refusing(errno.ENOBUFS)
    with monkeypatch.context() as patched:
        patched.setattr("gpuscalp.worker.link.socket.send_fds", refuse)
        run.until(lambda: bool(calls))
        assert run.faults() == {"behind": 1}
    run.lead()


def test_a_killed_process_is_taken_up_where_no_descriptor_is_left(rig, monkeypatch):
    run = rig()
    run.lead()
    refuse, calls = refusing(errno.EMFILE)
    with monkeypatch.context() as patched:
        patched.setattr(process.os, "pidfd_open", refuse)
        assert not run.fleet._workers[0].process.gone(0.01)
        assert calls
        os.kill(run.pid(), signal.SIGKILL)
        run.until(lambda: bool(run.faults()))
        run.until(lambda: run.state() == "starting")


def test_a_process_that_dies_while_it_is_handed_the_state_fails_alone(rig):
    run = rig(restart_ms=100)
    run.beat()
    os.kill(run.pid(), signal.SIGSTOP)  # ready, and reads nothing any more
    run.until(lambda: run.state() == "shadow")
    os.kill(run.pid(), signal.SIGKILL)
    run.until(lambda: run.faults() == {"killed": 1})
    run.lead()
    assert run.lost == []


def test_a_model_that_is_gone_is_a_failed_start_until_it_is_back(truth, closed, tmp_path):
    bundle = tmp_path / "bundle"
    shutil.copytree(truth.bundle, bundle)
    fleet = fleet_of(specs(replace(truth, bundle=bundle)), eager())
    fleet.start()
    run = Rig(truth, fleet, closed)
    try:
        run.lead()
        bundle.rename(tmp_path / "elsewhere")
        os.kill(run.pid(), signal.SIGKILL)
        run.until(lambda: run.faults().get("start_failed", 0) == 1)
        (tmp_path / "elsewhere").rename(bundle)
        run.lead()
    finally:
        fleet.close()


def test_processes_that_come_and_go_leave_nothing(rig):
    run = rig("killed:always=true", restart_ms=1, restart_max_ms=1)
    run.until(lambda: run.faults().get("killed", 0) >= 2)
    gc.collect()
    before, mapped = len(_descriptors()), _mappings()
    gc.disable()  # as good as frozen: nothing may wait for the collector
    try:
        run.until(lambda: run.faults().get("killed", 0) >= 4)
    finally:
        gc.enable()
    # The one that is there at the moment has a socket, two pipes and no other.
    assert abs(len(_descriptors()) - before) <= 4
    assert abs(_mappings() - mapped) <= 3


def _mappings() -> int:
    return Path("/proc/self/maps").read_text().count("memfd:gpuscalp")


_IGNORING = """
import signal, sys
signal.signal(signal.SIGIO, signal.SIG_IGN)
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGIO])
exec(open(sys.argv.pop(1)).read())
"""


def test_a_worker_ends_with_its_session_whatever_signals_that_ignores(tmp_path):
    from tests.worker.test_failures import _SESSION, AT

    (tmp_path / "session.py").write_text(_SESSION)
    command = [sys.executable, "-c", _IGNORING, str(tmp_path / "session.py"), str(tmp_path / "bundle")]
    with subprocess.Popen([*command, f"hang:at_frame={AT}"], stdout=subprocess.PIPE, text=True) as session:
        pid = int(session.stdout.readline())
        time.sleep(0.5)
        session.kill()
    until(lambda: not _alive(pid), "its end")
