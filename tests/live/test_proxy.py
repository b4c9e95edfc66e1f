"""A session behind an HTTP proxy goes where the doctor has looked."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from gpuscalp.config import FeedConfig
from gpuscalp.errors import FeedError
from gpuscalp.live.run import run_live
from tests.live.sessions import eager_config

# Nobody is there: only a proxy can answer.
URL = "http://fapi.exchange.invalid"


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Return what a proxy, which the environment names, was asked for; it refuses."""
    urls: list[str] = []

    class Proxy(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            urls.append(self.path)
            self.send_response(503)
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "REQUEST_METHOD"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    with ThreadingHTTPServer(("127.0.0.1", 0), Proxy) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{server.server_address[1]}")
        try:
            yield urls
        finally:
            server.shutdown()
            thread.join()


def test_session_asks_the_exchange_through_the_proxy_of_the_environment(
    asked: list[str], bundle: Path, tmp_path: Path
) -> None:
    """The doctor went through the proxy and said that all was well; the session went around it."""
    config = eager_config(FeedConfig(rest_url=URL))
    with pytest.raises(FeedError, match="HTTP 503"):
        run_live(tmp_path / "session", config, model=bundle, device="cpu")
    assert asked == [f"{URL}/fapi/v1/exchangeInfo"]
