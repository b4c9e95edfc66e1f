# what is imported below needs what is looked for first
"""What a session in NautilusTrader makes of what it is told: events of orders, rows, and the node's start."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from gpuscalp.nautilus.installed import LIVE
from tests.tools import no_nautilus

if reason := no_nautilus(LIVE):
    pytest.skip(reason, allow_module_level=True)

from gpuscalp.config import LiveConfig, NautilusConfig
from gpuscalp.errors import FeedError, UsageError
from gpuscalp.execution.messages import OrderRequest, ReportKind
from gpuscalp.execution.reconcile import Difference
from gpuscalp.execution.remote import Heard
from gpuscalp.nautilus import ending, live
from gpuscalp.nautilus.keys import Keys
from gpuscalp.nautilus.live import NautilusSource
from gpuscalp.schema import E8, TICK, TickKind
from tests.nautilus.test_source import Scene, driver, filled, market

ALARM = ReportKind.ALARM


def foreign(scene: Scene, client: str, name: str = "OrderAccepted") -> None:
    event = type(name, (SimpleNamespace,), {})(client_order_id=client, ts_event=4)
    scene.source.on_order_event(event)


def scene_with(unknown: Any, *strange: str) -> Scene:
    scene = Scene()
    scene.source._config = LiveConfig(nautilus=NautilusConfig(unknown=unknown))
    scene.source._alarmed = set()
    scene.source._looks.strange_names = set(strange)
    return scene


def test_what_nautilus_has_concluded_by_itself_is_not_booked_and_looked_at() -> None:
    scene = Scene(market())
    scene.tell("OrderFilled", reconciliation=True, **filled())
    assert (scene.heard, len(scene.wanted)) == ([], 1)
    assert list(scene.broker.orders) == [1]


@pytest.mark.parametrize("name", ["OrderInitialized", "OrderSubmitted", "OrderPendingCancel"])
def test_what_says_nothing_of_the_exchange_is_passed_over(name: str) -> None:
    scene = Scene(market())
    scene.tell(name, reconciliation=True)
    assert (scene.heard, scene.wanted) == ([], [])


def test_an_order_counts_as_sent_when_nautilus_sends_it() -> None:
    """A loop that stood still before that made it look overdue: it was given up, and arrived after all."""
    scene, sent = Scene(market()), []
    scene.source._looks.sent = sent.append  # type: ignore[method-assign]
    scene.source.send()
    scene.tell("OrderSubmitted")
    assert (sent, scene.sent) == ([1, 1], ["gs-s-1"])
    foreign(scene, "web_1", "OrderSubmitted")
    assert sent == [1, 1]
    assert (scene.heard, scene.wanted) == ([], [])


def test_an_order_that_nautilus_has_closed_and_we_have_not_is_looked_at() -> None:
    """It closes what it could not get an answer about: the order may rest."""
    scene = Scene(market(), market(2))
    scene.source._link.is_closed = lambda name: name == "gs-s-2"  # type: ignore[method-assign]
    scene.tell("OrderAccepted", 1)
    assert scene.wanted == []
    scene.tell("OrderAccepted", 2)
    assert len(scene.wanted) == 1
    scene.tell("OrderFilled", 2, **filled())
    assert len(scene.wanted) == 1, "by now it has ended for both"


def test_a_cancellation_that_failed_is_heard_and_looked_at() -> None:
    scene = Scene(OrderRequest(1, 0, 1, E8, 50 * E8))
    scene.broker.cancel(1, 0)
    scene.tell("OrderCancelRejected", reason="{'code': -2011, 'msg': 'Unknown order sent.'}")
    assert [(each.kind, each.code) for each in scene.heard] == [(ReportKind.CANCEL_REJECTED, -2011)]
    assert len(scene.wanted) == 1
    assert not scene.broker.orders[1].cancelling


def test_of_an_order_that_has_ended_only_trades_are_heard() -> None:
    scene = Scene()
    for name in ("OrderAccepted", "OrderExpired"):
        scene.tell(name)
    assert scene.heard == []
    scene.tell("OrderFilled", **filled())
    assert scene.kinds() == [ReportKind.FILL], "its trade has changed the position all the same"
    assert scene.broker.account.positions[0].qty_e8 == E8


@pytest.mark.parametrize(
    ("client", "unknown", "alarms"),
    [
        ("web_1", "block", 1),
        ("web_1", "adopt", 0),
        ("web_1", "close", 0),
        ("autoclose-1", "adopt", 1),
        ("adl_autoclose", "close", 1),
        ("gs-another-1", "block", 1),
    ],
)
def test_an_order_that_was_not_sent_from_here_alarms_once(client: str, unknown: str, alarms: int) -> None:
    """Who is asked to adopt has wanted the orders of others, but not the exchange's own."""
    scene = scene_with(unknown)
    for count in (1, 2):
        foreign(scene, client)
        assert len(scene.wanted) == count, "a look each time"
    assert scene.kinds() == [ALARM] * alarms
    foreign(scene, f"{client}0")
    assert scene.kinds() == [ALARM] * 2 * alarms


def test_an_order_that_a_look_has_found_alarms_no_more() -> None:
    scene = scene_with("block", "web_1")
    foreign(scene, "web_1")
    assert (scene.kinds(), len(scene.wanted)) == ([], 1)


def ticks_at(*exch_ns: int) -> np.ndarray:
    ticks = np.zeros(len(exch_ns), TICK)
    ticks["exch_ns"] = exch_ns
    return ticks


def test_rows_are_handed_on_together_and_none_before_the_first_look() -> None:
    source, waiting, happened, takes = Scene().source, [ticks_at(1)], [], []
    source._streams = SimpleNamespace(on_event=lambda *words: happened.append(words[:2]))  # type: ignore[assignment]
    source._link.rows = SimpleNamespace(  # type: ignore[assignment]
        take=lambda: (takes.append(1), waiting.pop() if waiting else ticks_at())[1]
    )
    source._clock = SimpleNamespace(offset_ns=None, on_event=lambda _, exch_ns: happened.append(exch_ns))  # type: ignore[assignment]
    source._driver = SimpleNamespace(  # type: ignore[assignment]
        guarded=lambda action: action(), kick=lambda: happened.append("kicked")
    )
    source._session.on_ticks = lambda ticks, _: happened.append(len(ticks))  # type: ignore[method-assign,assignment,misc]
    source._flushing, source._open = False, False

    async def bring() -> None:
        source.on_rows(0, TickKind.TRADE)
        assert (happened, waiting) == ([(0, TickKind.TRADE)], []), "left out, but the stream is alive"
        happened.clear()
        source._open = True
        for kind in (TickKind.QUOTE, TickKind.TRADE):
            source.on_rows(0, kind)
        waiting.append(ticks_at(5, 9, 7))
        await asyncio.sleep(0)
        assert happened == [(0, TickKind.QUOTE), (0, TickKind.TRADE), 9, 3, "kicked"]
        assert len(takes) == 2, "once before, and once for both"
        happened.clear()
        source.on_rows(0, TickKind.MARK)  # without a row
        await asyncio.sleep(0)
        source.on_rows(0, TickKind.MARK)
        waiting.append(ticks_at(10))
        await asyncio.sleep(0)
        assert happened == [(0, TickKind.MARK)] * 2 + [10, 1, "kicked"]

    asyncio.run(bring())


def test_time_closes_no_frame_before_the_first_look() -> None:
    source, happened = Scene().source, []
    source._driver = SimpleNamespace(guarded=lambda action: action())  # type: ignore[assignment]
    source._timekeeper.close_frames = lambda _: happened.append("frames")  # type: ignore[method-assign]
    source._looks.poll = lambda: happened.append("looks")  # type: ignore[method-assign]
    source._open = False
    source.poll(1)
    assert happened == []
    source._open = True
    source.poll(1)
    assert happened == ["frames", "looks"]


def test_nothing_is_taken_over_before_the_first_look() -> None:
    source = Scene().source
    source._symbols = ("BTCUSDT",)

    async def take_over(rule: str) -> Difference:
        assert rule == "close"
        return Difference({0: E8}, (), 0)

    source._looks.take_over = take_over  # type: ignore[method-assign,assignment]
    source._open = False
    with pytest.raises(UsageError, match="not looked at yet"):
        asyncio.run(source.take_over("close"))
    source._open = True
    assert asyncio.run(source.take_over("close")) == "position BTCUSDT +1"


@pytest.mark.parametrize("lacks", ["nothing", "a strategy", "a symbol"])
def test_a_session_decides_between_the_first_look_and_its_end(
    lacks: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Nothing leaves before the account was looked at, and no entry once the end has begun."""
    scene = Scene(OrderRequest(1, 0, 1, E8, 50 * E8))
    source, happened = scene.source, []
    scene.broker.cancel(1, 0)  # by a process that has died
    scene.broker.unsent()

    async def does(what: str) -> None:
        happened.append((what, source._open, source._closing))
        if what == "started" and lacks != "a strategy":
            source.on_started()
        if what == "looks":
            assert scene.ended == ["gs-s-1"], "once more what a process before had asked for"
            raise FeedError("the end of it")
        if what == "first":
            assert scene.ended == []

    node = SimpleNamespace(
        kernel=SimpleNamespace(start_async=lambda: does("started")), stop_async=lambda: does("stopped")
    )
    monkeypatch.setattr(live, "make_node", lambda *_, **__: node)
    for name, seconds in (
        ("_LAST_CALLS_S", 0.02),
        ("_AGAIN_S", 0.01),
        ("_SECURE_S", 0.02),
        ("_PAUSE_S", 0.01),
    ):
        monkeypatch.setattr(ending, name, seconds)
    source._config, source._keys = LiveConfig(), Keys("", "")
    source._looks.first = lambda: does("first")  # type: ignore[method-assign]
    source._looks.run = lambda: does("looks")  # type: ignore[method-assign]
    source._timekeeper.watch = lambda: asyncio.sleep(3_600)  # type: ignore[method-assign]
    source._driver = driver()
    source._link.complete = lacks != "a symbol"  # type: ignore[misc]
    source._started = source._open = False
    with pytest.raises(FeedError, match="the end of it" if lacks == "nothing" else "did not come up"):
        asyncio.run(source._run(tmp_path))
    if lacks == "nothing":
        assert happened == [
            ("started", False, False),
            ("first", False, False),
            ("looks", True, False),
            ("stopped", True, True),
        ]
        assert len(scene.ended) > 1, "and at the end"
    else:
        assert happened == [("started", False, False), ("stopped", False, False)]
        assert scene.ended == []
    assert not source._open


def test_an_end_waits_for_calls_that_are_under_way_but_not_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    """One of them may be what ends an entry past NautilusTrader."""
    monkeypatch.setattr(live, "_LAST_CALLS_S", 2.0)
    monkeypatch.setattr(ending, "_AGAIN_S", 0.001)
    source, answered = Scene().source, asyncio.Event()

    async def end() -> None:
        quick, hangs = (asyncio.create_task(each) for each in (answered.wait(), asyncio.Event().wait()))
        source._calling = {quick}  # type: ignore[arg-type]
        closing = asyncio.create_task(source._close_entries())
        await asyncio.sleep(0.05)
        assert not closing.done()
        answered.set()
        await closing
        source._calling = {hangs}  # type: ignore[arg-type]
        await asyncio.wait_for(source._close_entries(), 60.0)
        assert not hangs.done()
        hangs.cancel()

    asyncio.run(end())


def test_what_is_heard_is_written_down_and_decided_upon_at_once() -> None:
    """A fill waits for no frame: what protects its position leaves with the next step."""
    source, happened = Scene().source, []
    source._session.on_heard = lambda heard, _: happened.append(heard)  # type: ignore[method-assign,assignment,misc]
    source._driver = SimpleNamespace(  # type: ignore[assignment]
        guarded=lambda action: (happened.append("guarded"), action()),
        kick=lambda *, force: happened.append(("kicked", force)),
    )
    heard = Heard(ReportKind.SEEN, 1, 1, symbol=0)
    NautilusSource._hear(source, heard)
    assert happened == ["guarded", heard, ("kicked", True)]
