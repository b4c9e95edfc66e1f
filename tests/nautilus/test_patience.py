"""Looks at an account when the exchange takes no calls, because there were too many."""

from __future__ import annotations

import asyncio
from time import monotonic, time_ns
from types import SimpleNamespace

import pytest

from gpuscalp.errors import ConfigError, FeedError
from gpuscalp.execution.messages import OrderRequest, ReportKind
from gpuscalp.execution.reconcile import Found
from gpuscalp.execution.remote import Heard, RemoteBroker
from gpuscalp.nautilus import looks
from gpuscalp.schema import E8
from tests.nautilus.test_looks import Scene, found


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(looks, "_BREATH_S", 0.01)


class RefusedError(Exception):
    """What the adapter raises: status, body and headers."""

    def __init__(self, status: int, message: object, headers: dict[str, str]) -> None:
        super().__init__(message)
        self.status, self.message, self.headers = status, message, headers


TOO_MANY = {"code": -1003, "msg": "Too many requests."}


@pytest.mark.parametrize(
    ("status", "headers", "ban_s", "wait_s"),
    [
        (429, {"retry-after": "7"}, 0, 7),
        (429, {}, 0, 60),
        (418, {}, 0, 120),
        (418, {}, 300, 300),
        (400, {}, 0, 0),
    ],
)
def test_a_refused_look_says_how_long_no_call_is_taken(
    status: int, headers: dict[str, str], ban_s: int, wait_s: int
) -> None:
    until_ms = (time_ns() // 10**9 + ban_s) * 1_000
    message = {"code": -1003, "msg": f"IP banned until {until_ms}."} if ban_s else TOO_MANY
    scene = Scene(found())
    scene.looks.failed(RefusedError(status, message, headers))
    assert scene.looks.patience_s == pytest.approx(wait_s, abs=2.0)


@pytest.mark.parametrize("way", ["first", "run", "take_over"])
def test_no_look_is_made_while_the_exchange_takes_no_calls(way: str) -> None:
    """It asked again every two seconds, until the address was banned."""
    scene = Scene(RefusedError(429, TOO_MANY, {"retry-after": "1"}), found())
    begun, asked = monotonic(), []
    look = scene.account.look

    async def timed(broker: RemoteBroker, number_of: dict[str, int]) -> Found:
        asked.append(monotonic() - begun)
        return await look(broker, number_of)

    scene.account.look = timed  # type: ignore[method-assign]

    async def work() -> None:
        if way == "run":
            scene.looks.want("a test")
            running = asyncio.create_task(scene.looks.run())
            while not scene.looks.counts.looks:
                await asyncio.sleep(0.01)
            running.cancel()
        else:
            await (scene.looks.first() if way == "first" else scene.looks.take_over("adopt"))

    asyncio.run(asyncio.wait_for(work(), 30))
    assert len(asked) == 2
    assert asked[1] - asked[0] >= 0.9


def test_a_look_waits_only_for_what_looks_have_used_lately(monkeypatch: pytest.MonkeyPatch) -> None:
    """It waited as long after a quiet minute: so long an entry without an answer stood without a stop."""
    scene = Scene(found())
    scene.account.weight = 100
    scene.begin()
    clock, slept, sleep = [0], [], asyncio.sleep

    async def pass_by(seconds: float) -> None:
        slept.append(seconds)
        clock[0] += round(seconds * 10**9)
        await sleep(0)

    monkeypatch.setattr(looks.time, "monotonic_ns", lambda: clock[0])
    scene.first()
    monkeypatch.setattr(asyncio, "sleep", pass_by)

    async def work() -> None:
        running = asyncio.create_task(scene.looks.run())
        for quiet_s in (12, 0, 2):
            clock[0] += quiet_s * 10**9
            before = scene.looks.counts.looks
            scene.looks.want("a test")
            while scene.looks.counts.looks == before:
                await sleep(0)
        running.cancel()

    asyncio.run(asyncio.wait_for(work(), 30))
    assert slept == [0.01, 5.0, 3.0], "a breath, the whole pause, what is left of it"


def test_a_look_without_an_answer_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection that is half open stood still for ever, and no later look was made."""
    monkeypatch.setattr(looks, "_LOOK_MAX_S", 0.05)
    scene = Scene(found())
    look, asked = scene.account.look, []

    async def hangs_once(broker: RemoteBroker, number_of: dict[str, int]) -> Found:
        asked.append(monotonic())
        if len(asked) == 1:
            await asyncio.Event().wait()
        return await look(broker, number_of)

    scene.account.look = hangs_once  # type: ignore[method-assign]
    asyncio.run(asyncio.wait_for(scene.looks.first(), 30))
    assert (len(asked), scene.looks.counts.failed, scene.looks.counts.looks) == (2, 1, 1)


def test_a_refusal_that_another_call_has_met_holds_up_a_look_too() -> None:
    scene = Scene(found())
    scene.budget.on_reply(429, {"Retry-After": "1"}, b"", time_ns())
    begun = monotonic()
    scene.first()
    assert monotonic() - begun >= 0.9


@pytest.mark.parametrize(
    ("error", "wait_s"),
    [
        (ConnectionError("refused"), 0.0),
        (TimeoutError(), 0.0),
        (RefusedError(503, {"code": -1016, "msg": "This service is no longer available."}, {}), 0.0),
        (RefusedError(503, "<html>", {}), 0.0),
        (RefusedError(400, {"code": -1021, "msg": "Timestamp outside of the recvWindow."}, {}), 0.0),
        (RefusedError(418, TOO_MANY, {"retry-after": "1"}), 0.9),
    ],
)
def test_a_session_waits_for_an_exchange_that_does_not_answer(error: Exception, wait_s: float) -> None:
    """A restart during the exchange's maintenance ended as a defect of ours, with a position open."""
    scene = Scene(found())
    scene.account.checks = [error, None]
    asyncio.run(asyncio.wait_for(scene.looks.check(), 30))
    first, second = scene.account.checked
    assert second - first >= wait_s
    assert (scene.looks.counts.failed, scene.looks.error) == (1, "")
    assert scene.looks.objections == ("account:unseen",), "it was not looked at yet"


@pytest.mark.parametrize("code", [-1022, -2014, -2015])
def test_refused_keys_are_not_waited_for(code: int) -> None:
    scene = Scene(found())
    scene.account.checks = [RefusedError(401, {"code": code, "msg": "no"}, {})]
    with pytest.raises(FeedError, match=f"refuses the keys.*testnet.*{code}"):
        asyncio.run(asyncio.wait_for(scene.looks.check(), 30))
    assert len(scene.account.checked) == 1


def test_an_account_that_cannot_be_traded_is_not_waited_for() -> None:
    scene = Scene(found())
    scene.account.checks = [ConnectionError("refused"), ConfigError("hedge mode", where="account")]
    with pytest.raises(ConfigError, match="hedge mode"):
        asyncio.run(asyncio.wait_for(scene.looks.check(), 30))


def test_an_exchange_that_stays_away_is_asked_ever_more_rarely(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene(found())
    scene.account.checks = [ConnectionError("refused")] * 20 + [None]  # type: ignore[list-item]
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    monkeypatch.setattr(asyncio, "sleep", sleep)
    asyncio.run(scene.looks.check())
    assert slept[:4] == [0.01, 0.02, 0.04, 0.08]
    assert slept[-8:] == [30.0] * 8, "as often as it is looked at"


@pytest.mark.parametrize(
    ("sent_s", "heard", "wanted"),
    [
        (1.9, [], False),
        (2.1, [], True),
        (2.1, [ReportKind.ACCEPTED], False),
        (1.9, [ReportKind.ACCEPTED, ReportKind.EXPIRED], False),
        (2.1, [ReportKind.ACCEPTED, ReportKind.EXPIRED], True),
    ],
)
@pytest.mark.parametrize("before", [False, True])
def test_an_order_without_an_answer_is_asked_about(
    sent_s: float, heard: list[ReportKind], wanted: bool, before: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a word for two seconds, or with an end of which a trade is missing; those of a process before,
    from the beginning of this one on."""
    now_s = 100.0
    monkeypatch.setattr(looks, "time", SimpleNamespace(monotonic_ns=lambda: int(now_s * 1e9)))
    scene = Scene(found())
    scene.broker.submit(OrderRequest(1, 0, 1, E8, 50 * E8), 0)
    if not before:
        now_s = 150.0
        scene.looks.sent(1)
    for kind in heard:
        scene.broker.take(Heard(kind, 1, 1, 1, 0, executed_e8=E8 // 2))
    reasons: list[str] = []
    monkeypatch.setattr(scene.looks, "want", reasons.append)
    now_s += sent_s
    scene.looks.poll()
    assert reasons == ["no answer about order 1"] * wanted


@pytest.mark.parametrize("left_s", [-0.01, 4.95], ids=["before the look", "while it lasts"])
def test_an_order_that_arrives_during_a_long_look_is_not_given_up(
    left_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The exchange was asked before it was there, and the window had passed when the answer was judged. One
    that waits here for a whole window has left when Nautilus says so."""
    now_s = 100.0
    clock = SimpleNamespace(monotonic_ns=lambda: int(now_s * 1e9), time_ns=time_ns)
    monkeypatch.setattr(looks, "time", clock)
    scene = Scene(found(asked={1: None}))
    scene.broker.submit(OrderRequest(1, 0, 1, E8, 50 * E8), 0)
    now_s = 150.0 + min(left_s, 0.0)
    scene.looks.sent(1)
    if left_s > 0:
        now_s += 10.0  # the loop stands still
    look, began_s = scene.account.look, now_s

    async def slow(broker: RemoteBroker, number_of: dict[str, int]) -> Found:
        nonlocal now_s
        answer = await look(broker, number_of)
        if left_s > 0:
            now_s = began_s + left_s
            scene.looks.sent(1)
        scene.hear(Heard(ReportKind.ACCEPTED, 1, 1, 1, 0))
        now_s = began_s + 5.0
        return answer

    scene.account.look = slow  # type: ignore[method-assign]
    asyncio.run(scene.looks._look("block"))
    assert scene.kinds() == [ReportKind.ACCEPTED]
