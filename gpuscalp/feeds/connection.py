"""The life of one market-data connection as a pure state machine: no sockets, no clock, no randomness.

Owns: back-off, the limits on what is sent, replies to SUBSCRIBE, silence, age. Its owner performs the actions
it returns and tells it what happened. ::

    WAITING --poll, when due-----> OPENING       Open
    OPENING --on_open------------> SUBSCRIBING   Send, as fast as the limit allows
    SUBSCRIBING --last reply-----> LIVE
    any --on_closed, time-outs---> WAITING       after a back-off (Close first where a socket is open)
    any --retire-----------------> RETIRED       Close; never opened again

Order of calls: ``poll`` after every event and at ``due_ns`` at the latest. An action Open must be answered by
``on_open`` or ``on_closed``, a Close by ``on_closed``. Events of an older socket must not be passed on.

Sources: Binance USD-M developer documentation, "Connect": 10 incoming messages a second, 200 streams in its
older and 1024 in its present version, 24 hours; server pings every 3 minutes are answered by the socket.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from enum import Enum
from typing import Final, NamedTuple, TypeAlias, final

import msgspec

from gpuscalp.config import FeedConfig
from gpuscalp.schema import NS_PER_MS, NS_PER_S

# Streams named in one SUBSCRIBE: a request must fit into one frame of 4 KiB, which proxies let through.
PARAMS_MAX: Final = 50
NEVER: Final = 2**63 - 1
# Ends that we have wanted: of a connection that another one has replaced, and of them all.
PLANNED: Final = frozenset({"retired", "stopped"})


class State(Enum):
    WAITING = "waiting"
    OPENING = "opening"
    SUBSCRIBING = "subscribing"
    LIVE = "live"
    RETIRED = "retired"


class Open(NamedTuple):
    """Open a socket to ``url``."""

    url: str


class Send(NamedTuple):
    text: str


class Close(NamedTuple):
    """Close the socket, or give up opening it."""

    reason: str


Action: TypeAlias = Open | Send | Close


class Reply(msgspec.Struct):
    """The venue's answer to a control message. ``id`` is echoed; an error has ``code`` and ``msg``, which
    come at the top or under ``error``."""

    id: int | str | None = None
    code: int | None = None
    msg: str | None = None
    error: dict[str, object] | None = None

    @property
    def refusal(self) -> str | None:
        if self.error is not None:
            return str(self.error.get("msg", self.error))
        return None if self.code is None else f"{self.code} {self.msg or ''}".strip()


@final
class Connection:
    """One connection.

    Parameters
    ----------
    number : who it is, in the journal and in ``gpuscalp.feeds.merge``
    url, streams : see ``gpuscalp.feeds.routes.Endpoint``; at most ``config.max_streams``
    jitter : returns a number in [0, 1), drawn anew at every call
    now_ns : any clock that only rises; the first Open is due at once

    Attributes
    ----------
    state : State
    opened_ns : when the present socket opened; 0 where there is none
    failures : in a row, since it was last stable
    cut_count : how often an open socket was lost
    reason : why it was last closed
    """

    def __init__(
        self,
        number: int,
        url: str,
        streams: Sequence[str],
        config: FeedConfig,
        *,
        jitter: Callable[[], float],
        now_ns: int,
    ) -> None:
        assert 0 < len(streams) <= config.max_streams, (
            "the split over connections is made by routes.endpoints"
        )
        self.number, self.url, self.streams = number, url, tuple(streams)
        self.state = State.WAITING
        self.opened_ns = 0
        self.failures = self.cut_count = 0
        self.reason = ""
        self._config, self._jitter = config, jitter
        self._due_ns = now_ns  # of the next Open, or of the time-out of the present state
        self._heard_ns = now_ns
        self._closing = False
        self._sent_ns: deque[int] = deque(maxlen=config.max_messages_per_s)
        self._requests: deque[tuple[int, tuple[str, ...]]] = deque()
        self._unanswered: dict[int, tuple[str, ...]] = {}
        self._next_id = 1

    @property
    def is_live(self) -> bool:
        """Whether every stream has been acknowledged. That data flow is the watchdog's business."""
        return self.state is State.LIVE

    @property
    def due_ns(self) -> int:
        """When ``poll`` has to be called at the latest."""
        if self.state is State.RETIRED or self._closing:
            return NEVER
        due_ns = self._due_ns
        if self.state in (State.SUBSCRIBING, State.LIVE):
            due_ns = min(due_ns, self._heard_ns + self._config.idle_timeout_ms * NS_PER_MS)
            if self._requests:
                due_ns = min(due_ns, self._may_send_ns())
        return due_ns

    def poll(self, now_ns: int) -> list[Action]:
        """Return what is to be done now."""
        if self.state is State.RETIRED or self._closing:
            return []
        if self.state is State.WAITING:
            if now_ns < self._due_ns:
                return []
            self.state = State.OPENING
            self._due_ns = now_ns + self._config.open_timeout_ms * NS_PER_MS
            return [Open(self.url)]
        if self.state is State.OPENING:
            return self._close("no handshake in time") if now_ns >= self._due_ns else []
        if now_ns - self._heard_ns >= self._config.idle_timeout_ms * NS_PER_MS:
            return self._close("not one byte in time: half open")
        if self._unanswered and now_ns >= self._due_ns:
            return self._close("no reply to SUBSCRIBE in time")
        return self._send(now_ns)

    def on_open(self, now_ns: int) -> None:
        """The handshake is done."""
        if self.state is not State.OPENING or self._closing:
            return
        self.state = State.SUBSCRIBING
        self.opened_ns = self._heard_ns = now_ns
        self._due_ns = NEVER
        self._sent_ns.clear()
        self._unanswered.clear()
        self._requests.clear()
        for start in range(0, len(self.streams), PARAMS_MAX):
            self._requests.append((self._next_id, self.streams[start : start + PARAMS_MAX]))
            self._next_id += 1

    def on_heard(self, now_ns: int) -> None:
        """Any byte came, pings included."""
        self._heard_ns = now_ns

    def on_reply(self, reply: Reply, now_ns: int) -> list[Action]:
        """A control message was answered; a refusal closes the connection."""
        self._heard_ns = now_ns
        refusal = reply.refusal
        if refusal is not None:
            return self._close(f"refused: {refusal}")
        if not isinstance(reply.id, int) or self._unanswered.pop(reply.id, None) is None:
            return []
        if not self._unanswered and not self._requests and self.state is State.SUBSCRIBING:
            self.state = State.LIVE
            self._due_ns = NEVER
        return []

    def on_closed(self, now_ns: int, reason: str, *, retry_after_ms: int = 0) -> None:
        """The socket is gone, or could not be opened.

        Parameters
        ----------
        reason : in words
        retry_after_ms : what the venue asks for (429, 418, maintenance): no attempt before
        """
        if self.state is State.RETIRED:
            return
        stable = self.opened_ns and now_ns - self.opened_ns >= self._config.stable_ms * NS_PER_MS
        self.failures = 1 if stable else self.failures + 1
        self.cut_count += 1 if self.opened_ns else 0
        self.reason = self.reason if self._closing and self.reason else reason
        self.state, self.opened_ns, self._closing = State.WAITING, 0, False
        self._due_ns = now_ns + max(self._backoff_ns(), retry_after_ms * NS_PER_MS)

    def reconnect(self, reason: str) -> list[Action]:
        """Close and open anew: its data are not what they should be."""
        if self.state in (State.WAITING, State.RETIRED) or self._closing:
            return []
        return self._close(reason)

    def retire(self) -> list[Action]:
        """Close for good."""
        had_socket = self.state in (State.OPENING, State.SUBSCRIBING, State.LIVE) and not self._closing
        self.state = State.RETIRED
        return [Close("retired")] if had_socket else []

    def _close(self, reason: str) -> list[Action]:
        self.reason, self._closing = reason, True
        return [Close(reason)]

    def _send(self, now_ns: int) -> list[Action]:
        actions: list[Action] = []
        while self._requests and now_ns >= self._may_send_ns():
            number, streams = self._requests.popleft()
            self._sent_ns.append(now_ns)
            self._unanswered[number] = streams
            self._due_ns = now_ns + self._config.reply_timeout_ms * NS_PER_MS
            request = {"method": "SUBSCRIBE", "params": streams, "id": number}
            actions.append(Send(msgspec.json.encode(request).decode()))
        return actions

    def _may_send_ns(self) -> int:
        """Return when the next message may go: never more than the limit in any second."""
        if len(self._sent_ns) < self._config.max_messages_per_s:
            return 0
        return self._sent_ns[0] + NS_PER_S

    def _backoff_ns(self) -> int:
        """Twice as long after every failure, up to the cap; half of it is drawn, so that many clients that
        were cut together do not come back together."""
        config = self._config
        longest_ms = min(config.backoff_max_ms, config.backoff_min_ms << min(self.failures - 1, 30))
        return int(longest_ms * (0.5 + 0.5 * self._jitter()) * NS_PER_MS)
