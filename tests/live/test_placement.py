"""Where the engine's thread runs while somebody retrains, asked of the kernel."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from gpuscalp.live.placement import Placement
from gpuscalp.retrain.folder import FOLDER, alone, busy_cores

EVERYWHERE = sorted(os.sched_getaffinity(0))
HOLDER = """
import sys
from pathlib import Path
from gpuscalp.retrain.folder import alone
with alone(Path(sys.argv[1]), [int(word) for word in sys.argv[2:]]):
    print("held", flush=True)
    sys.stdin.read()
"""


@contextmanager
def retrained(session: Path, *cores: int) -> Iterator[subprocess.Popen[str]]:
    """Hold the lock of a session's retraining in another process."""
    (session / FOLDER).mkdir(exist_ok=True)
    command = [sys.executable, "-c", HOLDER, str(session / FOLDER), *map(str, cores)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        try:
            yield process
        finally:
            process.kill()


@pytest.fixture
def engine() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as pool:
        yield pool


def runs_on(engine: ThreadPoolExecutor) -> list[int]:
    return sorted(engine.submit(os.sched_getaffinity, 0).result())


@pytest.fixture
def two() -> Iterator[list[int]]:
    """Two processors, and no other for this thread and those that it begins."""
    if len(EVERYWHERE) < 2:
        pytest.skip("this machine has one processor")
    os.sched_setaffinity(0, EVERYWHERE[-2:])
    yield EVERYWHERE[-2:]
    os.sched_setaffinity(0, EVERYWHERE)


def test_engine_takes_the_core_of_a_retraining_and_leaves_it_again(tmp_path, two, engine):
    placement = Placement(tmp_path, engine)
    placement.poll()
    assert runs_on(engine) == two
    with retrained(tmp_path, two[1]):
        placement.poll()
        assert runs_on(engine) == two[1:]
        assert sorted(os.sched_getaffinity(0)) == two  # the loop goes where it likes
    placement.poll()  # that process was killed: the kernel has let its lock go
    assert runs_on(engine) == two


def test_engine_stays_where_two_cores_are_left_or_none(tmp_path, two, engine):
    placement = Placement(tmp_path, engine)
    with retrained(tmp_path, *two):
        placement.poll()
        assert runs_on(engine) == two
    with retrained(tmp_path, max(EVERYWHERE) + 1):  # a core that this process may not use
        placement.poll()
        assert runs_on(engine) == two


def test_cores_are_told_while_the_lock_is_held_and_only_then(tmp_path):
    folder = tmp_path / FOLDER
    assert busy_cores(folder) == frozenset()
    with retrained(tmp_path, 3, 17):
        assert busy_cores(folder) == {3, 17}
        (folder / "lock").write_text("whatever")
        assert busy_cores(folder) == frozenset()
    with alone(folder, (5,)):
        assert busy_cores(folder) == {5}
    assert busy_cores(folder) == frozenset()
