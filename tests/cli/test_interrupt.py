"""Ctrl-C and SIGTERM: the process hears them, and leaves with its exit code whatever comes after."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gpuscalp.cli import main
from tests.conftest import ROOT

INTERRUPTED = 130
STOPS = (signal.SIGINT, signal.SIGTERM)
# ``python -m`` of a command that is interrupted, and what comes once more when it has told so.
COMMAND = """
import gpuscalp.cli
import os
import signal

class Last:  # of a module, which Python lets go of after it has put back what its signals did
    def __del__(self, kill=os.kill, process=os.getpid()):
        kill(process, {number})

def interrupted(_):
    code = gpuscalp.cli._report_interrupt(False)
    try:  # now: what tells of it may import something that execs a text, too
        exec("raise KeyboardInterrupt" if {in_text} else "")
    except KeyboardInterrupt:
        pass
    return code

last = Last()
gpuscalp.cli.run = interrupted
gpuscalp.cli.main()
"""


class Lock:
    """Something that can be referred to weakly."""


def swallow(act: Callable[[], Any]) -> None:
    """Do something where Python passes no error on."""
    lock = Lock()
    reference = weakref.ref(lock, lambda _: act())
    del lock
    assert reference() is None


@pytest.fixture(autouse=True)
def _as_before(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Put back what ``main`` changes in its process."""
    monkeypatch.setattr(sys, "unraisablehook", sys.unraisablehook)
    before = {number: signal.getsignal(number) for number in STOPS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", STOPS, ids=["SIGINT", "SIGTERM"])
def test_interrupt_that_python_swallows_comes_again(monkeypatch, number):
    """Ctrl-C in the first seconds of a start hit a weak reference of the import system, and was gone. So was
    SIGTERM where a shell had put the process into the background, which takes SIGINT away. And of most
    commands SIGTERM was the end at once, with a code of no table."""

    def run(_):
        swallow(lambda: signal.raise_signal(number))
        time.sleep(30)
        return 0

    monkeypatch.setattr("gpuscalp.cli.run", run)
    in_background = number == signal.SIGTERM
    signal.signal(signal.SIGINT, signal.SIG_IGN if in_background else signal.default_int_handler)
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == INTERRUPTED
    assert {signal.getsignal(each) for each in STOPS} == {signal.SIG_IGN}


def test_other_errors_that_python_swallows_are_told(monkeypatch, capsys):
    def run(_):
        swallow(lambda: 1 / 0)
        return 0

    monkeypatch.setattr("gpuscalp.cli.run", run)
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 0
    assert "ZeroDivisionError" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("number", "in_text"),
    [(signal.SIGINT, False), (signal.SIGTERM, False), (0, True)],
    ids=["SIGINT again", "SIGTERM again", "in the exec of a text"],
)
def test_nothing_else_ends_a_process_that_was_interrupted(tmp_path: Path, number: int, in_text: bool) -> None:
    """One start in three that was stopped while it imported SciPy was killed by SIGINT: by Python itself."""
    (tmp_path / "command.py").write_text(COMMAND.format(number=int(number), in_text=in_text))
    environment = os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    done = subprocess.run(
        [sys.executable, "-m", "command"], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == INTERRUPTED, done.stderr
    assert done.stderr.splitlines()[0] == "Error: Interrupted (code 130)"
    assert done.stderr.count("Interrupted") == 1
