"""What the exchange allows for one symbol: filters, largest positions, and how numbers are written.

Owns: exchangeInfo entries and the texts of prices and quantities. Never: looks at orders or accounts.

The shape of an entry is the one that strict decoders accept (unknown filters, a time in force they do not
know, or a missing margin field make some clients refuse the whole answer). Prices and quantities are ints in
1e-8; ratios are ints in 1e-8 too.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

from gpuscalp.execution.margin import TIERS
from gpuscalp.feeds.decimals import format_e8
from gpuscalp.schema import E8, Instrument, decimal_places

TRADING: Final = "TRADING"  # the state of a symbol in which everything is taken
MAX_ORDERS: Final = 200
MAX_ALGO_ORDERS: Final = 200
# Where the source does not tell a least notional or quantity.
_MIN_NOTIONAL_E8: Final = 5 * E8
_QUOTES: Final = ("USDT", "USDC", "BUSD", "FDUSD")
ORDER_TYPES: Final = ("LIMIT", "MARKET", "STOP", "STOP_MARKET", "TAKE_PROFIT", "TAKE_PROFIT_MARKET")
TIMES_IN_FORCE: Final = ("GTC", "IOC", "FOK", "GTX", "GTD")


# Markets repeat the same few thousand numbers, and writing them was half of a message's cost.
@lru_cache(maxsize=1 << 17)
def text(value_e8: int, places: int = 0) -> str:
    """Return a multiple of 1e-8 as decimal text with at least ``places`` places and no needless zeros."""
    digits = format_e8(value_e8)
    kept = digits.rstrip("0")
    least = len(digits) - 8 + places if places else len(digits) - 9
    return digits[: max(least, len(kept) - (kept[-1] == "."))]


@dataclass(frozen=True, slots=True)
class SymbolRules:
    """The rules of one symbol."""

    symbol: str
    base: str
    quote: str
    tick_e8: int
    step_e8: int
    min_price_e8: int
    max_price_e8: int
    min_qty_e8: int
    max_qty_e8: int
    max_market_qty_e8: int
    min_notional_e8: int
    up_e8: int = 105_000_000
    down_e8: int = 95_000_000
    market_bound_e8: int = 5_000_000
    status: str = TRADING

    @classmethod
    def of(cls, instrument: Instrument) -> SymbolRules:
        """Make the rules of an instrument. What it does not tell is chosen so that it does not bind."""
        symbol = instrument.symbol
        quote = next((name for name in _QUOTES if symbol.endswith(name)), "USDT")
        step = instrument.step_size_e8
        return cls(
            symbol=symbol,
            base=symbol.removesuffix(quote) or symbol,
            quote=quote,
            tick_e8=instrument.tick_size_e8,
            step_e8=step,
            min_price_e8=instrument.tick_size_e8,
            max_price_e8=10**15 // instrument.tick_size_e8 * instrument.tick_size_e8,
            min_qty_e8=max(instrument.min_qty_e8, step),
            max_qty_e8=step * 10_000_000,
            max_market_qty_e8=instrument.max_market_qty_e8 or step * 1_000_000,
            min_notional_e8=instrument.min_notional_e8 or _MIN_NOTIONAL_E8,
        )

    @property
    def price_places(self) -> int:
        return decimal_places(self.tick_e8)

    @property
    def qty_places(self) -> int:
        return decimal_places(self.step_e8)

    def price(self, value_e8: int) -> str:
        return text(value_e8, self.price_places)

    def qty(self, value_e8: int) -> str:
        return text(value_e8, self.qty_places)

    def max_notional_e8(self, leverage: int) -> int:
        """Return the largest notional that a leverage allows."""
        return max((tier.cap_e8 for tier in TIERS if tier.leverage >= leverage), default=0)

    def info(self) -> dict[str, Any]:
        """Return the symbol's entry of exchangeInfo."""
        return {
            "symbol": self.symbol,
            "pair": self.symbol,
            "contractType": "PERPETUAL",
            "deliveryDate": 4_133_404_800_000,
            "onboardDate": 1_569_398_400_000,
            "status": self.status,
            "maintMarginPercent": "2.5000",
            "requiredMarginPercent": "5.0000",
            "baseAsset": self.base,
            "quoteAsset": self.quote,
            "marginAsset": self.quote,
            "pricePrecision": self.price_places,
            "quantityPrecision": self.qty_places,
            "baseAssetPrecision": 8,
            "quotePrecision": 8,
            "underlyingType": "COIN",
            "underlyingSubType": [],
            "triggerProtect": "0.0500",
            "liquidationFee": "0.012500",
            "marketTakeBound": text(self.market_bound_e8, 2),
            "maxMoveOrderLimit": 10_000,
            "permissionSets": [],
            "filters": self._filters(),
            "orderTypes": list(ORDER_TYPES),
            "timeInForce": list(TIMES_IN_FORCE),
        }

    def _filters(self) -> list[dict[str, Any]]:
        lots = {"minQty": self.qty(self.min_qty_e8), "stepSize": self.qty(self.step_e8)}
        return [
            {
                "filterType": "PRICE_FILTER",
                "minPrice": self.price(self.min_price_e8),
                "maxPrice": self.price(self.max_price_e8),
                "tickSize": self.price(self.tick_e8),
            },
            {"filterType": "LOT_SIZE", "maxQty": self.qty(self.max_qty_e8), **lots},
            {"filterType": "MARKET_LOT_SIZE", "maxQty": self.qty(self.max_market_qty_e8), **lots},
            {"filterType": "MAX_NUM_ORDERS", "limit": MAX_ORDERS},
            {"filterType": "MIN_NOTIONAL", "notional": text(self.min_notional_e8)},
            {
                "filterType": "PERCENT_PRICE",
                "multiplierUp": text(self.up_e8, 4),
                "multiplierDown": text(self.down_e8, 4),
                "multiplierDecimal": "4",
            },
            {"filterType": "POSITION_RISK_CONTROL", "positionControlSide": "NONE"},
        ]


RATE_LIMITS: Final = (
    {"rateLimitType": "REQUEST_WEIGHT", "interval": "MINUTE", "intervalNum": 1, "limit": 2_400},
    {"rateLimitType": "ORDERS", "interval": "MINUTE", "intervalNum": 1, "limit": 1_200},
    {"rateLimitType": "ORDERS", "interval": "SECOND", "intervalNum": 10, "limit": 300},
)


def exchange_info(rules: Iterable[SymbolRules], now_ms: int) -> dict[str, Any]:
    """Return the answer of GET /fapi/v1/exchangeInfo."""
    symbols = list(rules)
    return {
        "timezone": "UTC",
        "serverTime": now_ms,
        "futuresType": "U_MARGINED",
        "rateLimits": [dict(limit) for limit in RATE_LIMITS],
        "exchangeFilters": [],
        "assets": [
            {"asset": quote, "marginAvailable": True, "autoAssetExchange": "-10000"}
            for quote in sorted({item.quote for item in symbols})
        ],
        "symbols": [item.info() for item in symbols],
    }
