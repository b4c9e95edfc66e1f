"""What the workers of a training have finished, kept where no worker's end can reach it.

Owns: an actor on the machine of the command, with finished boosters and the progress. A group of workers that
has to begin again, because one of them was lost, recalls from it what need not be done twice.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Final, TypeVar, final

from gpuscalp.errors import GpuscalpError
from gpuscalp.ray_cluster import import_ray

T = TypeVar("T")

_TELL_EVERY_S: Final = 0.2


@final
class Ledger:
    """The state of a training; lives in an actor."""

    def __init__(self) -> None:
        self._finished: dict[str, Any] = {}
        self._progress: tuple[float, float | None, str] = (0.0, None, "starting workers")
        self._fault: GpuscalpError | None = None
        self._groups = 0

    def begin(self) -> None:
        """Note that a group of workers begins."""
        self._groups += 1

    def fail(self, fault: GpuscalpError) -> None:
        """Note why a worker refuses."""
        self._fault = fault

    def keep(self, what: str, result: Any) -> None:
        self._finished[what] = result

    def recall(self, what: str) -> tuple[Any, ...]:
        """Return the result in a tuple, or an empty one."""
        return (self._finished[what],) if what in self._finished else ()

    def tell(self, done: float, total: float | None, note: str) -> None:
        self._progress = (done, total, note)

    def look(self) -> tuple[tuple[float, float | None, str], GpuscalpError | None, int]:
        """Return the progress, the fault, and how many groups of workers have begun."""
        return self._progress, self._fault, self._groups


def start_ledger() -> Any:
    """Return a ledger on this machine."""
    ray = import_ray()
    here = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(
        node_id=ray.get_runtime_context().get_node_id(), soft=False
    )
    return ray.remote(Ledger).options(num_cpus=0, scheduling_strategy=here).remote()


@final
class Remembered:
    """``Once`` over a ledger: does a piece of work, or recalls it.

    All workers ask at the same places and get the same answer: none of them can finish anything alone.

    Parameters
    ----------
    ledger : actor
    keeps : whether this worker is the one that tells the ledger
    """

    def __init__(self, ledger: Any, *, keeps: bool) -> None:
        self._ray = import_ray()
        self._ledger, self._keeps = ledger, keeps

    def __call__(self, what: str, make: Callable[[], T]) -> T:
        found = self._ray.get(self._ledger.recall.remote(what))
        if found:
            return found[0]  # type: ignore[no-any-return]
        result = make()
        if self._keeps:
            self._ray.get(self._ledger.keep.remote(what, result))
        return result


@final
class Told:
    """Tells the ledger how far the work is, not too often."""

    def __init__(self, ledger: Any) -> None:
        self._ledger, self._next = ledger, 0.0

    def __call__(self, done: float, total: float | None = None, note: str = "") -> None:
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + _TELL_EVERY_S
            self._ledger.tell.remote(done, total, note)
