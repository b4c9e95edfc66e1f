"""The port of a session: metrics for Prometheus, and whether it is alive and ready, for whoever restarts it.

Owns: the server, its paths and codes. One thread for each request, so that a probe never waits for a scrape;
they are bounded in number and in time, so that who reaches the port takes no threads or files from trading.
Never: takes an order: there is nothing to be changed here, and nothing secret to be seen.
"""

from __future__ import annotations

import io
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from typing import Any, Final, final
from urllib.parse import urlsplit

import msgspec
from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from gpuscalp.errors import ConfigError
from gpuscalp.redaction import redact

METRICS: Final = "/metrics"
HEALTH: Final = "/healthz"
READY: Final = "/readyz"
# From the connection to the end of the headers, and again for the answer to be taken.
_PATIENCE_S: Final = 10.0
# Prometheus and a probe or two are all that asks. More than so many at once are turned away.
_REQUESTS_MAX: Final = 32
_BREATH_S: Final = 0.1
_FULL: Final = b"HTTP/1.0 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n"

# Returns what is so; the key ``ok`` decides between 200 and 503.
Probe = Callable[[], Mapping[str, Any]]


@contextmanager
def served(
    address: str,
    port: int,
    collectors: Iterable[Collector],
    probes: Mapping[str, Probe] | None = None,
    *,
    before_scrape: Callable[[], None] = lambda: None,
) -> Iterator[int]:
    """Answer at ``/metrics`` and at the paths of ``probes``, in threads of their own; yield the port.

    Parameters
    ----------
    port : 0 takes any that is free
    probes : by path
    before_scrape : called before metrics are collected; it may wait for a moment that suits

    Raises
    ------
    ConfigError    the port cannot be opened
    """
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    for collector in collectors:
        registry.register(collector)
    try:
        server = _Server(address, port, registry, dict(probes or {}), before_scrape)
    except OSError as error:
        raise ConfigError(
            f"the port for metrics cannot be opened: {error.strerror}",
            where="[metrics]",
            value=f"{address}:{port}",
            fix="end the program that has it, or choose another metrics.port",
        ) from None
    thread = threading.Thread(target=server.serve_forever, name="metrics", daemon=True)
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@final
class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = _REQUESTS_MAX

    def __init__(
        self,
        address: str,
        port: int,
        registry: CollectorRegistry,
        probes: dict[str, Probe],
        before_scrape: Callable[[], None],
    ) -> None:
        self.registry, self.probes, self.before_scrape = registry, probes, before_scrape
        self._room = threading.BoundedSemaphore(_REQUESTS_MAX)
        self.address_family = socket.AF_INET6 if ":" in address else socket.AF_INET
        super().__init__((address, port), _Answer)
        self.is_loopback = ip_address(str(self.server_address[0])).is_loopback

    def get_request(self) -> tuple[Any, Any]:
        try:
            return super().get_request()
        except OSError:  # no file can be had: who asks goes on asking, which is no reason to spin
            time.sleep(_BREATH_S)
            raise

    def process_request(self, request: Any, client_address: Any) -> None:
        if not self._room.acquire(blocking=False):
            request.sendall(_FULL)  # the first bytes of a connection: they do not wait
            self.shutdown_request(request)
            return
        try:
            super().process_request(request, client_address)
        except BaseException:  # no thread can be had: the caller closes the connection
            self._room.release()
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._room.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of those who hang up."""


@final
class _Answer(BaseHTTPRequestHandler):
    server: _Server
    timeout = _PATIENCE_S
    server_version, sys_version = "gpuscalp", ""

    def setup(self) -> None:
        super().setup()
        self.rfile = io.BufferedReader(_Patient(self.connection, self.timeout))

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        try:
            code, kind, text = self._answer(path)
        except Exception as error:  # of a collector or a probe: the next request may fare better
            words = f"{type(error).__name__}: {error}"
            code, kind, text = 500, "application/json", _json({"ok": False, "error": words})
        body = redact(text, encoded=True).encode()
        self.send_response(code)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_HEAD = do_GET  # noqa: N815  # the library's name

    def _answer(self, path: str) -> tuple[int, str, str]:
        if self.server.is_loopback and not _is_loopback(self.headers.get("Host", "localhost")):
            return 421, "application/json", _json({"error": "not a name of this machine for itself"})
        if path == METRICS:
            self.server.before_scrape()
            encoder, kind = choose_encoder(self.headers.get("Accept", ""))
            return 200, kind, encoder(self.server.registry).decode()
        probe = self.server.probes.get(path)
        if probe is None:
            known = [METRICS, *self.server.probes]
            return 404, "application/json", _json({"error": "no such path", "known": known})
        answer = probe()
        return 200 if answer["ok"] else 503, "application/json", _json(answer)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: probes come every few seconds."""


@final
class _Patient(io.RawIOBase):
    """Reads a connection for so long in all: a timeout of the socket begins anew with every byte."""

    def __init__(self, connection: socket.socket, patience_s: float) -> None:
        self._connection, self._patience_s = connection, patience_s
        self._until = time.monotonic() + patience_s

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        left_s = self._until - time.monotonic()
        if left_s <= 0:
            raise TimeoutError
        self._connection.settimeout(left_s)
        try:
            return self._connection.recv_into(buffer)
        finally:
            self._connection.settimeout(self._patience_s)  # of the answer


def _is_loopback(host: str) -> bool:
    """Whether a request asks for this machine as it knows itself, at whatever port: a tunnel has its own.

    A foreign name that was made to point here is a page's way around the browser's rules.
    """
    try:
        name = urlsplit(f"//{host}").hostname or ""
        return name == "localhost" or ip_address(name).is_loopback
    except ValueError:
        return False


def _json(answer: Mapping[str, Any]) -> str:
    return msgspec.json.encode(answer).decode() + "\n"
