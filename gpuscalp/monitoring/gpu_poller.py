"""Asks the cards how they are, again and again, in a thread of its own.

Owns: NVML from its start to its end, the newest sample of each card. Never: judges, or makes anybody wait:
NVML blocks for some 40 ms a card, and for as long as it likes when a card has died.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, Final, final

from gpuscalp.monitoring.nvml import CardSample, read_card
from gpuscalp.monitoring.nvml_cards import Card, find_again
from gpuscalp.monitoring.nvml_events import CardEvents

_STOP_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class Poll:
    """One round over all cards.

    Attributes
    ----------
    samples : of each card, in order
    at_ns : monotonic, at its end; 0 before the first
    cost_ns : how long it took
    cpu_ns : how long of that the processor was busy with it
    count : rounds so far
    error : why NVML could not be asked, if it could not
    """

    samples: tuple[CardSample, ...] = ()
    at_ns: int = 0
    cost_ns: int = 0
    cpu_ns: int = 0
    count: int = 0
    error: str | None = None


@dataclass(slots=True)
class _Watched:
    card: Card
    events: CardEvents


@final
class GpuPoller:
    """Polls from ``start`` to ``stop``.

    Parameters
    ----------
    nvml : the module ``pynvml``, or what behaves like it; nobody else may start or stop it meanwhile
    find : tells which cards, once NVML is started (``nvml_cards.visible_cards``)
    every_ms : from the end of one round to the next
    on_poll : told of each round before it is the latest, in the poller's thread; must not raise
    pids : processes whose memory is ours, at this moment

    Attributes
    ----------
    latest : the newest round; replaced as a whole, so that any thread may read it
    """

    def __init__(
        self,
        nvml: Any,
        find: Callable[[], Sequence[Card]],
        *,
        every_ms: int,
        on_poll: Callable[[Poll], None] | None = None,
        pids: Callable[[], Collection[int]] = lambda: (os.getpid(),),
    ) -> None:
        self.latest = Poll()
        self._nvml, self._find, self._pids = nvml, find, pids
        self._every_s, self._on_poll = every_ms / 1_000, on_poll
        self._watched: list[_Watched] | None = None
        self._open = self._anew = False
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="gpu poller", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> bool:
        """End it; return whether the thread has ended. One that hangs in the driver is left to its fate."""
        self._stopping.set()
        self._thread.join(_STOP_S)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while not self._stopping.is_set():
            began, busy = time.monotonic_ns(), time.thread_time_ns()
            samples, error = self._round()
            now = time.monotonic_ns()
            busy = time.thread_time_ns() - busy
            poll = Poll(samples, now, now - began, busy, self.latest.count + 1, error)
            if self._on_poll is not None:
                self._on_poll(poll)
            self.latest = poll
            self._stopping.wait(self._every_s)
        self._close()

    def _round(self) -> tuple[tuple[CardSample, ...], str | None]:
        try:
            watched, error = self._ready(), None
        except Exception as caught:  # of the driver, and of any version of its library: it is tried again
            watched, error = self._watched or [], str(caught) or type(caught).__name__
            for each in watched:  # they were there before, and do not answer now
                each.card = replace(each.card, handle=None, mig=None, fault=error)
        at_ns, pids = time.time_ns(), self._pids()
        samples = tuple(
            read_card(self._nvml, each.card, at_ns=at_ns, pids=pids, events=each.events) for each in watched
        )
        # After a reset a card is seen again only by an NVML that was started anew.
        self._anew = error is not None or any(sample.lost is not None for sample in samples)
        return samples, error

    def _ready(self) -> list[_Watched]:
        """Start NVML where it is not started, or has to be anew; return the cards."""
        if self._anew:
            self._close()
        if not self._open:
            self._nvml.nvmlInit()
            self._open = True
            if self._watched is None:
                self._watched = [_Watched(card, CardEvents(self._nvml)) for card in self._find()]
            else:
                self._find_again(self._watched)
            for each in self._watched:
                each.events.listen(each.card)
        assert self._watched is not None
        return self._watched

    def _find_again(self, watched: Sequence[_Watched]) -> None:
        """Give the cards handles of an NVML that was started anew; what was heard of them stays."""
        nameless = any(each.card.uuid is None for each in watched)
        found = {card.index: card for card in self._find()} if nameless else {}
        for each in watched:
            if each.card.uuid is not None:
                each.card = find_again(self._nvml, each.card)
            else:  # it has never answered yet, so nothing but its number is known
                each.card = found.get(each.card.index, each.card)

    def _close(self) -> None:
        if not self._open:
            return
        self._open = False
        for each in self._watched or ():
            each.events.close()
        with suppress(self._nvml.NVMLError):
            self._nvml.nvmlShutdown()
