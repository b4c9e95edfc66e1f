"""Processes that work for this one: none outlives it, and what ends them is told in one line."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest

from gpuscalp.errors import GpuscalpError
from gpuscalp.process_pool import process_pool

ROOT = Path(__file__).resolve().parent.parent
PATIENCE_S = 120.0
STOPS = (signal.SIGINT, signal.SIGTERM)
# The workers say who they are, then compute without letting go of the interpreter: no thread of theirs runs.
PARENT = """
import os, sys
from pathlib import Path
from gpuscalp.cli import _report_interrupt
from gpuscalp.process_pool import process_pool
from gpuscalp.stop_signals import stopped_as_interrupted

def work(folder, busy):
    (Path(folder) / str(os.getpid())).touch()
    if busy:
        sum(range(10**12))
    import time
    time.sleep(600)

if __name__ == "__main__":
    try:
        with stopped_as_interrupted(), process_pool(2, where="here", fix="") as submit:
            for future in [submit(work, sys.argv[1], busy) for busy in (True, False)]:
                future.result()
    except KeyboardInterrupt:
        sys.exit(_report_interrupt(False))
"""


pytestmark = pytest.mark.usefixtures("hears_ctrl_c")


@contextmanager
def parent(
    folder: Path, *, wait: bool = True
) -> Iterator[tuple[subprocess.Popen[str], list[psutil.Process]]]:
    """Begin a process with a pool of two that work for ever; yield it and them, at work where ``wait``."""
    script, said = folder / "script.py", folder / "said"
    script.write_text(PARENT)
    said.mkdir()
    command = [sys.executable, str(script), str(said)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        command, env=environment, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        try:
            end_s = time.monotonic() + PATIENCE_S
            while len(list(said.iterdir()) if wait else workers_of(process)) < 2:
                assert time.monotonic() < end_s
                assert process.poll() is None
                time.sleep(0.01)
            yield process, workers_of(process)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def workers_of(process: subprocess.Popen[str]) -> list[psutil.Process]:
    """Return the processes of a pool; the tracker of resources ends by itself as well, but later."""
    return [
        each for each in psutil.Process(process.pid).children() if "spawn_main" in " ".join(each.cmdline())
    ]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_no_process_outlives_the_one_that_it_works_for(tmp_path, number):
    """They went on writing into a run that another process had taken up, and stayed for ever."""
    with parent(tmp_path) as (process, workers):
        assert len(workers) == 2
        process.send_signal(number)
        code = process.wait(PATIENCE_S)
        _, alive = psutil.wait_procs(workers, timeout=10.0)
        assert not alive
        assert code == (-number if number == signal.SIGKILL else 130)


@pytest.mark.parametrize("number", STOPS)
@pytest.mark.parametrize("begun", [True, False], ids=["at work", "while they begin"])
def test_interrupt_of_the_whole_group_is_told_once(tmp_path, begun, number):
    """A terminal sends Ctrl-C to all: the workers printed a traceback each."""
    with parent(tmp_path, wait=begun) as (process, workers):
        for worker in workers:
            worker.send_signal(number)
        assert not psutil.wait_procs(workers, timeout=1.0)[0], "only their parent ends them"
        os.killpg(process.pid, number)
        _, errors = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 130
    assert errors.splitlines()[0] == "Error: Interrupted (code 130)"
    assert "Traceback" not in errors


def killed() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def too_large() -> None:
    raise MemoryError


def refused() -> None:
    raise ValueError("std::bad_alloc")


@pytest.mark.parametrize("call", [killed, too_large])
def test_end_of_memory_is_told_with_what_helps(call):
    with (
        pytest.raises(GpuscalpError, match="memory ran out") as caught,
        process_pool(2, where="here", fix="fewer --processes") as submit,
    ):
        submit(call).result()
    assert (caught.value.value, caught.value.fix) == ("2 processes", "fewer --processes")


def test_other_errors_are_passed_on_and_signals_are_as_before():
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(ValueError, match="bad_alloc"), process_pool(1, where="", fix="") as submit:
        submit(refused).result()
    with process_pool(1, where="", fix="") as submit:
        assert submit(abs, -1).result() == 1
    assert signal.getsignal(signal.SIGTERM) is before
    assert not signal.pthread_sigmask(signal.SIG_BLOCK, []) & {signal.SIGINT, signal.SIGTERM}
