"""By TLS, as a real venue is reached: a session is whole, a server without proof of who it is is refused."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from gpuscalp.config import FeedConfig
from gpuscalp.errors import FeedError
from gpuscalp.exchange.embedded import Exchange
from gpuscalp.exchange.faults import Fault
from gpuscalp.feeds.rest import RestClient
from gpuscalp.feeds.socket import SocketError, open_socket
from tests.live.sessions import Running, check_each_trade_once, eager_config, feed_of, newest_trades
from tests.live.tls import tls_before, write_authority

UNPROVED = {
    "unknown": ("localhost", False, "unable to get local issuer certificate"),
    "of another host": ("elsewhere.example", False, "Hostname mismatch"),
    "expired": ("localhost", True, "certificate has expired"),
}


def _secure(exchange: Exchange, tls: Callable[[int], int]) -> dict[str, str]:
    """Return the addresses of an exchange by TLS."""
    stream, rest = (
        f"localhost:{tls(int(urlsplit(exchange.urls[name]).port or 0))}" for name in ("stream", "rest")
    )
    return {
        "public_url": f"wss://{stream}/public",
        "market_url": f"wss://{stream}/market",
        "rest_url": f"https://{rest}",
    }


def test_session_by_tls(
    exchange: Exchange, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = write_authority(tmp_path / "tls", "localhost")
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.certificate))
    with ExitStack() as stack:
        urls = _secure(exchange, lambda port: stack.enter_context(tls_before(port, authority)))
        config = eager_config(feed_of(exchange, redundancy=2, **urls))
        running = stack.enter_context(Running(tmp_path / "session", config, bundle))
        running.wait_trading()
        exchange.set_fault(Fault("cut", connection=1))  # its twin goes on
        running.wait(lambda status: sum(status["feeds"]["connections_lost"].values()) == 1, "a cut")
        running.wait_messages()
        newest = newest_trades(exchange)
        running.wait_messages()
        ended = running.stop()
    check_each_trade_once(ended.check(), newest)
    assert ended.status["feeds"]["messages"]["rejects"] == 0


@pytest.mark.parametrize("how", UNPROVED)
def test_server_without_proof_is_refused(
    how: str, exchange: Exchange, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    host, expired, why = UNPROVED[how]
    authority = write_authority(tmp_path / "tls", host, expired=expired)
    if how != "unknown":
        monkeypatch.setenv("SSL_CERT_FILE", str(authority.certificate))
    with ExitStack() as stack:
        config = FeedConfig(
            **_secure(exchange, lambda port: stack.enter_context(tls_before(port, authority)))
        )
        with pytest.raises(FeedError, match="cannot prove") as called:
            RestClient(config, clock=time.time_ns).get("/fapi/v1/time", {}, weight=1)
        with pytest.raises(SocketError, match="cannot prove") as opened:
            asyncio.run(
                open_socket(f"{config.public_url}/stream", config, sink=lambda *_: None, clock=time.time_ns)
            )
    for refusal in (called, opened):
        assert why in str(refusal.value.value)
        assert "SSL_CERT_FILE" in str(refusal.value.fix)
