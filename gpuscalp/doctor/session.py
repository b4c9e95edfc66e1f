"""The directory of a session: in use, torn, halted?

Owns: the checks ``session_lock``, ``session_journal`` and ``session_state``. Never: repairs, re-arms, or
writes anything into it.
"""

from __future__ import annotations

from pathlib import Path

from gpuscalp.doctor.check import Check, fail, failed_by, ok, skip, warn
from gpuscalp.errors import JournalError
from gpuscalp.journal import inspect, segments_of
from gpuscalp.live.store import REFUSED, state_of
from gpuscalp.locks import Lock
from gpuscalp.risk.gate import RiskState


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
    except JournalError as error:
        return failed_by("session_journal", error, fix="restore the journal, or name another directory")
    if tail is None:
        return ok("session_journal", "no journal yet: a session would begin a new one")
    value = {
        "segment": str(tail.segment),
        "state": tail.state,
        "whole_bytes": tail.whole_bytes,
        "bytes": tail.segment_bytes,
        "clean_stop": tail.ended,
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
    how = (
        "the last session stopped by itself"
        if tail.ended
        else "the last session was killed; nothing is missing"
    )
    return ok("session_journal", f"whole; {how}", value)


def check_state(session: Path) -> Check:
    """Say whether the risk gate was left closed: it survives a restart, and only a person opens it."""
    if not segments_of(session / "journal"):
        return judge_state("")
    try:
        return judge_state(state_of(session / "state.sqlite"))
    except REFUSED as error:
        return skip("session_state", f"the session's database does not tell: {error}")


def judge_state(state: str) -> Check:
    """Judge a risk state; "" where there is none."""
    if not state:
        return ok("session_state", "no risk state was left behind")
    if state == RiskState.ACTIVE:
        return ok("session_state", "the risk gate was left active", state)
    means = "no order passes" if state == RiskState.HALTED else "only orders that reduce a position pass"
    fix = "find out why; then start the session and re-arm it: gpuscalp resume"
    return warn("session_state", f"the risk gate was left {state}: {means}", fix, state)
