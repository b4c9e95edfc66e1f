"""Who listens to which stream, and delivery to them.

Owns: the table from stream to sessions. Never: makes a payload, or decides what a route carries.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from gpuscalp.exchange.session import Session

_encode = msgspec.json.Encoder().encode


class Hub:
    """Sessions by stream.

    Attributes
    ----------
    deliver : called with a session, a stream and a message that goes there; faults stand in its place
    """

    def __init__(self) -> None:
        self._listeners: dict[str, dict[Session, None]] = {}
        self.sessions: dict[Session, None] = {}
        self.deliver: Callable[[Session, str, bytes], None] = lambda session, _, message: session.send(
            message
        )

    def open(self, session: Session) -> None:
        """Take a new connection with the streams of its request."""
        self.sessions[session] = None
        self.subscribe(session, session.initial)

    def close(self, session: Session) -> None:
        self.sessions.pop(session, None)
        self.unsubscribe(session, tuple(session.streams))

    def subscribe(self, session: Session, streams: tuple[str, ...] | list[str]) -> None:
        for stream in streams:
            if session.carries(stream):
                self._listeners.setdefault(stream, {})[session] = None

    def unsubscribe(self, session: Session, streams: tuple[str, ...] | list[str]) -> None:
        for stream in streams:
            listeners = self._listeners.get(stream)
            if listeners is not None:
                listeners.pop(session, None)
                if not listeners:
                    del self._listeners[stream]

    def wants(self, stream: str) -> bool:
        """Whether anybody listens. Payloads are made only then."""
        return stream in self._listeners

    def streams(self) -> tuple[str, ...]:
        """Return all streams that somebody listens to."""
        return tuple(self._listeners)

    def publish(self, stream: str, payload: Any) -> None:
        """Deliver a payload to everybody who listens."""
        self._deliver(stream, payload, None)

    def publish_user(self, listen_key: str, payload: dict[str, Any]) -> None:
        """Deliver a user event to the sessions of a listen key that want events of its kind."""
        self._deliver(listen_key, payload, payload["e"])

    def _deliver(self, stream: str, payload: Any, event: str | None) -> None:
        listeners = self._listeners.get(stream)
        if not listeners:
            return
        raw = _encode(payload)
        for session in tuple(listeners):
            if event is None or session.events is None or event in session.events:
                self.deliver(session, stream, session.wrap(stream, raw))
