# what is imported below needs what is looked for first
"""The source of a session in NautilusTrader, without a node."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from gpuscalp.nautilus.installed import LIVE
from tests.tools import no_nautilus

if reason := no_nautilus(LIVE):
    pytest.skip(reason, allow_module_level=True)

from nautilus_trader.model.currencies import BNB, USDT
from nautilus_trader.model.enums import LiquiditySide, OrderSide
from nautilus_trader.model.objects import Money, Price, Quantity

from gpuscalp.config import LiveConfig, OrdersConfig
from gpuscalp.errors import FeedError, UsageError
from gpuscalp.execution.messages import OrderKind, OrderRequest, ReportKind, TimeInForce
from gpuscalp.execution.reconcile import Difference
from gpuscalp.execution.remote import Heard, RemoteBroker
from gpuscalp.live.records import Command
from gpuscalp.live.source import TIME_IS_UP
from gpuscalp.nautilus import live
from gpuscalp.nautilus.ending import Ending
from gpuscalp.nautilus.keys import Keys
from gpuscalp.nautilus.link import Link
from gpuscalp.nautilus.live import NautilusSource
from gpuscalp.schema import E8
from tests.live.sessions import instruments

# What CloudFront puts between an exchange and its clients when it does not reach it.
PAGE = """<!DOCTYPE HTML PUBLIC "-//W3C//DTD HTML 4.01 Transitional//EN">
<HTML><HEAD><META HTTP-EQUIV="Content-Type" CONTENT="text/html; charset=iso-8859-1">
<TITLE>ERROR: The request could not be satisfied</TITLE></HEAD><BODY><H1>502 ERROR</H1></BODY></HTML>"""


def driver(**more: Any) -> Any:
    """Return a session's driver that does nothing."""
    parts = {"failure": None, "guarded": lambda action: action(), "kick": lambda **_: None, "stop_reason": ""}
    return SimpleNamespace(**parts | {"watch_signals": lambda: None} | more)


class Scene:
    """A source that has sent orders, what it has heard and asked for, and Nautilus as it is told to be."""

    def __init__(self, *requests: OrderRequest, knows: bool = True) -> None:
        source = self.source = NautilusSource.__new__(NautilusSource)
        broker = self.broker = source._broker = RemoteBroker(1_000 * E8, 1)
        for each in requests:
            broker.submit(each, 0)
        self.heard: list[Heard] = []
        self.wanted: list[str] = []
        source._names = ("BTCUSDT-PERP.BINANCE",)
        source._timekeeper = SimpleNamespace(  # type: ignore[assignment]
            now=lambda: 5, close_frames=lambda _: None
        )
        source._session = SimpleNamespace(  # type: ignore[assignment]
            about=SimpleNamespace(session_id="s"), market=SimpleNamespace(exch_ns=0)
        )
        self.ended: list[str] = []  # through Nautilus
        self.past: list[str] = []
        self.failed: list[Exception] = []
        self.error: Exception | None = None
        self.knows = knows
        self.executed_e8: int | None = 0
        source._account = SimpleNamespace(  # type: ignore[assignment]
            quote="USDT", end=self.end_past, executed_e8=self.ask_executed
        )
        source._looks = SimpleNamespace(  # type: ignore[assignment]
            want=self.wanted.append,
            failed=self.failed.append,
            patience_s=0.0,
            sent=lambda _: None,
            check=self.check,
            poll=lambda: None,
            strange_symbols=frozenset(),
            strange_names=set(),
            stream=None,
            error="",
        )
        self.sent: list[str] = []
        source._link = SimpleNamespace(  # type: ignore[assignment]
            filled_e8=lambda _: 0, is_closed=lambda _: False, end=self.end, send=self.send
        )
        source._ending = Ending(source._account, "s", instruments()[:1], OrdersConfig())
        source._driver = driver()
        source._calling = set()
        source._open, source._closing, source._withheld = True, False, set()
        source._hear = self.hear  # type: ignore[method-assign]

    async def check(self) -> None: ...

    def end(self, name: str) -> bool:
        if self.knows:
            self.ended.append(name)
        return self.knows

    def send(self, request: OrderRequest, name: str) -> None:
        self.sent.append(name)

    async def ask_executed(self, name: str, request: OrderRequest) -> int | None:
        assert (name, request.order_id) == ("gs-s-1", 1)
        if self.error is not None:
            raise self.error
        return self.executed_e8

    async def end_past(self, name: str, request: OrderRequest) -> None:
        self.past.append(name)
        if self.error is not None:
            raise self.error

    def hear(self, heard: Heard) -> None:
        self.heard.append(heard)
        self.broker.take(heard)

    def tell(self, name: str, number: int = 1, **more: Any) -> None:
        event = type(name, (SimpleNamespace,), {})(
            client_order_id=f"gs-s-{number}", instrument_id="BTCUSDT-PERP.BINANCE", ts_event=4, **more
        )
        self.source.on_order_event(event)

    async def tell_and_wait(self, name: str, **more: Any) -> None:
        self.tell(name, **more)
        assert self.heard == [], "nothing is heard before the exchange has answered"
        await asyncio.gather(*self.source._calling)

    def kinds(self) -> list[ReportKind]:
        return [each.kind for each in self.heard]


def market(number: int = 1, side: int = 1, *, reduce_only: bool = False) -> OrderRequest:
    kind, force = OrderKind.MARKET, TimeInForce.IOC
    return OrderRequest(number, 0, side, E8, kind=kind, time_in_force=force, reduce_only=reduce_only)


def test_nothing_leaves_before_the_account_was_looked_at() -> None:
    """A flattening may be asked for while the node starts: it must not end the session."""
    source = NautilusSource.__new__(NautilusSource)
    source._open = False
    broker = source._broker = RemoteBroker(1_000 * E8, 1)
    broker.submit(OrderRequest(1, 0, 1, E8, kind=OrderKind.MARKET, time_in_force=TimeInForce.IOC), 0)
    source.send()
    assert broker.unsent() == [], "nor does it leave later: the first look says that it never arrived"
    assert list(broker.orders) == [1]


@pytest.mark.parametrize("waits", ["for the account", "for the node"])
@pytest.mark.parametrize(("reason", "ends"), [(TIME_IS_UP, FeedError), ("SIGINT", asyncio.CancelledError)])
def test_a_node_that_never_came_up_is_a_failure_when_time_is_up(
    reason: str, ends: type[BaseException], waits: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A short run over an exchange that Nautilus could not read ended well, with no frame."""
    source = Scene().source
    stopped: list[bool] = []

    async def for_ever(*_: Any) -> None:
        await asyncio.sleep(3_600)

    async def stop() -> None:
        stopped.append(True)

    node = SimpleNamespace(kernel=SimpleNamespace(start_async=for_ever), stop_async=stop)
    monkeypatch.setattr(live, "make_node", lambda *_, **__: node)
    source._config, source._keys = LiveConfig(), Keys("", "")
    if waits == "for the account":
        source._looks.check = for_ever  # type: ignore[method-assign]
    source._timekeeper.watch = for_ever  # type: ignore[method-assign]
    source._driver = driver(stop_reason=reason)
    source._started = source._open = False

    async def run() -> None:
        task = asyncio.create_task(source._run(tmp_path))
        await asyncio.sleep(0.01)
        task.cancel()
        await task

    with pytest.raises(ends):
        asyncio.run(run())
    assert stopped == [True] * (waits == "for the node")


@pytest.mark.parametrize("way", ["send", "again", "entries"])
def test_an_end_that_nautilus_would_not_ask_for_is_asked_past_it(way: str) -> None:
    """It has closed the order after a lost answer, or has asked once in vain: the order rested for good."""
    scene = Scene(OrderRequest(1, 0, 1, E8, 50 * E8), knows=False)
    source, broker = scene.source, scene.broker
    broker.unsent()
    broker.cancel(1, 0)

    async def ask() -> None:
        if way == "entries":
            await source._ending.close(broker, (), source._end, lambda: False)
        else:
            {"send": source.send, "again": source._cancel_again}[way]()
        await asyncio.gather(*source._calling)

    asyncio.run(ask())
    assert scene.past == ["gs-s-1"]
    assert len(scene.wanted) == 1
    scene.error = ConnectionError("reset")
    broker.cancel(1, 0)
    asyncio.run(ask())
    assert scene.failed == [scene.error]


@pytest.mark.parametrize("way", ["end", "confirm"])
def test_no_call_goes_past_nautilus_while_the_exchange_takes_none(way: str) -> None:
    scene = Scene(OrderRequest(1, 0, 1, E8, 50 * E8), knows=False)
    source, scene.executed_e8 = scene.source, E8
    source._looks.patience_s = 60.0  # type: ignore[misc]

    async def ask() -> None:
        if way == "end":
            scene.broker.cancel(1, 0)
            source._cancel_again()
        else:
            scene.tell("OrderCanceled")
        assert not source._calling

    asyncio.run(ask())
    assert (scene.past, scene.heard) == ([], [])
    assert scene.wanted[-1] == "the exchange takes no calls", "a look follows"
    source._open = True
    with pytest.raises(UsageError, match="wait 60 s"):
        asyncio.run(source.take_over("adopt"))


@pytest.mark.parametrize(
    ("order", "asks"),
    [
        (None, False),
        ({"is_closed": True, "is_pending_cancel": False}, False),
        ({"is_closed": False, "is_pending_cancel": True}, False),
        ({"is_closed": False, "is_pending_cancel": False}, True),
    ],
)
def test_nautilus_is_asked_for_an_end_once(order: dict[str, bool] | None, asks: bool) -> None:
    asked: list[Any] = []
    known = None if order is None else SimpleNamespace(**order)
    link = SimpleNamespace(cache=SimpleNamespace(order=lambda _: known), cancel_order=asked.append)
    assert Link.end(link, "gs-s-1") is asks
    assert asked == ([known] if asks else [])


def test_resume_is_refused_while_a_stranger_may_still_be_there() -> None:
    source = NautilusSource.__new__(NautilusSource)
    source._symbols = ("BTCUSDT",)
    looks = SimpleNamespace(difference=Difference({}, (), 0), blocked=True)
    source._looks = looks  # type: ignore[assignment]
    assert source.objection(Command.RESUME)
    assert source.objection(Command.FLATTEN) == ""
    looks.blocked = False
    assert source.objection(Command.RESUME) == ""


@pytest.mark.parametrize("reason", [PAGE, "Canceled retry", "REJECTED", "{'code': -1007, 'msg': 'Timeout'}"])
def test_a_refusal_that_is_not_the_exchanges_word_ends_no_order(reason: str) -> None:
    """The page of a proxy once counted as code -8859: the order was given up, and rested."""
    scene = Scene(market())
    scene.tell("OrderRejected", reason=reason)
    assert scene.heard == []
    assert len(scene.wanted) == 1
    assert list(scene.broker.orders) == [1]


@pytest.mark.parametrize("reason", ["{'code': -2019, 'msg': 'No.'}", '{"code":-2019,"msg":"No."}'])
def test_a_refusal_by_the_exchange_ends_an_order(reason: str) -> None:
    scene = Scene(market())
    scene.tell("OrderRejected", reason=reason)
    assert [(each.kind, each.code) for each in scene.heard] == [(ReportKind.REJECTED, -2019)]
    assert scene.broker.orders == {}


def test_an_exit_that_has_nothing_to_reduce_asks_for_a_look() -> None:
    scene = Scene(market(1, -1, reduce_only=True))
    scene.tell("OrderRejected", reason="{'code': -2022, 'msg': 'ReduceOnly Order is rejected.'}")
    assert scene.kinds() == [ReportKind.REJECTED]
    assert len(scene.wanted) == 1


def filled(trade_id: str = "7", **more: Any) -> dict[str, Any]:
    """Return what an OrderFilled says: the whole order at 50, for half a dollar."""
    usual = {
        "trade_id": trade_id,
        "venue_order_id": SimpleNamespace(value="90"),
        "commission": Money(0.5, USDT),
        "order_side": OrderSide.BUY,
        "last_qty": Quantity.from_str("1"),
        "last_px": Price.from_str("50"),
        "liquidity_side": LiquiditySide.TAKER,
    }
    return usual | more


@pytest.mark.parametrize(("commission", "fee"), [(Money(0.5, USDT), E8 // 2), (Money(0.001, BNB), 0)])
def test_a_fill_is_heard_whatever_its_fee_was_paid_in(commission: Money, fee: int) -> None:
    """With fees in BNB a position once had no stop until a look had found it, up to 15 s later."""
    scene = Scene(market())
    scene.tell("OrderFilled", **filled(commission=commission))
    (heard,) = scene.heard
    assert (heard.qty_e8, heard.price_e8, heard.fee_e8, heard.trade_id) == (E8, 50 * E8, fee, 7)
    # A look tells of a fee that is in no balance here, and that soon.
    assert scene.wanted == ([] if fee else ["order 1: fee in BNB"])


@pytest.mark.parametrize(
    "more",
    [{"last_px": Price.from_str("0")}, {"last_qty": Quantity.from_str("0")}, {"trade_id": "ALGO-3"}],
)
def test_a_fill_without_a_price_is_left_to_a_look(more: dict[str, Any]) -> None:
    """Nautilus makes one where the exchange's message lacks it; written down, no restart could book it."""
    scene = Scene(market())
    scene.tell("OrderFilled", **filled(**more))
    assert scene.heard == []
    assert len(scene.wanted) == 1


@pytest.mark.parametrize("name", ["OrderCanceled", "OrderExpired"])
def test_an_end_of_an_entry_waits_for_a_trade_that_its_stream_has_lost(name: str) -> None:
    """The trader thought that it was flat, and entered again."""
    scene = Scene(OrderRequest(1, 0, 1, E8, 50 * E8))
    scene.executed_e8 = E8 // 4
    scene.source._link.is_closed = lambda _: True  # type: ignore[method-assign]
    asyncio.run(scene.tell_and_wait(name))
    assert [each.executed_e8 for each in scene.heard] == [E8 // 4]
    assert list(scene.broker.orders) == [1], "it waits for the trade"
    assert scene.wanted == []
    scene.tell("OrderFilled", **filled(last_qty=Quantity.from_str("0.25")))
    assert scene.broker.orders == {}
    assert scene.broker.account.positions[0].qty_e8 == E8 // 4


@pytest.mark.parametrize("error", [None, ConnectionError("reset")])
def test_an_end_of_an_entry_that_nobody_confirms_is_left_to_a_look(error: Exception | None) -> None:
    scene = Scene(OrderRequest(1, 0, 1, E8, 50 * E8))
    scene.executed_e8, scene.error = None, error
    asyncio.run(scene.tell_and_wait("OrderExpired"))
    assert scene.heard == []
    assert len(scene.wanted) == 1
    assert list(scene.broker.orders) == [1]


def test_an_end_of_what_can_only_reduce_waits_for_nobody() -> None:
    scene = Scene(market(1, -1, reduce_only=True))
    scene.tell("OrderExpired")
    assert scene.kinds() == [ReportKind.EXPIRED]
    assert scene.broker.orders == {}


def test_no_node_is_made_before_the_exchange_answers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The check at the start was the only call that nobody made again."""
    source, order = Scene().source, []

    async def check() -> None:
        order.append("checked")

    def make_node(*_: Any, **__: Any) -> None:
        order.append("made")
        raise InterruptedError

    monkeypatch.setattr(live, "make_node", make_node)
    source._looks.check = check  # type: ignore[method-assign]
    source._config, source._keys = LiveConfig(), Keys("", "")
    with pytest.raises(InterruptedError):
        asyncio.run(source._run(tmp_path))
    assert order == ["checked", "made"]
