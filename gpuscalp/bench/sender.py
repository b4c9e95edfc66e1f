"""A venue on loopback for benchmarks, in a process of its own: a made-up market at a steady rate.

    GET /fapi/v1/exchangeInfo, /fapi/v1/time, /fapi/v1/depth      as the venue answers
    GET /bench/start, /bench/stop, /bench/count                   begins, ends, says what was sent
    GET /bench/withhold                                           keeps some back from now on
    WebSocket /public/stream, /market/stream                      streams by ?streams=a/b or SUBSCRIBE

Owns: the pace, and the count of what was sent. Messages leave in bursts of two milliseconds,
each connection's as one write. Started by ``gpuscalp.bench.live``; prints its port.
"""

from __future__ import annotations

import argparse
import asyncio
import http
import time
from typing import Any, Final, final
from urllib.parse import parse_qs, urlsplit

import msgspec
from websockets.asyncio.server import ServerConnection, serve
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from gpuscalp.bench.flow import Flow

_BURST_S: Final = 0.002
# After a pause of the whole machine the rate is made up for, but not all at once.
_BURST_MAX_S: Final = 0.05
_MS: Final = 1_000_000


class _Subscription(msgspec.Struct):
    method: str
    params: list[str]
    id: int


@final
class Sender:
    """Sends a flow to whoever has subscribed.

    Parameters
    ----------
    flow : what is sent
    rate : messages a second, before copies
    withhold : each so-manieth message is counted and not sent, once it is asked for; 0 = none

    Attributes
    ----------
    sent : messages, copies included
    drawn : messages, copies apart
    backlog_bytes_max : most that ever waited for one client
    """

    def __init__(self, flow: Flow, rate: int, *, withhold: int = 0) -> None:
        self._flow, self._rate, self._withhold = flow, rate, withhold
        self._streams = flow.streams()
        self._clients: list[tuple[ServerConnection, ...]] = [()] * len(self._streams)
        self._symbols = {name: index for index, name in enumerate(flow.names)}
        self._pump: asyncio.Task[None] | None = None
        self._withholding = False
        self.sent = self.drawn = self.backlog_bytes_max = 0

    async def handle(self, client: ServerConnection) -> None:
        """Serve one client."""
        assert client.request is not None
        asked = parse_qs(urlsplit(client.request.path).query).get("streams", [""])[0]
        self._subscribe(client, [name for name in asked.split("/") if name])
        try:
            async for text in client:
                request = msgspec.json.decode(text, type=_Subscription)
                # The reply first: whoever gets data before it may take the stream for an older one.
                await client.send(msgspec.json.encode({"result": None, "id": request.id}).decode(), text=True)
                self._subscribe(client, request.params)
        except ConnectionClosed:
            return
        finally:
            self._clients = [tuple(each for each in known if each is not client) for known in self._clients]

    def _subscribe(self, client: ServerConnection, names: list[str]) -> None:
        for name in names:
            self._clients[self._streams[name]] += (client,)

    def reply(self, client: ServerConnection, request: Request) -> Response | None:
        """Answer what is no WebSocket."""
        path, _, query = request.path.partition("?")
        if path.endswith("/stream"):
            return None
        now_ms = time.time_ns() // _MS
        asked = {name: values[0] for name, values in parse_qs(query).items()}
        if path == "/fapi/v1/time":
            body = msgspec.json.encode({"serverTime": now_ms})
        elif path == "/fapi/v1/exchangeInfo":
            body = self._flow.exchange_info()
        elif path == "/fapi/v1/depth":
            body = self._flow.snapshot(self._symbols[asked["symbol"]], int(asked.get("limit", 500)), now_ms)
        elif path.startswith("/bench/"):
            self._control(path.removeprefix("/bench/"))
            body = msgspec.json.encode(
                {"sent": self.sent, "drawn": self.drawn, "backlog_bytes_max": self.backlog_bytes_max}
            )
        else:
            return client.respond(http.HTTPStatus.NOT_FOUND, path)
        headers = Headers(
            [
                ("Content-Type", "application/json"),
                ("Content-Length", str(len(body))),
                ("Connection", "close"),
            ]
        )
        return Response(200, "OK", headers, body)

    def _control(self, what: str) -> None:
        if what == "start" and self._pump is None:
            self._pump = asyncio.get_running_loop().create_task(self._run())
            self._pump.add_done_callback(_told)
        elif what == "stop" and self._pump is not None:
            self._pump.cancel()
            self._pump = None
        elif what == "withhold":
            self._withholding = True

    async def _run(self) -> None:
        """Send, as much as is due by now, again and again."""
        began, made = time.perf_counter(), 0.0
        while True:
            await asyncio.sleep(_BURST_S)
            due = (time.perf_counter() - began) * self._rate - made
            count = int(min(due, self._rate * _BURST_MAX_S))
            if count > 0:
                made += count
                self._burst(count)

    def _burst(self, count: int) -> None:
        frames: dict[ServerConnection, list[bytes]] = {}
        clients, withhold = self._clients, self._withhold if self._withholding else 0
        for stream, body in self._flow.draw(count, time.time_ns() // _MS):
            self.drawn += 1
            held = withhold and not self.drawn % withhold
            for client in clients[stream]:
                self.sent += 1
                if not held:
                    frames.setdefault(client, []).append(text_frame(body))
        for client, parts in frames.items():
            transport: Any = client.transport
            transport.write(b"".join(parts))
            self.backlog_bytes_max = max(self.backlog_bytes_max, transport.get_write_buffer_size())


def _told(pump: asyncio.Task[None]) -> None:
    """Nobody waits for the pump: an error of it is told, and ends the process."""
    if not pump.cancelled():
        asyncio.get_running_loop().stop()
        pump.result()


def text_frame(body: bytes) -> bytes:
    """Return a text frame as a server sends it."""
    size = len(body)
    if size < 126:
        return bytes((0x81, size)) + body
    if size < 65_536:
        return b"\x81\x7e" + size.to_bytes(2, "big") + body
    return b"\x81\x7f" + size.to_bytes(8, "big") + body


async def _main(sender: Sender) -> None:
    async with serve(
        sender.handle,
        "127.0.0.1",
        0,
        compression=None,
        ping_interval=None,
        max_size=None,
        process_request=sender.reply,
    ) as server:
        print(server.sockets[0].getsockname()[1], flush=True)  # noqa: T201  # how the parent learns of it
        await server.serve_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--symbols", type=int, required=True)
    parser.add_argument("--rate", type=int, required=True)
    parser.add_argument("--withhold", type=int, default=0)
    given = parser.parse_args()
    asyncio.run(_main(Sender(Flow(given.symbols, given.rate), given.rate, withhold=given.withhold)))
