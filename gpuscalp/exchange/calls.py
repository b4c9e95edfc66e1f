"""What one request knows, and the table entry that says how it is to be handled.

Owns: the vocabulary between the router and the handlers. No behaviour.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from gpuscalp.exchange.listing import Listing
from gpuscalp.exchange.params import Params
from gpuscalp.exchange.refusals import ApiError
from gpuscalp.exchange.users import User
from gpuscalp.exchange.venue import Venue


@dataclass(frozen=True, slots=True)
class Call:
    """One request that has passed the checks of its endpoint.

    ``now_ms`` is the exchange's time; ``user`` is there where the endpoint asks for a key.
    """

    venue: Venue
    params: Params
    now_ms: int
    holder: User | None = None

    @property
    def user(self) -> User:
        assert self.holder is not None, "the endpoint's security is not NONE"
        return self.holder

    def listing(self) -> Listing:
        """Return the listing of the mandatory parameter ``symbol``."""
        return self.listing_of(self.params.text("symbol"))

    def listing_of(self, symbol: str) -> Listing:
        found = self.venue.listings.get(symbol)
        if found is None:
            raise ApiError(-1121)
        return found

    def limit(self, default: int, most: int) -> int:
        """Return the parameter ``limit`` inside its range."""
        value = self.params.integer("limit", default)
        assert value is not None
        if not 1 <= value <= most:
            raise ApiError(-1130, "limit")
        return value


@dataclass(frozen=True, slots=True)
class Endpoint:
    """How a request is handled.

    Attributes
    ----------
    run : makes the answer
    security : NONE, KEY or SIGNED
    weight : of the address; a function of the parameters where it depends on them
    orders : counts in the windows of 10 s and 1 min; None for requests that place nothing
    """

    run: Callable[[Call], Any]
    security: str = "NONE"
    weight: int | Callable[[Params], int] = 1
    orders: tuple[int, int] | None = None
