"""Instruments from the venue's exchangeInfo.

Owns: which filters give tick size, step size, least and largest order, which symbols trade.
Never: talks to the venue.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct, field

from gpuscalp.archive.manifest import Manifest
from gpuscalp.archive.source import content_of
from gpuscalp.errors import UNREADABLE, DataError, DecodeError
from gpuscalp.feeds.decimals import parse_e8
from gpuscalp.schema import Instrument


class _Symbol(Struct):
    symbol: str
    status: str = "TRADING"
    filters: list[dict[str, Any]] = []


class _ExchangeInfo(Struct):
    symbols: list[_Symbol] = field(default_factory=list)


def read_exchange_info(path: Path, venue: str, *, wanted: Collection[str] = ()) -> dict[str, Instrument]:
    """Read an answer of ``/fapi/v1/exchangeInfo`` or ``/api/v3/exchangeInfo`` (plain, gzip or zip).

    Parameters
    ----------
    wanted : symbols that must be usable where they are listed; of others that are not, none is returned: the
        venue lists symbols without any filter before they trade

    Raises
    ------
    UsageError
        the file cannot be opened
    DataError
        the file is no exchangeInfo, or a wanted symbol, or every symbol in it, has no tick or step size
    """
    return parse_exchange_info(content_of(path), venue, where=str(path), wanted=wanted)


def parse_exchange_info(
    content: bytes, venue: str, *, where: str, wanted: Collection[str] = ()
) -> dict[str, Instrument]:
    """Read the body of such an answer; ``where`` says in errors where it came from.

    Raises
    ------
    DataError
        as ``read_exchange_info``
    """
    found: dict[str, Instrument] = {}
    unusable: DataError | None = None
    for item in _symbols(content, where):
        try:
            found[item.symbol] = _instrument(item, venue, where)
        except DataError as error:
            if item.symbol in wanted:
                raise
            unusable = error
    if unusable is not None and not found:
        raise unusable
    return found


def trading_symbols(content: bytes, *, where: str) -> frozenset[str]:
    """Return the symbols of such a body that trade now.

    Raises
    ------
    DataError
        it is no exchangeInfo
    """
    return frozenset(item.symbol for item in _symbols(content, where) if item.status == "TRADING")


def listed(
    content: bytes, venue: str, symbols: Collection[str], *, where: str
) -> dict[str, tuple[str, Instrument | None]]:
    """Return the state of each of some symbols in such a body, such as ``TRADING`` or ``SETTLING``, and the
    instrument; None where it has no usable filters. What is not in it is not listed.

    Raises
    ------
    DataError
        it is no exchangeInfo
    """
    found: dict[str, tuple[str, Instrument | None]] = {}
    for item in _symbols(content, where):
        if item.symbol in symbols:
            found[item.symbol] = item.status, None
            with suppress(DataError):
                found[item.symbol] = item.status, _instrument(item, venue, where)
    return found


def max_market_qty_e8(filters: Iterable[Mapping[str, Any]], step_e8: int) -> int:
    """Return the largest quantity of a market order by a symbol's filters, in whole steps; 0 = they do not
    tell it.

    Raises
    ------
    DecodeError
        it is no decimal number
    """
    told = next((each for each in filters if each.get("filterType") == "MARKET_LOT_SIZE"), {})
    most = parse_e8(str(told.get("maxQty") or "0"))
    return most - most % step_e8


def split_fitting(
    manifest: Manifest, instruments: dict[str, Instrument], venue: str
) -> tuple[list[Instrument], list[str]]:
    """Split the instruments of symbols that the archive has into those that its prices fit, and the names
    of those that they do not: tick sizes change over the years."""
    fitting: list[Instrument] = []
    others: list[str] = []
    for symbol in sorted({part.symbol for part in manifest.select(venue)} & instruments.keys()):
        tick = instruments[symbol].tick_size_e8
        if any(part.price_gcd_e8 % tick for part in manifest.select(venue, (symbol,))):
            others.append(symbol)
        else:
            fitting.append(instruments[symbol])
    return fitting, others


def _symbols(content: bytes, where: str) -> list[_Symbol]:
    try:
        info = msgspec.json.decode(content, type=_ExchangeInfo)
    except UNREADABLE as error:
        raise DataError(
            f"not an exchangeInfo: {error}", where=where, fix="save the answer of the venue as it comes"
        ) from None
    if not info.symbols:
        raise DataError("the exchangeInfo names no symbol", where=where)
    return info.symbols


def _instrument(item: _Symbol, venue: str, where: str) -> Instrument:
    filters = {str(entry.get("filterType")): entry for entry in item.filters}
    notional = filters.get("MIN_NOTIONAL") or filters.get("NOTIONAL") or {}
    try:
        lot = filters["LOT_SIZE"]
        tick, step = parse_e8(str(filters["PRICE_FILTER"]["tickSize"])), parse_e8(str(lot["stepSize"]))
        if tick <= 0 or step <= 0:
            raise DataError("tick and step size must be positive", where=where, value=item.symbol)
        found = Instrument(
            symbol=item.symbol,
            venue=venue,
            tick_size_e8=tick,
            step_size_e8=step,
            min_qty_e8=parse_e8(str(lot["minQty"])),
            # USD-M says `notional`, spot says `minNotional`.
            min_notional_e8=parse_e8(str(notional.get("notional", notional.get("minNotional", "0")))),
            source="exchange_info",
            max_market_qty_e8=max_market_qty_e8(item.filters, step),
        )
    except (KeyError, DecodeError) as error:
        raise DataError(f"symbol without usable filters: {error}", where=where, value=item.symbol) from None
    if min(found.min_qty_e8, found.min_notional_e8, found.max_market_qty_e8) < 0:
        raise DataError("the filters have a negative limit", where=where, value=item.symbol)
    return found
