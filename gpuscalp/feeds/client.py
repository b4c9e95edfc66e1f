"""The asyncio shell of the feeds: performs what the state machines ask for, tells them what happened.

Owns: the tasks of the sockets and the timer. Never: decodes data; replies to our own requests excepted.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol, final

import msgspec

from gpuscalp.config import FeedConfig
from gpuscalp.errors import UNREADABLE
from gpuscalp.feeds.connection import PLANNED, Action, Close, Connection, Open, Reply, Send
from gpuscalp.feeds.routes import Endpoint
from gpuscalp.feeds.slot import Slot
from gpuscalp.feeds.socket import Socket, SocketError, open_socket
from gpuscalp.feeds.watch import Watch
from gpuscalp.schema import NS_PER_S

_LOG: Final = logging.getLogger("gpuscalp.session")
_COMBINED: Final = b'{"stream":"'
_WATCH_NS: Final = NS_PER_S
# However far the next event is: a clock that jumped must not stop the timer.
_SLEEP_MAX_S: Final = 1.0


class Receiver(Protocol):
    """Where messages go. Called from the event loop; must not wait for anything."""

    def on_open(self, number: int, endpoint: Endpoint, now_ns: int) -> None:
        """A connection was opened; nothing has come from it yet."""

    def on_messages(self, number: int, recv_ns: int, messages: list[bytes]) -> None:
        """Messages came, in order; replies to requests among them."""

    def on_lost(self, number: int, now_ns: int, reason: str) -> None:
        """A connection has ended; nothing more comes from it."""

    def joined(self, number: int) -> bool:
        """Whether a connection can take the place of the others (``gpuscalp.feeds.merge``)."""


@dataclass(frozen=True, slots=True)
class ConnectionStatus:
    """What ``gpuscalp status`` shows of a connection."""

    number: int
    route: str
    state: str
    age_s: float
    streams: int
    silent: tuple[str, ...]
    cuts: int
    reason: str


@final
class FeedClient:
    """Keeps all connections; runs until cancelled.

    Parameters
    ----------
    endpoints : each gets a slot of its own; redundant ones stand several times
    receiver : gets everything
    wall, monotonic : clocks, ns
    jitter : random number in [0, 1)

    Attributes
    ----------
    opened, lost : connections that have come about, and ended without our wanting it, by route
    """

    def __init__(
        self,
        endpoints: Sequence[Endpoint],
        config: FeedConfig,
        receiver: Receiver,
        *,
        wall: Callable[[], int],
        monotonic: Callable[[], int],
        jitter: Callable[[], float],
    ) -> None:
        self._config, self._receiver = config, receiver
        self._wall, self._monotonic = wall, monotonic
        now_ns = monotonic()
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._sends: set[asyncio.Task[None]] = set()
        self._sockets: dict[int, Socket] = {}
        self._refusals: dict[int, str] = {}  # of connections that do not come about, as last told
        self.slots: tuple[Slot, ...] = ()
        for endpoint in endpoints:
            slot = Slot(endpoint, config, next_number=self._free_number, jitter=jitter, now_ns=now_ns)
            self.slots += (slot,)
        self._watch = Watch(config, [each.streams for each in endpoints])
        self.opened: Counter[str] = Counter({each.route: 0 for each in endpoints})
        self.lost = self.opened.copy()
        self._wake = asyncio.Event()
        self._watch_due_ns = now_ns

    async def run(self) -> None:
        """Keep the connections until this task is cancelled; then close all of them."""
        try:
            while True:
                self._wake.clear()
                now_ns = self._monotonic()
                for slot in self.slots:
                    for connection, action in slot.poll(now_ns, self._receiver.joined):
                        self._perform(connection, action, slot.endpoint)
                if now_ns >= self._watch_due_ns:
                    self._renew(now_ns)
                    self._watch_due_ns = now_ns + _WATCH_NS
                due_ns = min([self._watch_due_ns, *(slot.due_ns for slot in self.slots)])
                wait_s = min(max(due_ns - self._monotonic(), 0) / NS_PER_S, _SLEEP_MAX_S)
                # Not wait_for: that of Python 3.11 loses a cancellation that comes together with the event.
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(max(wait_s, 0.001)):
                        await self._wake.wait()
        finally:
            tasks = [*self._tasks.values(), *self._sends]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def delivering_streams(self) -> frozenset[str]:
        """Return the streams that deliver now, over any connection."""
        return self._watch.delivering(self._monotonic())

    def stream_ages_s(self) -> dict[str, float]:
        """Return the time since each stream that has brought anything did so last, over any connection."""
        now_ns = self._monotonic()
        return {name: (now_ns - at_ns) / NS_PER_S for name, at_ns in self._watch.heard_ns().items()}

    def status(self) -> list[ConnectionStatus]:
        """Return all connections."""
        now_ns = self._monotonic()
        silent = {number: tuple(dog.silent(now_ns)) for number, dog in self._watch.watchdogs.items()}
        return [
            ConnectionStatus(
                connection.number,
                slot.endpoint.route,
                connection.state.value,
                (now_ns - connection.opened_ns) / NS_PER_S if connection.opened_ns else 0.0,
                len(connection.streams),
                silent.get(connection.number, ()),
                connection.cut_count,
                connection.reason,
            )
            for slot in self.slots
            for connection in slot.connections()
        ]

    def _perform(self, connection: Connection, action: Action, endpoint: Endpoint) -> None:
        number = connection.number
        if isinstance(action, Open):
            self._tasks[number] = asyncio.create_task(self._session(connection, action.url, endpoint))
        elif isinstance(action, Send):
            socket = self._sockets.get(number)
            if socket is not None:
                task = asyncio.create_task(socket.send(action.text))
                self._sends.add(task)
                task.add_done_callback(self._sends.discard)
        else:
            self._end(number, action)

    def _free_number(self) -> int:
        """Return the smallest number that no connection has: in the journal it has 8 bits."""
        taken = {connection.number for slot in self.slots for connection in slot.connections()}
        # One that was retired is told to be lost when its task ends.
        taken |= self._tasks.keys()
        return next(number for number in itertools.count() if number not in taken)

    def _end(self, number: int, action: Close) -> None:
        """Give up: cancelling the session closes its socket, which must not keep anybody waiting."""
        task = self._tasks.get(number)
        if task is not None:
            task.cancel(action.reason)

    async def _session(self, connection: Connection, url: str, endpoint: Endpoint) -> None:
        """One socket, from opening to its end, of which the machine is told whatever happens."""
        number, reason, retry_after_ms = connection.number, "", 0
        socket: Socket | None = None
        try:
            socket = await open_socket(
                url,
                self._config,
                sink=lambda recv_ns, messages: self._on_messages(connection, socket, recv_ns, messages),
                clock=self._wall,
            )
            self._sockets[number] = socket
            self._refusals.pop(number, None)
            self._receiver.on_open(number, endpoint, self._wall())
            connection.on_open(self._monotonic())
            self.opened[endpoint.route] += 1
            self._wake.set()
            reason = await socket.wait_closed()
        except SocketError as error:
            reason, retry_after_ms = str(error), error.retry_after_ms
        except asyncio.CancelledError as error:
            reason = str(error) or "stopped"
        finally:
            self._watch.stop(number)
            self._tasks.pop(number, None)
            if self._sockets.pop(number, None) is not None:
                self.lost[endpoint.route] += reason not in PLANNED
                self._receiver.on_lost(number, self._wall(), reason)
            elif reason not in PLANNED and self._refusals.get(number) != reason:
                self._refusals[number] = reason  # not each of the attempts
                _LOG.warning("connection %d does not come about: %s", number, reason)
            connection.on_closed(self._monotonic(), reason, retry_after_ms=retry_after_ms)
            self._wake.set()
            if socket is not None:
                await socket.close()

    def _on_messages(
        self, connection: Connection, socket: Socket | None, recv_ns: int, messages: list[bytes]
    ) -> None:
        now_ns = self._monotonic()
        number = connection.number
        if socket is None or self._sockets.get(number) is not socket:
            return  # already told to be lost, while the number may have another socket
        connection.on_heard(now_ns)
        if not messages:
            return
        names = {message[11 : message.find(b'"', 11)].decode("utf-8", "replace") for message in messages}
        watchdog = self._watch.watchdogs.get(number)
        for name in names:
            if watchdog is None:
                self._watch.on_early(number, name, now_ns)
            else:
                watchdog.on_message(name, now_ns)
        if watchdog is None:
            self._on_replies(connection, messages, now_ns)
        self._receiver.on_messages(number, recv_ns, messages)

    def _on_replies(self, connection: Connection, messages: list[bytes], now_ns: int) -> None:
        for message in messages:
            if message.startswith(_COMBINED):
                continue
            try:
                reply = msgspec.json.decode(message, type=Reply)
            except UNREADABLE:
                continue
            for action in connection.on_reply(reply, now_ns):
                assert isinstance(action, Close)
                self._end(connection.number, action)
        if connection.is_live:
            self._watch.start(connection.number, connection.streams, now_ns)
        self._wake.set()

    def _renew(self, now_ns: int) -> None:
        """Open connections anew whose streams should deliver and do not."""
        by_number = {
            connection.number: connection for slot in self.slots for connection in slot.connections()
        }
        for number, reason in self._watch.overdue(now_ns):
            connection = by_number.get(number)
            for action in () if connection is None else connection.reconnect(reason):
                if isinstance(action, Close):
                    self._end(number, action)
