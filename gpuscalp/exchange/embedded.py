"""The exchange in this process, on a thread and a loop of its own.

Owns: the thread. For tests and for ``live --embedded``.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Any, TypeVar

from gpuscalp.exchange.faults import Fault
from gpuscalp.exchange.server import ExchangeServer, ServeSpec
from gpuscalp.exchange.source import Source

T = TypeVar("T")


class Exchange:
    """A served exchange; use it as a context, or call ``start`` and ``stop``.

    ::

        with Exchange(source, ServeSpec(speed=None, wait=True)) as exchange:
            exchange.urls["stream"]

    Parameters
    ----------
    source : the market
    spec : how it is served
    """

    def __init__(self, source: Source, spec: ServeSpec | None = None) -> None:
        self._source, self._spec = source, spec or ServeSpec()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=self._run, name="exchange", daemon=True)
        self._ready = threading.Event()
        self._stopping: asyncio.Event | None = None
        self._error: BaseException | None = None
        self._server: ExchangeServer | None = None

    @property
    def urls(self) -> dict[str, str]:
        """The base URLs: rest, stream, ws_api, admin."""
        return self.server.urls()

    @property
    def server(self) -> ExchangeServer:
        assert self._server is not None, "start first"
        return self._server

    @property
    def running(self) -> bool:
        return self._thread.is_alive()

    def start(self) -> None:
        """Start and wait until the port is open.

        Raises
        ------
        Exception
            what kept it from starting: the source is damaged, the port is taken
        """
        self._thread.start()
        self._ready.wait()
        if self._error is not None:
            self._thread.join()
            raise self._error

    def stop(self) -> None:
        """Close all connections and end the thread."""
        if self._loop is not None and self._stopping is not None and self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join()

    def set_fault(self, fault: Fault) -> int:
        """Put a fault in force; return its id."""
        return self.ask(lambda server: server.set_fault(fault))

    def clear_faults(self) -> None:
        self.ask(lambda server: server.faults.clear())

    def status(self) -> dict[str, Any]:
        return self.ask(lambda server: server.status())

    def ask(self, question: Callable[[ExchangeServer], T]) -> T:
        """Run a function on the exchange's own thread and return what it returns."""

        async def run() -> T:
            return question(self.server)

        assert self._loop is not None, "start first"
        return asyncio.run_coroutine_threadsafe(run(), self._loop).result()

    def __enter__(self) -> Exchange:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as error:
            self._error = error
        finally:
            self._ready.set()

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stopping = asyncio.Event()
        server = self._server = ExchangeServer(self._source, self._spec)
        waiting: list[asyncio.Future[Any]] = []
        try:
            await server.start(port=0)
            self._ready.set()
            waiting = [
                asyncio.ensure_future(self._stopping.wait()),
                asyncio.ensure_future(server.wait_failed()),
            ]
            done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            for each in done:
                each.result()
        finally:
            for each in waiting:
                each.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)
            await server.stop()
