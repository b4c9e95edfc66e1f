"""A session's directory in every state in which one is found."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from dataclasses import replace

import pytest

from gpuscalp.config import JournalConfig, RiskConfig
from gpuscalp.doctor.session import (
    Lock,
    check_journal,
    check_lock,
    check_state,
    journal_folder,
    judge_state,
    read_lock,
    risk_state,
)
from gpuscalp.journal import JournalWriter, RecordKind, segments_of
from gpuscalp.live.records import StateRecord, encode
from gpuscalp.risk import RiskGate, RiskState


def _state(name):
    risk = replace(RiskGate(RiskConfig(), start_e8=1, symbol_count=1).snapshot(), state=name)
    return encode(StateRecord(9, "halt", risk))


def _write(path, *, state=None, end=True, synced=True):
    journal = JournalWriter(path, JournalConfig(), now_ns=1)
    for number in range(4):
        journal.append(RecordKind.RAW, b"message %d" % number, recv_ns=number)
        journal.sync() if synced else journal.flush()
    if state is not None:
        journal.append(RecordKind.STATE, _state(state), recv_ns=9)
        journal.flush()
    journal.close(now_ns=10) if end else journal.abandon()
    return segments_of(path)[-1]


def test_folder_of_the_journal_is_found_in_the_session_or_is_it(tmp_path):
    assert journal_folder(tmp_path) == tmp_path / "journal"
    assert journal_folder(tmp_path / "journal") == tmp_path / "journal"
    _write(tmp_path)
    assert journal_folder(tmp_path) == tmp_path


# The lock.


def test_lock_is_free_where_there_is_none_and_where_nobody_holds_it(tmp_path):
    assert read_lock(tmp_path / "nothing") == Lock(False)
    _write(tmp_path)
    assert (tmp_path / "lock").exists()
    assert read_lock(tmp_path) == Lock(False)
    assert check_lock(tmp_path, Lock(False)).status == "ok"


def test_lock_of_another_process_is_found_and_not_disturbed(tmp_path):
    code = (
        "import sys; from gpuscalp.config import JournalConfig; from gpuscalp.journal import JournalWriter\n"
        "journal = JournalWriter(sys.argv[1], JournalConfig(), now_ns=1)\n"
        "print('open', flush=True); sys.stdin.readline()"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "open\n"
        found = read_lock(tmp_path)
        assert found.held
        assert found.pid in (None, 0, other.pid)  # None or 0: the kernel of some containers keeps it back
        check = check_lock(tmp_path, found)
        assert (check.status, check.code) == ("fail", 1)
        other.communicate("\n")
    assert not read_lock(tmp_path).held


def test_holder_is_read_from_the_kernels_list(tmp_path):
    (tmp_path / "lock").touch()
    place = _place(tmp_path / "lock")
    locks = tmp_path / "locks"
    locks.write_text(
        f"1: POSIX  ADVISORY  WRITE 11 {place} 0 EOF\n"
        f"2: FLOCK  ADVISORY  WRITE 22 {place}9 0 EOF\n"
        f"3: FLOCK  ADVISORY  WRITE 33 {place} 0 EOF\n"
        f"3: -> FLOCK  ADVISORY  WRITE 44 {place} 0 EOF\n"
    )
    found = read_lock(tmp_path, locks=locks)
    assert found == Lock(True, 33)
    assert "process 33" in check_lock(tmp_path, found).what


def test_file_of_the_same_number_on_another_device_is_no_proof(tmp_path):
    (tmp_path / "lock").touch()
    locks = tmp_path / "locks"
    locks.write_text(f"1: FLOCK  ADVISORY  WRITE 33 fe:fe:{(tmp_path / 'lock').stat().st_ino} 0 EOF\n")
    assert read_lock(tmp_path, locks=locks) == Lock(False)
    with (tmp_path / "lock").open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert read_lock(tmp_path, locks=locks) == Lock(True, 33)


def test_lock_is_tried_where_the_list_is_silent(tmp_path):
    (tmp_path / "lock").touch()
    with (tmp_path / "lock").open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert read_lock(tmp_path, locks=tmp_path / "nothing") == Lock(True)
        assert "not visible" in check_lock(tmp_path, Lock(True, 0)).what


def test_session_that_runs_may_hold_its_own_directory(tmp_path):
    """The doctor failed on every session that ran, and said that it should be ended."""
    check = check_lock(tmp_path, Lock(True, 33), running=True)
    assert (check.status, check.fix) == ("ok", None)
    assert "process 33" in check.what


def _place(path) -> str:
    told = path.stat()
    return f"{os.major(told.st_dev):02x}:{os.minor(told.st_dev):02x}:{told.st_ino}"


# The journal.


def test_no_journal_is_fine(tmp_path):
    assert check_journal(tmp_path / "nothing").status == "ok"


@pytest.mark.parametrize(("end", "told"), [(True, "stopped by itself"), (False, "was killed")])
def test_whole_journal_says_how_it_ended(tmp_path, end, told):
    _write(tmp_path, end=end)
    check = check_journal(tmp_path)
    assert (check.status, check.value["clean_stop"]) == ("ok", end)
    assert told in check.what


def test_torn_journal_is_a_warning_and_stays_as_it_is(tmp_path):
    last = _write(tmp_path, end=False)
    last.write_bytes(last.read_bytes()[:-3])
    before = last.read_bytes()
    check = check_journal(tmp_path)
    assert (check.status, check.value["state"]) == ("warn", "torn")
    assert last.read_bytes() == before
    assert segments_of(tmp_path) == [last]
    JournalWriter(tmp_path, JournalConfig(), now_ns=2).close(now_ns=3)  # as the fix promises
    assert check_journal(tmp_path).status == "ok"


def test_damaged_journal_is_a_failure(tmp_path):
    last = _write(tmp_path)
    data = bytearray(last.read_bytes())
    data[70] ^= 1
    last.write_bytes(data)
    check = check_journal(tmp_path)
    assert (check.status, check.code, check.value["state"]) == ("fail", 1, "damaged")


# The state.


@pytest.mark.parametrize(
    ("state", "status"),
    [
        (None, "ok"),
        (RiskState.ACTIVE, "ok"),
        (RiskState.REDUCING, "warn"),
        (RiskState.HALTED, "warn"),
    ],
)
def test_gate_that_was_left_closed_is_a_warning(state, status):
    check = judge_state(state)
    assert check.status == status
    assert state is None or state.value in check.what


def test_newest_state_of_the_journal_counts(tmp_path):
    _write(tmp_path, state="active")
    assert check_state(tmp_path).status == "ok"
    _write(tmp_path, state="halted", end=False)
    check = check_state(tmp_path)
    assert (check.status, check.value) == ("warn", "halted")


def test_state_is_found_before_a_torn_tail(tmp_path):
    last = _write(tmp_path, state="reducing")
    last.write_bytes(last.read_bytes()[:-3])
    assert check_state(tmp_path).value == "reducing"


def test_search_for_the_state_ends_in_time(tmp_path):
    _write(tmp_path)
    times = iter(range(0, 10**12, 5 * 10**9))
    assert check_state(tmp_path, clock=lambda: next(times)).status == "skip"


@pytest.mark.parametrize(
    ("body", "state"),
    [
        (_state("halted"), RiskState.HALTED),
        (_state("starting"), None),
        (b'{"state": "halted"}', None),
        (b"no JSON", None),
    ],
)
def test_state_is_read_from_the_session_s_own_records(body, state):
    assert risk_state(body) is state
