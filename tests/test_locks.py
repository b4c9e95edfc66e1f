"""A lock is held by one; whether it is held is asked of the kernel's list, and tried where that is silent."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from gpuscalp.locks import Lock, read_lock, take_lock


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "lock").touch()
    return tmp_path / "lock"


def _place(path: Path) -> str:
    told = path.stat()
    return f"{os.major(told.st_dev):02x}:{os.minor(told.st_dev):02x}:{told.st_ino}"


def test_lock_is_taken_by_one_until_it_lets_go(tmp_path: Path) -> None:
    path = tmp_path / "new"
    first = take_lock(path)
    assert first is not None
    assert read_lock(path).held
    assert take_lock(path) is None
    os.close(first)
    second = take_lock(path)
    assert second is not None
    os.close(second)


def test_lock_is_waited_for_while_somebody_holds_it(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A look of a few microseconds refused whoever began in that very moment."""
    with path.open() as asking:
        fcntl.flock(asking, fcntl.LOCK_SH)
        monkeypatch.setattr(time, "sleep", lambda _: fcntl.flock(asking, fcntl.LOCK_UN))
        taken = take_lock(path, wait_s=60.0)
    assert taken is not None
    os.close(taken)


def test_lock_that_cannot_be_is_no_lock_of_another(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system without locks was told as another process that writes the journal."""
    opened = len(list(Path("/proc/self/fd").iterdir()))

    def unsupported(*_: object) -> None:
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", unsupported)
    with pytest.raises(OSError, match=f"not implemented: '{path}'"):
        take_lock(path)
    assert len(list(Path("/proc/self/fd").iterdir())) == opened


def test_lock_is_free_where_there_is_none_and_where_nobody_holds_it(path: Path) -> None:
    assert read_lock(path.with_name("nothing")) == Lock(False)
    assert read_lock(path) == Lock(False)


def test_lock_of_another_process_is_found_and_not_disturbed(path: Path) -> None:
    code = (
        "import fcntl, sys; file = open(sys.argv[1]); fcntl.flock(file, fcntl.LOCK_EX)\n"
        "print('held', flush=True); sys.stdin.readline()"
    )
    command = [sys.executable, "-c", code, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        for _ in range(2):
            found = read_lock(path)
            assert found.held
            assert found.pid in (None, 0, other.pid)  # None or 0: the kernel of some containers keeps it back
        other.communicate("\n")
    assert not read_lock(path).held


def test_holder_is_read_from_the_kernels_list(path: Path) -> None:
    locks, place = path.with_name("locks"), _place(path)
    locks.write_text(
        f"1: POSIX  ADVISORY  WRITE 11 {place} 0 EOF\n"
        f"2: FLOCK  ADVISORY  WRITE 22 {place}9 0 EOF\n"
        f"3: FLOCK  ADVISORY  WRITE 33 {place} 0 EOF\n"
        f"3: -> FLOCK  ADVISORY  WRITE 44 {place} 0 EOF\n"
    )
    assert read_lock(path, locks=locks) == Lock(True, 33)


def test_lock_whose_holder_is_listed_is_not_tried(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who took it in the moment of a look found it in use."""
    locks = path.with_name("locks")
    locks.write_text(f"1: FLOCK  ADVISORY  WRITE 33 {_place(path)} 0 EOF\n")
    monkeypatch.setattr(fcntl, "flock", lambda *_: pytest.fail("tried"))
    assert read_lock(path, locks=locks).held


def test_file_of_the_same_number_on_another_device_is_no_proof(path: Path) -> None:
    locks = path.with_name("locks")
    locks.write_text(f"1: FLOCK  ADVISORY  WRITE 33 fe:fe:{path.stat().st_ino} 0 EOF\n")
    assert read_lock(path, locks=locks) == Lock(False)
    with path.open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert read_lock(path, locks=locks) == Lock(True, 33)


def test_lock_is_tried_where_the_list_is_silent(path: Path) -> None:
    with path.open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert read_lock(path, locks=path.with_name("nothing")) == Lock(True)


def test_file_system_without_locks_has_none(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unsupported(*_: object) -> None:
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", unsupported)
    assert read_lock(path, locks=path.with_name("nothing")) == Lock(False)
