"""What must hold before an order is taken: symbol filters, price band, position mode, margin.

Owns: the order of the checks and their codes. Never: changes anything.
"""

from __future__ import annotations

from gpuscalp.account import divide_half_even, fee_e8, notional_e8
from gpuscalp.exchange.listing import Listing
from gpuscalp.exchange.orders import Order
from gpuscalp.exchange.refusals import ApiError
from gpuscalp.exchange.rules import MAX_ORDERS, TRADING, SymbolRules, text
from gpuscalp.exchange.users import User
from gpuscalp.schema import E8


def check_quantity(rules: SymbolRules, qty_e8: int, *, market: bool) -> None:
    """Check LOT_SIZE or MARKET_LOT_SIZE.

    Raises
    ------
    ApiError
        -4003, -4004, -4005, -1111 or -4023
    """
    if qty_e8 <= 0:
        raise ApiError(-4003)
    if qty_e8 % 10 ** (8 - rules.qty_places):
        raise ApiError(-1111)
    if qty_e8 < rules.min_qty_e8:
        raise ApiError(-4004)
    if qty_e8 > (rules.max_market_qty_e8 if market else rules.max_qty_e8):
        raise ApiError(-4005)
    if (qty_e8 - rules.min_qty_e8) % rules.step_e8:
        raise ApiError(-4023)


def check_price(rules: SymbolRules, price_e8: int, side: int, mark_e8: int) -> None:
    """Check PRICE_FILTER and PERCENT_PRICE.

    Raises
    ------
    ApiError
        -4001, -4002, -4013, -1111, -4014, -4016 or -4024
    """
    if price_e8 <= 0:
        raise ApiError(-4001)
    if price_e8 % 10 ** (8 - rules.price_places):
        raise ApiError(-1111)
    if price_e8 > rules.max_price_e8:
        raise ApiError(-4002)
    if price_e8 < rules.min_price_e8:
        raise ApiError(-4013)
    if (price_e8 - rules.min_price_e8) % rules.tick_e8:
        raise ApiError(-4014)
    if side > 0 and price_e8 * E8 > mark_e8 * rules.up_e8:
        raise ApiError(-4016)
    if side < 0 and price_e8 * E8 < mark_e8 * rules.down_e8:
        raise ApiError(-4024)


def check_state(rules: SymbolRules, order: Order) -> None:
    """Check that the symbol trades; what can only reduce a position is taken in any state.

    Raises
    ------
    ApiError
        -4140
    """
    if rules.status != TRADING and not is_reducing(order):
        raise ApiError(-4140)


def check_notional(rules: SymbolRules, order: Order, mark_e8: int) -> None:
    """Check MIN_NOTIONAL: at the order's price, at the mark price for market orders.

    Raises
    ------
    ApiError
        -4164
    """
    if order.reduce_only or order.close_position:
        return
    if notional_e8(order.price_e8 or mark_e8, order.qty_e8) < rules.min_notional_e8:
        raise ApiError(-4164, text(rules.min_notional_e8))


def check_position_side(user: User, position_side: str, *, reduce_only: bool) -> None:
    """Check that the order's position side fits the position mode.

    Raises
    ------
    ApiError
        -4061, or -1106 for reduceOnly in hedge mode
    """
    if user.ledger.hedge != (position_side in ("LONG", "SHORT")):
        raise ApiError(-4061)
    if user.ledger.hedge and reduce_only:
        raise ApiError(-1106, "reduceonly")


def is_reducing(order: Order) -> bool:
    """Whether the order may only make a position smaller."""
    closes = (order.position_side, order.side) in (("LONG", -1), ("SHORT", 1))
    return order.reduce_only or order.close_position or closes


def reducible_e8(user: User, order: Order) -> int:
    """Return how much of the order a position is there for; of a reducing order only."""
    held = user.ledger.position(order.symbol, order.position_side).qty_e8
    return abs(held) if held * order.side < 0 else 0


def check_account(user: User, order: Order, listing: Listing) -> None:
    """Check open orders, reduce-only, leverage and margin.

    Raises
    ------
    ApiError
        -2025, -4116, -2022, -2027 or -2019
    """
    own = [item for item in user.open_orders.values() if item.symbol == order.symbol]
    if len(own) >= MAX_ORDERS:
        raise ApiError(-2025)
    if any(item.client_id == order.client_id for item in own):
        raise ApiError(-4116)
    if is_reducing(order):
        if not reducible_e8(user, order):
            raise ApiError(-2022)
        return
    ledger, mark = user.ledger, listing.mark_e8()
    price = order.price_e8 or mark
    value = ledger.position(order.symbol, order.position_side).value_e8(mark)
    added = order.side * notional_e8(price, order.qty_e8)
    leverage = ledger.settings[order.symbol].leverage
    if abs(value + added) > max(abs(value), listing.rules.max_notional_e8(leverage)):
        raise ApiError(-2027)
    open_orders = list(user.open_orders.values())
    before = ledger.orders_margin_e8(open_orders)
    needed = ledger.orders_margin_e8([*open_orders, order]) - before
    if needed:
        # What the order would cost beyond the margin: commission, and the loss it opens with.
        needed += fee_e8(price, order.qty_e8, ledger.taker_e8)
        needed += max(0, divide_half_even((price - mark) * order.side * order.qty_e8, E8))
    if needed > ledger.available_e8(open_orders):
        raise ApiError(-2019)
