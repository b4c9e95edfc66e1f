"""A session to which no market comes: what reaches it all the same, step by step, and over a restart."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gpuscalp.errors import UsageError
from gpuscalp.live.commands import Commands
from gpuscalp.live.control import Request
from gpuscalp.live.directory import create
from gpuscalp.live.records import Command, ModelRecord
from gpuscalp.live.roles import BY_RETRAINING
from gpuscalp.live.session import Session
from gpuscalp.schema import E8, NS_PER_MS, TICK, TickKind
from tests.live import script


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return script.write_model(tmp_path_factory.mktemp("model") / "model")


def open_session(path: Path) -> Session:
    return Session(path, now_ns=1, clock_of=lambda work: lambda: work.now_ns)


def created(path: Path, model: Path, **config: Any) -> Session:
    create(path, script.trading_config(**config), model, script.INSTRUMENTS, now_ns=1)
    return open_session(path)


class Stepping:
    """Drives a session by its commands alone (``gpuscalp.live.commands.Driver``); as a source it objects to
    nothing."""

    busy = stopping = False

    def __init__(self, session: Session, disk: ThreadPoolExecutor) -> None:
        self.commands = Commands(session, self, self, disk)  # type: ignore[arg-type]
        self.told = asyncio.Event()
        self._session = session

    def kick(self, *, force: bool = False) -> None:
        work = self._session.take(5, 5, force=force)
        assert work is not None
        self.commands.given()
        outcome = self._session.engine.step(work, lambda: 5)
        self._session.apply(outcome, 5)
        self.commands.answered(outcome)

    def stop(self, reason: str) -> None:
        self.stopping = True

    def objection(self, command: Command) -> str:
        return ""

    async def take_over(self, rule: str) -> str:
        """Take up what the venue tells, when it does."""
        await self.told.wait()
        self._session.on_command(Command.HALT, rule, 5)
        return ""


@pytest.fixture
def disk() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as pool:
        yield pool


@pytest.fixture
def quiet(model: Path, tmp_path: Path) -> Iterator[Session]:
    session = created(tmp_path / "quiet", model)
    yield session
    session.close(now_ns=1)


@pytest.mark.parametrize("last", ["ticks", "clock"])
def test_an_overload_of_a_session_s_first_process_gives_way_and_is_repeated(
    model: Path, tmp_path: Path, last: str
) -> None:
    """The first process of every session once took whatever came, and a clock's overload was not written."""
    session = created(tmp_path / "session", model, **{"batch.conflate_above": 4})
    ticks = np.zeros(5, TICK)
    ticks["kind"], ticks["exch_ns"] = TickKind.QUOTE, script.START_MS * NS_PER_MS + np.arange(5)
    session.on_ticks(ticks if last == "ticks" else ticks[:4], 2)
    if last == "clock":
        session.on_clock(int(ticks["exch_ns"][4]), 3)
    waiting = len(session.market.batcher)
    assert waiting == {"ticks": 1, "clock": 2}[last]
    session.close(now_ns=4)
    session = open_session(tmp_path / "session")
    assert len(session.market.batcher) == waiting
    assert not session.market.batcher.by_hand
    session.close(now_ns=5)


def test_the_journal_and_a_checkpoint_know_what_was_tried(model: Path, tmp_path: Path) -> None:
    """So a candidate is not taken up twice, wherever a kill comes."""
    path = tmp_path / "session"
    session = created(path, model)
    digest = session.about.bundle
    session.on_model(ModelRecord("shadow", digest, by=BY_RETRAINING), 2)
    session.flush()
    session.close(now_ns=3, clean=False)
    session = open_session(path)
    assert (session.market.models_waiting, session.engine.roles.tried) == (1, "")
    work = session.take(5, 5, force=True)
    assert work is not None
    session.apply(session.engine.step(work, lambda: 5), 5)
    assert (session.market.models_waiting, session.engine.roles.tried) == (0, digest)
    session.flush()
    session.close(now_ns=6, clean=False)
    session = open_session(path)
    assert (session.start.from_seq, session.engine.roles.tried) == (0, digest)
    content, seq = session.checkpoint()
    session.journal.sync()
    session.checkpoints.write(content, seq)
    session.close(now_ns=7)
    session = open_session(path)
    assert (session.start.from_seq, session.engine.roles.tried) == (seq, digest)
    session.close(now_ns=8)


def test_command_is_obeyed_without_a_market(quiet: Session) -> None:
    """A halt does not wait for the next tick."""
    quiet.on_command(Command.HALT, "test", 1)
    work = quiet.take(5, 5, force=True)
    assert work is not None
    outcome = quiet.engine.step(work, lambda: 5)
    quiet.apply(outcome, 5)
    assert outcome.answers == ["reducing"]
    assert quiet.store.witness().state == "reducing"


@pytest.mark.parametrize(
    ("before", "command", "answer"),
    [
        ([], Command.RESUME, "refused"),
        ([Command.FLATTEN], Command.HALT, "halted"),
        ([Command.FLATTEN], Command.REDUCE, "halted"),
        ([Command.HALT], Command.FLATTEN, "halted"),
        ([Command.HALT], Command.RESUME, "active"),
        ([Command.FLATTEN], Command.RESUME, "active"),
    ],
    ids=str,
)
def test_a_weaker_command_never_loosens_a_stronger_state(
    quiet: Session, before: list[Command], command: Command, answer: str
) -> None:
    for each in (*before, command):
        quiet.on_command(each, "test", 1)
    work = quiet.take(5, 5, force=True)
    assert work is not None
    told = quiet.engine.step(work, lambda: 5).answers[-1]
    assert isinstance(told, UsageError) if answer == "refused" else told == answer


async def test_a_word_that_is_no_command_is_refused_and_changes_nothing(
    quiet: Session, disk: ThreadPoolExecutor
) -> None:
    driver = Stepping(quiet, disk)
    with pytest.raises(UsageError, match="no such command"):
        await driver.commands.answer(Request("dance"))
    assert (quiet.market.commands_waiting, driver.stopping) == (0, False)


async def test_nobody_is_given_the_answer_to_a_command_of_the_process_before(
    model: Path, tmp_path: Path, disk: ThreadPoolExecutor
) -> None:
    """After a kill `flatten` was refused, in the words that an earlier `resume` should have got."""
    session = created(tmp_path / "session", model)
    session.on_command(Command.RESUME, "before", 2)
    session.flush()
    session.close(now_ns=3, clean=False)
    session = open_session(tmp_path / "session")
    assert session.market.commands_waiting == 1
    driver = Stepping(session, disk)
    told = [await driver.commands.answer(Request(each)) for each in ("flatten", "halt", "resume")]
    assert [each["state"] for each in told] == ["halted", "halted", "active"]
    session.close(now_ns=5)


async def test_stop_flatten_is_not_done_where_somebody_has_resumed(
    quiet: Session, disk: ThreadPoolExecutor
) -> None:
    """A `resume` before the positions were closed was taken for their end: code 0, and they stayed."""
    driver, engine = Stepping(quiet, disk), quiet.engine
    engine.trader.account.positions[0].qty_e8 = E8
    stopping = asyncio.create_task(driver.commands.answer(Request("stop", flatten=True)))
    while not (engine.flattening or stopping.done()):
        await asyncio.sleep(0)
    assert not stopping.done()
    resumed = await driver.commands.answer(Request("resume"))
    assert await stopping == {"command": "stop", "state": "active", "flat": False}
    assert resumed["state"] == "active"
    assert driver.stopping


def test_an_adoption_does_not_outlast_the_session(
    model: Path, tmp_path: Path, disk: ThreadPoolExecutor
) -> None:
    """What the venue told it then was written into a journal that was closed: a clean stop was a failure."""
    session = created(tmp_path / "session", model)

    async def end() -> None:
        driver = Stepping(session, disk)
        adopting = asyncio.create_task(driver.commands.answer(Request("adopt")))
        await asyncio.sleep(0)
        driver.commands.give_up()
        await asyncio.sleep(0)  # as the end waits for its disk
        session.close(now_ns=2)
        driver.told.set()
        with pytest.raises(asyncio.CancelledError):
            await adopting

    asyncio.run(end())
