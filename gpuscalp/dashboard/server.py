"""The dashboard's server: the page, what it is kept up to date with, and the stops.

Owns: routes, headers, pages that are open. A page gets the last minutes of one symbol once, then twice a
second what is new (server-sent events). Never: reads a file of the session in the loop's thread; asks the
session's process for anything but a stop.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Any, Final, final

import msgspec
from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from gpuscalp.dashboard.access import TOKEN_FILE, Access, hosts_of, open_token
from gpuscalp.dashboard.watch import Watch
from gpuscalp.errors import UNREADABLE, DeadlineError, GpuscalpError, NotRunningError, UsageError
from gpuscalp.live.control import Request, ask
from gpuscalp.live.records import Command
from gpuscalp.stop_signals import hear_stops
from gpuscalp.user import user_name

PORT: Final = 8722
LOOK_S: Final = 0.5
# One trader has few pages open; each costs time.
PAGES_MAX: Final = 16
# Beside the pages a browser opens six at most. Each holds a file, and looking needs some.
CONNECTIONS_MAX: Final = 128
# A connection on which nobody asks for anything is closed after so long.
_IDLE_S: Final = 30.0
# What is sent to a page has to be taken within so long.
_PATIENCE_S: Final = 10.0
# A wrong token is answered after so long. Nobody is locked out: that would lock out who has to stop.
_WRONG_S: Final = 0.5
_STOP_S: Final = 60.0
# Nothing on the page can loosen a state: no resume, no adopt.
STOPS: Final = (Command.HALT.value, Command.REDUCE.value, Command.FLATTEN.value, "stop")
_PAGE: Final = {
    "index.html": "text/html",
    "style.css": "text/css",
    "app.js": "text/javascript",
    "charts.js": "text/javascript",
    "panels.js": "text/javascript",
    "stops.js": "text/javascript",
    "format.js": "text/javascript",
}
_HEADERS: Final = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self';"
    " img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}


_LOG: Final = logging.getLogger("gpuscalp.dashboard")
# What is no HTTP is answered by aiohttp: a traceback of it tells whoever sent it nothing, and us neither.
_LOG.addFilter(lambda record: not isinstance((record.exc_info or (None, None))[1], HttpProcessingError))


class _Stop(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Body of a request for a stop; "check" only asks whether the token is right."""

    command: str


def serve(
    session: Path,
    *,
    address: str = "127.0.0.1",
    port: int = PORT,
    names: Sequence[str] = (),
    seconds: float | None = None,
    on_ready: Callable[[dict[str, Any]], None] = lambda _: None,
) -> dict[str, Any]:
    """Serve a session's page until stopped.

    Parameters
    ----------
    session : its directory
    address, port : to listen on; port 0 picks one
    names : further names under which browsers reach it (``gpuscalp.dashboard.access.hosts_of``)
    seconds : None = until stopped
    on_ready : told ``url``, ``port``, ``session`` and ``token_file``

    Raises
    ------
    UsageError     there is no session, the address can be reached from elsewhere, or the port is taken
    ConfigError    others can read the token's file
    """
    hosts_of(address, port, names)  # before anything is made
    watch = Watch(session, wall=time.time_ns, monotonic=time.monotonic_ns)
    server = DashboardServer(watch, open_token(session))
    return asyncio.run(server.run(address, port, names, seconds, on_ready))


@final
class DashboardServer:
    """One server for one session.

    Parameters
    ----------
    watch : looks at it
    token : of those who may stop it
    """

    def __init__(self, watch: Watch, token: str) -> None:
        self._watch, self._token = watch, token
        self._hosts: tuple[str, ...] = ()
        self._access = Access(token, ())
        self._pages: set[_Page] = set()
        self._open_count = 0  # of pages, those included that have not been told anything yet
        self._orders: dict[str, Any] = {"orders": [], "fills": []}
        self._looks = self._stops = 0
        self._ending = asyncio.Event()
        self._reading = asyncio.Lock()  # what a look changes in its thread is not read meanwhile

    async def run(
        self,
        address: str,
        port: int,
        names: Sequence[str],
        seconds: float | None,
        on_ready: Callable[[dict[str, Any]], None],
    ) -> dict[str, Any]:
        """Serve until ``seconds`` are over or the process is told to end; return what was done."""
        app = web.Application(middlewares=[self._guard], client_max_size=4_096)
        app.router.add_get("/", partial(self._file, "index.html"))
        for name in _PAGE:
            app.router.add_get(f"/page/{name}", partial(self._file, name))
        app.router.add_get("/events", self._events, allow_head=False)
        app.router.add_post("/stop", self._stop)
        told: dict[str, Any] = {"access_log": None, "logger": _LOG}
        runner = web.AppRunner(app, shutdown_timeout=1.0, keepalive_timeout=_IDLE_S, **told)
        await runner.setup()
        looking = asyncio.create_task(self._look())
        listening: asyncio.Server | None = None
        try:
            listening, ready = await self._listen(runner, address, port, names)
            hear_stops(lambda _: self.end())
            on_ready(ready)
            ending = asyncio.create_task(self._ending.wait())
            await asyncio.wait((looking, ending), timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
            ending.cancel()
            if looking.done():
                looking.result()  # it has failed: say of what
        finally:
            looking.cancel()
            if listening is not None:
                listening.close()
            for page in self._pages:
                page.end()
            await runner.cleanup()
        return {"looks": self._looks, "stops": self._stops}

    def end(self) -> None:
        """Ask for the end."""
        self._ending.set()

    async def _listen(
        self, runner: web.AppRunner, address: str, port: int, names: Sequence[str]
    ) -> tuple[asyncio.Server, dict[str, Any]]:
        """Listen; return what listens, and what is told of it."""
        server = runner.server
        assert server is not None

        def accept() -> asyncio.Protocol:
            return server() if len(server.connections) < CONNECTIONS_MAX else _TurnedAway()

        try:
            listening = await asyncio.get_running_loop().create_server(accept, address, port, backlog=128)
        except OSError as error:
            raise UsageError(
                f"cannot listen here: {error.strerror}", where=f"{address}:{port}", fix="name another --port"
            ) from None
        port = listening.sockets[0].getsockname()[1]
        self._hosts = hosts_of(address, port, names)
        self._access = Access(self._token, self._hosts)
        shown = f"[{address}]" if ":" in address else address
        return listening, {
            "url": f"http://{shown}:{port}/",
            "port": port,
            "session": str(self._watch.path),
            "token_file": str(self._watch.path / TOKEN_FILE),
        }

    async def _look(self) -> None:
        """Read what is new and hand it to the pages, for ever."""
        async with self._reading:
            await asyncio.to_thread(self._watch.catch_up)
        while True:
            async with self._reading:
                if await asyncio.to_thread(self._watch.is_replaced):
                    await self._change()
                await asyncio.to_thread(self._look_once)
                self._looks += 1
                update = self._update()
                for page in tuple(self._pages):
                    page.push(update | self._news(page))
            await asyncio.sleep(LOOK_S)

    async def _change(self) -> None:
        """Go over to the session that was begun in place of ours: its files, its token, all pages anew."""
        try:
            watch = await asyncio.to_thread(self._watch.anew)
            token = await asyncio.to_thread(open_token, watch.path)
        except (UsageError, FileNotFoundError):  # removed again: the next look may find another one
            return
        await asyncio.to_thread(watch.catch_up)
        self._watch, self._token = watch, token
        self._access = Access(token, self._hosts)
        self._orders = await asyncio.to_thread(watch.orders)
        for page in self._pages:
            page.newest, page.since_ms = 0, {}
            page.push(self._everything(page))

    def _look_once(self) -> None:
        self._watch.look()
        if self._pages:
            self._orders = self._watch.orders()

    def _everything(self, page: _Page) -> dict[str, Any]:
        """Return what a page gets at first."""
        watch = self._watch
        if page.symbol not in watch.history.symbols:  # of another session
            page.symbol = watch.history.symbols[0]
        about = {
            "session": str(watch.path),
            "session_id": watch.about.session_id,
            "name": watch.path.resolve().name,
            "symbols": watch.history.symbols,
            "symbol": page.symbol,
            "columns": watch.columns,
            "limits": watch.limits,
            "frame_ms": watch.frame_ms,
        }
        return {"about": about} | self._update() | self._news(page)

    def _update(self) -> dict[str, Any]:
        """Return what every page gets."""
        watch = self._watch
        return {
            "now_ms": time.time_ns() // 1_000_000,
            "life": asdict(watch.life()),
            "status": watch.status,
            "predictions": watch.history.predictions(),
            "refusals": dict(watch.history.refusals),
            "damage": watch.damage,
            **self._orders,
        }

    def _news(self, page: _Page) -> dict[str, Any]:
        """Return what one page has not got yet, and remember that it has."""
        history, symbol = self._watch.history, page.symbol
        series = history.series(symbol, page.since_ms)
        found = {
            "series": series,
            "markers": history.markers(symbol, page.newest),
            "events": history.events(page.newest),
        }
        page.newest = history.newest
        page.since_ms |= {name: points[-1][0] for name, points in series.items() if points}
        return found

    # Requests

    @web.middleware
    async def _guard(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        """Let in who names us; bear the headers that keep others' pages out."""
        if not self._access.knows_host(request.headers):
            return web.Response(status=421, text="not the name of this server\n", headers=_HEADERS)
        if request.path != "/" and not self._access.is_fetched_by_us(request.headers):
            return web.Response(status=403, text="another page asks for this\n", headers=_HEADERS)
        try:
            answer = await handler(request)
        except web.HTTPException as error:
            error.headers.update(_HEADERS)
            raise
        if not answer.prepared:
            answer.headers.update(_HEADERS)
        return answer

    async def _file(self, name: str, _: web.Request) -> web.Response:
        body = files("gpuscalp.dashboard").joinpath("page", name).read_bytes()
        return web.Response(body=body, content_type=_PAGE[name], charset="utf-8")

    async def _events(self, request: web.Request) -> web.StreamResponse:
        watch = self._watch
        symbol = request.query.get("symbol", watch.history.symbols[0])
        if symbol not in watch.history.symbols:
            raise web.HTTPNotFound(text="no such symbol\n")
        if self._open_count >= PAGES_MAX:
            raise web.HTTPServiceUnavailable(text="too many pages are open\n")
        self._open_count += 1  # before anything is waited for: others may come meanwhile
        page = _Page(symbol)
        try:
            return await self._tell(request, page)
        finally:
            self._pages.discard(page)
            self._open_count -= 1

    async def _tell(self, request: web.Request, page: _Page) -> web.StreamResponse:
        """Tell a page everything, then what is new, until it has gone."""
        answer = web.StreamResponse(headers=_HEADERS | {"Content-Type": "text/event-stream"})
        await answer.prepare(request)
        async with self._reading:
            self._orders = await asyncio.to_thread(self._watch.orders)
            page.push(self._everything(page))
            self._pages.add(page)
        try:
            while (text := await page.next()) is not None:
                async with asyncio.timeout(_PATIENCE_S):
                    await answer.write(b"data: " + text + b"\n\n")
            async with asyncio.timeout(_PATIENCE_S):
                await answer.write_eof()
        except TimeoutError:  # it is there and does not read: waiting for it would keep its place for ever
            if request.transport is not None:
                request.transport.abort()
        except ConnectionError:
            pass
        return answer

    async def _stop(self, request: web.Request) -> web.Response:
        """Carry out a stop, and answer as the session does: when it is true and on the disk."""
        if not self._access.is_ours(request.headers) or request.content_type != "application/json":
            return _refused(403, "a stop is taken from our own page only")
        if not self._access.may_command(request.headers):
            await asyncio.sleep(_WRONG_S)
            return _refused(401, f"wrong token; it stands in {TOKEN_FILE} of the session's directory")
        try:
            command = msgspec.json.decode(await request.read(), type=_Stop).command
        except UNREADABLE as error:
            return _refused(400, str(error))
        if command == "check":
            return _json({"command": command})
        if command not in STOPS:
            return _refused(400, f"not a stop: {command}")
        wanted = Request(command, by=f"{user_name()} on the dashboard")
        try:
            answer = await asyncio.to_thread(ask, self._watch.path, wanted, timeout_s=_STOP_S)
        except GpuscalpError as error:
            status = {NotRunningError: 503, DeadlineError: 504}.get(type(error), 409)
            return _refused(status, str(error))
        self._stops += 1
        return _json(answer)


@final
class _Page:
    """One open page: what waits for it, and what it has already got."""

    def __init__(self, symbol: str) -> None:
        self.symbol, self.newest = symbol, 0
        self.since_ms: dict[str, int] = {}  # of the last point of each series
        self._waiting: asyncio.Queue[bytes | None] = asyncio.Queue(8)

    def push(self, update: dict[str, Any]) -> None:
        """Hand over an update; a page that does not read is let go, and comes back for everything."""
        if self._waiting.full():
            self.end()
        else:
            self._waiting.put_nowait(msgspec.json.encode(update))

    def end(self) -> None:
        while not self._waiting.empty():
            self._waiting.get_nowait()
        self._waiting.put_nowait(None)

    async def next(self) -> bytes | None:
        return await self._waiting.get()


@final
class _TurnedAway(asyncio.Protocol):
    """A connection that is one too many."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport.close()


def _json(answer: dict[str, Any], status: int = 200) -> web.Response:
    return web.Response(body=msgspec.json.encode(answer), status=status, content_type="application/json")


def _refused(status: int, why: str) -> web.Response:
    return _json({"error": why}, status)
