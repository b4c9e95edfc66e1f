"""Instruments in both languages.

Owns: which field means which. What Nautilus has no field for stands in ``info``, under keys of ours.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from decimal import Decimal
from typing import Any, Final

from nautilus_trader.model.currencies import USDT
from nautilus_trader.model.enums import CurrencyType
from nautilus_trader.model.identifiers import InstrumentId, Symbol
from nautilus_trader.model.instruments import CryptoPerpetual
from nautilus_trader.model.objects import FIXED_PRECISION, Currency, Money, Price, Quantity

from gpuscalp.archive.instruments import max_market_qty_e8
from gpuscalp.archive.manifest import Part
from gpuscalp.errors import UsageError
from gpuscalp.nautilus.names import instrument_name, symbol_and_venue
from gpuscalp.schema import E8, Instrument, decimal_places

RAW_PER_E8: Final = 10 ** (FIXED_PRECISION - 8)
_INFO: Final = "gpuscalp"
_QUOTES: Final = ("USDT", "USDC", "FDUSD", "BUSD", "TUSD", "BTC", "ETH", "USD")


def price_of(price_e8: int, places: int) -> Any:
    return Price.from_raw(price_e8 * RAW_PER_E8, places)


def quantity_of(qty_e8: int, places: int) -> Any:
    return Quantity.from_raw(qty_e8 * RAW_PER_E8, places)


def to_nautilus(
    instrument: Instrument,
    recorded: Sequence[Part] = (),
    *,
    maker_fee_bps: float = 0.0,
    taker_fee_bps: float = 0.0,
    ts_ns: int = 0,
) -> Any:
    """Return the CryptoPerpetual of an instrument.

    Parameters
    ----------
    instrument : ours
    recorded : parts of an archive. Where their prices or quantities are finer than the instrument says, their
        digits count: Nautilus refuses data with more than it was told
    maker_fee_bps, taker_fee_bps : of the account that trades it
    ts_ns : its date
    """
    base, quote = _currencies(instrument.symbol)
    price_places = decimal_places(
        math.gcd(instrument.tick_size_e8, *(part.price_gcd_e8 for part in recorded))
    )
    qty_places = decimal_places(math.gcd(instrument.step_size_e8, *(part.qty_gcd_e8 for part in recorded)))
    min_qty, min_notional = instrument.min_qty_e8, instrument.min_notional_e8
    return CryptoPerpetual(
        instrument_id=InstrumentId.from_str(instrument_name(instrument.venue, instrument.symbol)),
        raw_symbol=Symbol(instrument.symbol),
        base_currency=base,
        quote_currency=quote,
        settlement_currency=quote,
        is_inverse=False,
        price_precision=price_places,
        size_precision=qty_places,
        price_increment=price_of(instrument.tick_size_e8, price_places),
        size_increment=quantity_of(instrument.step_size_e8, qty_places),
        min_quantity=quantity_of(min_qty, qty_places) if min_qty else None,
        min_notional=Money(Decimal(min_notional) / E8, quote) if min_notional else None,
        margin_init=Decimal(1),
        margin_maint=Decimal(1) / 2,
        maker_fee=_rate(maker_fee_bps),
        taker_fee=_rate(taker_fee_bps),
        ts_event=ts_ns,
        ts_init=ts_ns,
        info={
            _INFO: {
                "venue": instrument.venue,
                "source": instrument.source,
                "max_market_qty_e8": instrument.max_market_qty_e8,
            }
        },
    )


def from_nautilus(perpetual: Any) -> Instrument:
    """Return ours of Nautilus's instrument.

    Raises
    ------
    UsageError    it is no linear perpetual that is quoted in a currency of which USDT stands for all
    """
    if not isinstance(perpetual, CryptoPerpetual) or perpetual.is_inverse:
        raise UsageError(
            "not a linear perpetual", where="instrument", value=str(perpetual.id), fix="leave it out"
        )
    info = perpetual.info or {}
    told = info.get(_INFO, {})
    symbol, venue = symbol_and_venue(str(perpetual.id))
    least, notional = perpetual.min_quantity, perpetual.min_notional
    step_e8 = perpetual.size_increment.raw // RAW_PER_E8
    # Nautilus's adapter of Binance keeps the filters as they came.
    most_e8 = told.get("max_market_qty_e8") or max_market_qty_e8(info.get("filters", ()), step_e8)
    return Instrument(
        symbol=symbol,
        venue=told.get("venue", venue),
        tick_size_e8=perpetual.price_increment.raw // RAW_PER_E8,
        step_size_e8=step_e8,
        min_qty_e8=0 if least is None else least.raw // RAW_PER_E8,
        min_notional_e8=0 if notional is None else round(notional.as_decimal() * E8),
        source=told.get("source", "exchange_info"),
        max_market_qty_e8=most_e8,
    )


def _currencies(symbol: str) -> tuple[Any, Any]:
    for quote in _QUOTES:
        base = symbol.removesuffix(quote)
        if base and base != symbol:
            return _currency(base), _currency(quote)
    return _currency(symbol), USDT


def _currency(code: str) -> Any:
    known = Currency.from_internal_map(code)
    return known if known is not None else Currency(code, 8, 0, code, CurrencyType.CRYPTO)


def _rate(bps: float) -> Decimal:
    return Decimal(str(bps)) / 10_000
