"""The port of a session answers probes with the right codes, also while somebody scrapes it."""

from __future__ import annotations

import errno
import http.client
import json
import socket
import socketserver
import threading
import time
from contextlib import ExitStack, suppress

import pytest
from prometheus_client.metrics_core import InfoMetricFamily
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from gpuscalp.monitoring import server
from gpuscalp.monitoring.server import HEALTH, METRICS, READY, served
from gpuscalp.redaction import keep
from tests.planted import BY_PLACE, words_in
from tests.waiting import until


def get(port: int, path: str, *, method: str = "GET", **headers: str) -> tuple[int, str, str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request(method, path, headers=headers)
    answer = connection.getresponse()
    body = answer.read().decode()
    connection.close()
    return answer.status, answer.headers["Content-Type"], body


class Leaky(Collector):
    def collect(self):
        info = InfoMetricFamily("leak", "Words of others.")
        info.add_metric([], {"why": " ".join(BY_PLACE.values()) + " k2PELICANk2k2"})
        yield info


def test_probe_decides_the_code_and_its_body_is_the_answer():
    state = {"ok": True, "reasons": []}
    with served("127.0.0.1", 0, [], {HEALTH: lambda: state}) as port:
        code, kind, body = get(port, HEALTH)
        assert (code, kind, json.loads(body)) == (200, "application/json", state)
        state = {"ok": False, "reasons": [{"what": "loop", "why": "stands"}]}
        code, _, body = get(port, f"{HEALTH}?verbose=1")
        assert (code, json.loads(body)) == (503, state)
        assert get(port, HEALTH, method="HEAD")[::2] == (503, "")


def test_unknown_path_and_broken_probe_are_said():
    def broken():
        raise RuntimeError(BY_PLACE["userinfo"])

    with served("127.0.0.1", 0, [], {READY: broken}) as port:
        code, _, body = get(port, "/")
        assert (code, json.loads(body)["known"]) == (404, [METRICS, READY])
        code, _, body = get(port, READY)
        assert code == 500
        assert "RuntimeError" in body
        assert not words_in(body)
        assert get(port, METRICS)[0] == 200  # and goes on
        assert get(port, READY, method="POST")[0] == 501


def test_metrics_are_read_in_both_forms_and_hold_no_secret():
    keep(["k2PELICANk2k2"])
    with served("127.0.0.1", 0, [Leaky()]) as port:
        for accept in ("text/plain", "application/openmetrics-text; version=1.0.0"):
            code, kind, body = get(port, METRICS, Accept=accept)
            assert (code, kind.split(";")[0]) == (200, accept.split(";")[0])
            assert not words_in(body)
        names = [each.name for each in text_string_to_metric_families(get(port, METRICS)[2])]
        assert [name for name in names if not name.startswith("process_")] == ["leak_info"]


@pytest.mark.parametrize("host", ["evil.example:9100", "localhost.evil.example", "10.0.0.1:9100", "[::1", ""])
def test_foreign_name_that_leads_to_loopback_is_told_nothing(host: str) -> None:
    """A page whose name was made to point here could read every number of the session."""
    with served("127.0.0.1", 0, [], {HEALTH: lambda: {"ok": True}}) as port:
        for path in (METRICS, HEALTH):
            assert get(port, path, Host=host)[0] == 421
    with served("0.0.0.0", 0, [], {HEALTH: lambda: {"ok": True}}) as port:  # as a container does
        assert get(port, METRICS, Host=host)[0] == get(port, HEALTH, Host=host)[0] == 200


def test_loopback_is_known_by_its_names_at_any_port() -> None:
    with served("127.0.0.1", 0, []) as port:
        for host in ("127.0.0.1", "LOCALHOST:19100", "[::1]:9100", f"127.0.0.1:{port}"):
            assert get(port, METRICS, Host=host)[0] == 200
        with connected(port) as old:  # a probe that names nobody is no browser
            old.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
            assert old.recv(100).startswith(b"HTTP/1.0 200")


def test_probe_answers_while_a_scrape_stands_still():
    entered, released = threading.Event(), threading.Event()

    class Slow(Collector):
        def collect(self):
            entered.set()
            assert released.wait(60)
            return iter(())

        def describe(self):
            return ()

    with served("127.0.0.1", 0, [Slow()], {HEALTH: lambda: {"ok": True}}) as port:
        scrape = threading.Thread(target=get, args=(port, METRICS))
        scrape.start()
        assert entered.wait(60)
        assert get(port, HEALTH)[0] == 200
        released.set()
        scrape.join()


def test_scrape_waits_for_a_moment_that_suits_and_a_probe_does_not():
    seen = []

    class Watching(Collector):
        def collect(self):
            seen.append("collected")
            return []

    probes = {HEALTH: lambda: {"ok": True}}
    with served("127.0.0.1", 0, [Watching()], probes, before_scrape=lambda: seen.append("waited")) as port:
        seen.clear()  # a collector is asked once when it is registered
        assert get(port, HEALTH)[0] == 200
        assert not seen
        assert get(port, METRICS)[0] == 200
    assert seen == ["waited", "collected"]


def connected(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=30)


def test_who_sends_headers_without_end_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each byte gave another ten seconds: a line every four held a thread and a file for minutes."""
    monkeypatch.setattr(server._Answer, "timeout", 0.3)
    with served("127.0.0.1", 0, [], {HEALTH: lambda: {"ok": True}}) as port, connected(port) as slow:
        began = time.monotonic()
        slow.sendall(b"GET /healthz HTTP/1.0\r\n")
        with suppress(ConnectionError):
            while time.monotonic() - began < 20:
                slow.sendall(b"X-a: b\r\n")
                time.sleep(0.1)
        assert 0.3 <= time.monotonic() - began < 5
        assert get(port, HEALTH)[0] == 200


def test_answer_has_its_own_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is left of the time for the headers is not the time for an answer."""
    monkeypatch.setattr(server._Answer, "timeout", 5.0)
    body = "x" * (8 << 20)  # more than sockets hold
    probes = {HEALTH: lambda: {"ok": True, "body": body}}
    with served("127.0.0.1", 0, [], probes) as port, connected(port) as late:
        late.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
        late.sendall(b"GET /healthz HTTP/1.0\r\n")
        time.sleep(2.5)
        late.sendall(b"X-a: b\r\n")
        time.sleep(0.05)
        late.sendall(b"\r\n")
        time.sleep(3.0)
        assert sum(map(len, iter(lambda: late.recv(1 << 20), b""))) > len(body)


def test_requests_are_bounded_and_those_too_many_are_told() -> None:
    """Connections that said nothing took all threads and files: the session ended with positions open."""
    with served("127.0.0.1", 0, [], {HEALTH: lambda: {"ok": True}}) as port:
        before = threading.active_count()
        with ExitStack() as stack:
            idle = [stack.enter_context(connected(port)) for _ in range(server._REQUESTS_MAX + 8)]
            for each in idle[-8:]:
                assert each.recv(100).startswith(b"HTTP/1.0 503")
                assert each.recv(100) == b""
            assert threading.active_count() - before <= server._REQUESTS_MAX
        until(lambda: threading.active_count() <= before, "that they have hung up")
        assert get(port, HEALTH)[0] == 200


def test_who_cannot_be_let_in_for_want_of_files_keeps_no_processor_busy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The connection that waited was tried again at once, and again, beside the thread that trades."""
    accept, tries = socketserver.TCPServer.get_request, []

    def refused(server: socketserver.TCPServer) -> tuple[socket.socket, object]:
        tries.append(server)
        raise OSError(errno.EMFILE, "Too many open files")

    with served("127.0.0.1", 0, [], {HEALTH: lambda: {"ok": True}}) as port:
        monkeypatch.setattr(socketserver.TCPServer, "get_request", refused)
        with socket.create_connection(("127.0.0.1", port)):
            time.sleep(0.35)
            assert 1 <= len(tries) <= 5
            monkeypatch.setattr(socketserver.TCPServer, "get_request", accept)
            assert get(port, HEALTH)[0] == 200
