"""One session as the dashboard sees it: alive or not, its status, its last minutes, its orders.

Owns: what is read and how often is up to the caller; each look is bounded. Never: takes the session's lock,
asks its process for anything, or writes.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, final

import msgspec

from gpuscalp.bundle import read_contract
from gpuscalp.config import to_dict
from gpuscalp.dashboard.follower import JournalFollower
from gpuscalp.dashboard.history import KINDS, SPAN_MS, History
from gpuscalp.errors import ConfigError, NotRunningError, UsageError
from gpuscalp.journal.blocks import RecordKind
from gpuscalp.live.control import read_status
from gpuscalp.live.directory import read_about
from gpuscalp.live.store import REFUSED, open_to_read
from gpuscalp.schema import E8, NS_PER_MS, NS_PER_S

# A status is written twice a second by default; after so long without one it is not believed any more.
SILENT_S: Final = 2.0
_ROWS: Final = 25
# Packed bytes of one look: more than comes in between, and not so much that looking holds anybody up.
_LOOK_BYTES: Final = 8 << 20


_Nanoseconds = Annotated[int, msgspec.Meta(ge=0, le=(1 << 63) - 1)]


class _Quotes(msgspec.Struct):
    end_ns: _Nanoseconds
    bid: list[float | None]
    ask: list[float | None]


class _Said(msgspec.Struct):
    """Of a status what is computed with here; the rest is shown as it is."""

    written_ns: _Nanoseconds
    running: bool
    pid: int
    quotes: _Quotes | None = None


@dataclass(frozen=True, slots=True)
class Life:
    """Whether a session can be believed.

    Attributes
    ----------
    state : "running"; "ended" by its own word; "dead", its process is gone without one; "silent", there is a
        process, but it does not say anything (it hangs, or it is still starting); "unborn", it never ran
    age_s : of the newest status; None without one
    reason : in words, "" while it runs
    """

    state: str
    age_s: float | None
    reason: str


@final
class Watch:
    """Looks at one session.

    Parameters
    ----------
    path : its directory
    wall, monotonic : clocks, ns

    Raises
    ------
    UsageError    there is no session
    """

    def __init__(self, path: Path, *, wall: Callable[[], int], monotonic: Callable[[], int]) -> None:
        self.path, self.about = path, read_about(path)
        self.history = History(self.about.instruments)
        self.status: dict[str, Any] | None = None
        self._wall, self._monotonic = wall, monotonic
        self._changed_ns = monotonic()
        self._journal = JournalFollower(path / "journal", since_ns=wall() - SPAN_MS * NS_PER_MS)
        self._caught_up, self._unread = False, ""
        self._silent_s = max(SILENT_S, 2 * self.about.config.session.status_ms / 1e3 + 1)
        contract = read_contract(path / "bundle")
        self.columns = [{"name": each.name, "unit": each.unit} for each in contract.columns]
        self.frame_ms = contract.training.config.grid.frame_ms
        self.limits = to_dict(self.about.config.risk)

    def is_replaced(self) -> bool:
        """Whether another session has been begun in the directory: nothing here is true of that one."""
        try:
            return read_about(self.path).session_id != self.about.session_id
        except (UsageError, ConfigError):  # it was removed, or cannot be read: what was seen last stays
            return False

    def anew(self) -> Watch:
        """Return one that looks at what lies in the directory now.

        Raises
        ------
        UsageError    there is no session
        """
        return Watch(self.path, wall=self._wall, monotonic=self._monotonic)

    def catch_up(self) -> None:
        """Read the past."""
        while not self._caught_up:
            for records in self._journal.read(KINDS | {RecordKind.RAW}):
                self.history.take(records)
            self._caught_up = not self._journal.behind

    def look(self) -> None:
        """Read what is new."""
        try:
            for records in self._journal.read(KINDS, piece_bytes=_LOOK_BYTES):
                self.history.take(records)
            self._unread = ""
        except OSError as error:  # this process has no file left to open, for instance: the next look may
            self._unread = str(error)
        try:
            status = read_status(self.path)
            msgspec.convert(status, _Said)
        except (UsageError, NotRunningError, msgspec.ValidationError):  # what was seen last stays
            return
        if self.status is None or status["written_ns"] != self.status["written_ns"]:
            self._changed_ns = self._monotonic()
            self.history.take_status(status)
        self.status = status

    @property
    def damage(self) -> str:
        """What cannot be read of the journal, in words."""
        return self._unread or self._journal.damage

    def life(self) -> Life:
        """Return whether the status can be believed now."""
        status = self.status
        if status is None:
            return Life("unborn", None, "it has not said anything yet")
        unchanged_ns = self._monotonic() - self._changed_ns  # however the wall clock is set
        age_s = max(unchanged_ns, self._wall() - status["written_ns"], 0) / NS_PER_S
        pid = _owner(self.path)
        alive = pid is not None and _is_alive(pid)
        if not status["running"] and status["pid"] == pid:
            return Life("ended", age_s, status.get("reason") or "it gave no reason")
        # Of a process in another container only the status can be seen: while that changes it lives.
        if not alive and age_s > self._silent_s / 2:
            return Life("dead", age_s, f"process {pid} is gone and has left no word")
        if age_s > self._silent_s or not status["running"]:
            return Life("silent", age_s, f"process {pid} is there, but says nothing")
        return Life("running", age_s, "")

    def orders(self) -> dict[str, list[dict[str, Any]]]:
        """Return the last orders and fills, the newest first, as the session's database has them."""
        try:
            with closing(open_to_read(self.path / "state.sqlite", timeout_s=0.2)) as database:
                database.row_factory = sqlite3.Row
                orders = database.execute(
                    "SELECT order_id, symbol, side, qty_e8, left_e8, reason, state, sent_ns"
                    " FROM orders ORDER BY order_id DESC LIMIT ?",
                    (_ROWS,),
                ).fetchall()
                fills = database.execute(
                    "SELECT seq, order_id, symbol, side, qty_e8, price_e8, fee_e8, realised_e8, maker, at_ns"
                    " FROM fills ORDER BY seq DESC LIMIT ?",
                    (_ROWS,),
                ).fetchall()
            return {"orders": [_plain(row) for row in orders], "fills": [_plain(row) for row in fills]}
        except (*REFUSED, TypeError):  # it is being made, or made anew; or damaged, to the types of values
            return {"orders": [], "fills": []}


def _plain(row: sqlite3.Row) -> dict[str, Any]:
    """Return a row with quantities and money as they are read, and times in ms."""
    found: dict[str, Any] = {}
    for name in row.keys():  # noqa: SIM118  # a Row is no mapping
        if name.endswith("_e8"):
            found[name.removesuffix("_e8")] = row[name] / E8
        elif name.endswith("_ns"):
            found[name.removesuffix("_ns") + "_ms"] = row[name] // NS_PER_MS
        else:
            found[name] = row[name]
    return found


def _owner(path: Path) -> int | None:
    """Return the process that took the session's lock last."""
    try:
        return int((path / "lock").read_text())
    except (OSError, ValueError):
        return None


def _is_alive(pid: int) -> bool:
    """Whether a process exists and is not one that has died and waits to be buried."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (OSError, IndexError):
        return False
    return state not in ("Z", "X")
