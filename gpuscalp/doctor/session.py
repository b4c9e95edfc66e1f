"""The directory of a session: in use, torn, halted?

Owns: the checks ``session_lock``, ``session_journal`` and ``session_state``. Never: repairs, re-arms, or
writes anything into it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec

from gpuscalp.doctor.check import Check, fail, failed_by, ok, skip, warn
from gpuscalp.errors import UNREADABLE, DeadlineError, JournalError
from gpuscalp.journal import Record, RecordKind, Tail, inspect, newest, segments_of
from gpuscalp.live.records import StateRecord
from gpuscalp.locks import Lock
from gpuscalp.risk.gate import RiskState
from gpuscalp.schema import NS_PER_S

_SEARCH_NS: Final = 4 * NS_PER_S  # a full segment of six million messages takes two


def journal_folder(session: Path) -> Path:
    """Return the folder of a session's journal: ``journal`` in it, or itself where the segments lie there."""
    return session if segments_of(session) or session.name == "journal" else session / "journal"


def check_lock(journal: Path, lock: Lock, *, running: bool = False) -> Check:
    """A directory has one session at a time.

    Parameters
    ----------
    running : a session runs here: it is the one that holds the lock, and ``check_running`` judges it
    """
    value = {"journal": str(journal), "held": lock.held, "pid": lock.pid}
    if not lock.held:
        return ok("session_lock", "nobody uses the directory", value)
    who = f"process {lock.pid}" if lock.pid else "a process that is not visible from here"
    if running:
        return ok("session_lock", f"held by the session that runs here: {who}", value)
    what = f"the directory is in use by {who}"
    return fail("session_lock", what, "end that process, or name another directory", value)


def check_journal(journal: Path) -> Check:
    """Judge what opening it would do. Not to be asked while somebody writes it."""
    try:
        tail = inspect(journal)
        last = None if tail is None or tail.state == "damaged" else newest(tail.segment)
    except (JournalError, DeadlineError) as error:
        return failed_by("session_journal", error, fix="restore the journal, or name another directory")
    return judge_tail(tail, last)


def judge_tail(tail: Tail | None, last: Record | None) -> Check:
    """Judge a tail.

    Parameters
    ----------
    tail : None where there is no journal
    last : its last whole record
    """
    if tail is None:
        return ok("session_journal", "no journal yet: a session would begin a new one")
    clean = last is not None and last.kind == RecordKind.END
    value = {
        "segment": str(tail.segment),
        "state": tail.state,
        "whole_bytes": tail.whole_bytes,
        "bytes": tail.segment_bytes,
        "clean_stop": clean,
    }
    if tail.state == "damaged":
        what = f"altered after it had been written: {tail.segment.name}, byte {tail.whole_bytes}"
        fix = "restore the file from a copy, or name another directory; nothing repairs this"
        return fail("session_journal", what, fix, value)
    if tail.state == "torn":
        cut = tail.segment_bytes - tail.whole_bytes
        what = f"cut short by a crash or a power cut: the last {cut} bytes are no whole block"
        fix = "nothing needs to be done: the next session cuts them off and keeps them as .torn"
        return warn("session_journal", what, fix, value)
    how = "the last session stopped by itself" if clean else "the last session was killed; nothing is missing"
    return ok("session_journal", f"whole; {how}", value)


def check_state(journal: Path, *, clock: Callable[[], int] = time.monotonic_ns) -> Check:
    """Say whether the risk gate was left closed: it survives a restart, and only a person opens it."""
    until_ns = clock() + _SEARCH_NS
    try:
        record = newest(journal, {RecordKind.STATE}, go_on=lambda: clock() < until_ns)
    except DeadlineError:
        return skip("session_state", "the newest state lies too far back in the journal to look for it here")
    except JournalError as error:
        return skip("session_state", f"the journal cannot be read: {error.what}")
    return judge_state(None if record is None else risk_state(record.body))


def judge_state(state: RiskState | None) -> Check:
    """Judge a risk state; None where the journal holds none."""
    if state is None:
        return ok("session_state", "no risk state was left behind")
    if state is RiskState.ACTIVE:
        return ok("session_state", "the risk gate was left active", state.value)
    means = "no order passes" if state is RiskState.HALTED else "only orders that reduce a position pass"
    fix = "find out why; then start the session and re-arm it: gpuscalp resume"
    return warn("session_state", f"the risk gate was left {state.value}: {means}", fix, state.value)


def risk_state(body: bytes) -> RiskState | None:
    """Return the risk state that a STATE record tells; None where it cannot be read."""
    try:
        return RiskState(msgspec.json.decode(body, type=StateRecord).risk.state)
    except UNREADABLE:
        return None
