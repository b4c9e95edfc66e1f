"""User events and order replies in the venue's exact shapes.

Owns: payloads only. Source: Binance documentation, USD-M user data streams and trade endpoints, 2026.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from gpuscalp.exchange.ledger import Booking, Ledger
from gpuscalp.exchange.orders import Order
from gpuscalp.exchange.rules import SymbolRules, text


def order_reply(order: Order, rules: SymbolRules) -> dict[str, Any]:
    """Return the reply to a new, amended or cancelled order."""
    return {
        "orderId": order.order_id,
        "symbol": order.symbol,
        "status": str(order.status),
        "clientOrderId": order.client_id,
        "price": rules.price(order.price_e8) if order.price_e8 else "0",
        "origQty": rules.qty(order.qty_e8),
        "executedQty": rules.qty(order.executed_e8),
        "cumQty": rules.qty(order.executed_e8),
        "timeInForce": order.time_in_force,
        "type": order.type,
        "reduceOnly": order.reduce_only,
        "closePosition": order.close_position,
        "side": side_name(order.side),
        "positionSide": order.position_side,
        "stopPrice": "0",
        "workingType": order.working_type,
        "priceProtect": False,
        "origType": order.original_type or order.type,
        "priceMatch": order.price_match,
        "selfTradePreventionMode": order.prevention,
        "goodTillDate": order.good_till_ms,
        "updateTime": order.updated_ms,
    }


def order_row(order: Order, rules: SymbolRules) -> dict[str, Any]:
    """Return an order as the queries give it."""
    return {
        **order_reply(order, rules),
        "avgPrice": rules.price(order.average_e8),
        "cumQuote": text(order.quote_e8, 5),
        "time": order.created_ms,
    }


def order_event(
    order: Order,
    rules: SymbolRules,
    execution: str,
    now_ms: int,
    *,
    price_e8: int = 0,
    qty_e8: int = 0,
    booking: Booking | None = None,
    trade_id: int = 0,
    maker: bool = False,
    resting_e8: tuple[int, int] = (0, 0),
) -> dict[str, Any]:
    """Return ORDER_TRADE_UPDATE.

    Parameters
    ----------
    execution : NEW, TRADE, CANCELED, EXPIRED, AMENDMENT or CALCULATED
    price_e8, qty_e8, booking, trade_id, maker : of the execution; only for TRADE
    resting_e8 : notional of the user's open buys and sells
    """
    commission: dict[str, Any] = {}
    if booking is not None:
        commission = {"N": rules.quote, "n": text(booking.fee_e8, 8)}
    body: dict[str, Any] = {
        "s": order.symbol,
        "c": order.client_id,
        "S": side_name(order.side),
        "o": order.type,
        "f": order.time_in_force,
        "q": rules.qty(order.qty_e8),
        "p": rules.price(order.price_e8) if order.price_e8 else "0",
        "ap": rules.price(order.average_e8) if order.executed_e8 else "0",
        "sp": "0",
        "x": execution,
        "X": str(order.status),
        "i": order.order_id,
        "l": rules.qty(qty_e8),
        "z": rules.qty(order.executed_e8),
        "L": rules.price(price_e8) if qty_e8 else "0",
        **commission,
        "T": now_ms,
        "t": trade_id,
        "b": text(resting_e8[0]),
        "a": text(resting_e8[1]),
        "m": maker,
        "R": order.reduce_only,
        "wt": order.working_type,
        "ot": order.original_type or order.type,
        "ps": order.position_side,
        "cp": order.close_position,
        "rp": text(booking.realised_e8, 8) if booking is not None else "0",
        "pP": False,
        "si": 0,
        "ss": 0,
        "V": order.prevention,
        "pm": order.price_match,
        "gtd": order.good_till_ms,
        "er": order.expiry_reason,
    }
    if execution == "AMENDMENT" and order.modify_id:
        body["M"] = order.modify_id
    return {"e": "ORDER_TRADE_UPDATE", "E": now_ms, "T": now_ms, "o": body}


def trade_lite(
    order: Order, rules: SymbolRules, now_ms: int, *, price_e8: int, qty_e8: int, trade_id: int, maker: bool
) -> dict[str, Any]:
    """Return TRADE_LITE, which comes before the full event of the same execution."""
    return {
        "e": "TRADE_LITE",
        "E": now_ms,
        "T": now_ms,
        "s": order.symbol,
        "q": rules.qty(order.qty_e8),
        "p": rules.price(order.price_e8) if order.price_e8 else "0",
        "m": maker,
        "c": order.client_id,
        "S": side_name(order.side),
        "L": rules.price(price_e8),
        "l": rules.qty(qty_e8),
        "t": trade_id,
        "i": order.order_id,
    }


def account_event(
    ledger: Ledger, reason: str, now_ms: int, positions: Iterable[tuple[str, str]], change_e8: int = 0
) -> dict[str, Any]:
    """Return ACCOUNT_UPDATE with the balance and the named positions (symbol, position side).

    ``change_e8`` is the balance change other than profit and commission, such as funding.
    """
    wallet = text(ledger.account.wallet_e8, 8)
    quote = ledger.rules[0].quote
    return {
        "e": "ACCOUNT_UPDATE",
        "E": now_ms,
        "T": now_ms,
        "a": {
            "m": reason,
            "B": [{"a": quote, "wb": wallet, "cw": wallet, "bc": text(change_e8)}],
            "P": [_position(ledger, symbol, side) for symbol, side in positions],
        },
    }


def _position(ledger: Ledger, symbol: str, position_side: str) -> dict[str, Any]:
    position, setting = ledger.position(symbol, position_side), ledger.settings[symbol]
    return {
        "s": symbol,
        "pa": text(position.qty_e8),
        "ep": text(ledger.entry_e8(position), 5),
        "bep": text(ledger.break_even_e8(symbol, position_side), 5),
        "cr": text(ledger.account.realised_e8, 8),
        "up": text(ledger.unrealised_e8(symbol, position_side), 8),
        "mt": "isolated" if setting.isolated else "cross",
        "iw": "0",
        "ps": position_side,
    }


def side_name(side: int) -> str:
    return "BUY" if side > 0 else "SELL"
