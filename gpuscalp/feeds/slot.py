"""One place among the redundant connections, always filled: the connection in it is replaced before its time.

Owns: the rotation with overlap. The venue cuts every connection after 24 hours; the successor is opened
before, both deliver for a while, and the old one is closed when every stream of the new one has joined the
merged flow (``gpuscalp.feeds.merge``), so that nothing is lost and nothing comes twice.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import final

from gpuscalp.config import FeedConfig
from gpuscalp.feeds.connection import NEVER, Action, Connection, State
from gpuscalp.feeds.routes import Endpoint
from gpuscalp.schema import NS_PER_MS


@final
class Slot:
    """Connections to one endpoint: one, or two while they are exchanged.

    Parameters
    ----------
    endpoint : where to and what for
    next_number : returns a number for a new connection, which no other one has
    jitter, now_ns : see ``Connection``
    """

    def __init__(
        self,
        endpoint: Endpoint,
        config: FeedConfig,
        *,
        next_number: Callable[[], int],
        jitter: Callable[[], float],
        now_ns: int,
    ) -> None:
        self.endpoint = endpoint
        self.rotation_count = 0
        self._config, self._next_number, self._jitter = config, next_number, jitter
        # Drawn once, so that redundant connections that were opened together are not exchanged together.
        self._rotate_ns = int(config.rotate_ms * NS_PER_MS * (1 - 0.05 * jitter()))
        self.current = self._new(now_ns)
        self.successor: Connection | None = None
        self._successor_ns = 0

    def connections(self) -> tuple[Connection, ...]:
        return (self.current,) if self.successor is None else (self.current, self.successor)

    @property
    def due_ns(self) -> int:
        due_ns = min(connection.due_ns for connection in self.connections())
        if self.successor is None:
            return min(due_ns, self.current.opened_ns + self._rotate_ns if self.current.opened_ns else NEVER)
        if self.successor.is_live:
            return min(due_ns, self._successor_ns + self._config.overlap_max_ms * NS_PER_MS)
        return due_ns

    def poll(self, now_ns: int, joined: Callable[[int], bool]) -> list[tuple[Connection, Action]]:
        """Return what is to be done now, and for which connection.

        Parameters
        ----------
        joined : whether all streams of the connection of a number have joined the merged flow
        """
        actions: list[tuple[Connection, Action]] = []
        opened_ns = self.current.opened_ns
        if self.successor is None and opened_ns and now_ns - opened_ns >= self._rotate_ns:
            self.successor, self._successor_ns = self._new(now_ns), now_ns
        if self.successor is not None and self._may_switch(self.successor, now_ns, joined):
            actions += [(self.current, action) for action in self.current.retire()]
            self.current, self.successor = self.successor, None
            self.rotation_count += 1
        for connection in self.connections():
            actions += [(connection, action) for action in connection.poll(now_ns)]
        return actions

    def _may_switch(self, successor: Connection, now_ns: int, joined: Callable[[int], bool]) -> bool:
        if not successor.is_live:
            # The old one was cut while the new one was not ready: one of them is enough to go on with.
            return self.current.state is State.WAITING
        late = now_ns - self._successor_ns >= self._config.overlap_max_ms * NS_PER_MS
        return late or self.current.state is State.WAITING or joined(successor.number)

    def _new(self, now_ns: int) -> Connection:
        return Connection(
            self._next_number(),
            self.endpoint.url,
            self.endpoint.streams,
            self._config,
            jitter=self._jitter,
            now_ns=now_ns,
        )
