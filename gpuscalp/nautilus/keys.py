"""Which account, and whether it may be traded at all.

Owns: where keys come from, and every refusal before a connection is opened. Never: writes a key anywhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import urlsplit

from gpuscalp.config import LiveConfig, NautilusConfig
from gpuscalp.errors import ConfigError, UsageError
from gpuscalp.nautilus.installed import LIVE, require

# One pair for each place, so that the keys of a real account never reach a server that is none of Binance's.
VARIABLES: Final = {
    "live": ("BINANCE_API_KEY", "BINANCE_API_SECRET"),
    "testnet": ("BINANCE_FUTURES_TESTNET_API_KEY", "BINANCE_FUTURES_TESTNET_API_SECRET"),
    "local": ("GPUSCALP_LOCAL_API_KEY", "GPUSCALP_LOCAL_API_SECRET"),
}
REST_URLS: Final = {"live": "https://fapi.binance.com", "testnet": "https://demo-fapi.binance.com"}
_LOOPBACK: Final = frozenset({"127.0.0.1", "localhost", "::1"})


@dataclass(frozen=True, slots=True)
class Keys:
    """An API key and its secret; neither shows in a representation."""

    api_key: str = field(repr=False)
    secret: str = field(repr=False)


def permit(config: LiveConfig, env: Mapping[str, str], *, confirmed: bool) -> Keys:
    """Return the keys, if real orders may be sent at all.

    Parameters
    ----------
    env : environment variables
    confirmed : ``--confirm-live`` was given

    Raises
    ------
    UsageError     it was not given
    ConfigError    NautilusTrader is missing or too old, a key is missing, or a URL is not where it has to be
    """
    place = config.nautilus
    if not confirmed:
        raise UsageError(
            "this sends orders to an account",
            where="--broker nautilus",
            value=f"nautilus.where = {place.where}",
            fix="add --confirm-live, or leave out --broker to trade on paper",
        )
    try:
        require(LIVE)
    except ConfigError as error:
        raise ConfigError(
            f"real orders need NautilusTrader {LIVE} or newer: older ones open market streams on the paths"
            " that Binance retired in April 2026, and would trade on prices that stand still",
            where=error.where,
            value=error.value,
            fix=error.fix,
        ) from None
    _check_urls(place)
    names = VARIABLES[place.where]
    missing = [name for name in names if not env.get(name)]
    if missing:
        raise ConfigError(
            "no API key",
            where=f"nautilus.where = {place.where}",
            value=f"not set: {', '.join(missing)}",
            fix="set them in the environment; they are read from nowhere else",
        )
    return Keys(*(env[name] for name in names))


def rest_url(place: NautilusConfig) -> str:
    """Return the base URL of REST calls."""
    return place.rest_url or REST_URLS[place.where]


def _check_urls(place: NautilusConfig) -> None:
    urls = {name: getattr(place, name) for name in ("rest_url", "stream_url", "ws_api_url")}
    if place.where != "local":
        given = [name for name, url in urls.items() if url]
        if given:
            raise ConfigError(
                "this place has URLs of its own",
                where=f"nautilus.{given[0]}",
                value=urls[given[0]],
                fix='leave it out, or say where = "local"',
            )
        return
    for name, url in urls.items():
        if urlsplit(url).hostname not in _LOOPBACK:
            raise ConfigError(
                "a local exchange is on this machine",
                where=f"nautilus.{name}",
                value=url,
                fix="take the URLs that `gpuscalp exchange --lenient` prints",
            )
