"""Who connects to the dashboard and does not read, or does not ask, takes it from nobody else."""

from __future__ import annotations

import resource
import select
import socket
import time
from contextlib import ExitStack
from http.client import HTTPConnection
from pathlib import Path

import pytest

from gpuscalp.dashboard import server
from gpuscalp.dashboard.watch import Watch
from gpuscalp.live.control import write_status
from tests.dashboard.served import served_here


def _events(port: int) -> socket.socket:
    """Open a page that reads nothing."""
    page = socket.socket()
    page.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 12)
    page.settimeout(20)
    page.connect(("127.0.0.1", port))
    page.sendall(b"GET /events HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n\r\n" % port)
    return page


def _status(port: int, path: str = "/") -> int:
    client = HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        client.request("GET", path)
        return client.getresponse().status
    finally:
        client.close()


def test_page_that_does_not_read_gives_up_its_place(still: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its place was free when it hung up, and not before: sixteen such pages kept everybody out."""
    monkeypatch.setattr(server, "PAGES_MAX", 2)
    monkeypatch.setattr(server, "_PATIENCE_S", 0.3)
    more = "x" * (8 << 20)  # more than sockets hold
    write_status(still, {"running": True, "pid": 1, "written_ns": 1, "quotes": None, "more": more})
    with served_here(still) as port, ExitStack() as stack:
        for _ in range(2):
            stack.enter_context(_events(port)).recv(15)
        until = time.monotonic() + 20
        while (status := _status(port, "/events")) != 200:
            assert status == 503
            assert time.monotonic() < until
            time.sleep(0.05)


def test_connections_are_bounded_and_idle_ones_are_closed(
    still: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Connections that asked for nothing took all files of the process, and its end was exit code 1."""
    monkeypatch.setattr(server, "CONNECTIONS_MAX", 4)
    monkeypatch.setattr(server, "_IDLE_S", 4.0)
    with served_here(still) as port, ExitStack() as stack:
        address = ("127.0.0.1", port)
        idle = [stack.enter_context(socket.create_connection(address, timeout=20)) for _ in range(4)]
        idle[0].sendall(b"GET / HTTP/1.1\r\nX-a: ")  # half a request is none
        time.sleep(0.2)
        assert stack.enter_context(socket.create_connection(address, timeout=20)).recv(1) == b""
        assert not select.select(idle, [], [], 0)[0], "one too many is closed before those that idle"
        for each in idle:
            assert each.recv(1) == b""
        assert _status(port) == 200


def test_looking_outlives_a_time_without_a_file_to_open(still: Path) -> None:
    watch = Watch(still, wall=time.time_ns, monotonic=time.monotonic_ns)
    (still / "journal").mkdir(exist_ok=True)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, limits[1]))
    try:
        watch.look()
        told = watch.damage
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert "Too many open files" in told
    watch.look()
    assert watch.damage == ""
