"""Conditional orders: the algo service, mandatory for stops since 2025-12.

Owns: waiting conditional orders and the moment at which they trigger. A triggered one becomes an ordinary
order at the desk. Never: matches.

A stop triggers when the price has moved against the position that it protects (a stop to buy: price at or
above the trigger), a take-profit when it has moved for it. There are no trailing stops.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from gpuscalp.exchange.checks import check_position_side, check_quantity
from gpuscalp.exchange.desk import Desk
from gpuscalp.exchange.listing import Listing
from gpuscalp.exchange.orders import Order
from gpuscalp.exchange.params import Params
from gpuscalp.exchange.refusals import ApiError
from gpuscalp.exchange.rules import MAX_ALGO_ORDERS, SymbolRules
from gpuscalp.exchange.userdata import side_name
from gpuscalp.exchange.users import User

_TYPES: Final = frozenset({"STOP", "STOP_MARKET", "TAKE_PROFIT", "TAKE_PROFIT_MARKET"})


@dataclass(slots=True, eq=False)
class AlgoOrder:
    """One conditional order. ``status``: NEW, CANCELED, TRIGGERED, FINISHED, REJECTED or EXPIRED."""

    algo_id: int
    client_id: str
    user: User
    symbol: str
    side: int
    type: str
    time_in_force: str
    position_side: str
    qty_e8: int
    price_e8: int
    trigger_e8: int
    working_type: str
    price_protect: bool
    close_position: bool
    reduce_only: bool
    created_ms: int
    status: str = "NEW"
    updated_ms: int = 0
    triggered_ms: int = 0
    actual_id: int = 0
    executed_e8: int = 0
    average_e8: int = 0
    reason: str = ""

    def triggers(self, price_e8: int) -> bool:
        """Whether a price sets the order off."""
        against = self.type in ("STOP", "STOP_MARKET")
        rises = (self.side > 0) == against
        return price_e8 >= self.trigger_e8 if rises else price_e8 <= self.trigger_e8


class AlgoDesk:
    """Conditional orders of all users.

    Parameters
    ----------
    desk : where triggered orders go
    tell : called with a user and an event
    """

    def __init__(
        self,
        desk: Desk,
        listings: dict[str, Listing],
        tell: Callable[[User, dict[str, Any]], None],
    ) -> None:
        self._desk, self._listings, self._tell = desk, listings, tell
        self._orders: dict[int, AlgoOrder] = {}
        self._count = 0

    def open_orders(self, user: User, symbol: str = "") -> list[AlgoOrder]:
        return [
            order
            for order in self._orders.values()
            if order.user is user and order.status == "NEW" and symbol in ("", order.symbol)
        ]

    def all_orders(self, user: User, symbol: str) -> list[AlgoOrder]:
        return [order for order in self._orders.values() if order.user is user and order.symbol == symbol]

    def place(self, user: User, params: Params, now_ms: int) -> AlgoOrder:
        """Take a conditional order.

        Raises
        ------
        ApiError
            a parameter is missing or wrong, too many are open, or it would trigger at once (-2021)
        """
        if params.text("algoType") != "CONDITIONAL":
            raise ApiError(-1130, "algoType")
        listing = self._listings.get(params.text("symbol"))
        if listing is None:
            raise ApiError(-1121)
        order = self._read(user, params, listing.rules, now_ms)
        if len(self.open_orders(user)) >= MAX_ALGO_ORDERS:
            raise ApiError(-2025)
        if any(item.client_id == order.client_id for item in self.open_orders(user)):
            raise ApiError(-4116)
        if order.triggers(self._price(order, listing)):
            raise ApiError(-2021)
        self._count += 1
        order.algo_id = 2_000_000_000 + self._count
        self._orders[order.algo_id] = order
        self._set(order, "NEW", now_ms)
        return order

    def find(self, user: User, params: Params) -> AlgoOrder:
        """Return the order that a request names.

        Raises
        ------
        ApiError
            -2013 there is none
        """
        number, client_id = params.integer("algoId"), params.optional("clientAlgoId")
        if number is None and not client_id:
            raise ApiError(-1102, "algoId")
        for order in reversed(self._orders.values()):
            if order.user is user and (order.algo_id == number or order.client_id == client_id):
                return order
        raise ApiError(-2013)

    def cancel(self, order: AlgoOrder, now_ms: int) -> None:
        """Cancel.

        Raises
        ------
        ApiError
            -2011 it is not waiting
        """
        if order.status != "NEW":
            raise ApiError(-2011)
        self._set(order, "CANCELED", now_ms)

    def on_price(self, listing: Listing, last_e8: int, now_ms: int) -> None:
        """Trigger what the newest price sets off: the last trade's, or the mark price."""
        for order in tuple(self._orders.values()):
            if order.status != "NEW" or order.symbol != listing.symbol:
                continue
            price = listing.mark_e8() if order.working_type == "MARK_PRICE" else last_e8
            if price and order.triggers(price):
                self._trigger(order, now_ms)

    def _trigger(self, algo: AlgoOrder, now_ms: int) -> None:
        algo.triggered_ms = now_ms
        market = algo.type.endswith("MARKET")
        qty = algo.qty_e8
        if algo.close_position:
            qty = abs(algo.user.ledger.position(algo.symbol, algo.position_side).qty_e8)
        order = Order(
            order_id=self._desk.next_order_id(),
            client_id=algo.client_id,
            owner=algo.user.number,
            symbol=algo.symbol,
            side=algo.side,
            type="MARKET" if market else "LIMIT",
            time_in_force=algo.time_in_force,
            price_e8=0 if market else algo.price_e8,
            qty_e8=qty,
            created_ms=now_ms,
            position_side=algo.position_side,
            reduce_only=algo.reduce_only or algo.close_position,
            original_type=algo.type,
            working_type=algo.working_type,
        )
        algo.actual_id = order.order_id
        self._set(algo, "TRIGGERED", now_ms)
        try:
            self._desk.place(algo.user, order, now_ms)
        except ApiError as error:
            algo.actual_id, algo.reason = 0, error.message
            self._set(algo, "REJECTED", now_ms)
            return
        algo.executed_e8, algo.average_e8 = order.executed_e8, order.average_e8
        self._set(algo, "FINISHED", now_ms)

    def _price(self, order: AlgoOrder, listing: Listing) -> int:
        if order.working_type == "MARK_PRICE" or not listing.trades:
            return listing.mark_e8()
        return listing.trades[-1][1]

    def _read(self, user: User, params: Params, rules: SymbolRules, now_ms: int) -> AlgoOrder:
        kind = params.text("type")
        if kind not in _TYPES:
            raise ApiError(-1116)
        side, closes = params.side(), params.boolean("closePosition")
        position_side = params.optional("positionSide", "BOTH")
        reduce_only = params.boolean("reduceOnly")
        check_position_side(user, position_side, reduce_only=reduce_only)
        if closes and ("quantity" in params or "reduceOnly" in params):
            raise ApiError(-1106, "quantity" if "quantity" in params else "reduceOnly")
        qty = 0
        if not closes:
            qty = params.amount("quantity")
            check_quantity(rules, qty, market=kind.endswith("MARKET"))
        return AlgoOrder(
            algo_id=0,
            client_id=params.client_id("clientAlgoId", f"algo{self._count + 1}"),
            user=user,
            symbol=rules.symbol,
            side=side,
            type=kind,
            time_in_force=params.time_in_force() if "timeInForce" in params else "GTC",
            position_side=position_side,
            qty_e8=qty,
            price_e8=params.amount("price") if kind in ("STOP", "TAKE_PROFIT") else 0,
            trigger_e8=params.amount("triggerPrice"),
            working_type=params.choice("workingType", frozenset({"MARK_PRICE"}), "CONTRACT_PRICE", -1128),
            price_protect=params.boolean("priceProtect"),
            close_position=closes,
            reduce_only=reduce_only,
            created_ms=now_ms,
        )

    def _set(self, order: AlgoOrder, status: str, now_ms: int) -> None:
        order.status, order.updated_ms = status, now_ms
        self._tell(order.user, algo_event(order, self._listings[order.symbol].rules, now_ms))


def algo_event(order: AlgoOrder, rules: SymbolRules, now_ms: int) -> dict[str, Any]:
    """Return ALGO_UPDATE."""
    body = {
        "caid": order.client_id,
        "aid": order.algo_id,
        "at": "CONDITIONAL",
        "o": order.type,
        "s": order.symbol,
        "S": side_name(order.side),
        "ps": order.position_side,
        "f": order.time_in_force,
        "q": rules.qty(order.qty_e8),
        "X": order.status,
        "ai": str(order.actual_id) if order.actual_id else "",
        "ap": rules.price(order.average_e8),
        "aq": rules.qty(order.executed_e8),
        "act": "0",
        "tp": rules.price(order.trigger_e8),
        "p": rules.price(order.price_e8),
        "V": "EXPIRE_MAKER",
        "wt": order.working_type,
        "pm": "NONE",
        "cp": order.close_position,
        "pP": order.price_protect,
        "R": order.reduce_only,
        "tt": order.triggered_ms,
        "gtd": 0,
        "rm": order.reason,
        "ia": False,
    }
    return {"e": "ALGO_UPDATE", "T": now_ms, "E": now_ms, "o": body}


def algo_row(order: AlgoOrder, rules: SymbolRules) -> dict[str, Any]:
    """Return an order as GET and the lists of the algo service give it.

    Activation price and callback rate stand there for trailing stops only, and empty in the reply to POST
    (Binance USD-M, Query Algo Order and New Algo Order): NautilusTrader 1.231 takes an empty rate for a
    number, and does not start.
    """
    return {
        "algoId": order.algo_id,
        "clientAlgoId": order.client_id,
        "algoType": "CONDITIONAL",
        "orderType": order.type,
        "symbol": order.symbol,
        "side": side_name(order.side),
        "positionSide": order.position_side,
        "timeInForce": order.time_in_force,
        "quantity": rules.qty(order.qty_e8),
        "algoStatus": order.status,
        "actualOrderId": str(order.actual_id) if order.actual_id else "",
        "actualPrice": "0.00000",
        "triggerPrice": rules.price(order.trigger_e8),
        "price": rules.price(order.price_e8),
        "icebergQuantity": None,
        "tpTriggerPrice": "0.000",
        "tpPrice": "0.000",
        "slTriggerPrice": "0.000",
        "slPrice": "0.000",
        "tpOrderType": "",
        "selfTradePreventionMode": "EXPIRE_MAKER",
        "workingType": order.working_type,
        "priceMatch": "NONE",
        "closePosition": order.close_position,
        "priceProtect": order.price_protect,
        "reduceOnly": order.reduce_only,
        "createTime": order.created_ms,
        "updateTime": order.updated_ms,
        "triggerTime": order.triggered_ms,
        "goodTillDate": 0,
    }
