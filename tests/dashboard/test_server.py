"""The server without a browser: who is let in, who may command, what is refused."""

from __future__ import annotations

import json
import logging
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path

import pytest

from gpuscalp.dashboard.access import TOKEN_FILE, Access, hosts_of, open_token
from gpuscalp.dashboard.server import PAGES_MAX, serve
from gpuscalp.errors import ConfigError, UsageError
from gpuscalp.live.control import ControlServer
from tests.dashboard.conftest import make_still
from tests.dashboard.served import Served, served


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a session that has never run, and is not changed."""
    return make_still(tmp_path_factory.mktemp("served"))


@pytest.fixture(scope="module")
def server(session: Path) -> Iterator[Served]:
    """One server for all: a test leaves no page open and no request unanswered."""
    with served(session) as running:
        yield running


def _ask(
    server: Served, method: str, path: str, body: bytes | None = None, **headers: str
) -> tuple[int, dict, bytes]:
    client = HTTPConnection("127.0.0.1", server.port, timeout=20)
    try:
        client.request(method, path, body, {"Host": f"127.0.0.1:{server.port}"} | headers)
        reply = client.getresponse()
        return reply.status, dict(reply.getheaders()), reply.read()
    finally:
        client.close()


def _stop(server: Served, command: str = "halt", **changed: str | None) -> tuple[int, str]:
    headers = {
        "Origin": f"http://127.0.0.1:{server.port}",
        "Content-Type": "application/json",
        "Authorization": f"Bearer {server.token}",
    } | {name.replace("_", "-"): value for name, value in changed.items()}
    body = json.dumps({"command": command}).encode()
    given = {name: value for name, value in headers.items() if value is not None}
    status, _, text = _ask(server, "POST", "/stop", body, **given)
    return status, text.decode()


def test_port_that_is_taken_is_wrong_usage_as_in_other_commands(server, session):
    with pytest.raises(UsageError, match="cannot listen here"):
        serve(session, address="127.0.0.1", port=server.port, seconds=0.0, on_ready=print)


def test_every_file_of_the_page_is_served_with_headers_that_keep_others_out(server):
    for path in (
        "/",
        "/page/style.css",
        "/page/app.js",
        "/page/charts.js",
        "/page/panels.js",
        "/page/stops.js",
    ):
        status, headers, body = _ask(server, "GET", path)
        assert status == 200
        assert body
        assert "default-src 'none'" in headers["Content-Security-Policy"]
        assert headers["X-Frame-Options"] == "DENY"
        assert "http://" not in body.decode().replace("http://www.w3.org/2000/svg", "")
        assert "https://" not in body.decode()  # nothing is loaded from elsewhere
    assert _ask(server, "GET", "/page/../server.py")[0] == 404
    assert _ask(server, "GET", "/dashboard.token")[0] == 404


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:80", "127.0.0.1", "127.0.0.1:1", "", "localhost.evil.example"]
)
@pytest.mark.parametrize("path", ["/", "/events", "/page/app.js"])
def test_a_name_that_is_not_ours_is_shown_nothing(server, host, path):
    status, _, body = _ask(server, "GET", path, Host=host)
    assert status in (400, 421)
    assert b"gpuscalp" not in body


def test_our_names_are_known(server):
    for host in (f"127.0.0.1:{server.port}", f"LOCALHOST:{server.port}", f"[::1]:{server.port}"):
        assert _ask(server, "GET", "/", Host=host)[0] == 200


@pytest.mark.parametrize(
    ("changed", "status"),
    [
        ({"Origin": None}, 403),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "file://127.0.0.1"}, 403),
        ({"Origin": "127.0.0.1"}, 403),
        ({"Origin": "http://[127.0.0.1"}, 403),
        ({"Sec_Fetch_Site": "cross-site"}, 403),
        ({"Sec_Fetch_Site": "same-site"}, 403),
        ({"Content_Type": "text/plain"}, 403),
        ({"Content_Type": "application/x-www-form-urlencoded"}, 403),
        ({"Authorization": None}, 401),
        ({"Authorization": "Bearer "}, 401),
        ({"Authorization": "Bearer wrong"}, 401),
        ({"Authorization": "Basic wrong"}, 401),
        ({"Authorization": "Bearer wörng".encode().decode("latin-1")}, 401),
        ({"Authorization": "Bearer wörng"}, 401),  # a byte that is not UTF-8 was a traceback
        ({}, 503),  # all is as it should be, but nobody runs the session
    ],
)
def test_a_stop_needs_our_own_page_and_the_token(server, changed, status):
    told = _stop(server, **changed)
    assert told[0] == status, told
    assert server.token not in told[1]


def test_an_origin_on_another_port_of_this_machine_is_refused(server):
    assert _stop(server, Origin=f"http://127.0.0.1:{server.port + 1}")[0] == 403


def test_the_token_counts_in_its_header_only(server):
    path = f"/stop?token={server.token}"
    headers = {"Origin": f"http://127.0.0.1:{server.port}", "Content-Type": "application/json"}
    assert _ask(server, "POST", path, b'{"command":"halt"}', **headers)[0] == 401


@pytest.mark.parametrize("command", ["resume", "adopt", "close", "status", "log_level", ""])
def test_nothing_but_a_stop_is_passed_on(server, command):
    assert _stop(server, command)[0] == 400


def test_a_body_that_is_no_request_is_refused(server):
    headers = {
        "Origin": f"http://127.0.0.1:{server.port}",
        "Content-Type": "application/json",
        "Authorization": f"Bearer {server.token}",
    }
    for body in (b"", b"[]", b'{"command":"halt","by":"me"}'):
        assert _ask(server, "POST", "/stop", body, **headers)[0] == 400
    assert _ask(server, "POST", "/stop", b" " * 5_000, **headers)[0] == 413


def test_a_stop_reaches_the_control_socket_with_who_asked(server, session):
    import asyncio
    import getpass

    seen, ready, end = [], threading.Event(), threading.Event()

    async def answer(request):
        seen.append(request)
        return {"command": request.command, "state": "halted"}

    async def control():
        socket_ = ControlServer(session, answer)
        await socket_.start()
        ready.set()
        await asyncio.to_thread(end.wait)
        await socket_.close()

    thread = threading.Thread(target=lambda: asyncio.run(control()))
    thread.start()
    assert ready.wait(20)
    try:
        for command in ("halt", "reduce", "flatten", "stop"):
            status, text = _stop(server, command)
            assert (status, json.loads(text)["state"]) == (200, "halted")
        assert _stop(server, "check")[0] == 200
    finally:
        end.set()
        thread.join(20)
    assert [each.command for each in seen] == ["halt", "reduce", "flatten", "stop"]
    assert {each.by for each in seen} == {f"{getpass.getuser()} on the dashboard"}
    assert not any(each.flatten for each in seen)


@pytest.fixture
def own_server(still: Path) -> Iterator[Served]:
    with served(still) as running:
        yield running


def test_pages_are_bounded_and_a_symbol_must_exist(own_server):
    server = own_server
    assert _ask(server, "GET", "/events?symbol=NOUSDT")[0] == 404
    open_ = []
    try:
        for _ in range(PAGES_MAX):
            page = socket.create_connection(("127.0.0.1", server.port), timeout=20)
            page.sendall(b"GET /events HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n\r\n" % server.port)
            assert b"200" in page.recv(15)
            open_.append(page)
        assert _ask(server, "GET", "/events")[0] == 503
    finally:
        for page in open_:
            page.close()


def test_pages_of_others_take_no_place_of_ours(server):
    """Sixteen pictures of an advertisement took all of them: the operator's stops were out of reach."""
    for path in ("/events", "/page/app.js", "/nowhere"):
        for site in ("cross-site", "same-site", "unheard-of"):
            assert _ask(server, "GET", path, **{"Sec-Fetch-Site": site})[0] == 403
    for site in ("none", "same-origin"):
        assert _ask(server, "GET", "/page/app.js", **{"Sec-Fetch-Site": site})[0] == 200
    assert _ask(server, "GET", "/", **{"Sec-Fetch-Site": "cross-site"})[0] == 200  # a link may lead here


def test_events_bring_everything_first_and_news_after_it(server):
    client = HTTPConnection("127.0.0.1", server.port, timeout=20)
    client.request("GET", "/events?symbol=ETHUSDT")
    reply = client.getresponse()
    assert reply.getheader("Content-Type") == "text/event-stream"
    first = json.loads(reply.readline().removeprefix(b"data: "))
    assert reply.readline() == b"\n"
    second = json.loads(reply.readline().removeprefix(b"data: "))
    client.close()
    assert first["about"]["symbol"] == "ETHUSDT"
    assert first["about"]["symbols"] == ["BTCUSDT", "ETHUSDT"]
    assert first["life"]["state"] == "unborn"
    assert "about" not in second
    assert server.token not in json.dumps([first, second])


def test_the_token_is_its_owners_alone_and_stays(still):
    before = os.umask(0)
    try:
        token = open_token(still)
    finally:
        os.umask(before)
    assert (still / TOKEN_FILE).stat().st_mode & 0o777 == 0o600
    assert len(token) >= 24
    assert open_token(still) == token
    (still / TOKEN_FILE).chmod(0o640)
    with pytest.raises(ConfigError, match="not its owner's alone"):
        open_token(still)
    (still / TOKEN_FILE).chmod(0o600)
    (still / TOKEN_FILE).write_text("\n")
    with pytest.raises(ConfigError, match="empty"):
        open_token(still)


@pytest.mark.parametrize("address", ["0.0.0.0", "::", "192.168.1.5"])
def test_an_address_that_others_reach_needs_a_name(address):
    with pytest.raises(UsageError, match="others can reach"):
        hosts_of(address, 8722)
    assert {"desk.lan:8722", "desk.lan:443"} <= set(hosts_of(address, 8722, ["desk.lan", "desk.lan:443"]))


def _behind_proxy(*names: str) -> Access:
    return Access("token", hosts_of("127.0.0.1", 8722, names))


@pytest.mark.parametrize(
    ("name", "host", "known"),
    [
        ("desk.lan:443", "desk.lan", True),  # as every browser asks by https
        ("desk.lan:443", "DESK.lan:443", True),
        ("desk.lan:80", "desk.lan", True),
        ("[fd00::1]:443", "[fd00::1]", True),
        ("desk.lan:443", "desk.lan:80", False),
        ("desk.lan:443", "desk.lan:8722", False),
        ("desk.lan:443", "evil.lan", False),
        ("desk.lan:443", "desk.lan.evil.example", False),
        ("desk.lan:443", "127.0.0.1", False),
        ("desk.lan", "desk.lan", False),  # on port 80 or 443 is another server
        ("desk.lan:8443", "desk.lan", False),
    ],
)
def test_name_on_the_port_of_a_scheme_is_known_without_it(name, host, known):
    assert _behind_proxy(name).knows_host({"Host": host}) is known


@pytest.mark.parametrize(
    ("name", "origin", "host", "ours"),
    [
        ("desk.lan:443", "https://desk.lan", "desk.lan", True),
        ("desk.lan:443", "https://desk.lan", "desk.lan:443", True),  # a proxy may add it
        ("desk.lan:80", "http://desk.lan", "desk.lan", True),
        ("desk.lan:8443", "https://desk.lan:8443", "desk.lan:8443", True),
        # Whoever sits on the line can make a page of this name by http.
        ("desk.lan:443", "http://desk.lan", "desk.lan", False),
        ("desk.lan:443", "http://desk.lan", "desk.lan:443", False),
        ("desk.lan:80", "https://desk.lan", "desk.lan", False),
        ("desk.lan:443", "https://desk.lan:8443", "desk.lan", False),
        ("desk.lan:443", "https://evil.example", "desk.lan", False),
        ("desk.lan:443", "https://evil.example", "evil.example", False),
        ("desk.lan:443", "https://desk.lan@evil.example", "desk.lan", False),
        ("desk.lan:443", "https://desk.lan/", "desk.lan", False),
        ("desk.lan:443", "null", "desk.lan", False),
        ("desk.lan:443", "", "desk.lan", False),
        ("desk.lan:443", "https://desk.lan", "127.0.0.1:8722", False),  # a proxy that has changed it
    ],
)
def test_page_is_ours_by_scheme_and_name_together(name, origin, host, ours):
    access = _behind_proxy(name)
    assert access.is_ours({"Origin": origin, "Host": host}) is ours
    assert not access.is_ours({"Origin": origin, "Host": host, "Sec-Fetch-Site": "cross-site"})


def test_a_word_is_no_address():
    with pytest.raises(UsageError, match="not an IP address"):
        hosts_of("localhost", 8722)


def test_the_command_says_where_it_is_and_does_not_print_the_token(still):
    command = [sys.executable, "-m", "gpuscalp", "dashboard", str(still), "--port", "0", "--duration", "1"]
    done = subprocess.run([*command, "--json"], capture_output=True, text=True, timeout=120, check=True)
    told = json.loads(done.stdout)
    token = Path(told["token_file"]).read_text().strip()
    assert told["url"] == f"http://127.0.0.1:{told['port']}/"
    assert token not in done.stdout + done.stderr
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert token not in done.stdout + done.stderr  # it is no terminal
    assert "Ended after 0 stops" in done.stdout
    refused = subprocess.run([*command, "--address", "0.0.0.0"], capture_output=True, text=True, timeout=120)
    assert refused.returncode == 2
    assert "--reachable-as" in refused.stderr


def test_what_is_no_http_is_answered_and_fills_no_log(session, caplog):
    """Each such request was a traceback: whoever reaches the port could fill what they are kept in."""
    asked = "GET /none HTTP/1.1\r\nHost: 127.0.0.1:{}\r\n\r\n"
    with served(session) as server:  # which fails where its process says anything
        for odd in (b"GET / HTTP/1.1\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"GET /" + b"a" * 9_000 + b"\r\n"):
            with socket.create_connection(("127.0.0.1", server.port), timeout=20) as client:
                client.sendall(
                    asked.format(server.port).encode()
                )  # of the first, aiohttp says nothing itself
                assert client.recv(65_536).startswith(b"HTTP/1.1 404")
                client.sendall(odd)
                assert b"HTTP/1.0 400" in b"".join(iter(lambda: client.recv(65_536), b""))
    try:
        raise RuntimeError("ours")
    except RuntimeError:
        logging.getLogger("gpuscalp.dashboard").exception("a defect")
    assert [record.message for record in caplog.records] == ["a defect"]


def test_events_are_no_answer_to_head(server):
    """It got all of them, as the body that an answer to HEAD must not have, and took the place of a page."""
    assert _ask(server, "HEAD", "/events")[0] == 405


def test_a_wrong_token_takes_its_time(server):
    began = time.monotonic()
    assert _stop(server, Authorization="Bearer wrong")[0] == 401
    assert time.monotonic() - began >= 0.4
