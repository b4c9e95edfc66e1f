"""REST calls of the market: time, exchangeInfo, depth, trades, klines, mark price, tickers.

Owns: their answers. Never: an account.
"""

from __future__ import annotations

from typing import Any, Final

from gpuscalp.exchange.bars import INTERVALS_MS
from gpuscalp.exchange.calls import Call, Endpoint
from gpuscalp.exchange.listing import Listing
from gpuscalp.exchange.params import Params
from gpuscalp.exchange.refusals import ApiError
from gpuscalp.exchange.rules import exchange_info, text

_DEPTHS: Final = {5: 2, 10: 2, 20: 2, 50: 2, 100: 5, 500: 10, 1000: 20}
_HOUR_MS: Final = 3_600_000


def _ping(_: Call) -> dict[str, Any]:
    return {}


def _time(call: Call) -> dict[str, Any]:
    return {"serverTime": call.now_ms}


def _exchange_info(call: Call) -> dict[str, Any]:
    rules = (listing.rules for listing in call.venue.listings.values())
    return exchange_info(rules, call.now_ms)


def depth(call: Call) -> dict[str, Any]:
    """Answer GET /fapi/v1/depth, and ``depth`` of the WebSocket API."""
    limit = call.params.integer("limit", 500)
    if limit not in _DEPTHS:
        raise ApiError(-1130, "limit")
    return call.listing().snapshot(limit, call.now_ms)


def _depth_weight(params: Params) -> int:
    return _DEPTHS.get(params.integer("limit", 500) or 500, 20)


def _trades(call: Call) -> list[dict[str, Any]]:
    return call.listing().trade_rows(call.limit(500, 1_000))


def _aggregates(call: Call) -> list[dict[str, Any]]:
    listing, limit = call.listing(), call.limit(500, 1_000)
    params = call.params
    first, start, end = (params.integer(name) for name in ("fromId", "startTime", "endTime"))
    if first is not None and (start is not None or end is not None):
        raise ApiError(-1128)
    if start is not None and end is not None and end - start >= _HOUR_MS:
        raise ApiError(-1128)
    found = [
        item
        for item in listing.aggregates
        if (first is None or item.number >= first)
        and (start is None or item.last_ms >= start)
        and (end is None or item.last_ms <= end)
    ]
    cut = found[-limit:] if first is None and start is None else found[:limit]
    return [item.row(listing.rules) for item in cut]


def _klines(call: Call) -> list[list[Any]]:
    interval = call.params.text("interval")
    if interval not in INTERVALS_MS:
        raise ApiError(-1130, "interval")
    start, end = call.params.integer("startTime"), call.params.integer("endTime")
    return call.listing().bars.rows(interval, start, end, call.limit(500, 1_500))


def _klines_weight(params: Params) -> int:
    limit = params.integer("limit", 500) or 500
    return 1 if limit < 100 else 2 if limit < 500 else 5 if limit <= 1_000 else 10


def _premium(call: Call) -> Any:
    return _one_or_all(call, lambda listing: listing.premium(call.now_ms))


def _funding_rates(call: Call) -> list[dict[str, Any]]:
    params, limit = call.params, call.limit(100, 1_000)
    symbol, start, end = params.optional("symbol"), params.integer("startTime"), params.integer("endTime")
    rows = [
        {
            "symbol": row["symbol"],
            "fundingRate": text(row["rate_e8"], 8),
            "fundingTime": row["time"],
            "markPrice": text(row["mark_e8"], 8),
            "rateType": "Regular",
        }
        for row in call.venue.funding
        if symbol in ("", row["symbol"])
        and (start is None or row["time"] >= start)
        and (end is None or row["time"] <= end)
    ]
    return rows[-limit:] if start is None else rows[:limit]


def _funding_info(call: Call) -> list[dict[str, Any]]:
    return [
        {
            "symbol": symbol,
            "adjustedFundingRateCap": "0.02000000",
            "adjustedFundingRateFloor": "-0.02000000",
            "fundingIntervalHours": 8,
            "disclaimer": False,
        }
        for symbol in call.venue.listings
    ]


def _book_ticker(call: Call) -> Any:
    return _one_or_all(call, lambda listing: _book_row(listing, call.now_ms))


def _book_row(listing: Listing, now_ms: int) -> dict[str, Any]:
    (bid, bid_qty), (ask, ask_qty) = listing.book.bids.best(), listing.book.asks.best()
    rules = listing.rules
    return {
        "symbol": listing.symbol,
        "bidPrice": rules.price(bid),
        "bidQty": rules.qty(bid_qty),
        "askPrice": rules.price(ask),
        "askQty": rules.qty(ask_qty),
        "lastUpdateId": listing.book.last_id,
        "time": now_ms,
    }


def _price_ticker(call: Call) -> Any:
    return _one_or_all(call, lambda listing: _price_row(listing, call.now_ms))


def _price_row(listing: Listing, now_ms: int) -> dict[str, Any]:
    price = listing.trades[-1][1] if listing.trades else listing.mark_e8()
    return {"symbol": listing.symbol, "price": listing.rules.price(price), "time": now_ms}


def _day_ticker(call: Call) -> Any:
    return _one_or_all(call, lambda listing: _day_row(listing, call.now_ms))


def _day_row(listing: Listing, now_ms: int) -> dict[str, Any]:
    ticker = listing.bars.ticker(now_ms)
    names = {
        "p": "priceChange",
        "P": "priceChangePercent",
        "w": "weightedAvgPrice",
        "c": "lastPrice",
        "Q": "lastQty",
        "o": "openPrice",
        "h": "highPrice",
        "l": "lowPrice",
        "v": "volume",
        "q": "quoteVolume",
        "O": "openTime",
        "C": "closeTime",
        "F": "firstId",
        "L": "lastId",
        "n": "count",
    }
    if ticker is None:
        price = listing.rules.price(listing.mark_e8())
        zero = dict.fromkeys(names.values(), "0")
        times = {"openTime": now_ms, "closeTime": now_ms, "firstId": -1, "lastId": -1, "count": 0}
        prices = dict.fromkeys(("lastPrice", "openPrice", "highPrice", "lowPrice"), price)
        return {"symbol": listing.symbol, **zero, **prices, **times}
    return {"symbol": listing.symbol, **{long: ticker[short] for short, long in names.items()}}


def _one_or_all(call: Call, make: Any) -> Any:
    if "symbol" in call.params:
        return make(call.listing())
    return [make(listing) for listing in call.venue.listings.values() if listing.ready]


def _by_symbol(one: int, all_symbols: int) -> Any:
    return lambda params: one if "symbol" in params else all_symbols


MARKET_CALLS: Final[dict[tuple[str, str], Endpoint]] = {
    ("GET", "/fapi/v1/ping"): Endpoint(_ping),
    ("GET", "/fapi/v1/time"): Endpoint(_time),
    ("GET", "/fapi/v1/exchangeInfo"): Endpoint(_exchange_info),
    ("GET", "/fapi/v1/depth"): Endpoint(depth, weight=_depth_weight),
    ("GET", "/fapi/v1/trades"): Endpoint(_trades, weight=5),
    ("GET", "/fapi/v1/aggTrades"): Endpoint(_aggregates, weight=20),
    ("GET", "/fapi/v1/klines"): Endpoint(_klines, weight=_klines_weight),
    ("GET", "/fapi/v1/premiumIndex"): Endpoint(_premium, weight=_by_symbol(1, 10)),
    ("GET", "/fapi/v1/fundingRate"): Endpoint(_funding_rates),
    ("GET", "/fapi/v1/fundingInfo"): Endpoint(_funding_info),
    ("GET", "/fapi/v1/ticker/bookTicker"): Endpoint(_book_ticker, weight=_by_symbol(2, 5)),
    ("GET", "/fapi/v1/ticker/price"): Endpoint(_price_ticker, weight=_by_symbol(1, 2)),
    ("GET", "/fapi/v2/ticker/price"): Endpoint(_price_ticker, weight=_by_symbol(1, 2)),
    ("GET", "/fapi/v1/ticker/24hr"): Endpoint(_day_ticker, weight=_by_symbol(1, 40)),
}
