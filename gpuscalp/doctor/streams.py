"""The exchange's market streams: does every route open, acknowledge and deliver?

Owns: one short connection to each address, and the checks ``stream_…``. Never: decodes market data, or tries
again.

That a subscription is acknowledged proves nothing: a stream on the wrong route is acknowledged and stays
silent. So every stream of one symbol has to deliver.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

import msgspec

from gpuscalp.config import FeedConfig
from gpuscalp.doctor.check import Check, fail, ok, warn
from gpuscalp.errors import UNREADABLE, DeadlineError, FeedError
from gpuscalp.feeds.connection import Reply
from gpuscalp.feeds.routes import Endpoint, endpoints, is_rare, stream_names
from gpuscalp.feeds.socket import SocketError, open_socket
from gpuscalp.schema import NS_PER_MS


@dataclass(frozen=True, slots=True)
class Patience:
    """How long to wait, at most; what the configuration allows is never exceeded.

    ``data_s``: mark prices come every three seconds where a stream does not say ``@1s``.
    """

    rest_s: float = 2.5  # to connect, and to read
    open_s: float = 4.0
    reply_s: float = 2.0
    data_s: float = 3.5


PATIENCE: Final = Patience()


@dataclass(slots=True)
class StreamProbe:
    """What came of one connection. Times since its beginning, ms; None for what did not happen."""

    url: str
    streams: tuple[str, ...]
    open_ms: float | None = None
    reply_ms: float | None = None
    first_ms: dict[str, float] = field(default_factory=dict)
    refusal: str | None = None
    error: SocketError | None = None
    closed: str | None = None

    @property
    def silent(self) -> list[str]:
        """Streams that should have delivered and did not."""
        return [name for name in self.streams if name not in self.first_ms and not is_rare(name)]


class _Head(msgspec.Struct):
    """The name around a message of a combined stream; all that is read of it."""

    stream: str = ""


def addresses(symbol: str, feed: FeedConfig) -> list[tuple[str, Endpoint]]:
    """Return name and endpoint of every address that a session would connect to, each address once.

    Raises
    ------
    ConfigError    a stream has no name or no route
    """
    found: dict[str, tuple[str, Endpoint]] = {}
    for copy in range(feed.redundancy):
        for endpoint in endpoints(stream_names((symbol,), feed.streams), feed, copy=copy):
            name = f"stream_{endpoint.route}" + (f"_{copy}" if copy else "")
            # Redundant connections to the same server prove nothing new.
            found.setdefault(endpoint.url, (name, endpoint))
    return list(found.values())


async def probe_stream(endpoint: Endpoint, feed: FeedConfig, patience: Patience = PATIENCE) -> StreamProbe:
    """Connect, subscribe, and wait until every stream has delivered or patience ends."""
    probe = StreamProbe(endpoint.url, endpoint.streams)
    begin_ns = time.monotonic_ns()
    changed = asyncio.Event()

    def since_ms(now_ns: int) -> float:
        return (now_ns - begin_ns) / NS_PER_MS

    def sink(recv_ns: int, messages: list[bytes]) -> None:
        for message in messages:
            _take(probe, message, since_ms(recv_ns))
        changed.set()

    hurried = msgspec.structs.replace(
        feed, open_timeout_ms=min(feed.open_timeout_ms, round(patience.open_s * 1e3))
    )
    try:
        socket = await open_socket(endpoint.url, hurried, sink=sink, clock=time.monotonic_ns)
    except SocketError as error:
        probe.error = error
        return probe
    probe.open_ms = since_ms(time.monotonic_ns())
    ended = asyncio.ensure_future(socket.wait_closed())
    ended.add_done_callback(lambda _: changed.set())
    try:
        request = {"method": "SUBSCRIBE", "params": endpoint.streams, "id": 1}
        await socket.send(msgspec.json.encode(request).decode())
        waits: tuple[tuple[float, Callable[[], bool]], ...] = (
            (min(patience.reply_s, feed.reply_timeout_ms / 1e3), lambda: probe.reply_ms is not None),
            (min(patience.data_s, feed.first_message_ms / 1e3), lambda: not probe.silent),
        )
        for seconds, done in waits:
            try:
                async with asyncio.timeout(seconds):
                    while not (done() or probe.refusal or ended.done()):
                        changed.clear()
                        await changed.wait()
            except TimeoutError:
                break
        if ended.done():
            probe.closed = ended.result()
        return probe
    finally:
        await socket.close()
        await ended


def check_stream(name: str, probe: StreamProbe) -> Check:
    """Judge one connection."""
    value: dict[str, object] = {
        "url": probe.url,
        "streams": list(probe.streams),
        "open_ms": probe.open_ms,
        "reply_ms": probe.reply_ms,
        "first_ms": dict(probe.first_ms),
    }
    if probe.error is not None:
        value["error"] = probe.error.to_dict()
        told = "" if probe.error.value is None else f": {probe.error.value}"
        return fail(name, f"{probe.error.what}{told}", _fix(probe.error), value, kind=DeadlineError)
    if probe.refusal is not None:
        fix = "correct feed.streams; docs/feeds.md says which streams are known"
        return fail(name, f"SUBSCRIBE was refused: {probe.refusal}", fix, value, kind=FeedError)
    if probe.closed is not None:
        fix = "try again; if it stays so, a proxy or a firewall in between ends WebSockets"
        return fail(name, f"the connection ended by itself: {probe.closed}", fix, value, kind=DeadlineError)
    if probe.reply_ms is None:
        fix = "correct the URL: what answers there is not the exchange, or it is overloaded"
        return fail(name, "opened, but SUBSCRIBE was not acknowledged", fix, value, kind=DeadlineError)
    silent = probe.silent
    if not probe.first_ms and silent:
        fix = "look whether the exchange is in maintenance, and whether this route carries these streams"
        what = f"acknowledged, but silent: {', '.join(silent)}"
        return fail(name, what, fix, value, kind=DeadlineError)
    if silent:
        fix = "a quiet symbol, or streams on the wrong route: look at feed.trade_route and the URLs of [feed]"
        return warn(name, f"silent: {', '.join(silent)}; the others deliver", fix, value)
    slowest_ms = max(probe.first_ms.values(), default=probe.reply_ms)
    return ok(
        name, f"open after {probe.open_ms:.0f} ms, all streams delivered after {slowest_ms:.0f} ms", value
    )


def socket_count(symbols: Sequence[str], feed: FeedConfig) -> int:
    """Return how many connections a session of these symbols keeps.

    Raises
    ------
    ConfigError    a stream has no name or no route
    """
    return feed.redundancy * len(endpoints(stream_names(symbols, feed.streams), feed))


def _take(probe: StreamProbe, message: bytes, at_ms: float) -> None:
    try:
        name = msgspec.json.decode(message, type=_Head).stream
        if name:
            if name in probe.streams:
                probe.first_ms.setdefault(name, at_ms)
            return
        reply = msgspec.json.decode(message, type=Reply)
    except UNREADABLE:
        return
    if reply.refusal is not None:
        probe.refusal = reply.refusal
    elif reply.id == 1 and probe.reply_ms is None:
        probe.reply_ms = at_ms


def _fix(error: SocketError) -> str:
    if error.retry_after_ms:
        return f"the exchange asks to wait: open no connection to it for {error.retry_after_ms / 1e3:.0f} s"
    if "HTTP 404" in error.what:
        return "correct the URL: the server is there and does not know this path"
    if "HTTP 451" in error.what or "HTTP 403" in error.what:
        return "the exchange does not serve this address: use a machine or a proxy that it serves"
    return error.fix or "look at the network, at DNS, at the proxy and at the URLs of [feed]"
