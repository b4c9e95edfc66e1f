"""What only looks on at a session, or saves it time: measures, shows, tells. Its errors end nothing.

Owns: that each is told of, in the log the first time and in the status ever after. Never: for what has to be
true before anything is acted upon, such as the journal: an error there must end the session.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from functools import partial
from typing import Any, Final, final

from gpuscalp.execution.booking import BookedFill
from gpuscalp.execution.messages import Report
from gpuscalp.live.engine import Watcher
from gpuscalp.live.roles import Roles
from gpuscalp.orders import MarketRow, Order, SignalRow
from gpuscalp.trader import StepReport

_LOG: Final = logging.getLogger("gpuscalp.session")


@final
class Onlookers:
    """Lets a session go on without what fails. May be used in any thread."""

    def __init__(self) -> None:
        self._lock, self._errors = threading.Lock(), 0
        self._last: dict[str, str] = {}

    def run(self, what: str, action: Callable[[], object]) -> None:
        """Do something that the session can do without.

        Parameters
        ----------
        what : its name, in the log and in the status
        """
        try:
            action()
        except Exception as error:
            with self._lock:
                first = what not in self._last
                self._errors += 1
                self._last[what] = f"{type(error).__name__}: {error}"
            if first:  # it may fail twice a second from now on
                _LOG.exception("%s has failed; the session goes on without it", what)

    def status(self) -> dict[str, Any]:
        """Return how often something has failed, and of what each has failed last."""
        with self._lock:
            return {"errors": self._errors, "last": dict(self._last)}


@final
class Harmless:
    """A watcher of the engine (``gpuscalp.live.engine.Watcher``) whose errors do not reach it."""

    def __init__(self, watcher: Watcher, onlookers: Onlookers) -> None:
        self._watcher, self._run = watcher, partial(onlookers.run, "monitor")

    def on_step(self, market: MarketRow, signals: SignalRow, report: StepReport) -> None:
        self._run(partial(self._watcher.on_step, market, signals, report))

    def on_report(self, report: Report, order: Order | None, booked: BookedFill | None) -> None:
        self._run(partial(self._watcher.on_report, report, order, booked))

    def on_models(self, roles: Roles) -> None:
        self._run(partial(self._watcher.on_models, roles))

    def on_whole(self, end_ns: int, lead: SignalRow, shadow: SignalRow | None) -> None:
        self._run(partial(self._watcher.on_whole, end_ns, lead, shadow))
