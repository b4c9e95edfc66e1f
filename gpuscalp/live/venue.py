"""Which market a session trades on: that of its venue, or one that an exchange in its own process makes.

Owns: whether a start reaches the market that the session was begun on, and whether a model is one of it.
Never: connects to anything (gpuscalp.live.run).
"""

from __future__ import annotations

from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from gpuscalp.bundle import read_contract
from gpuscalp.config import LiveConfig
from gpuscalp.errors import ConfigError
from gpuscalp.live.control import OWN_MARKET, SYNTHETIC_MARKET
from gpuscalp.live.directory import read_about
from gpuscalp.live.models import unlike

_BINANCE: Final = "binance.com"


def check_market(path: Path, market: str) -> None:
    """Refuse to go on with a session on another market: its positions and its features are of its own.

    Parameters
    ----------
    path : of the session
    market : that this start would reach, as in ``SessionFile.market``

    Raises
    ------
    ConfigError    they differ
    """
    about = read_about(path)
    if market == about.market:
        return
    if about.market == OWN_MARKET:
        fix = "leave out --embedded"
    elif market == OWN_MARKET:
        fix = "go on with --embedded"
    else:
        fix = "name the --archive or the --recording that it had, or neither if it had none"
    reached, begun = ("the venue's" if each == OWN_MARKET else each for each in (market, about.market))
    raise ConfigError(
        "the session was begun on another market",
        where=str(path),
        value=f"{reached}, the session has {begun}",
        fix=f"{fix}, or begin a new session",
    )


def check_reached(config: LiveConfig) -> None:
    """Refuse to take a real exchange for the synthetic market.

    Parameters
    ----------
    config : with the URLs of this run, of a session on its venue's own market

    Raises
    ------
    ConfigError    its venue is the synthetic one, and its URL is Binance's
    """
    host = urlsplit(config.feed.rest_url).hostname or ""
    if config.venue == SYNTHETIC_MARKET and (host == _BINANCE or host.endswith(f".{_BINANCE}")):
        raise ConfigError(
            "this address does not serve the synthetic market",
            where="feed.rest_url",
            value=f"{config.feed.rest_url}, the venue is {config.venue}",
            fix="--embedded brings it, or name the URLs of `gpuscalp exchange`",
        )


def check_model_market(model: Path, config: LiveConfig) -> None:
    """Refuse a model of another market than a new session's venue: what it has learned is not of this one.

    Real orders to an exchange on this machine are a rehearsal: whatever market it has, it goes by the
    venue's names.

    Raises
    ------
    FeatureMismatchError    they differ
    ModelError              there is no model
    """
    if config.broker == "nautilus" and config.nautilus.where == "local":
        return
    contract = read_contract(model)
    trained = contract.training.venue
    if trained != config.venue:
        fix = f"train one on data of {config.venue}; --embedded rehearses with any"
        raise unlike(contract, "market", trained, config.venue, fix=fix)
