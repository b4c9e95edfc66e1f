"""What symbols and orders are called in NautilusTrader.

Owns: both directions of both names. Never: imports NautilusTrader; its identifiers are text here.
"""

from __future__ import annotations

from typing import Final

from gpuscalp.errors import UsageError

# Of its Binance adapter: USD-M perpetuals of BTCUSDT are BTCUSDT-PERP.BINANCE there.
_VENUES: Final = {"binance_usdm": "BINANCE"}
_PERPETUAL: Final = "-PERP"
_SPOT: Final = "_spot"


def venue_name(venue: str) -> str:
    """Return Nautilus's name of a venue of an archive.

    Raises
    ------
    UsageError    it is a spot market: account, margin and orders here are those of perpetuals
    """
    if venue.endswith(_SPOT):
        raise UsageError(
            "only perpetuals go to NautilusTrader", where="venue", value=venue, fix="take a futures venue"
        )
    return _VENUES.get(venue, venue.upper())


def instrument_name(venue: str, symbol: str) -> str:
    """Return Nautilus's instrument id of a symbol, such as ``BTCUSDT-PERP.BINANCE``."""
    return f"{symbol}{_PERPETUAL}.{venue_name(venue)}"


def symbol_and_venue(instrument: str) -> tuple[str, str]:
    """Return symbol and archive venue of an instrument id.

    Raises
    ------
    UsageError    it names no perpetual
    """
    name, _, place = instrument.rpartition(".")
    symbol = name.removesuffix(_PERPETUAL)
    if not symbol or symbol == name or not place:
        raise UsageError(
            "not the instrument id of a perpetual", value=instrument, fix="such as BTCUSDT-PERP.BINANCE"
        )
    venues = {theirs: ours for ours, theirs in _VENUES.items()}
    return symbol, venues.get(place, place.lower())


def order_number(session_id: str, client_order_id: str) -> int | None:
    """Return the trader's id of an order by the name that the exchange knows it under (``client_id``).

    None where the order is none of the session's: then it is not ours to book as one.
    """
    number = client_order_id.removeprefix(f"gs-{session_id}-")
    return int(number) if number != client_order_id and number.isascii() and number.isdigit() else None


def guard_name(session_id: str, symbol_index: int, at_ms: int) -> str:
    """Return the exchange's name of a stop that the end of a session's process places (36 characters)."""
    return f"gs-{session_id}-guard{symbol_index}-{at_ms}"


def is_guard(session_id: str, client_order_id: str) -> bool:
    return client_order_id.startswith(f"gs-{session_id}-guard")


def is_of_session(session_id: str, client_order_id: str) -> bool:
    """Whether an order is one that the session has sent, or its end."""
    return client_order_id.startswith(f"gs-{session_id}-")
