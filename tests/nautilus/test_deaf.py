"""A stream of events that tells nothing: what says so, what follows, and when it is trusted again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from gpuscalp.execution.lifecycle import OrderState
from gpuscalp.execution.messages import OrderKind, OrderRequest, ReportKind, TimeInForce
from gpuscalp.execution.reconcile import FoundOrder, FoundTrade
from gpuscalp.execution.remote import Heard
from gpuscalp.nautilus import looks
from gpuscalp.schema import E8, NS_PER_S
from tests.nautilus.test_looks import Scene, found

DEAF = ("account:deaf",)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(looks, "_BREATH_S", 0.01)


class Client:
    """What a stream replaces and calls of the adapter's; it is there whenever it is asked for."""

    def __init__(self) -> None:
        self.begun = 0
        self._resubscribe = self._reauth_and_resubscribe = self._on_resubscribe = lambda *_: None

    async def connect(self) -> None: ...

    async def session_logon(self) -> None: ...

    async def disconnect(self) -> None: ...

    async def subscribe_user_data_stream(self, **_: object) -> None:
        self.begun += 1


class Market:
    """A session at work whose orders are filled; whether an event says so is decided each time."""

    def __init__(self) -> None:
        self.scene, self.client = Scene(found()), Client()
        self.scene.looks.stream.take(self.client)
        self.number = 0
        self.held = 0

    async def begin(self) -> None:
        await self.scene.looks.first()
        self.running = asyncio.create_task(self.scene.looks.run())
        await asyncio.sleep(0)

    def order(self, side: int) -> None:
        """An order leaves, and is filled at the exchange."""
        self.number += 1
        number, self.held = self.number, self.held + side
        market = {"kind": OrderKind.MARKET, "time_in_force": TimeInForce.IOC}
        self.scene.broker.submit(OrderRequest(number, 0, side, E8, **market), 0)  # type: ignore[arg-type]
        trade = FoundTrade(0, number, 100 + number, side, E8, 50 * E8, 0, False, 1)
        order = FoundOrder(0, f"gs-s-{number}", OrderState.FILLED, 100 + number, executed_e8=E8)
        self.scene.account.answers = [found(qty=self.held, trades=[trade], asked={number: order})]

    async def look(self) -> tuple[str, ...]:
        """Return the objections once the account was looked at."""
        counts = self.scene.looks.counts
        before = counts.looks
        self.scene.looks.want("a test")
        while counts.looks == before:
            await asyncio.sleep(0.001)
        return self.scene.looks.objections

    def event(self) -> None:
        self.scene.looks.stream.on_event()

    def told(self, side: int) -> None:
        """An event tells of what was filled."""
        self.order(side)
        self.event()
        fill = {"trade_id": self.number, "side": side, "qty_e8": E8, "price_e8": 50 * E8}
        self.scene.hear(Heard(ReportKind.FILL, 0, 0, self.number, 0, **fill))  # type: ignore[arg-type]


def play(work: Callable[[Market], object]) -> None:
    async def run() -> None:
        market = Market()
        await market.begin()
        await work(market)  # type: ignore[misc]
        market.running.cancel()

    asyncio.run(asyncio.wait_for(run(), 30))


def test_looks_that_find_what_no_event_told_stop_entries_until_one_comes() -> None:
    """A session without its stream went on entering; most of the time its positions had no stop."""

    async def work(market: Market) -> None:
        market.order(1)
        assert await market.look() == (), "one may have met a cut"
        assert await market.look() == (), "nothing new says nothing"
        market.order(-1)
        assert await market.look() == DEAF
        while market.scene.looks.stream.lost:
            await asyncio.sleep(0)
        assert market.client.begun == 1
        market.order(1)
        assert await market.look() == DEAF, "that it was subscribed to says nothing"
        assert not market.scene.looks.stream.lost, "it is given the time to tell something"
        market.order(1)
        assert await market.look() == DEAF
        while market.client.begun < 2:
            await asyncio.sleep(0)
        market.event()
        assert market.scene.looks.objections == ()
        market.order(-1)
        assert await market.look() == (), "it begins anew"

    play(work)


def test_an_event_between_two_looks_shows_that_the_stream_is_there() -> None:
    """What a look finds may be on its way."""

    async def work(market: Market) -> None:
        for _ in range(3):
            market.order(1)
            assert await market.look() == ()
            market.event()
            market.told(-1)
            assert await market.look() == ()
        assert market.client.begun == 0

    play(work)


def test_what_never_arrived_is_nothing_that_an_event_could_tell() -> None:
    async def work(market: Market) -> None:
        broker = market.scene.broker
        market.scene.looks._overdue = lambda: set(broker.orders)  # type: ignore[method-assign]
        for _ in range(3):
            market.order(1)
            market.held -= 1
            market.scene.account.answers = [found(asked={market.number: None})]
            assert await market.look() == ()
        assert market.scene.looks.counts.never_arrived == 3

    play(work)


def test_what_happened_before_the_session_began_is_nobodys_fault() -> None:
    async def work() -> None:
        market = Market()
        market.scene.broker.take(Heard(ReportKind.SEEN, 0, 0, symbol=0, trade_id=0))
        for _ in range(3):
            market.order(1)
            await market.scene.looks.first()
        assert market.scene.looks.counts.found_trades == 3
        assert market.scene.looks.objections == ()

    asyncio.run(asyncio.wait_for(work(), 30))


@pytest.mark.parametrize("held", [False, True])
def test_a_deaf_stream_is_tried_again_when_nothing_is_left_to_tell(
    held: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without orders no event comes: it would be deaf for good."""
    clock = [0]
    monkeypatch.setattr(looks.time, "monotonic_ns", lambda: clock[0])

    async def later(market: Market, seconds: float) -> tuple[str, ...]:
        while market.scene.looks.stream.lost:
            await asyncio.sleep(0)
        clock[0] += round(seconds * NS_PER_S)
        return await market.look()

    async def work(market: Market) -> None:
        for side in (1, 1) if held else (1, -1):
            market.order(side)
            objections = await market.look()
        assert objections == DEAF
        assert await later(market, 59) == DEAF
        if held:
            assert await later(market, 7_200) == DEAF, "its exit has to be told"
            return
        assert await later(market, 2) == ()
        for wait_s in (120, 240, 480, 960, 1_920, 3_600, 3_600):
            market.order(1)
            assert await market.look() == DEAF, "one look is enough"
            market.order(-1)
            assert await later(market, 0) == DEAF
            assert await later(market, wait_s - 1) == DEAF
            assert await later(market, 2) == ()
        market.event()
        market.order(1)
        assert await market.look() == (), "it has told something"

    play(work)


def test_nothing_is_opened_while_the_stream_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    """What looks find meanwhile is no news."""
    monkeypatch.setattr("gpuscalp.nautilus.user_stream._PAUSE_S", 0.001)

    async def work(market: Market) -> None:
        away = True

        async def logon() -> None:
            if away:
                raise ConnectionError("refused")

        market.client.session_logon = logon  # type: ignore[method-assign]
        market.scene.looks.stream.again()
        assert market.scene.looks.objections == DEAF
        for _ in range(3):
            market.order(1)
            assert await market.look() == DEAF
        failed = market.scene.looks.counts.failed
        assert failed > 0
        away = False
        while market.scene.looks.objections:
            await asyncio.sleep(0.001)
        assert market.client.begun == 1

    play(work)
