"""A dashboard that is left open while another session is begun in its session's directory."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest

from gpuscalp.dashboard.access import TOKEN_FILE, open_token
from gpuscalp.dashboard.watch import Watch
from gpuscalp.live.control import write_status
from gpuscalp.live.directory import create, read_about
from tests.dashboard.browser import Browser
from tests.dashboard.served import served_here
from tests.live.sessions import eager_config, instruments

PATIENCE_S = 20.0


def _begin_anew(path: Path) -> str:
    """Begin another session, of other symbols, in place of one; return its id."""
    shutil.rmtree(path)
    only = [each for each in instruments() if each.symbol == "ETHUSDT"]
    create(path, eager_config(), path.parent / "bundle", only, now_ns=time.time_ns(), device="cpu")
    return read_about(path).session_id


def _say(path: Path, **more: Any) -> None:
    (path / "lock").write_text(f"{os.getpid()}\n")
    status = {"running": True, "pid": os.getpid(), "written_ns": time.time_ns(), "quotes": None}
    write_status(path, status | more)


def _updates(port: int, symbol: str) -> Iterator[dict[str, Any]]:
    """Yield what an open page is told, for some seconds."""
    client = HTTPConnection("127.0.0.1", port, timeout=PATIENCE_S)
    client.request("GET", f"/events?symbol={symbol}")
    reply = client.getresponse()
    end_s = time.monotonic() + PATIENCE_S
    try:
        while time.monotonic() < end_s:
            line = reply.readline()
            assert line, "the page has lost its line"
            if line.strip():
                yield json.loads(line.removeprefix(b"data: "))
    finally:
        client.close()


def _check(port: int, token: str) -> int:
    """Return what the server answers to a token."""
    client = HTTPConnection("127.0.0.1", port, timeout=PATIENCE_S)
    headers = {"Origin": f"http://127.0.0.1:{port}", "Content-Type": "application/json"}
    try:
        client.request(
            "POST", "/stop", b'{"command": "check"}', headers | {"Authorization": f"Bearer {token}"}
        )
        return client.getresponse().status
    finally:
        client.close()


def test_watch_sees_that_another_session_was_begun(still: Path) -> None:
    watch = Watch(still, wall=time.time_ns, monotonic=time.monotonic_ns)
    assert not watch.is_replaced()
    os.utime(still / "session.json")
    assert not watch.is_replaced()
    shutil.copytree(still, still.parent / "kept")
    shutil.rmtree(still)
    assert not watch.is_replaced(), "there is none"
    shutil.copytree(still.parent / "kept", still)
    assert not watch.is_replaced(), "it is back"
    session_id = _begin_anew(still)
    assert watch.is_replaced()
    anew = watch.anew()
    assert not anew.is_replaced()
    assert (anew.about.session_id, anew.history.symbols) == (session_id, ("ETHUSDT",))


def test_open_page_is_told_everything_of_the_session_that_was_begun_in_its_place(still: Path) -> None:
    """The page had limits, symbols, orders and equity of the old session, and said that it was running."""
    old_id, old_token = read_about(still).session_id, open_token(still)
    _say(still, equity_usdt=1.0)
    with served_here(still) as port:
        updates = _updates(port, "BTCUSDT")
        first = next(updates)
        assert (first["about"]["session_id"], first["about"]["symbol"]) == (old_id, "BTCUSDT")
        new_id = _begin_anew(still)
        for update in updates:
            if "about" in update:
                break
            assert update["status"]["equity_usdt"] == 1.0
        assert update["about"]["session_id"] == new_id
        assert (update["about"]["symbols"], update["about"]["symbol"]) == (["ETHUSDT"], "ETHUSDT")
        assert (update["status"], update["life"]["state"]) == (None, "unborn")
        _say(still, equity_usdt=2.0)
        for update in updates:
            assert "about" not in update
            if update["status"] is not None:
                break
        assert (update["status"]["equity_usdt"], update["life"]["state"]) == (2.0, "running")
        updates.close()  # type: ignore[attr-defined]
        new_token = (still / TOKEN_FILE).read_text().strip()
        assert new_token not in (old_token, "token")
        assert (_check(port, new_token), _check(port, old_token)) == (200, 401)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_page_begins_anew_with_the_session(still: Path) -> None:
    with served_here(still) as port, Browser() as browser:
        page = browser.open(f"http://127.0.0.1:{port}/")
        symbol = "document.getElementById('symbol')?.value"
        page.wait(lambda: page.value(symbol) == "BTCUSDT", "the first session")
        page.click("#stops button")
        asked = "document.getElementById('confirm').open"
        assert page.value(asked)
        _begin_anew(still)
        page.wait(lambda: page.value(symbol) == "ETHUSDT", "the second one")
        assert page.value("document.getElementById('symbol').options.length") == 1
        assert not page.value(asked), "the question was about another session"
        assert page.complaints == []
