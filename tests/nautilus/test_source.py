# what is imported below needs what is looked for first
"""The source of a session in NautilusTrader, without a node."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from gpuscalp.nautilus.installed import LIVE
from tests.tools import no_nautilus

if reason := no_nautilus(LIVE):
    pytest.skip(reason, allow_module_level=True)

from gpuscalp.execution.messages import OrderKind, OrderRequest, TimeInForce
from gpuscalp.execution.reconcile import Difference
from gpuscalp.execution.remote import RemoteBroker
from gpuscalp.live.records import Command
from gpuscalp.nautilus.live import NautilusSource
from gpuscalp.schema import E8


def test_nothing_leaves_before_the_account_was_looked_at() -> None:
    """A flattening may be asked for while the node starts: it must not end the session."""
    source = NautilusSource.__new__(NautilusSource)
    source._open = False
    broker = source._broker = RemoteBroker(1_000 * E8, 1)
    broker.submit(OrderRequest(1, 0, 1, E8, kind=OrderKind.MARKET, time_in_force=TimeInForce.IOC), 0)
    source.send()
    assert broker.unsent() == [], "nor does it leave later: the first look says that it never arrived"
    assert list(broker.orders) == [1]


def test_an_end_leaves_no_entry_that_rests() -> None:
    source = NautilusSource.__new__(NautilusSource)
    broker = source._broker = RemoteBroker(1_000 * E8, 1)
    market = {"kind": OrderKind.MARKET, "time_in_force": TimeInForce.IOC}
    broker.submit(OrderRequest(1, 0, 1, E8, 50 * E8), 0)
    broker.submit(OrderRequest(2, 0, -1, E8, 51 * E8, reduce_only=True), 0)
    broker.submit(OrderRequest(3, 0, -1, E8, 49 * E8, OrderKind.STOP_MARKET, reduce_only=True), 0)
    broker.submit(OrderRequest(4, 0, 1, E8, **market), 0)  # type: ignore[arg-type]
    ended: list[str] = []
    source._session = SimpleNamespace(about=SimpleNamespace(session_id="s"))  # type: ignore[assignment]
    source._link = SimpleNamespace(end=ended.append)  # type: ignore[assignment]
    source._end_entries()
    assert ended == ["gs-s-1"], "what protects a position stays"


def test_resume_is_refused_while_a_stranger_may_still_be_there() -> None:
    source = NautilusSource.__new__(NautilusSource)
    source._symbols = ("BTCUSDT",)
    looks = SimpleNamespace(difference=Difference({}, (), 0), blocked=True)
    source._looks = looks  # type: ignore[assignment]
    assert source.objection(Command.RESUME)
    assert source.objection(Command.FLATTEN) == ""
    looks.blocked = False
    assert source.objection(Command.RESUME) == ""
