"""How a session reaches its exchange.

Owns: the sockets that it opens where orders are filled on paper. Never: connects (gpuscalp.live.sockets).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, final

from gpuscalp.config import LiveConfig
from gpuscalp.feeds.clock import ClockOffset
from gpuscalp.feeds.rest import RestClient
from gpuscalp.feeds.routes import redundant_endpoints
from gpuscalp.live.control import OWN_MARKET
from gpuscalp.live.embedded import embedded_config
from gpuscalp.live.session import Session
from gpuscalp.live.sockets import SocketSource
from gpuscalp.live.source import Source


class Way(Protocol):
    """How a session reaches its exchange."""

    @property
    def market(self) -> str:
        """What it has there: ``gpuscalp.live.directory.SessionFile.market``."""

    def running(self, config: LiveConfig) -> LiveConfig:
        """Return the configuration with the URLs of this run."""

    def created(self, config: LiveConfig, symbols: Sequence[str]) -> LiveConfig:
        """Return the configuration that a new session is begun with."""

    def source(
        self, session: Session, config: LiveConfig, rest: RestClient, clock: ClockOffset
    ) -> Source: ...


@final
class SocketWay:
    """Sockets of our own.

    Parameters
    ----------
    urls : of an exchange on this machine; None: those of the configuration
    market : what that exchange serves, in a word
    """

    def __init__(self, urls: dict[str, str] | None = None, *, market: str = OWN_MARKET) -> None:
        self._urls, self.market = urls, market

    def running(self, config: LiveConfig) -> LiveConfig:
        return config if self._urls is None else embedded_config(config, self._urls)

    def created(self, config: LiveConfig, symbols: Sequence[str]) -> LiveConfig:  # noqa: ARG002
        return config

    def source(
        self, session: Session, config: LiveConfig, rest: RestClient, clock: ClockOffset
    ) -> SocketSource:
        routes = redundant_endpoints([each.symbol for each in session.about.instruments], config.feed)
        return SocketSource(session, config, routes, rest, clock)
