"""REST calls of the market: time, exchangeInfo, depth, aggregated trades, mark price.

Owns: their answers. Never: an account.
"""

from __future__ import annotations

from typing import Any, Final

from gpuscalp.exchange.calls import Call, Endpoint
from gpuscalp.exchange.params import Params
from gpuscalp.exchange.refusals import ApiError
from gpuscalp.exchange.rules import exchange_info

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


def _premium(call: Call) -> Any:
    if "symbol" in call.params:
        return call.listing().premium(call.now_ms)
    return [listing.premium(call.now_ms) for listing in call.venue.listings.values() if listing.ready]


def _premium_weight(params: Params) -> int:
    return 1 if "symbol" in params else 10


MARKET_CALLS: Final[dict[tuple[str, str], Endpoint]] = {
    ("GET", "/fapi/v1/ping"): Endpoint(_ping),
    ("GET", "/fapi/v1/time"): Endpoint(_time),
    ("GET", "/fapi/v1/exchangeInfo"): Endpoint(_exchange_info),
    ("GET", "/fapi/v1/depth"): Endpoint(depth, weight=_depth_weight),
    ("GET", "/fapi/v1/aggTrades"): Endpoint(_aggregates, weight=20),
    ("GET", "/fapi/v1/premiumIndex"): Endpoint(_premium, weight=_premium_weight),
}
