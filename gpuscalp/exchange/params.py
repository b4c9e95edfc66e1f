"""Request parameters: reading them, and the refusals for what cannot be read.

Owns: names, types and ranges of single parameters. Never: looks at a symbol's state or an account.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from gpuscalp.errors import DecodeError
from gpuscalp.exchange.refusals import ApiError
from gpuscalp.exchange.rules import TIMES_IN_FORCE
from gpuscalp.feeds.decimals import parse_e8

_CLIENT_ID: Final = re.compile(r"[\.A-Z:/a-z0-9_-]{1,36}")
_NUMBER: Final = re.compile(r"-?[0-9]{1,18}")
_FORMER: Final = frozenset(
    {"STOP", "STOP_MARKET", "TAKE_PROFIT", "TAKE_PROFIT_MARKET", "TRAILING_STOP_MARKET"}
)
PRICE_MATCHES: Final = frozenset(
    {f"{side}{tail}" for side in ("OPPONENT", "QUEUE") for tail in ("", "_5", "_10", "_20")}
)
PREVENTIONS: Final = frozenset({"NONE", "EXPIRE_TAKER", "EXPIRE_MAKER", "EXPIRE_BOTH"})


class Params:
    """The parameters of one request, all as text."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self._values = {name: _text(value) for name, value in values.items() if value is not None}

    def __contains__(self, name: str) -> bool:
        return bool(self._values.get(name))

    def optional(self, name: str, default: str = "") -> str:
        return self._values.get(name) or default

    def text(self, name: str) -> str:
        """Return a mandatory parameter."""
        value = self._values.get(name)
        if not value:
            raise ApiError(-1102, name)
        return value

    def integer(self, name: str, default: int | None = None) -> int | None:
        """Return a whole number, or the default where it was not sent."""
        value = self._values.get(name)
        if not value:
            return default
        if not _NUMBER.fullmatch(value):
            raise ApiError(-1102, name)
        return int(value)

    def boolean(self, name: str) -> bool:
        """Return a truth value; clients send true, True and TRUE."""
        value = self.optional(name, "false").lower()
        if value not in ("true", "false"):
            raise ApiError(-1130, name)
        return value == "true"

    def amount(self, name: str) -> int:
        """Return a decimal number in 1e-8.

        Raises
        ------
        ApiError
            -1102 not sent or no number, -1111 more than eight places
        """
        value = self.text(name)
        try:
            return parse_e8(value)
        except DecodeError as error:
            if "eight" in error.what:
                raise ApiError(-1111) from None
            raise ApiError(-1102, name) from None

    def side(self) -> int:
        value = self.text("side")
        if value not in ("BUY", "SELL"):
            raise ApiError(-1117)
        return 1 if value == "BUY" else -1

    def order_type(self) -> str:
        """Return LIMIT or MARKET; conditional types belong to the algo service since 2025-12."""
        value = self.text("type")
        if value in _FORMER:
            raise ApiError(-4120)
        if value not in ("LIMIT", "MARKET"):
            raise ApiError(-1116)
        return value

    def time_in_force(self) -> str:
        value = self.text("timeInForce")
        if value not in TIMES_IN_FORCE:
            raise ApiError(-1115)
        return value

    def client_id(self, name: str, default: str) -> str:
        value = self.optional(name, default)
        if not _CLIENT_ID.fullmatch(value):
            raise ApiError(-4015)
        return value

    def choice(self, name: str, allowed: frozenset[str], default: str, code: int) -> str:
        value = self.optional(name, default)
        if value != default and value not in allowed:
            raise ApiError(code)
        return value


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        # Some clients send prices as JSON numbers; repr is the shortest text that reads back the same.
        return f"{value:.8f}".rstrip("0").rstrip(".")
    return str(value)
