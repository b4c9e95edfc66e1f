"""Whether a session is believed: by its word, its process and the age of what it said."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from contextlib import closing

import pytest

from gpuscalp.account import Account
from gpuscalp.dashboard.watch import SILENT_S, Watch
from gpuscalp.errors import UsageError
from gpuscalp.journal.blocks import RecordKind
from gpuscalp.live.control import write_status
from gpuscalp.live.records import OrderRecord
from gpuscalp.live.store import Store
from gpuscalp.schema import E8

SECOND = 1_000_000_000


class Clocks:
    """Two clocks that stand until they are moved."""

    def __init__(self) -> None:
        self.wall_ns, self.monotonic_ns = 1_700_000_000 * SECOND, 5 * SECOND

    def pass_s(self, seconds: float) -> None:
        self.wall_ns += round(seconds * SECOND)
        self.monotonic_ns += round(seconds * SECOND)


@pytest.fixture
def clocks():
    return Clocks()


@pytest.fixture
def watch(still, clocks):
    return Watch(still, wall=lambda: clocks.wall_ns, monotonic=lambda: clocks.monotonic_ns)


def _say(watch, clocks, pid, *, running=True, **more):
    (watch.path / "lock").write_text(f"{pid}\n")
    write_status(
        watch.path, {"running": running, "pid": pid, "written_ns": clocks.wall_ns, "quotes": None} | more
    )
    watch.look()


def test_a_session_that_never_ran_is_unborn(watch):
    watch.look()
    assert (watch.life().state, watch.life().age_s) == ("unborn", None)


def test_a_session_that_says_something_runs_until_it_has_been_silent_for_too_long(watch, clocks):
    _say(watch, clocks, os.getpid())
    clocks.pass_s(SILENT_S - 0.1)
    assert watch.life().state == "running"
    clocks.pass_s(0.2)
    life = watch.life()
    assert (life.state, round(life.age_s, 1)) == ("silent", 2.1)
    _say(watch, clocks, os.getpid())
    assert watch.life().state == "running"


@pytest.mark.parametrize("reaped", [True, False])
def test_a_session_whose_process_is_gone_is_dead_before_that(watch, clocks, reaped):
    process = subprocess.Popen([sys.executable, "-c", "pass"])
    if reaped:
        process.wait()
    else:
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # nobody has asked what became of it
    _say(watch, clocks, process.pid)
    clocks.pass_s(1.1)
    assert watch.life().state == "dead"
    process.wait()


def test_a_session_in_another_container_lives_while_it_speaks(watch, clocks):
    for _ in range(5):
        _say(watch, clocks, 2**22 + 1)  # no process of ours has this number
        clocks.pass_s(0.5)
        assert watch.life().state == "running"
    clocks.pass_s(1.0)
    assert watch.life().state == "dead"


def test_a_session_that_has_said_goodbye_has_ended_of_what_it_says(watch, clocks):
    _say(watch, clocks, 2**22 + 1, running=False, reason="stop, by ann")
    clocks.pass_s(3_600)
    life = watch.life()
    assert (life.state, life.reason, life.age_s) == ("ended", "stop, by ann", 3_600.0)


def test_a_session_that_starts_again_is_not_taken_for_the_one_that_ended(watch, clocks):
    _say(watch, clocks, 2**22 + 1, running=False)
    (watch.path / "lock").write_text(f"{os.getpid()}\n")
    assert watch.life().state == "silent"


def test_a_wall_clock_that_is_set_back_does_not_bring_the_dead_back(watch, clocks):
    _say(watch, clocks, os.getpid())
    clocks.pass_s(10)
    clocks.wall_ns -= 3_600 * SECOND
    watch.look()
    assert watch.life().state == "silent"


def test_a_status_that_is_slow_by_configuration_is_waited_for(still, clocks, monkeypatch):
    watch = Watch(still, wall=lambda: clocks.wall_ns, monotonic=lambda: clocks.monotonic_ns)
    assert watch.about.config.session.status_ms == 100
    monkeypatch.setattr(watch, "_silent_s", 11.0)
    _say(watch, clocks, os.getpid())
    clocks.pass_s(10)
    assert watch.life().state == "running"


def test_orders_without_a_database_are_none(watch):
    assert watch.orders() == {"orders": [], "fills": []}
    assert not (watch.path / "state.sqlite").exists()


@pytest.mark.parametrize("name", ["one#two", "why?", "100%41"])
def test_orders_are_found_whatever_the_path_is_named(still, clocks, name):
    """Behind a # the path was cut off: no orders, and a file of that name beside the session."""
    path = still.rename(still.with_name(name))
    store = Store(path / "state.sqlite", ["BTCUSDT"])
    order = OrderRecord(7, "gs-x-7", 0, 1, 2 * E8, False, 5, 6, 7, "edge", False)
    store.write([(1, RecordKind.ORDER, order)], Account(E8, 1))
    store.close()
    before = sorted(each.name for each in path.parent.iterdir())
    watch = Watch(path, wall=lambda: clocks.wall_ns, monotonic=lambda: clocks.monotonic_ns)
    assert [each["order_id"] for each in watch.orders()["orders"]] == [7]
    assert sorted(each.name for each in path.parent.iterdir()) == before


@pytest.mark.parametrize("damaged", [(b"CREATE TABLE fills", b"CREATE TABLE f\xfflls"), None])
def test_damaged_database_has_no_orders(watch, damaged):
    """A name that is no text, and a number that is none, ended the server."""
    path = watch.path / "state.sqlite"
    with closing(Store(path, ["BTCUSDT"])) as store:
        store.tidy()
    if damaged:
        path.write_bytes(path.read_bytes().replace(*damaged))
    else:
        with closing(sqlite3.connect(path)) as db, db:
            names = "order_id, symbol, side, qty_e8, left_e8, reason, state, sent_ns"
            db.executescript(f"DROP TABLE orders; CREATE TABLE orders ({names})")
            db.execute("INSERT INTO orders (order_id) VALUES (1)")
    assert watch.orders() == {"orders": [], "fills": []}


@pytest.mark.parametrize("damaged", [b"", b"[]"])
def test_a_damaged_status_is_none(watch, damaged):
    (watch.path / "status.json").write_bytes(damaged)
    watch.look()
    assert watch.life().state == "unborn"


@pytest.mark.parametrize(
    "other",
    [
        {"written_ns": []},
        {"written_ns": -1},
        {"running": None},
        {"running": "yes"},
        {"quotes": 7},
        {"quotes": {"end_ns": 1 << 70, "bid": [1.0], "ask": [1.0]}},
        {"quotes": {"end_ns": 7, "bid": [1.0], "ask": ["x"]}},
    ],
)
def test_a_status_of_another_program_is_not_taken(watch, clocks, other):
    """It ended the server, which could not compute with it."""
    _say(watch, clocks, os.getpid())
    said = watch.status
    _say(watch, clocks, os.getpid(), **other)
    assert watch.status is said
    assert watch.life().state == "running"


def test_quotes_of_other_symbols_are_not_taken(watch, clocks):
    count = len(watch.history.symbols)
    for bids, asks in ((count + 1, count + 1), (count, count + 1)):
        quotes = {"end_ns": clocks.wall_ns, "bid": [1.0] * bids, "ask": [2.0] * asks}
        _say(watch, clocks, os.getpid(), quotes=quotes)
        clocks.pass_s(0.5)
    assert watch.history.series(watch.history.symbols[0], {})["prices"] == []


def test_a_directory_without_a_session_is_refused(tmp_path):
    with pytest.raises(UsageError, match="no session here"):
        Watch(tmp_path, wall=lambda: 0, monotonic=lambda: 0)
