"""The way of a session to an exchange through NautilusTrader (``gpuscalp.live.way.Way``).

Owns: what such a session is begun with. Never: decides whether it may begin (gpuscalp.nautilus.keys).
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final, final

import msgspec

from gpuscalp.config import LiveConfig
from gpuscalp.errors import ConfigError, FeedError
from gpuscalp.feeds.clock import ClockOffset
from gpuscalp.feeds.rest import RestClient
from gpuscalp.live.control import OWN_MARKET
from gpuscalp.live.session import Session
from gpuscalp.nautilus.keys import Keys, rest_url
from gpuscalp.nautilus.live import NautilusSource
from gpuscalp.nautilus.node import open_account
from gpuscalp.schema import E8


@final
class NautilusWay:
    """Real orders, or those of a testnet or an exchange on this machine.

    Parameters
    ----------
    keys : of the account (``gpuscalp.nautilus.keys.permit``)
    """

    market: Final = OWN_MARKET

    def __init__(self, keys: Keys) -> None:
        self._keys = keys

    def running(self, config: LiveConfig) -> LiveConfig:
        feed = msgspec.structs.replace(config.feed, rest_url=rest_url(config.nautilus))
        return msgspec.structs.replace(config, feed=feed)

    def created(self, config: LiveConfig, symbols: Sequence[str]) -> LiveConfig:
        """Return the configuration with the account's balance: profit, loss and sizes begin there.

        Raises
        ------
        FeedError      the account cannot be looked at
        ConfigError    it is empty, or in a mode that cannot be traded
        """

        async def ask() -> int:
            view = open_account(config.nautilus, self._keys, symbols)
            await view.check()
            return await view.wallet_e8()

        try:
            wallet_e8 = asyncio.run(ask())
        except ConfigError:
            raise
        except Exception as error:  # whatever the adapter and the network raise
            raise FeedError(
                "the account cannot be looked at",
                where=rest_url(config.nautilus),
                value=f"{type(error).__name__}: {error}"[:300],
                fix="check keys and permissions (reading and futures), and the way to the exchange",
            ) from None
        if wallet_e8 <= 0:
            raise ConfigError("the account is empty", where=rest_url(config.nautilus), value=wallet_e8 / E8)
        account = msgspec.structs.replace(config.account, start_usdt=wallet_e8 / E8)
        return msgspec.structs.replace(config, account=account)

    def source(
        self, session: Session, config: LiveConfig, rest: RestClient, clock: ClockOffset
    ) -> NautilusSource:
        symbols = [each.symbol for each in session.about.instruments]
        account = open_account(config.nautilus, self._keys, symbols)
        return NautilusSource(session, config, self._keys, account, rest, clock)
