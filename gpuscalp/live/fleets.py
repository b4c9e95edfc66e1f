"""The workers for the model that leads, and their change when another one does.

Owns: who they are now, what has happened to those before them, and the thread in which some end and others
are started: nobody waits for it. Never: lets those of one model answer for another.
"""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Final, final

from gpuscalp.worker import Fleet

_LOG: Final = logging.getLogger("gpuscalp.worker")
_LOOK_S: Final = 0.5  # how often it is asked whether a process that is stuck in its driver has gone


@final
class Fleets:
    """Workers of one model at a time.

    Order of calls: ``change`` and ``look`` in the engine's thread, between frames; ``status`` while the
    engine is at rest; ``pids`` in any thread; ``close`` at the end.

    Parameters
    ----------
    make : makes the workers for a model by its digest, not started
    digest : of the model that leads

    Attributes
    ----------
    gpus : numbers of the GPUs that are used, as CUDA counts
    """

    def __init__(self, make: Callable[[str], Fleet], digest: str) -> None:
        self._make, self._digest = make, digest
        self._now: Fleet | None = make(digest)
        self.gpus = self._now.gpus
        self._coming: Future[Fleet | None] | None = None
        self._why = self._stuck = ""
        self._closed = threading.Event()
        self._past: dict[int | None, dict[str, Any]] = {}
        self._past_lock = threading.Lock()
        self._background = ThreadPoolExecutor(1, "workers")
        self._now.start()

    def change(self, digest: str) -> None:
        """End the workers, unless they are those of this model, and start its own."""
        if digest == self._digest:
            return
        self._digest, self._why = digest, "the workers of the model that leads now are being started"
        ended, self._now = self._now, None
        if ended is not None:
            self._add_up(ended)
        self._coming = self._background.submit(self._replace, ended, self._coming, digest)

    def look(self) -> Fleet | None:
        """Return the workers of the model that leads; None until they have been started."""
        coming = self._coming
        if coming is None or not coming.done():
            return self._now
        self._coming = None
        if (error := coming.exception()) is not None:
            self._why = f"the workers of the model that leads now cannot be started: {error}"
            _LOG.error("%s", self._why, exc_info=error)
        else:
            self._now = coming.result()
        return self._now

    def status(self) -> dict[str, Any]:
        """Return how things stand, ready for JSON; ``past_workers``: of earlier models, added up by GPU."""
        found = (
            self._now.status()
            if self._now is not None
            else {"leading": False, "why": f"cpu: {self._stuck or self._why}"}
        )
        with self._past_lock:
            past = [{**each, "faults": dict(each["faults"])} for each in self._past.values()]
        return {"workers": [], **found, "past_workers": past}

    def pids(self) -> tuple[int, ...]:
        """Return the processes that run."""
        now = self._now
        return () if now is None else now.pids()

    def close(self) -> None:
        """End all workers."""
        self._closed.set()
        self._background.shutdown(wait=True)
        for fleet in (self._now, self._arrived()):
            if fleet is not None:
                fleet.close()

    def _arrived(self) -> Fleet | None:
        coming, self._coming = self._coming, None
        return None if coming is None or coming.exception() is not None else coming.result()

    def _replace(self, ended: Fleet | None, before: Future[Fleet | None] | None, digest: str) -> Fleet | None:
        """Make room first: the memory of a card may not hold two models."""
        if before is not None and before.exception() is None and ended is None:
            ended = before.result()
            if ended is not None:
                self._add_up(ended)
        if ended is not None and not ended.close():
            self._stuck = "a process of the model before does not end, and none is started beside it"
            while not ended.gone() and not self._closed.wait(_LOOK_S):
                pass
            self._stuck = ""
        # Another one leads by now, and its turn comes next; or the session has ended.
        if digest != self._digest or self._closed.is_set():
            return None
        fleet = self._make(digest)
        fleet.start()
        return fleet

    def _add_up(self, ended: Fleet) -> None:
        """Keep what has happened to workers that end: it is counted for as long as the process runs."""
        with self._past_lock:
            for worker in ended.status()["workers"]:
                none = {"gpu": worker["gpu"], "faults": Counter(), "restarts": 0, "last_fault": None}
                past = self._past.setdefault(worker["gpu"], none)
                past["faults"].update(worker["faults"])
                past["restarts"] += worker["restarts"]
                past["last_fault"] = last_fault((past, worker))


def last_fault(workers: Iterable[Mapping[str, Any]]) -> dict[str, Any] | None:
    """Return the newest fault of workers, by their status."""
    found = [worker["last_fault"] for worker in workers if worker["last_fault"] is not None]
    return max(found, key=lambda fault: int(fault["at_ns"]), default=None)
