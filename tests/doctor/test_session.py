"""A session's directory in every state in which one is found."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gpuscalp.account import Account
from gpuscalp.config import JournalConfig, RiskConfig
from gpuscalp.doctor.session import check_journal, check_lock, check_state, judge_state
from gpuscalp.journal import JournalWriter, RecordKind, segments_of
from gpuscalp.live.records import StateRecord
from gpuscalp.live.store import Store
from gpuscalp.locks import Lock
from gpuscalp.risk.gate import RiskGate, RiskState


def _write(path, *, end=True):
    journal = JournalWriter(path, JournalConfig(), now_ns=1)
    for number in range(4):
        journal.append(RecordKind.RAW, b"message %d" % number, recv_ns=number)
        journal.sync()
    journal.close(now_ns=10) if end else journal.abandon()
    return segments_of(path)[-1]


# The lock.


def test_lock_that_nobody_holds_lets_a_session_begin(tmp_path):
    assert check_lock(tmp_path, Lock(False)).status == "ok"


@pytest.mark.parametrize(("pid", "who"), [(33, "process 33"), (0, "not visible"), (None, "not visible")])
def test_lock_of_another_process_fails_and_names_it(tmp_path, pid, who):
    check = check_lock(tmp_path, Lock(True, pid))
    assert (check.status, check.code) == ("fail", 1)
    assert who in check.what


def test_session_that_runs_may_hold_its_own_directory(tmp_path):
    """The doctor failed on every session that ran, and said that it should be ended."""
    check = check_lock(tmp_path, Lock(True, 33), running=True)
    assert (check.status, check.fix) == ("ok", None)
    assert "process 33" in check.what


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
    [("", "ok"), (RiskState.ACTIVE, "ok"), (RiskState.REDUCING, "warn"), (RiskState.HALTED, "warn")],
)
def test_gate_that_was_left_closed_is_a_warning(state, status):
    check = judge_state(state)
    assert check.status == status
    assert state in check.what


def _store(session, *states):
    store = Store(session / "state.sqlite", ["BTCUSDT"])
    gate = RiskGate(RiskConfig(), start_e8=1, symbol_count=1).snapshot()
    for seq, state in enumerate(states):
        body = StateRecord(9, "halt", replace(gate, state=state))
        store.write([(seq, RecordKind.STATE, body)], Account(1, 1))
    return store


def test_newest_state_of_the_session_counts_and_no_file_is_left(tmp_path):
    assert check_state(tmp_path).status == "ok"
    _write(tmp_path / "journal")
    assert check_state(tmp_path).status == "skip", "the database is gone"
    _store(tmp_path, RiskState.ACTIVE).close()
    names = sorted(tmp_path.iterdir())
    assert check_state(tmp_path).status == "ok"
    _store(tmp_path, RiskState.ACTIVE, RiskState.HALTED).close()
    check = check_state(tmp_path)
    assert (check.status, check.value) == ("warn", "halted")
    assert sorted(tmp_path.iterdir()) == names


def test_state_of_a_killed_session_is_read_out_of_the_log_of_its_database(tmp_path):
    _write(tmp_path / "journal", end=False)
    store = _store(tmp_path, RiskState.ACTIVE, RiskState.REDUCING)
    try:
        assert check_state(tmp_path).value == "reducing"
    finally:
        store.close()


def test_database_that_is_none_tells_nothing(tmp_path):
    _write(tmp_path / "journal")
    (tmp_path / "state.sqlite").write_bytes(b"no database")
    assert check_state(tmp_path).status == "skip"
