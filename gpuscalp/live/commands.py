"""What operators ask of a session that runs, and when they are told that it is done.

Owns: requests from their arrival to their answer, which comes when it is true and on the disk. Never: carries
a command out: the engine does, with its next batch.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Executor
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final, Literal, Protocol, final

from gpuscalp.errors import NotRunningError, UsageError
from gpuscalp.execution.reconcile import Rule
from gpuscalp.live.control import Request
from gpuscalp.live.engine import Outcome
from gpuscalp.live.records import Command, ModelRecord
from gpuscalp.live.roles import Roles
from gpuscalp.live.session import Session
from gpuscalp.live.source import Source

_FLAT_S: Final = 30.0
_LOOK_S: Final = 0.002


class Driver(Protocol):
    """Who drives the session."""

    @property
    def busy(self) -> bool:
        """Whether the engine works; what it changes must not be read then."""

    @property
    def stopping(self) -> bool: ...

    def kick(self, *, force: bool = False) -> None:
        """Give the engine what is there; with ``force`` even if no batch is due."""

    def stop(self, reason: str) -> None: ...

    def status(self) -> dict[str, Any]: ...

    def set_log_level(self, level: str, logger: str) -> dict[str, str]:
        """Set the level of a part of the program; return those that are set."""


@final
class Commands:
    """The requests to one session.

    Call ``given`` when the engine has been given a batch, ``answered`` with what came of it, and ``give_up``
    when no batch will come any more.

    Parameters
    ----------
    source : of the session's inputs
    disk : where the journal is made durable

    Attributes
    ----------
    looking : how many wait for the engine's rest: it is given nothing before they have seen what they want
    """

    def __init__(self, session: Session, driver: Driver, source: Source, disk: Executor) -> None:
        self._session, self._driver, self._source, self._disk = session, driver, source, disk
        self.looking = 0
        self._waiting: list[asyncio.Future[str]] = []  # that the engine has not been given
        self._asked: list[asyncio.Future[str]] = []
        self._changes: list[tuple[ModelRecord, asyncio.Future[int]]] = []  # that the engine has not taken
        self._calls: set[asyncio.Task[str]] = set()  # of the venue, which may outlast the journal

    @property
    def waiting(self) -> bool:
        """Whether there is one that the engine has not been given."""
        return bool(self._waiting or self._changes)

    def given(self) -> None:
        self._asked, self._waiting = self._waiting, []

    def answered(self, outcome: Outcome) -> None:
        asked, self._asked = self._asked, []
        # Before ours are those that a process before this one has written and not given the engine.
        answers = outcome.answers[len(outcome.answers) - len(asked) :]
        for future, answer in zip(asked, answers, strict=True):
            if future.done():
                continue
            if isinstance(answer, UsageError):
                future.set_exception(answer)
            else:
                future.set_result(answer)
        if outcome.models:
            taken = {id(record) for record in outcome.models}
            for record, change in self._changes:
                if id(record) in taken and not change.done():
                    change.set_result(outcome.after_ns)
            self._changes = [each for each in self._changes if id(each[0]) not in taken]

    def give_up(self) -> None:
        futures: list[asyncio.Future[Any]] = [*self._asked, *self._waiting]
        for future in (*futures, *(change for _, change in self._changes)):
            if not future.done():
                future.set_exception(self._gone())
        for call in self._calls:
            call.cancel()

    async def answer(self, request: Request) -> dict[str, Any]:
        """Answer a request (``gpuscalp.live.control.Handler``).

        Raises
        ------
        UsageError         there is no such command, or the gate has no such way
        ModelError         a model does not fit the session
        NotRunningError    the session is ending
        """
        driver = self._driver
        if request.command == "status":
            async with self._rest():
                return driver.status()
        if request.command == "stop":
            flat = {}
            if request.flatten:
                await self._carry_out(Command.FLATTEN, request.by)
                flat = {"flat": await self._until_flat()}
            driver.stop(f"stop, by {request.by}")
            return {"command": "stop", "state": str(self._session.engine.trader.gate.state)} | flat
        if request.command in ("adopt", "close"):
            left = await self._take_over("adopt" if request.command == "adopt" else "close")
            return {
                "command": request.command,
                "left": left,
                "state": str(self._session.engine.trader.gate.state),
            }
        if request.command == "log_level":
            return {"command": request.command, "levels": driver.set_log_level(request.level, request.logger)}
        if request.command == "use":
            return {"command": request.command} | await self.use(await self._wanted(request))
        if request.command not in list(Command):
            raise UsageError("no such command", where="control socket", value=request.command)
        state = await self._carry_out(Command(request.command), request.by)
        return {"command": request.command, "state": state}

    async def use(
        self, record: ModelRecord, *, still: Callable[[Roles], bool] | None = None
    ) -> dict[str, Any]:
        """Change lead, shadow or calibration; return how, when it has come true and is on the disk.

        Parameters
        ----------
        record : its bundle is in the session's ``models``
        still : whether what was decided a while ago still holds; None: it does

        Returns
        -------
        ``role``, ``bundle``, ``before`` (digest, None where there was none), and ``after_ns``, the end of the
        last frame that was decided before (None where there was none)

        Raises
        ------
        ModelError         there is no such model, or the calibration is none of it; nothing was changed
        NotRunningError    the session is ending
        UsageError         it does not hold any more: somebody has changed, or is changing, something since
        """
        session, loop = self._session, asyncio.get_running_loop()
        if record.bundle:  # the disk must not hold the loop up
            await asyncio.to_thread(session.models.open, record.bundle)
        if self._driver.stopping:
            raise self._gone()
        roles = session.engine.roles
        if still is not None and (self._changes or not still(roles)):
            raise UsageError("the models are others by now", where=str(session.path))
        before = roles.lead if record.role == "lead" else roles.shadow
        record = session.on_model(record, time.time_ns())
        change: asyncio.Future[int] = loop.create_future()
        self._changes.append((record, change))
        self._driver.kick(force=True)
        after_ns = await change
        await self._durable()
        return {
            "role": record.role,
            "bundle": record.bundle or None,
            "before": None if before is None else before.bundle,
            "after_ns": after_ns or None,
        }

    async def _wanted(self, request: Request) -> ModelRecord:
        """Return the change that an operator asks for; its model has been copied into the session."""
        role: Literal["lead", "shadow"] = "shadow" if request.shadow else "lead"
        digest, calibration = "", None
        if request.back:
            async with self._rest():
                earlier = self._session.engine.roles.earlier
            if request.shadow or not earlier:
                raise UsageError(
                    "no other model has led before", where=str(self._session.path), fix="name the model"
                )
            digest, calibration = earlier[-1].bundle, earlier[-1].calibration
        elif request.model:
            added = partial(self._session.models.add, Path(request.model), now_ns=time.time_ns())
            digest = await asyncio.to_thread(added)
        elif not request.shadow:
            raise UsageError("a session needs a model that leads", where="gpuscalp use", fix="name one")
        return ModelRecord(role, digest, calibration, reason=request.why, by=request.by)

    async def _take_over(self, rule: Rule) -> str:
        """Return what is left, as the source says it; given up with everything else."""
        call = asyncio.ensure_future(self._source.take_over(rule))
        self._calls.add(call)
        call.add_done_callback(self._calls.discard)
        return await call

    async def _carry_out(self, command: Command, by: str) -> str:
        """Let the engine obey; return what came of it when it is true and on the disk."""
        if self._driver.stopping:
            raise self._gone()
        if objection := self._source.objection(command):
            raise UsageError(objection, where=f"gpuscalp {command}", fix="gpuscalp adopt, then try again")
        loop = asyncio.get_running_loop()
        future: asyncio.Future[str] = loop.create_future()
        self._session.on_command(command, by, time.time_ns())
        self._waiting.append(future)
        self._driver.kick(force=True)
        answer = await future
        await self._durable()
        return answer

    async def _durable(self) -> None:
        """Return when all that has been written is on the disk."""
        journal = self._session.journal
        journal.flush()
        settle = partial(journal.settle, *journal.pending_sync())
        await asyncio.get_running_loop().run_in_executor(self._disk, settle)

    async def _until_flat(self) -> bool:
        """Return whether every position has been closed in time."""
        deadline, engine = time.monotonic() + _FLAT_S, self._session.engine
        while engine.flattening:
            if self._driver.stopping or time.monotonic() >= deadline:
                return False
            await asyncio.sleep(_LOOK_S)
        async with self._rest():
            # It may have ended by a ``resume`` of somebody else.
            positions = engine.trader.account.positions
            return not engine.trader.open_orders and not any(each.qty_e8 for each in positions)

    @asynccontextmanager
    async def _rest(self) -> AsyncIterator[None]:
        """Wait until the engine is at rest; one that does not catch up with its batches has no other."""
        self.looking += 1
        try:
            while self._driver.busy:
                await asyncio.sleep(_LOOK_S / 2)
            yield
        finally:
            self.looking -= 1

    def _gone(self) -> NotRunningError:
        return NotRunningError("the session is ending", where=str(self._session.path))
