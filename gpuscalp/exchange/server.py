"""The shell: HTTP and WebSocket on one port, around the pure core.

Owns: sockets, tasks, the wall clock. Everything that the exchange says or decides is made in the core; here
it is only carried, delayed or broken by the faults.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import secrets
import time
from dataclasses import dataclass
from typing import Any, Final

import msgspec
from aiohttp import WSCloseCode, web

from gpuscalp.errors import UNREADABLE, GpuscalpError
from gpuscalp.exchange.connection import Connection
from gpuscalp.exchange.faults import IMMEDIATE, Fault, Faults, make_fault, refusal_of, reply_of
from gpuscalp.exchange.gateway import Gateway, Logon, Reply, Request
from gpuscalp.exchange.limits import Limits
from gpuscalp.exchange.refusals import ApiError
from gpuscalp.exchange.replay import Replay
from gpuscalp.exchange.session import DisconnectError, Session, is_stream_path
from gpuscalp.exchange.source import Source
from gpuscalp.exchange.venue import Account, Venue

_HOST: Final = "127.0.0.1"
_API_PATH: Final = "/ws-fapi/v1"
_SIM: Final = "/sim/v1/"
# Messages that wait for one connection; beyond this number a replay without a speed waits for the reader.
_WAITING_SLOW: Final = 5_000
_IDLE_S: Final = 0.002
_LIFE_S: Final = 86_400.0
DEMO_ACCOUNT: Final = Account("gpuscalp-demo-key", "gpuscalp-demo-secret")


@dataclass(frozen=True, slots=True)
class ServeSpec:
    """How the exchange is served.

    Attributes
    ----------
    speed : of the replay; None = as fast as it goes
    recorded : keep the recording's times
    loop : begin again at the end
    wait : start the replay when the first connection subscribes to a stream
    lenient : every route carries every stream
    accounts : who may trade
    admin_token : for the control requests; None = a random one
    faults : in force from the start
    ping_s, pong_s : the venue pings so often, and closes after so long without an answer
    first_id : trades and book changes are numbered from there on; one that grows from start to start lets a
        client go on over a restart as it would with the venue
    """

    speed: float | None = 1.0
    recorded: bool = False
    loop: bool = False
    wait: bool = False
    lenient: bool = False
    accounts: tuple[Account, ...] = (DEMO_ACCOUNT,)
    admin_token: str | None = None
    faults: tuple[Fault, ...] = ()
    seed: int = 0
    ping_s: float = 180.0
    pong_s: float = 600.0
    first_id: int = 0


class ExchangeServer:
    """The exchange on a port.

    Parameters
    ----------
    source : the market
    spec : how it is served

    Attributes
    ----------
    venue, faults, replay : the core; touch them only from the loop's thread
    """

    def __init__(self, source: Source, spec: ServeSpec) -> None:
        self.spec = spec
        self.venue = Venue(source.instruments, spec.accounts, first_id=spec.first_id)
        self.faults = Faults(spec.seed)
        for fault in spec.faults:
            self.faults.add(fault)
        self.venue.hub.deliver = self.faults
        self.gateway = Gateway(self.venue, Limits())
        self.replay = Replay(self.venue, source, speed=spec.speed, recorded=spec.recorded, loop=spec.loop)
        self.admin_token = spec.admin_token or secrets.token_urlsafe(16)
        self.port = 0
        self._connections: dict[Connection, None] = {}
        self._connection_count = 0
        self._runner: web.AppRunner | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._subscribed = asyncio.Event()

    async def start(self, port: int = 0) -> None:
        """Begin the replay and open the port (0 picks one).

        Raises
        ------
        DataError
            the source has no messages
        OSError
            the port is taken
        """
        self.replay.prepare(_wall_ms())
        if not self.spec.wait:
            self.replay.start(_wall_ms())
        app = web.Application(client_max_size=1 << 20)
        app.router.add_route("*", "/{path:.*}", self._handle)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.5)
        await self._runner.setup()
        site = web.TCPSite(self._runner, _HOST, port)
        await site.start()
        assert site._server is not None
        self.port = site._server.sockets[0].getsockname()[1]  # type: ignore[attr-defined]
        self._tasks = [asyncio.create_task(self._pump()), asyncio.create_task(self._keep())]

    async def stop(self) -> None:
        """Close everything."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for connection in tuple(self._connections):
            connection.close()
            with contextlib.suppress(Exception):
                await connection.socket.close(code=WSCloseCode.GOING_AWAY)
        if self._runner is not None:
            await self._runner.cleanup()

    async def wait_failed(self) -> None:
        """Return never, or raise what ended the replay."""
        await asyncio.gather(*self._tasks)

    def urls(self) -> dict[str, str]:
        """Return the base URLs that clients are given."""
        rest, stream = f"http://{_HOST}:{self.port}", f"ws://{_HOST}:{self.port}"
        admin = rest + _SIM.rstrip("/")
        return {"rest": rest, "stream": stream, "ws_api": stream + _API_PATH, "admin": admin}

    def status(self) -> dict[str, Any]:
        return {
            "time_ms": self.replay.now_ms(_wall_ms()),
            "started": self.replay.started,
            "ended": self.replay.ended,
            "messages": self.replay.taken,
            "symbols": list(self.venue.listings),
            "connections": [
                {"number": item.number, "waiting": len(item.waiting)} for item in self._connections
            ],
            "streams": list(self.venue.hub.streams()),
            "faults": {
                str(number): msgspec.to_builtins(fault) for number, fault in self.faults.active.items()
            },
        }

    # The replay.

    async def _pump(self) -> None:
        if self.spec.wait:
            await self._subscribed.wait()
            self.replay.start(_wall_ms())
        while True:
            more = self._catch_up(200)
            if self.spec.speed is None:
                while any(len(item.waiting) > _WAITING_SLOW for item in self._connections):
                    await asyncio.sleep(_IDLE_S)
            await asyncio.sleep(0 if more else _IDLE_S)

    def _catch_up(self, most: int) -> bool:
        self.faults.release(time.monotonic_ns())
        return self.replay.step(_wall_ms(), most)

    async def _keep(self) -> None:
        """Ping, and close what is silent or has had its day."""
        while True:
            await asyncio.sleep(0.05)
            now_s = time.monotonic()
            life_s = self.faults.life_s or _LIFE_S
            for item in tuple(self._connections):
                if self.faults.maintenance or now_s - item.opened_s >= life_s:
                    item.close()
                elif self.faults.half_open(item.number):
                    continue
                elif now_s - item.heard_s >= self.spec.pong_s:
                    item.close()
                elif now_s - item.pinged_s >= self.spec.ping_s:
                    item.pinged_s = now_s
                    with contextlib.suppress(ConnectionError):
                        await item.socket.ping(str(_wall_ms()).encode())

    # Requests.

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        try:
            return await self._respond(request)
        except ConnectionError:  # who asked has gone before the answer
            return web.Response()

    async def _respond(self, request: web.Request) -> web.StreamResponse:
        path = request.path
        if path.startswith(_SIM):
            return await self._control(request)
        if request.headers.get("Upgrade", "").lower() == "websocket":
            if self.faults.maintenance:
                return web.Response(status=503)
            if path == _API_PATH:
                return await self._serve_api(request)
            if is_stream_path(path):
                return await self._serve_streams(request)
            return web.Response(status=404)
        body = (await request.read()).decode("utf-8", "replace")
        asked = Request(
            request.method,
            path,
            request.rel_url.raw_query_string,
            body,
            request.headers.get("X-MBX-APIKEY", ""),
            request.remote or "",
        )
        reply = await self._answer(asked)
        if reply is None:
            if request.transport is not None:
                request.transport.abort()
            return web.Response()  # nobody gets it; an error would be logged as one of ours
        return web.Response(
            status=reply.status, body=reply.body, headers=reply.headers, content_type="application/json"
        )

    async def _answer(self, asked: Request) -> Reply | None:
        """Return the reply; None where the connection has to break."""
        fault = self.faults.for_request(asked.path)
        if fault is None:
            return self._execute(asked)
        refused = refusal_of(fault, _wall_ms())
        if refused is not None:
            return refused
        if fault.kind.endswith("executed"):
            self._execute(asked)
        if fault.kind.startswith("unknown"):
            text = "Unknown error, please check your request or try again later."
            return reply_of(ApiError(-1000, status=503, message=text))
        await asyncio.sleep(fault.delay_ms / 1_000)
        return None

    def _execute(self, asked: Request) -> Reply:
        # What is due before the request is known to it.
        self._catch_up(10_000)
        return self.gateway.handle(asked, self._clocks())

    def _clocks(self) -> tuple[int, ...]:
        wall_ms, skew_ms = _wall_ms(), self.faults.skew_ms
        now_ms = self.replay.now_ms(wall_ms) + skew_ms
        if self.spec.speed == 1.0 and not self.spec.recorded:
            return (now_ms,)
        return (now_ms, wall_ms + skew_ms)

    # WebSockets.

    async def _open(self, request: web.Request) -> Connection:
        socket = web.WebSocketResponse(autoping=False, compress=False, timeout=0.5, max_msg_size=1 << 20)
        await socket.prepare(request)
        self._connection_count += 1
        now_s = time.monotonic()
        item = Connection(self._connection_count, socket, now_s, heard_s=now_s, pinged_s=now_s)
        self._connections[item] = None
        return item

    async def _serve_streams(self, request: web.Request) -> web.WebSocketResponse:
        item = await self._open(request)
        session = Session(
            item.number,
            request.path,
            request.rel_url.raw_query_string,
            lenient=self.spec.lenient,
            send=item.send,
        )
        hub = self.venue.hub
        hub.open(session)
        if session.initial:
            self._subscribed.set()
        writer = asyncio.create_task(item.write())
        try:
            async for data in item.texts(self.faults, session):
                reply, added, removed = session.on_text(data, time.monotonic_ns())
                hub.subscribe(session, added)
                hub.unsubscribe(session, removed)
                if not self.faults.half_open(item.number):
                    item.send(reply)
                if added:
                    self._subscribed.set()
        except DisconnectError:
            await item.socket.close(code=WSCloseCode.POLICY_VIOLATION)
        finally:
            hub.close(session)
            await self._drop(item, writer)
        return item.socket

    async def _serve_api(self, request: web.Request) -> web.WebSocketResponse:
        item = await self._open(request)
        logon = Logon(self._clocks()[0])
        writer = asyncio.create_task(item.write())
        try:
            async for data in item.texts(self.faults, None):
                reply = await self._answer_message(data, logon, request.remote or "")
                if reply is not None and not self.faults.half_open(item.number):
                    item.send(reply)
        finally:
            await self._drop(item, writer)
        return item.socket

    async def _answer_message(self, data: str, logon: Logon, address: str) -> bytes | None:
        method, number = "", None
        with contextlib.suppress(*UNREADABLE, AttributeError):
            message = msgspec.json.decode(data)
            method, number = str(message.get("method")), message.get("id")
        fault = self.faults.for_request(f"{_API_PATH}/{method}")
        self._catch_up(10_000)
        if fault is None:
            return self.gateway.handle_message(data, logon, address, self._clocks())
        if fault.kind.endswith("executed"):
            self.gateway.handle_message(data, logon, address, self._clocks())
        if fault.kind.startswith("timeout"):
            return None
        refused = refusal_of(fault, _wall_ms()) or reply_of(ApiError(-1007))
        error = msgspec.json.decode(refused.body)
        return msgspec.json.encode({"id": number, "status": refused.status, "error": error})

    async def _drop(self, item: Connection, writer: asyncio.Task[None]) -> None:
        self._connections.pop(item, None)
        writer.cancel()
        await asyncio.gather(writer, return_exceptions=True)

    # Control.

    def set_fault(self, fault: Fault) -> int:
        """Put a fault in force; return its id, 0 for one that happens at once and is over."""
        if fault.kind in IMMEDIATE:
            for user in self.venue.users:
                self.venue.expire_listen_key(user)
            return 0
        if fault.kind == "cut" and fault.life_s is None:
            for item in tuple(self._connections):
                if fault.connection in (None, item.number):
                    item.close()
            return 0
        return self.faults.add(fault)

    async def _control(self, request: web.Request) -> web.Response:
        given = request.headers.get("Authorization", "").removeprefix("Bearer ")
        if not hmac.compare_digest(given.encode(), self.admin_token.encode()):
            return web.json_response({"error": "the control token is missing or wrong"}, status=401)
        what = request.path.removeprefix(_SIM)
        if (request.method, what) == ("GET", "status"):
            return web.json_response(self.status())
        if (request.method, what) == ("POST", "faults"):
            try:
                values = msgspec.json.decode(await request.read(), type=dict[str, Any])
                number = self.set_fault(make_fault(values))
            except (GpuscalpError, *UNREADABLE) as error:
                return web.json_response({"error": str(error)}, status=400)
            return web.json_response({"id": number})
        if request.method == "DELETE" and what.partition("/")[0] == "faults":
            number_text = what.partition("/")[2]
            cleared = self.faults.clear(int(number_text) if number_text.isdigit() else None)
            return web.json_response({"cleared": cleared})
        return web.json_response({"error": "no such control"}, status=404)


def _wall_ms() -> int:
    return time.time_ns() // 1_000_000
