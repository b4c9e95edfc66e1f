"""Locks of flock(2): files that one process holds, until it closes them or ends, however it ends.

Owns: the one way to take such a lock, and to ask whether somebody holds it. Never: says what one is for.
"""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path
from typing import Final, NamedTuple

_LOCKS: Final = Path("/proc/locks")
# Who asks whether a lock is held may hold it, for much less than this; several may ask.
ASKED_S: Final = 0.2
_LOOK_AGAIN_S: Final = 0.01


class Lock(NamedTuple):
    """``pid``: who holds it, where the kernel says so; 0 for a process of another container."""

    held: bool
    pid: int | None = None


def take_lock(path: Path, *, wait_s: float = 0.0) -> int | None:
    """Take a lock; return the descriptor, to be closed; None where somebody else held it all the time.

    Parameters
    ----------
    path : made if it is not there
    wait_s : for whoever holds it; ``ASKED_S`` where it may be asked for (``read_lock``)

    Raises
    ------
    OSError    the file cannot be opened, or the file system has no locks
    """
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    end_s = time.monotonic() + wait_s
    try:
        while True:
            last = time.monotonic() >= end_s  # asked before: who stood still looks once more
            if _taken(file, path):
                return file
            if last:
                os.close(file)
                return None
            time.sleep(_LOOK_AGAIN_S)
    except BaseException:
        os.close(file)
        raise


def _taken(file: int, path: Path) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        error.filename = str(path)  # only a descriptor was named
        raise
    return True


def read_lock(path: Path, *, locks: Path = _LOCKS) -> Lock:
    """Look whether some process holds a lock of flock(2).

    The kernel's list is asked first. It leaves out other containers, so where it shows no holder the lock is
    tried, shared and for a moment: who takes it in that very moment finds it in use.

    Parameters
    ----------
    path : need not be there
    locks : the kernel's list

    Raises
    ------
    OSError    the file cannot be opened
    """
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return Lock(False)
    try:
        pid, certain = _holder(os.fstat(handle), locks)
        if certain:
            return Lock(True, pid)
        try:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return Lock(True, pid)
        except OSError:  # a file system without locks: nobody can hold one
            return Lock(False)
        return Lock(False)
    finally:
        os.close(handle)


def _holder(file: os.stat_result, locks: Path) -> tuple[int | None, bool]:
    """Return which process the kernel's list shows with a lock of flock(2) on a file, and whether it is sure.

    A line: ``1: FLOCK  ADVISORY  WRITE 1234 08:01:5678 0 EOF``; one that waits has ``->`` behind its number.
    On btrfs and overlays the device there is not the one that stat tells, so a file that has only the number
    in common may be another one.
    """
    try:
        lines = locks.read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return None, False
    place = f"{os.major(file.st_dev):02x}:{os.minor(file.st_dev):02x}:{file.st_ino}"
    alike = None
    for line in lines:
        words = line.split()
        if len(words) < 6 or words[1] != "FLOCK":
            continue
        pid = max(0, int(words[4]))
        if words[5] == place:
            return pid, True
        if words[5].rpartition(":")[2] == str(file.st_ino):
            alike = pid
    return alike, False
