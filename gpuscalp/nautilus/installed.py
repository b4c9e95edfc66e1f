"""Whether a NautilusTrader that will do is installed.

Owns: the versions that are needed, and the words for those who lack them. Never: imports it to find out.
"""

from __future__ import annotations

from importlib import metadata
from typing import Final

from packaging.version import InvalidVersion, Version

from gpuscalp.errors import ConfigError

# What the tests run with: the newest for Python 3.11, and for what came after it.
BACKTEST: Final = "1.221"
# Its market streams follow the routes of Binance since 2026; those of older versions deliver nothing.
LIVE: Final = "1.231"

_INSTALL: Final = "make setup EXTRAS=nautilus in the checkout"


def require(least: str = BACKTEST) -> str:
    """Return the version that is installed.

    Raises
    ------
    ConfigError
        NautilusTrader is not installed, or is older than ``least``
    """
    fix = f"{_INSTALL}{'; needs Python 3.12 or newer' if least == LIVE else ''}   (docs/nautilus.md)"
    try:
        found = metadata.version("nautilus_trader")
    except metadata.PackageNotFoundError:
        raise ConfigError("NautilusTrader is not installed", where="extra nautilus", fix=fix) from None
    try:
        enough = Version(found) >= Version(least)
    except InvalidVersion:
        enough = False
    if not enough:
        raise ConfigError(
            f"this needs NautilusTrader {least} or newer",
            where="extra nautilus",
            value=found,
            fix=fix,
        )
    return found
