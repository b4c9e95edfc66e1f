"""What operators ask of a session that runs, and when they are told that it is done.

Owns: requests from their arrival to their answer, which comes when it is true and on the disk. Never: carries
a command out: the engine does, with its next batch.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from concurrent.futures import Executor
from functools import partial
from typing import Any, Final, Protocol, final

from gpuscalp.errors import NotRunningError, UsageError
from gpuscalp.execution.reconcile import Rule
from gpuscalp.live.control import Request
from gpuscalp.live.records import Command
from gpuscalp.live.session import Session

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

    def objection(self, command: Command) -> str:
        """Return what speaks against a command now; "" if nothing does."""

    async def take_over(self, rule: Rule) -> str:
        """Adopt or close what nobody here knows; return what is left of it."""


@final
class Commands:
    """The requests to one session.

    Call ``given`` when the engine has been given a batch, ``answered`` with what it said to its commands, and
    ``give_up`` when no batch will come any more.

    Parameters
    ----------
    disk : where the journal is made durable
    """

    def __init__(self, session: Session, driver: Driver, disk: Executor) -> None:
        self._session, self._driver, self._disk = session, driver, disk
        self._waiting: list[asyncio.Future[str]] = []  # that the engine has not been given
        self._asked: list[asyncio.Future[str]] = []

    @property
    def waiting(self) -> bool:
        """Whether there is one that the engine has not been given."""
        return bool(self._waiting)

    def given(self) -> None:
        self._asked, self._waiting = self._waiting, []

    def answered(self, answers: Sequence[str | UsageError]) -> None:
        asked, self._asked = self._asked, []
        for future, answer in zip(asked, answers, strict=False):
            if future.done():
                continue
            if isinstance(answer, UsageError):
                future.set_exception(answer)
            else:
                future.set_result(answer)

    def give_up(self) -> None:
        for future in (*self._asked, *self._waiting):
            if not future.done():
                future.set_exception(self._gone())

    async def answer(self, request: Request) -> dict[str, Any]:
        """Answer a request (``gpuscalp.live.control.Handler``).

        Raises
        ------
        UsageError         there is no such command, or the gate has no such way
        NotRunningError    the session is ending
        """
        driver = self._driver
        if request.command == "status":
            while driver.busy:
                await asyncio.sleep(_LOOK_S / 2)
            return driver.status()
        if request.command == "stop":
            flat = {}
            if request.flatten:
                await self._carry_out(Command.FLATTEN, request.by)
                flat = {"flat": await self._until_flat()}
            driver.stop(f"stop, by {request.by}")
            return {"command": "stop", "state": str(self._session.engine.trader.gate.state)} | flat
        if request.command in ("adopt", "close"):
            left = await driver.take_over("adopt" if request.command == "adopt" else "close")
            return {
                "command": request.command,
                "left": left,
                "state": str(self._session.engine.trader.gate.state),
            }
        if request.command == "log_level":
            return {"command": request.command, "levels": driver.set_log_level(request.level, request.logger)}
        if request.command not in list(Command):
            raise UsageError("no such command", where="control socket", value=request.command)
        state = await self._carry_out(Command(request.command), request.by)
        return {"command": request.command, "state": state}

    async def _carry_out(self, command: Command, by: str) -> str:
        """Let the engine obey; return what came of it when it is true and on the disk."""
        if self._driver.stopping:
            raise self._gone()
        if objection := self._driver.objection(command):
            raise UsageError(objection, where=f"gpuscalp {command}", fix="gpuscalp adopt, then once more")
        loop = asyncio.get_running_loop()
        future: asyncio.Future[str] = loop.create_future()
        self._session.on_command(command, by, time.time_ns())
        self._waiting.append(future)
        self._driver.kick(force=True)
        answer = await future
        journal = self._session.journal
        journal.flush()
        await loop.run_in_executor(self._disk, partial(journal.settle, *journal.pending_sync()))
        return answer

    async def _until_flat(self) -> bool:
        """Return whether every position has been closed in time."""
        deadline = time.monotonic() + _FLAT_S
        while self._driver.busy or self._session.engine.flattening:
            if self._driver.stopping or time.monotonic() >= deadline:
                return False
            await asyncio.sleep(_LOOK_S)
        return True

    def _gone(self) -> NotRunningError:
        return NotRunningError("the session is ending", where=str(self._session.path))
