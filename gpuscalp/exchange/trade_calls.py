"""REST calls that place, change, cancel and find orders.

Owns: from parameters to the desk and back. Never: matches or books anything itself.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from gpuscalp.errors import UNREADABLE
from gpuscalp.exchange.algo import AlgoOrder, algo_row
from gpuscalp.exchange.calls import Call, Endpoint
from gpuscalp.exchange.checks import check_position_side
from gpuscalp.exchange.listing import Listing
from gpuscalp.exchange.orders import Order
from gpuscalp.exchange.params import PREVENTIONS, PRICE_MATCHES, Params
from gpuscalp.exchange.refusals import ApiError
from gpuscalp.exchange.userdata import order_reply, order_row

_GTD_MS: Final = 600_000
# How far back trades are shown to who asks for no time and no number.
_RECENT_MS: Final = 7 * 86_400_000
_FOREVER_MS: Final = 253_402_300_799_000
_CANCELLED: Final = {"code": 200, "msg": "The operation of cancel all open order is done."}


def place(call: Call) -> dict[str, Any]:
    """Answer POST /fapi/v1/order, and ``order.place``."""
    listing = call.listing()
    order = _read_order(call, listing)
    acknowledged = order_reply(order, listing.rules)
    call.venue.desk.place(call.user, order, call.now_ms)
    if call.params.optional("newOrderRespType", "ACK") == "RESULT":
        return order_reply(order, listing.rules)
    return {**acknowledged, "updateTime": call.now_ms}


def amend(call: Call) -> dict[str, Any]:
    """Answer PUT /fapi/v1/order, and ``order.modify``: price and quantity are both mandatory."""
    listing, params = call.listing(), call.params
    side = params.side()
    order = _find(call, -2013)
    if order.side != side:
        raise ApiError(-1128)
    qty = params.amount("quantity")
    match = params.choice("priceMatch", PRICE_MATCHES, "NONE", -5038)
    price = _matched_price(listing, side, match) if match != "NONE" else params.amount("price")
    call.venue.desk.amend(
        call.user,
        order,
        price_e8=price,
        qty_e8=qty,
        modify_id=params.integer("modifyId", 0) or 0,
        now_ms=call.now_ms,
    )
    return order_reply(order, listing.rules)


def cancel(call: Call) -> dict[str, Any]:
    """Answer DELETE /fapi/v1/order, and ``order.cancel``."""
    listing = call.listing()
    order = _find(call, -2011)
    call.venue.desk.cancel(call.user, order, call.now_ms)
    return order_reply(order, listing.rules)


def query(call: Call) -> dict[str, Any]:
    """Answer GET /fapi/v1/order, and ``order.status``."""
    listing = call.listing()
    return order_row(_find(call, -2013), listing.rules)


def _open_order(call: Call) -> dict[str, Any]:
    order = _find(call, -2013)
    if not order.is_open:
        raise ApiError(-2013)
    return order_row(order, call.listing().rules)


def _open_orders(call: Call) -> list[dict[str, Any]]:
    symbol = call.params.optional("symbol")
    if symbol:
        call.listing()
    return [
        order_row(order, call.listing_of(order.symbol).rules)
        for order in call.user.open_orders.values()
        if symbol in ("", order.symbol)
    ]


def _all_orders(call: Call) -> list[dict[str, Any]]:
    listing, params = call.listing(), call.params
    first = params.integer("orderId")
    start, end = params.integer("startTime", 0) or 0, params.integer("endTime", _FOREVER_MS) or 0
    user = call.user
    found = [
        order
        for order in (*user.closed_orders.values(), *user.open_orders.values())
        if order.symbol == listing.symbol
        and order.order_id >= (first or 0)
        and start <= order.created_ms <= end
    ]
    found.sort(key=lambda order: order.order_id)
    return [order_row(order, listing.rules) for order in _page(call, found, first)]


def _user_trades(call: Call) -> list[dict[str, Any]]:
    listing, params = call.listing(), call.params
    first, order_id = params.integer("fromId"), params.integer("orderId")
    recent = not any(name in params for name in ("fromId", "orderId", "startTime", "endTime"))
    start = params.integer("startTime", call.now_ms - _RECENT_MS if recent else 0) or 0
    end = params.integer("endTime", _FOREVER_MS) or 0
    found = [
        row
        for row in call.user.fills
        if row["symbol"] == listing.symbol
        and row["id"] >= (first or 0)
        and order_id in (None, row["orderId"])
        and start <= row["time"] <= end
    ]
    return _page(call, found, first)


def _page(call: Call, found: list[Any], first: int | None) -> list[Any]:
    """Return the oldest ones from a number on, or the newest where none was asked for."""
    limit = call.limit(500, 1_000)
    return found[-limit:] if first is None else found[:limit]


def _cancel_all(call: Call) -> dict[str, Any]:
    listing = call.listing()
    for order in tuple(call.user.open_orders.values()):
        if order.symbol == listing.symbol:
            call.venue.desk.cancel(call.user, order, call.now_ms)
    return dict(_CANCELLED)


def _countdown(call: Call) -> dict[str, Any]:
    listing = call.listing()
    wait_ms = call.params.integer("countdownTime")
    if wait_ms is None or wait_ms < 0:
        raise ApiError(-1102, "countdownTime")
    if wait_ms:
        call.user.countdowns[listing.symbol] = call.now_ms + wait_ms
    else:
        call.user.countdowns.pop(listing.symbol, None)
    return {"symbol": listing.symbol, "countdownTime": str(wait_ms)}


def _place_batch(call: Call) -> list[dict[str, Any]]:
    items = _json_list(call.params, "batchOrders", 5)
    if not all(isinstance(item, dict) for item in items):
        raise ApiError(-1130, "batchOrders")
    return [_each(call, place, item) for item in items]


def _cancel_batch(call: Call) -> list[dict[str, Any]]:
    params, symbol = call.params, call.listing().symbol
    name = "orderIdList" if "orderIdList" in params else "origClientOrderIdList"
    key = "orderId" if name == "orderIdList" else "origClientOrderId"
    items = _json_list(params, name, 10)
    return [_each(call, cancel, {"symbol": symbol, key: item}) for item in items]


def _each(call: Call, run: Any, values: dict[str, Any]) -> dict[str, Any]:
    """Run one of several; a refusal takes the place of its answer and does not touch the others."""
    one = Call(call.venue, Params(values), call.now_ms, call.holder)
    try:
        answer: dict[str, Any] = run(one)
    except ApiError as error:
        return error.body()
    return answer


def _json_list(params: Params, name: str, most: int) -> list[Any]:
    try:
        items = msgspec.json.decode(params.text(name).encode())
    except UNREADABLE:
        raise ApiError(-1130, name) from None
    if not isinstance(items, list) or not 1 <= len(items) <= most:
        raise ApiError(-1130, name)
    return items


def _find(call: Call, missing: int) -> Order:
    params = call.params
    order_id, client_id = params.integer("orderId"), params.optional("origClientOrderId")
    if order_id is None and not client_id:
        raise ApiError(-1102, "orderId")
    order = call.user.find(call.listing().symbol, order_id, client_id)
    if order is None:
        raise ApiError(missing)
    return order


def _read_order(call: Call, listing: Listing) -> Order:
    params, user, now_ms = call.params, call.user, call.now_ms
    side, kind = params.side(), params.order_type()
    position_side = params.choice("positionSide", frozenset({"LONG", "SHORT"}), "BOTH", -4061)
    reduce_only = params.boolean("reduceOnly")
    check_position_side(user, position_side, reduce_only=reduce_only)
    match = params.choice("priceMatch", PRICE_MATCHES, "NONE", -5038)
    force, price = "GTC", 0
    if kind == "LIMIT":
        force = params.time_in_force()
        if match != "NONE":
            if "price" in params:
                raise ApiError(-1106, "price")
            price = _matched_price(listing, side, match)
        else:
            price = params.amount("price")
    elif "price" in params or "timeInForce" in params:
        raise ApiError(-1106, "price" if "price" in params else "timeInForce")
    till = params.integer("goodTillDate", 0) or 0
    if force == "GTD":
        if not now_ms + _GTD_MS < till < _FOREVER_MS:
            raise ApiError(-5040)
        till = till // 1_000 * 1_000  # the venue keeps whole seconds
    else:
        till = 0
    number = call.venue.desk.next_order_id()
    return Order(
        order_id=number,
        client_id=params.client_id("newClientOrderId", f"x{number}"),
        owner=user.number,
        symbol=listing.symbol,
        side=side,
        type=kind,
        time_in_force=force,
        price_e8=price,
        qty_e8=params.amount("quantity"),
        created_ms=now_ms,
        updated_ms=now_ms,
        position_side=position_side,
        reduce_only=reduce_only,
        price_match=match,
        prevention=params.choice("selfTradePreventionMode", PREVENTIONS, "EXPIRE_MAKER", -5039),
        good_till_ms=till,
    )


def _matched_price(listing: Listing, side: int, match: str) -> int:
    """Return the price of the n-th level that priceMatch names."""
    name, _, count = match.partition("_")
    own = side if name == "QUEUE" else -side
    levels = (listing.book.bids if own > 0 else listing.book.asks).levels(int(count or 1))
    if len(levels) < int(count or 1):
        raise ApiError(-5038)
    return levels[-1][0]


def algo_place(call: Call) -> dict[str, Any]:
    """Answer POST /fapi/v1/algoOrder, and ``algoOrder.place``."""
    row = _algo_row(call, call.venue.algo.place(call.user, call.params, call.now_ms))
    return {"activatePrice": "", "callbackRate": ""} | row


def algo_cancel(call: Call) -> dict[str, Any]:
    """Answer DELETE /fapi/v1/algoOrder, and ``algoOrder.cancel``."""
    order = call.venue.algo.find(call.user, call.params)
    call.venue.algo.cancel(order, call.now_ms)
    return {"algoId": order.algo_id, "clientAlgoId": order.client_id, "code": "200", "msg": "success"}


def _algo_query(call: Call) -> dict[str, Any]:
    return _algo_row(call, call.venue.algo.find(call.user, call.params))


def _algo_open(call: Call) -> list[dict[str, Any]]:
    found = call.venue.algo.open_orders(call.user, call.params.optional("symbol"))
    return [_algo_row(call, order) for order in found]


def _algo_all(call: Call) -> list[dict[str, Any]]:
    found = call.venue.algo.all_orders(call.user, call.listing().symbol)
    return [_algo_row(call, order) for order in found]


def _algo_cancel_all(call: Call) -> dict[str, Any]:
    for order in call.venue.algo.open_orders(call.user, call.listing().symbol):
        call.venue.algo.cancel(order, call.now_ms)
    return dict(_CANCELLED)


def _algo_row(call: Call, order: AlgoOrder) -> dict[str, Any]:
    return algo_row(order, call.listing_of(order.symbol).rules)


def _by_symbol(params: Params) -> int:
    return 1 if "symbol" in params else 40


_ORDER, _BATCH = "/fapi/v1/order", "/fapi/v1/batchOrders"
TRADE_CALLS: Final[dict[tuple[str, str], Endpoint]] = {
    ("POST", _ORDER): Endpoint(place, "SIGNED", 0, (1, 1)),
    ("PUT", _ORDER): Endpoint(amend, "SIGNED", 0, (1, 1)),
    ("DELETE", _ORDER): Endpoint(cancel, "SIGNED"),
    ("GET", _ORDER): Endpoint(query, "SIGNED"),
    ("GET", "/fapi/v1/openOrder"): Endpoint(_open_order, "SIGNED"),
    ("GET", "/fapi/v1/openOrders"): Endpoint(_open_orders, "SIGNED", _by_symbol),
    ("GET", "/fapi/v1/allOrders"): Endpoint(_all_orders, "SIGNED", 5),
    ("GET", "/fapi/v1/userTrades"): Endpoint(_user_trades, "SIGNED", 5),
    ("DELETE", "/fapi/v1/allOpenOrders"): Endpoint(_cancel_all, "SIGNED"),
    ("POST", "/fapi/v1/countdownCancelAll"): Endpoint(_countdown, "SIGNED", 10),
    ("POST", _BATCH): Endpoint(_place_batch, "SIGNED", 5, (5, 1)),
    ("DELETE", _BATCH): Endpoint(_cancel_batch, "SIGNED"),
    ("POST", "/fapi/v1/algoOrder"): Endpoint(algo_place, "SIGNED", 0, (1, 1)),
    ("DELETE", "/fapi/v1/algoOrder"): Endpoint(algo_cancel, "SIGNED"),
    ("GET", "/fapi/v1/algoOrder"): Endpoint(_algo_query, "SIGNED"),
    ("GET", "/fapi/v1/openAlgoOrders"): Endpoint(_algo_open, "SIGNED", _by_symbol),
    ("GET", "/fapi/v1/allAlgoOrders"): Endpoint(_algo_all, "SIGNED", 5),
    ("DELETE", "/fapi/v1/algoOpenOrders"): Endpoint(_algo_cancel_all, "SIGNED"),
}
