"""When an account is looked at, and what follows, with an account that says what it is told to."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from time import monotonic
from typing import Any

import pytest

from gpuscalp.config import NautilusConfig
from gpuscalp.errors import FeedError
from gpuscalp.execution.lifecycle import OrderState
from gpuscalp.execution.messages import OrderKind, OrderRequest, ReportKind, TimeInForce
from gpuscalp.execution.reconcile import Found, FoundOrder, FoundTrade
from gpuscalp.execution.remote import Heard, RemoteBroker
from gpuscalp.feeds.rest import WeightBudget
from gpuscalp.nautilus import looks
from gpuscalp.nautilus.looks import Looks
from gpuscalp.schema import E8

START = 1_000 * E8
HOUR = 3_600 * 10**9
STRANGER = FoundOrder(0, "web_1", OrderState.ACCEPTED, 5)


class Account:
    """Answers with a list of Found or errors, the last one again and again."""

    weight = 0

    def __init__(self, answers: Sequence[Found | Exception]) -> None:
        self.answers = list(answers)
        self.cancelled: list[FoundOrder] = []
        self.asked: list[dict[str, int]] = []
        self.checks: list[Exception | None] = [None]  # answers, the last one again and again
        self.checked: list[float] = []  # when, s

    async def check(self) -> None:
        self.checked.append(monotonic())
        answer = self.checks.pop(0) if len(self.checks) > 1 else self.checks[0]
        if answer is not None:
            raise answer

    async def look(self, broker: RemoteBroker, number_of: dict[str, int]) -> Found:
        self.asked.append(number_of)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def cancel(self, order: FoundOrder) -> None:
        self.cancelled.append(order)


class Scene:
    def __init__(self, *answers: Found | Exception, rule: Any = "block") -> None:
        self.broker = RemoteBroker(START, 1)
        self.account = Account(answers)
        self.heard: list[Heard] = []
        self.at: dict[ReportKind, int] = {}  # looks made when a kind was last heard
        self.now_ns = 1_700_000_000 * 10**9 // HOUR * HOUR
        self.rule = rule
        self.budget = WeightBudget(2_400, 200)
        self.begin()

    def begin(self, until_ns: int = 0) -> None:
        self.looks = Looks(
            self.account,
            self.broker,
            session_id="s",
            place=NautilusConfig(unknown=self.rule, recv_window_ms=100),
            symbols=("BTCUSDT",),
            now=lambda: self.now_ns,
            hear=self.hear,
            budget=self.budget,
            until_ns=until_ns,
        )

    def hear(self, heard: Heard) -> None:
        self.heard.append(heard)
        self.at[heard.kind] = len(self.account.asked)
        self.broker.take(heard)

    def first(self) -> None:
        asyncio.run(asyncio.wait_for(self.looks.first(), 30))

    def kinds(self) -> list[ReportKind]:
        return [each.kind for each in self.heard if each.kind is not ReportKind.SEEN]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(looks, "_BREATH_S", 0.01)
    monkeypatch.setattr(looks, "_MARGIN_NS", 0)


def found(qty: int = 0, *, wallet: int = START, orders: Sequence[FoundOrder] = (), **more: Any) -> Found:
    return Found(wallet, [(qty * E8, 50 * E8)], orders, **more)


def test_nothing_new_is_opened_before_the_first_look() -> None:
    scene = Scene(found())
    assert scene.looks.objections == ("account:unseen",)
    scene.first()
    assert scene.looks.objections == ()


def test_a_failed_look_is_made_again_and_counted() -> None:
    scene = Scene(ConnectionError("refused"), found())
    scene.first()
    assert (scene.looks.counts.failed, scene.looks.counts.looks) == (1, 1)


def test_a_stranger_counts_when_it_is_there_twice() -> None:
    scene = Scene(found(qty=2), found(qty=0))
    scene.first()
    assert scene.kinds() == []
    assert not scene.looks.blocked


def test_a_symbol_that_moves_during_the_look_says_nothing() -> None:
    scene = Scene(found(qty=2))
    look = scene.account.look

    async def meanwhile(broker: RemoteBroker, number_of: dict[str, int]) -> Found:
        broker.moves[0] += 1
        return await look(broker, number_of)

    scene.account.look = meanwhile  # type: ignore[method-assign]
    scene.first()
    scene.first()
    assert scene.kinds() == []


def test_a_confirmed_stranger_blocks_and_is_told_once() -> None:
    scene = Scene(found(qty=2))
    scene.first()
    assert scene.kinds() == [ReportKind.STRANGER]
    assert scene.heard[-1].reason == "position BTCUSDT +2"
    assert scene.looks.blocked
    scene.first()
    assert scene.kinds() == [ReportKind.STRANGER]


@pytest.mark.parametrize(("rule", "more"), [("adopt", []), ("close", [ReportKind.CLOSE])])
def test_rules_take_over_after_the_strangers_orders_are_gone(rule: str, more: list[ReportKind]) -> None:
    both = found(qty=2, orders=[STRANGER])
    scene = Scene(both, both, both, found(qty=2), rule=rule)
    scene.first()
    assert set(scene.account.cancelled) == {STRANGER}
    assert scene.kinds() == [ReportKind.FILL, *more]
    # The first look without their order is not the same finding yet; the second is.
    assert scene.at[ReportKind.FILL] == 5
    assert scene.broker.account.positions[0].qty_e8 == 2 * E8
    assert scene.looks.difference is not None
    assert not scene.looks.difference.strange


def test_an_operator_hears_that_the_account_cannot_be_looked_at() -> None:
    """`adopt --close` said that it was done, while the position stayed open."""
    scene = Scene(found(qty=2), found(qty=2), ConnectionError("refused"))
    scene.first()
    assert scene.looks.blocked
    with pytest.raises(FeedError) as told:
        asyncio.run(scene.looks.take_over("close"))
    assert told.value.value == "ConnectionError: refused"
    assert scene.kinds() == [ReportKind.STRANGER]


def test_an_order_that_never_arrived_is_waited_for_first() -> None:
    scene = Scene(found(asked={1: None}))
    scene.broker.submit(OrderRequest(1, 0, 1, E8, kind=OrderKind.MARKET, time_in_force=TimeInForce.IOC), 0)
    scene.looks._began_ns -= HOUR  # the session has run for long
    scene.looks.sent(1)
    scene.first()
    assert scene.looks.counts.looks >= 5, "the window is ten looks long"
    assert scene.kinds() == [ReportKind.REJECTED]
    assert scene.looks.counts.never_arrived == 1
    assert all(names == {"gs-s-1": 1} for names in scene.account.asked)


def test_funding_is_booked_and_a_transfer_is_not() -> None:
    scene = Scene(found())
    scene.first()
    scene.hear(Heard(ReportKind.FILL, 0, 0, -1, 0, trade_id=3, side=1, qty_e8=E8, price_e8=50 * E8))
    paid = found(qty=1, wallet=START - E8)
    scene.account.answers = [found(qty=1), paid]
    for _ in range(2):
        scene.first()
    assert scene.looks.counts.wallet_differences == 0
    scene.now_ns += HOUR
    for _ in range(2):
        scene.first()
    assert scene.kinds()[-1] is ReportKind.FUNDING
    assert scene.broker.account.funding_e8 == -E8
    scene.account.answers = [found(qty=1, wallet=START + 500 * E8)]
    for _ in range(2):
        scene.first()
    assert scene.kinds().count(ReportKind.FUNDING) == 1
    assert scene.looks.counts.wallet_differences == 1
    assert scene.looks.status()["wallet_difference_usdt"] == 501.0


CENT = E8 // 100


class Balance:
    """A scene that is long 1,000 from 07:00 on, and what its exchange shows beside its trades."""

    def __init__(self) -> None:
        self.day_ns = 1_700_000_000 * 10**9 // (24 * HOUR) * 24 * HOUR
        self.shown = self.trades = 0
        self.scene = Scene(found())
        self.look("07:00:30")
        self.trade(20)
        self.look("07:05:00")

    def trade(self, qty: int) -> None:
        self.trades += 1
        side = 1 if qty > 0 else -1
        fill = {"trade_id": self.trades, "side": side, "qty_e8": abs(qty) * E8, "price_e8": 50 * E8}
        self.scene.hear(Heard(ReportKind.FILL, 0, 0, -1, 0, **fill))

    def look(self, time: str, *, times: int = 1) -> None:
        hour, minute, second = map(int, time.split(":"))
        scene = self.scene
        scene.now_ns = self.day_ns + hour * HOUR + (minute * 60 + second) * 10**9
        held = scene.broker.account.positions[0].qty_e8 // E8
        scene.account.answers = [found(qty=held, wallet=START + self.shown)]
        for _ in range(times):
            scene.first()

    @property
    def funding(self) -> list[int]:
        return [each.money_e8 for each in self.scene.heard if each.kind is ReportKind.FUNDING]

    @property
    def differences(self) -> tuple[int, float]:
        status = self.scene.looks.status()
        return status["wallet_differences"], status["wallet_difference_usdt"]


@pytest.mark.parametrize("deposit", [30 * E8, 500 * E8, -30 * E8])
def test_a_transfer_neither_passes_for_funding_nor_hides_it(deposit: int) -> None:
    """A small one was once booked as funding at the next full hour; a large one ended all booking of it."""
    balance = Balance()
    balance.shown += deposit
    balance.look("07:10:00", times=4)
    assert balance.differences == (1, deposit / E8)
    balance.look("08:10:00", times=2)
    assert balance.funding == []
    for time in ("16:00:20", "20:00:20"):
        balance.shown -= 10 * CENT
        balance.look(time, times=2)
    assert balance.funding == [-10 * CENT] * 2
    assert balance.differences == (1, deposit / E8)
    assert balance.scene.broker.account.wallet_e8 == START - 20 * CENT


def test_a_transfer_that_is_too_large_for_funding_is_set_aside_over_a_full_hour_too() -> None:
    balance = Balance()
    balance.look("07:59:40")
    balance.shown += 500 * E8
    balance.look("08:00:10", times=2)
    balance.shown -= 10 * CENT
    balance.look("08:00:40", times=2)
    assert (balance.funding, balance.differences) == ([-10 * CENT], (1, 500.0))


def test_two_transfers_count_as_two_and_one_that_comes_back_leaves_nothing() -> None:
    balance = Balance()
    for minute in (10, 20):
        balance.shown += 30 * E8
        balance.look(f"07:{minute}:00", times=2)
    assert balance.differences == (2, 60.0)
    balance.shown = 0
    balance.look("07:30:00")
    balance.shown -= 10 * CENT
    balance.look("08:00:20", times=2)
    assert (balance.funding, balance.differences) == ([-10 * CENT], (2, 0.0))


def test_funding_that_shows_some_seconds_after_the_hour_is_booked() -> None:
    balance = Balance()
    balance.look("08:00:05", times=2)
    balance.shown -= 10 * CENT
    balance.look("08:00:35", times=2)
    assert (balance.funding, balance.differences) == ([-10 * CENT], (0, 0.0))


def test_funding_of_a_position_that_was_held_between_two_looks_only_is_booked() -> None:
    balance = Balance()
    balance.trade(-20)
    balance.look("07:59:40")
    balance.trade(20)
    balance.scene.looks.poll()
    balance.trade(-20)
    balance.shown -= 10 * CENT
    balance.look("08:00:10", times=2)
    assert (balance.funding, balance.differences) == ([-10 * CENT], (0, 0.0))


@pytest.mark.parametrize(
    ("at", "shown", "funding", "differences"),
    [
        ("07:40:00", 0, [], (0, 30.0)),
        ("07:40:00", 5 * E8, [], (1, 35.0)),
        ("09:20:00", -10 * CENT, [-10 * CENT], (0, 30.0)),  # charged while no process ran
    ],
)
def test_a_restart_knows_what_was_set_aside_and_until_when_it_ran(
    at: str, shown: int, funding: list[int], differences: tuple[int, float]
) -> None:
    balance = Balance()
    balance.shown += 30 * E8
    balance.look("07:10:00", times=2)
    balance.shown += shown
    balance.scene.begin(balance.scene.now_ns)
    balance.look(at, times=2)
    assert (balance.funding, balance.differences) == (funding, differences)


def test_a_silent_account_is_not_relied_on(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene(found())
    scene.first()
    clock: Callable[[], int] = looks.time.monotonic_ns
    monkeypatch.setattr(looks.time, "monotonic_ns", lambda: clock() + 100 * 10**9)
    assert scene.looks.objections == ("account:unreachable",)


def test_a_trade_of_our_ended_order_is_no_strangers() -> None:
    late = FoundTrade(0, 11, 7, 1, 2 * E8, 50 * E8, 0, False, 1)
    scene = Scene(found(qty=2, trades=[late], client_ids={7: "gs-s-4"}))
    scene.broker.take(Heard(ReportKind.SEEN, 0, 0, symbol=0, trade_id=10))
    scene.first()
    assert scene.kinds() == [ReportKind.FILL]
    assert scene.looks.counts.found_trades == 1
    assert scene.broker.account.positions[0].qty_e8 == 2 * E8
    assert not scene.looks.blocked


def test_only_what_became_of_our_orders_shows_that_the_stream_is_deaf() -> None:
    scene, missed = Scene(found(trades=[FoundTrade(0, 11, 7, 1, E8, 50 * E8, 0, False, 1)])), list[bool]()
    scene.looks.stream.on_look = lambda **told: missed.append(told["missed"])  # type: ignore[method-assign]
    scene.first()
    assert (missed, [each.kind for each in scene.heard]) == ([False], [ReportKind.SEEN])


def test_an_order_that_was_sent_during_the_look_is_no_strangers() -> None:
    scene = Scene(found(orders=[FoundOrder(0, "gs-s-1", OrderState.ACCEPTED, 5)]))
    look = scene.account.look

    async def meanwhile(broker: RemoteBroker, number_of: dict[str, int]) -> Found:
        broker.submit(OrderRequest(1, 0, 1, E8, E8, OrderKind.LIMIT, TimeInForce.GTC), 0)
        scene.account.look = look  # type: ignore[method-assign]
        return await look(broker, number_of)

    scene.account.look = meanwhile  # type: ignore[method-assign]
    scene.first()
    assert (scene.looks.counts.looks, scene.kinds()) == (1, [ReportKind.ACCEPTED])


def test_a_cancellation_that_does_not_get_through_is_tried_again() -> None:
    both = found(orders=[STRANGER])
    scene = Scene(both, both, both, found(), rule="close")
    cancel, errors = scene.account.cancel, [ConnectionError("reset")]

    async def unsure(order: FoundOrder) -> None:
        if errors:
            raise errors.pop()
        await cancel(order)

    scene.account.cancel = unsure  # type: ignore[method-assign]
    scene.first()
    assert (scene.account.cancelled, scene.looks.strange_names) == ([STRANGER], {"web_1"})
    assert scene.looks.counts.failed == 1


def test_a_stranger_is_not_gone_because_a_look_could_not_tell() -> None:
    scene = Scene(found(qty=2))
    scene.first()
    assert scene.looks.blocked
    look = scene.account.look

    async def meanwhile(broker: RemoteBroker, number_of: dict[str, int]) -> Found:
        broker.moves[0] += 1
        return await look(broker, number_of)

    scene.account.look = meanwhile  # type: ignore[method-assign]
    scene.first()
    assert scene.looks.blocked
    scene.account.look = look  # type: ignore[method-assign]
    scene.account.answers = [found()]
    scene.first()
    assert not scene.looks.blocked
