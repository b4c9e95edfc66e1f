"""One WebSocket connection to a stream endpoint: its path, its control messages, what it may carry.

Owns: routes, subscriptions, the replies and errors of the control messages, the limit of ten messages a
second. Pure: text in, text out. Never: a socket, or the content of a stream.

Routes since 2026: ``/public`` carries books and single trades, ``/market`` everything else of the market,
``/private`` user data; a path without a route carries what ``/public`` does. What a route does not carry is
acknowledged and stays silent. In the lenient mode every route carries everything.
Source: Binance documentation, "Important WebSocket change notice" and "Live subscribing/unsubscribing".
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable
from typing import Any, Final
from urllib.parse import parse_qs, unquote

import msgspec

from gpuscalp.errors import UNREADABLE

MESSAGES_PER_S: Final = 10
STREAMS_MAX: Final = 1_024
_METHODS: Final = ("SUBSCRIBE", "UNSUBSCRIBE", "LIST_SUBSCRIPTIONS", "SET_PROPERTY", "GET_PROPERTY")
_PUBLIC: Final = re.compile(
    r"(!bookTicker|[^@]+@(bookTicker|trade|depth(5|10|20)?(@\d+ms)?|rpiDepth(@500ms)?))"
)
_PATH: Final = re.compile(r"/(?:(public|market|private)/)?(ws|stream)(?:/(.*))?")


class DisconnectError(Exception):
    """The exchange ends the connection."""


def route_of(stream: str) -> str:
    """Return the route that carries a stream."""
    if "@" not in stream and not stream.startswith("!") and stream != "tradingSession":
        return "private"
    return "public" if _PUBLIC.fullmatch(stream) else "market"


def is_stream_path(path: str) -> bool:
    return _PATH.fullmatch(path) is not None


class Session:
    """One connection.

    Parameters
    ----------
    number : of the connection, for faults and for the log
    path, query : of the request; the query undecoded
    lenient : whether every route carries everything
    send : called with each message, encoded

    Attributes
    ----------
    initial : the streams that the request named
    streams : subscribed names in order, whether or not the route carries them
    combined : whether messages are wrapped with the name of their stream
    events : names of user events wanted; None = all
    """

    def __init__(
        self, number: int, path: str, query: str, *, lenient: bool, send: Callable[[bytes], None]
    ) -> None:
        match = _PATH.fullmatch(path)
        assert match is not None, "the shell asks is_stream_path first"
        self.number = number
        self.route: str | None = match[1]
        self.combined = match[2] == "stream"
        self.lenient = lenient
        self.send = send
        self.streams: dict[str, None] = {}
        self.events: frozenset[str] | None = None
        self._times: deque[int] = deque(maxlen=MESSAGES_PER_S)
        self.initial = self._from_request(match[3] or "", query)

    def carries(self, stream: str) -> bool:
        """Whether this connection delivers a stream to which it is subscribed."""
        if self.lenient:
            return True
        return route_of(stream) == (self.route or "public")

    def on_text(self, data: str | bytes, now_ns: int) -> tuple[bytes, list[str], list[str]]:
        """Answer one control message.

        Parameters
        ----------
        data : the message
        now_ns : any clock that does not go back; for the limit of messages

        Returns
        -------
        reply, added, removed
            the reply's text, and the streams that the caller has to add and to remove

        Raises
        ------
        DisconnectError
            more than ten messages in a second, or too many streams
        """
        self.count(now_ns)
        try:
            message = msgspec.json.decode(data)
        except UNREADABLE as error:
            return _error(3, f"Invalid JSON: {error}"), [], []
        if not isinstance(message, dict):
            return _error(2, "Invalid request: a request must be an object"), [], []
        number = message.get("id")
        if number is not None and not _is_id(number):
            return _error(2, "Invalid request: request ID must be an unsigned integer"), [], []
        method, params = message.get("method"), message.get("params", [])
        if method not in _METHODS:
            wanted = ", ".join(_METHODS)
            text = f"Invalid request: unknown variant {method}, expected one of {wanted} at line 1 column 28"
            return _error(2, text), [], []
        if method in ("SUBSCRIBE", "UNSUBSCRIBE"):
            if not isinstance(params, list) or not all(isinstance(name, str) for name in params):
                return _error(2, "Invalid request: params must be an array of strings"), [], []
            added, removed = self._change(params, adds=method == "SUBSCRIBE")
            return _reply(None, number), added, removed
        if method == "LIST_SUBSCRIPTIONS":
            return _reply(list(self.streams), number), [], []
        return self._property(method, params, number), [], []

    def count(self, now_ns: int) -> None:
        """Count one incoming message (ping and pong count as well).

        Raises
        ------
        DisconnectError
            too many in a second
        """
        if len(self._times) == MESSAGES_PER_S and now_ns - self._times[0] < 1_000_000_000:
            raise DisconnectError("more than 10 messages in a second")
        self._times.append(now_ns)

    def wrap(self, stream: str, raw: bytes) -> bytes:
        """Return the message as this connection gets it."""
        if not self.combined:
            return raw
        return b'{"stream":"' + stream.encode() + b'","data":' + raw + b"}"

    def _change(self, names: list[str], *, adds: bool) -> tuple[list[str], list[str]]:
        if adds:
            added = [name for name in dict.fromkeys(names) if name not in self.streams]
            if len(self.streams) + len(added) > STREAMS_MAX:
                raise DisconnectError(f"more than {STREAMS_MAX} streams")
            self.streams.update(dict.fromkeys(added))
            return added, []
        removed = [name for name in dict.fromkeys(names) if name in self.streams]
        for name in removed:
            del self.streams[name]
        return [], removed

    def _property(self, method: str, params: Any, number: Any) -> bytes:
        values = params if isinstance(params, list) else []
        if not values or not isinstance(values[0], str):
            return _error(2, "Invalid request: property name must be a string")
        if values[0] != "combined":
            return _error(0, "Unknown property")
        if method == "GET_PROPERTY":
            return _reply(self.combined, number)
        if len(values) != 2 or not isinstance(values[1], bool):
            return _error(1, "Invalid value type: expected Boolean")
        self.combined = values[1]
        return _reply(None, number)

    def _from_request(self, tail: str, query: str) -> tuple[str, ...]:
        fields = parse_qs(query)
        # A number at the end of the path is a shard that a client library made up, no stream.
        names = [name for name in unquote(tail).split("/") if name and not name.isdigit()]
        for name in (*fields.get("streams", []), *fields.get("listenKey", [])):
            names.extend(part for part in name.split("/") if part)
        if "events" in fields:
            self.events = frozenset("/".join(fields["events"]).split("/"))
        self._change(names, adds=True)
        return tuple(names)


def _is_id(number: object) -> bool:
    # The documentation says unsigned integer; the venue echoes strings as well, and its own SDK sends them.
    return isinstance(number, str) or (
        isinstance(number, int) and not isinstance(number, bool) and number >= 0
    )


def _reply(result: object, number: object) -> bytes:
    return msgspec.json.encode({"result": result, "id": number})


def _error(code: int, message: str) -> bytes:
    return msgspec.json.encode({"code": code, "msg": message})
