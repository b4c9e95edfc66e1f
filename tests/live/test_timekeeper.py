"""A session's time while this machine's clock is set, against the time that is true."""

from __future__ import annotations

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any, cast

import pytest

from gpuscalp.config import FeedConfig, GridConfig, LiveConfig
from gpuscalp.errors import FeedError
from gpuscalp.feeds.clock import ClockOffset
from gpuscalp.feeds.rest import RestClient
from gpuscalp.live import timekeeper
from gpuscalp.live.status import _frame_age_ms
from gpuscalp.live.timekeeper import Timekeeper, exchange_clock
from gpuscalp.schema import NS_PER_MS, NS_PER_S

BEGIN_NS = 1_700_000_000 * NS_PER_S
STEP_NS = 2 * NS_PER_MS
LIMIT_NS = FeedConfig().clock_limit_ms * NS_PER_MS


class World:
    """What is true, what this machine's clocks show, and what a session is told of it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.true_ns = BEGIN_NS
        self.wall_ahead_ns, self.asleep_ns = 0, 0
        clocks = SimpleNamespace(
            time_ns=lambda: self.true_ns + self.wall_ahead_ns,
            monotonic_ns=lambda: self.true_ns - BEGIN_NS - self.asleep_ns + 5 * NS_PER_S,
        )
        monkeypatch.setattr(timekeeper, "time", clocks)
        self.market = SimpleNamespace(exch_ns=0)
        self.closes: list[int] = []
        contract = SimpleNamespace(training=SimpleNamespace(config=SimpleNamespace(grid=GridConfig())))
        session: Any = SimpleNamespace(
            bundle=SimpleNamespace(contract=contract), market=self.market, on_clock=self._on_clock
        )
        self.clock = ClockOffset(FeedConfig())
        unused: Any = None
        self.keeper = Timekeeper(session, LiveConfig(), self.clock, unused, unused)
        for _ in range(5):
            self.clock.on_server_time(self.true_ns - NS_PER_MS, self.true_ns + NS_PER_MS, self.true_ns)
        self.told_ns = 0

    def _on_clock(self, exch_ns: int, _: int) -> None:
        self.closes.append(exch_ns)
        self.market.exch_ns = max(self.market.exch_ns, exch_ns)

    def message(self) -> None:
        self.market.exch_ns = self.true_ns
        self.clock.on_event(self.true_ns + self.wall_ahead_ns, self.true_ns)

    def run(self, seconds: float, *, every_ms: int = 0) -> None:
        """Let time pass, with a message now and then; nothing may be told that has not come true."""
        for count in range(round(seconds * NS_PER_S) // STEP_NS):
            self.true_ns += STEP_NS
            if every_ms and count % (every_ms * NS_PER_MS // STEP_NS) == 0:
                self.message()
            self.keeper.close_frames(self.true_ns + self.wall_ahead_ns)
            now_ns = self.keeper.now()
            assert now_ns >= self.told_ns, "it goes back"
            assert now_ns <= self.true_ns + NS_PER_MS, "it runs ahead"
            self.told_ns = now_ns
        assert all(each <= self.true_ns for each in self.closes)

    @property
    def behind_ns(self) -> int:
        return self.true_ns - self.keeper.now()


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    made = World(monkeypatch)
    made.message()
    made.run(1)
    return made


@pytest.mark.parametrize("every_ms", [0, 40])
def test_clock_that_is_set_forward_and_back_closes_no_frame_too_early(world: World, every_ms: int) -> None:
    """It had closed the frames of 30 s, after which everything came too late for 30 s."""
    before = len(world.closes)
    for ahead_s in (30, 0):
        world.wall_ahead_ns = ahead_s * NS_PER_S
        world.run(1, every_ms=every_ms)
        assert world.behind_ns < LIMIT_NS
    world.run(1)
    assert len(world.closes) > before + 5, "a quiet market's frames are closed by the clock again"


def test_messages_tell_the_time_while_the_clock_is_behind(world: World) -> None:
    """It had stood still until the clock had come up with it."""
    for ahead_s in (-30, 0):
        world.wall_ahead_ns = ahead_s * NS_PER_S
        world.run(1, every_ms=40)
        assert world.behind_ns <= 40 * NS_PER_MS


def test_clock_that_stays_ahead_is_left_out_until_it_is_measured_anew(world: World) -> None:
    world.wall_ahead_ns = 30 * NS_PER_S
    world.run(3, every_ms=40)
    world.run(2)
    assert abs(world.behind_ns) <= NS_PER_MS, "the monotonic clock goes on"
    for _ in range(11):
        wall_ns = world.true_ns + world.wall_ahead_ns
        world.clock.on_server_time(wall_ns, wall_ns, world.true_ns)
    world.run(2)
    assert abs(world.behind_ns) <= NS_PER_MS


def test_first_message_after_a_sleep_of_the_machine_brings_the_time_back(world: World) -> None:
    """The monotonic clock has stood still; the wall clock is right."""
    world.true_ns += 3_600 * NS_PER_S
    world.asleep_ns = 3_600 * NS_PER_S
    world.message()
    assert abs(world.behind_ns) <= NS_PER_MS
    world.run(1)
    assert abs(world.behind_ns) <= NS_PER_MS


def test_time_does_not_go_back_to_what_another_thread_was_told_before() -> None:
    """The loop was told a moment while the engine's thread was being told an earlier one, which was kept."""
    told: list[int] = []
    loop = threading.Thread(target=lambda: told.append(now()))

    class Moment(int):
        def __gt__(self, other: int) -> bool:
            if loop.ident is None:  # the engine's thread compares what it was told with what is known
                loop.start()
                loop.join(0.2)
            return int(self) > other

    newest = iter((Moment(BEGIN_NS), BEGIN_NS + STEP_NS, 0))
    unmeasured = ClockOffset(FeedConfig())
    now = exchange_clock(unmeasured, lambda: next(newest))
    assert now() == BEGIN_NS
    loop.join()
    assert told == [BEGIN_NS + STEP_NS]
    assert now() == BEGIN_NS + STEP_NS


def test_age_of_the_last_frame_grows_though_the_exchanges_clock_stands_still() -> None:
    session: Any = SimpleNamespace(engine=SimpleNamespace(market=SimpleNamespace(end_ns=BEGIN_NS)))
    ahead_ns, now_ns = BEGIN_NS - 30 * NS_PER_S, time.monotonic_ns()
    assert _frame_age_ms(session, BEGIN_NS + 200 * NS_PER_MS, now_ns) == pytest.approx(200, abs=60_000)
    age_ms = _frame_age_ms(session, ahead_ns, now_ns - 12 * NS_PER_S)
    assert age_ms is not None
    assert age_ms >= 12_000
    assert _frame_age_ms(session, BEGIN_NS + 7 * NS_PER_S, 0) == 7_000
    session.engine.market = None
    assert _frame_age_ms(session, BEGIN_NS, 0) is None


def test_server_that_does_not_tell_its_time_is_told_of_once(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    answers = ["no such name"] * 20 + [(BEGIN_NS, BEGIN_NS, BEGIN_NS)] + ["refused"] * 20

    def server_time() -> tuple[int, int, int]:
        answer = answers.pop(0)
        if isinstance(answer, str):
            raise FeedError("the venue's REST server cannot be reached", value=answer)
        return answer

    async def run() -> None:
        watching = asyncio.create_task(keeper.watch())
        while len(answers) > 5:
            await asyncio.sleep(0.001)
        watching.cancel()

    keeper, rest = world.keeper, SimpleNamespace(server_time=server_time)
    with ThreadPoolExecutor(1) as executor:
        keeper._rest, keeper._executor, keeper._interval_s = cast(RestClient, rest), executor, 0.0
        asyncio.run(run())
    assert [message.rpartition(": ")[2] for message in caplog.messages] == ["'no such name'", "'refused'"]
