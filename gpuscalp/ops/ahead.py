"""Makes what comes next while the caller works on what came last: a bounded queue and one thread.

Owns: the thread's life. Never: reorders, drops, or runs further ahead than it is told to.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Generator, Iterable
from typing import Final, TypeVar

Item = TypeVar("Item")

_POLL_S: Final = 0.05  # how long a full queue hides from the thread that nobody wants its items any more


def read_ahead(items: Iterable[Item], depth: int) -> Generator[Item, None, None]:
    """Yield the items of an iterable that runs up to ``depth`` items ahead in a thread of its own.

    What the iterable raises is raised here, in its place. Close the generator to end the thread early.

    Parameters
    ----------
    items : used by the other thread only
    depth : 0 = no thread: the items are made when they are asked for
    """
    if depth == 0:
        yield from items
        return
    made: queue.Queue[tuple[bool, Item | BaseException | None]] = queue.Queue(depth)
    unwanted = threading.Event()

    def put(more: bool, item: Item | BaseException | None) -> bool:
        while not unwanted.is_set():
            try:
                made.put((more, item), timeout=_POLL_S)
            except queue.Full:
                continue
            return True
        return False

    def run() -> None:
        error: BaseException | None = None
        try:
            for item in items:
                if not put(True, item):
                    return
        except BaseException as raised:  # carried over to the caller, whatever it is
            error = raised
        finally:
            if isinstance(items, Generator):
                items.close()
        put(False, error)

    thread = threading.Thread(target=run, name="read-ahead", daemon=True)
    thread.start()
    try:
        while True:
            more, item = made.get()
            if not more:
                if isinstance(item, BaseException):
                    raise item
                return
            yield item  # type: ignore[misc]
    finally:
        unwanted.set()
        thread.join()
