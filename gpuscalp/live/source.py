"""The seam between a session that runs and what brings it the market.

Owns: the two sides' words. Never: does anything.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Protocol

from gpuscalp.execution.reconcile import Rule
from gpuscalp.latency import LatencyHistogram
from gpuscalp.live.records import Command, HealthRecord

# Why a session ends that was to run for some seconds.
TIME_IS_UP: Final = "time is up"


class Driver(Protocol):
    """Who runs the session, as a source sees it."""

    latency: LatencyHistogram
    stop_reason: str  # why the session ends; "" while it runs
    failure: BaseException | None  # what ends it, if not a stop: from then on nothing is decided

    def watch_signals(self) -> None:
        """End the session by signals: again, after somebody else has taken them."""

    def guarded(self, action: Callable[[], None]) -> None:
        """Do something that must succeed for the session to go on."""

    def kick(self, *, force: bool = False) -> None:
        """Give the engine what is there; with ``force`` even if no batch is due."""


class Source(Protocol):
    """Brings a session its inputs, and carries out what it decides.

    All calls are made on the loop's thread. ``run`` keeps the connections until it is cancelled; a source
    that fails ends by an exception, and takes the session with it.
    """

    def attach(self, driver: Driver) -> None: ...

    async def run(self) -> None: ...

    def now(self) -> int:
        """Return the exchange's time; it never goes back."""

    def poll(self, now_ns: int) -> None:
        """Do what is due by the wall clock; called every few milliseconds."""

    def health(self, device: tuple[str, ...]) -> HealthRecord:
        """Return what is known beyond the messages, by several times a second."""

    def send(self) -> None:
        """Send what the engine has decided: it is written down."""

    def objection(self, command: Command) -> str:
        """Return what speaks against a command now; "" if nothing does."""

    async def take_over(self, rule: Rule) -> str:
        """Adopt or close what the exchange has and nobody here knows; return what is left of it, in words."""

    def status(self) -> dict[str, Any]:
        """Return the keys ``feeds``, ``clock`` and what else belongs to this source."""

    def unprotected(self) -> str:
        """Return what ``run`` has left at the exchange without protection, in words; "" if nothing."""

    def stream_ages_s(self) -> dict[str, float]:
        """Return the time since the last message of each stream, by its name; {} where nobody knows."""

    async def close(self) -> None:
        """Let go of what ``run`` does not."""
