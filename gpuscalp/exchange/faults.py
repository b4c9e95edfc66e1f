"""Faults on demand: what goes wrong, where, how often.

Owns: the rules of all faults, and the delivery of stream messages under them. Pure: time and chance come in.
Never: a socket; the shell asks here and acts.

A fault is described by words, ``kind:name=value,name=value`` on the command line or the same names as JSON.

=================  ===========================================================================================
kind               what happens
=================  ===========================================================================================
drop               stream messages are lost
duplicate          stream messages come twice
delay              stream messages come ``delay_ms`` late; those behind them do not wait
reorder            a stream message comes after the next one of its stream
gap                the next ``count`` (1) differences of the book are lost: the chain of update ids has a hole
silent             the streams stay subscribed and deliver nothing
half_open          connections stay open, deliver nothing and answer no ping
cut                connections are closed now; ``life_s`` instead gives every new connection that life
too_many           requests get 429 with Retry-After
banned             requests get 418 with Retry-After
timestamp          signed requests get -1021
timeout_executed   requests are carried out, and their connection breaks after ``delay_ms`` without a reply
timeout_lost       the same, but they are not carried out
unknown_executed   requests are carried out and answered 503, execution status unknown
unknown_lost       the same, but they are not carried out
maintenance        connections are closed and refused, every request gets 503
listen_key         all listen keys expire now
clock_skew         the time in replies is ahead by ``skew_ms`` (behind, if negative); that of streams is not
=================  ===========================================================================================

``streams`` and ``path`` are patterns (``*`` and ``?``); ``connection`` is the number of one connection;
``probability`` and ``count`` say how often; a fault without ``count`` stays until it is cleared.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Annotated, Final, Literal, cast, get_args

import msgspec
from msgspec import Meta, Struct

from gpuscalp.errors import UsageError
from gpuscalp.exchange.gateway import Reply
from gpuscalp.exchange.limits import WEIGHT_LIMIT, banned
from gpuscalp.exchange.refusals import ApiError
from gpuscalp.exchange.session import Session
from gpuscalp.schema import NS_PER_MS

Kind = Literal[
    "drop",
    "duplicate",
    "delay",
    "reorder",
    "gap",
    "silent",
    "half_open",
    "cut",
    "too_many",
    "banned",
    "timestamp",
    "timeout_executed",
    "timeout_lost",
    "unknown_executed",
    "unknown_lost",
    "maintenance",
    "listen_key",
    "clock_skew",
]
KINDS: Final = cast(tuple[str, ...], get_args(Kind))
_STREAM_KINDS: Final = frozenset({"drop", "duplicate", "delay", "reorder", "gap", "silent", "half_open"})
_REQUEST_KINDS: Final = frozenset(
    {
        *("too_many", "banned", "timestamp", "timeout_executed", "timeout_lost"),
        *("unknown_executed", "unknown_lost", "maintenance"),
    }
)
# Faults that happen once, at the moment at which they are set.
IMMEDIATE: Final = frozenset({"listen_key"})


class Fault(Struct, frozen=True, forbid_unknown_fields=True):
    """One fault; what a field means is in the module's table."""

    kind: Kind
    streams: str = "*"
    path: str = "*"
    connection: int | None = None
    probability: Annotated[float, Meta(ge=0.0, le=1.0)] = 1.0
    count: Annotated[int, Meta(ge=1)] | None = None
    delay_ms: Annotated[int, Meta(ge=0, le=600_000)] = 1_000
    retry_after_s: Annotated[int, Meta(ge=0)] = 1
    skew_ms: int = 0
    life_s: Annotated[float, Meta(gt=0)] | None = None


def parse_fault(text: str) -> Fault:
    """Read the form of the command line.

    Raises
    ------
    UsageError
        the kind or a name is unknown, or a value is out of range
    """
    kind, _, rest = text.partition(":")
    values: dict[str, object] = {"kind": kind}
    for item in filter(None, rest.split(",")):
        name, _, value = item.partition("=")
        values[name] = value
    return make_fault(values, strict=False)


def make_fault(values: Mapping[str, object], *, strict: bool = True) -> Fault:
    """Make a fault of named values.

    Raises
    ------
    UsageError
        as ``parse_fault``
    """
    try:
        return msgspec.convert(dict(values), Fault, strict=strict)
    except msgspec.ValidationError as error:
        raise UsageError(
            "no such fault", where="fault", value=str(error), fix=f"kinds: {', '.join(KINDS)}"
        ) from None


class Faults:
    """The faults in force. As the hub's delivery it lets stream messages through, or not.

    Call ``release`` with the time again and again: held messages go out by it.

    Parameters
    ----------
    seed : of the chances

    Attributes
    ----------
    active : fault by id
    now_ns : the newest time given
    """

    def __init__(self, seed: int = 0) -> None:
        self.active: dict[int, Fault] = {}
        self.now_ns = 0
        self._left: dict[int, int] = {}
        self._number = self._sequence = 0
        self._random = random.Random(seed)  # noqa: S311 (faults are no secret)
        self._late: list[tuple[int, int, Session, bytes]] = []
        self._held: dict[tuple[Session, str], bytes] = {}

    def add(self, fault: Fault) -> int:
        """Put a fault in force and return its id."""
        if fault.kind == "gap":
            # A hole that never ends would be no gap, and only a book has a chain.
            pattern = "*@depth*" if fault.streams == "*" else fault.streams
            fault = msgspec.structs.replace(fault, streams=pattern, count=fault.count or 1)
        self._number += 1
        self.active[self._number] = fault
        if fault.count is not None:
            self._left[self._number] = fault.count
        return self._number

    def clear(self, number: int | None = None) -> int:
        """End one fault, or all; return how many there were."""
        gone = [each for each in self.active if number in (None, each)]
        for each in gone:
            self._end(each)
        return len(gone)

    @property
    def skew_ms(self) -> int:
        return sum(fault.skew_ms for fault in self.active.values() if fault.kind == "clock_skew")

    @property
    def maintenance(self) -> bool:
        return any(fault.kind == "maintenance" for fault in self.active.values())

    @property
    def life_s(self) -> float | None:
        """How long new connections live, if a fault says so."""
        lives = [fault.life_s for fault in self.active.values() if fault.kind == "cut" and fault.life_s]
        return min(lives, default=None)

    def half_open(self, connection: int) -> bool:
        """Whether a connection is dead without being closed."""
        return any(
            fault.kind == "half_open" and fault.connection in (None, connection)
            for fault in self.active.values()
        )

    def for_request(self, path: str) -> Fault | None:
        """Return the fault that the next request to a path meets, and count it."""
        for number, fault in tuple(self.active.items()):
            if fault.kind in _REQUEST_KINDS and fnmatchcase(path, fault.path) and self._hits(number, fault):
                return fault
        return None

    def __call__(self, session: Session, stream: str, message: bytes) -> None:
        """Deliver a message to a session, as far as the faults let it."""
        held = self._held.pop((session, stream), None)
        for number, fault in tuple(self.active.items()):
            if (
                fault.kind not in _STREAM_KINDS
                or fault.connection not in (None, session.number)
                or not fnmatchcase(stream, fault.streams)
                or not self._hits(number, fault)
            ):
                continue
            if fault.kind == "duplicate":
                session.send(message)
                break
            if fault.kind == "reorder" and held is None:
                self._held[session, stream] = message
                return
            if fault.kind == "delay":
                self._sequence += 1
                due_ns = self.now_ns + fault.delay_ms * NS_PER_MS
                heapq.heappush(self._late, (due_ns, self._sequence, session, message))
                message = b""
                break
            if fault.kind != "reorder":
                message = b""
                break
        if message:
            session.send(message)
        if held is not None:
            session.send(held)

    def release(self, now_ns: int) -> None:
        """Send the delayed messages that are due."""
        self.now_ns = now_ns
        while self._late and self._late[0][0] <= now_ns:
            _, _, session, message = heapq.heappop(self._late)
            session.send(message)

    def _hits(self, number: int, fault: Fault) -> bool:
        if fault.probability < 1.0 and self._random.random() >= fault.probability:
            return False
        if number in self._left:
            self._left[number] -= 1
            if not self._left[number]:
                self._end(number)
        return True

    def _end(self, number: int) -> None:
        self.active.pop(number, None)
        self._left.pop(number, None)


def reply_of(error: ApiError) -> Reply:
    """Return a refusal as an HTTP reply."""
    return Reply(error.status, msgspec.json.encode(error.body()), error.headers)


def refusal_of(fault: Fault, now_ms: int) -> Reply | None:
    """Return what a request gets under a fault that refuses it; None for the other kinds."""
    if fault.kind == "too_many":
        return reply_of(ApiError(-1003, WEIGHT_LIMIT, headers={"Retry-After": str(fault.retry_after_s)}))
    if fault.kind == "banned":
        return reply_of(banned(now_ms + 1_000 * fault.retry_after_s, now_ms))
    if fault.kind == "maintenance":
        return reply_of(ApiError(-1016, status=503, message="Service Unavailable."))
    if fault.kind == "timestamp":
        return reply_of(ApiError(-1021))
    return None
