"""The trading desk: orders placed, amended, cancelled, matched, and what their owners are told.

Owns: the one way in which an order changes, from the checks over the matcher to the ledger and the user
events. Never: reads a request's parameters (``trade_calls``), sends to a socket, or knows a clock.

Events of one fill: TRADE_LITE, ACCOUNT_UPDATE, ORDER_TRADE_UPDATE, in this order. Every change of an order
is told exactly once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from gpuscalp.account import notional_e8
from gpuscalp.exchange.checks import (
    check_account,
    check_notional,
    check_price,
    check_quantity,
    check_state,
    is_reducing,
    reducible_e8,
)
from gpuscalp.exchange.listing import Listing
from gpuscalp.exchange.matching import Match, Outcome, Prevented
from gpuscalp.exchange.orders import Event, Order
from gpuscalp.exchange.refusals import ApiError
from gpuscalp.exchange.rules import text
from gpuscalp.exchange.userdata import account_event, order_event, trade_lite
from gpuscalp.exchange.users import User
from gpuscalp.schema import E8

_AMENDMENTS_MAX = 10_000
# Time in force of orders that never rest.
_AT_ONCE = ("IOC", "FOK")


class Desk:
    """Orders of all users in all symbols.

    Parameters
    ----------
    listings : by symbol
    users : in the order of their numbers
    tell : called with a user and an event for its user stream
    """

    def __init__(
        self,
        listings: Mapping[str, Listing],
        users: list[User],
        tell: Callable[[User, dict[str, Any]], None],
    ) -> None:
        self._listings = listings
        self._users = users
        self._tell = tell
        self._order_count = self._trade_count = 0
        for listing in listings.values():
            listing.matcher.most_of = self._most_of

    def next_order_id(self) -> int:
        self._order_count += 1
        return 8_000_000_000 + self._order_count

    def place(self, user: User, order: Order, now_ms: int) -> None:
        """Check an order, match it, and let the rest of it rest.

        Raises
        ------
        ApiError
            a check refuses it; nothing has changed then, and no event is sent
        """
        listing = self._listings[order.symbol]
        rules, mark = listing.rules, listing.mark_e8()
        market = order.type == "MARKET"
        check_state(rules, order)
        check_quantity(rules, order.qty_e8, market=market)
        if market:
            order.limit_e8 = _bound(listing, order.side)
        else:
            check_price(rules, order.price_e8, order.side, mark)
            order.limit_e8 = order.price_e8
        check_notional(rules, order, mark)
        check_account(user, order, listing)
        if order.time_in_force == "GTX" and listing.matcher.crosses(order.side, order.price_e8):
            raise ApiError(-5022)
        if order.time_in_force == "FOK" and listing.matcher.fillable(order) < order.left_e8:
            raise ApiError(-5021)
        user.open_orders[order.order_id] = order
        order.updated_ms = now_ms
        self._tell_order(user, order, "NEW", now_ms)
        self._match(listing, order, now_ms)
        if not order.is_open:
            return
        if market or order.time_in_force in _AT_ONCE:
            order.expiry_reason = "2"
            self._end(user, order, Event.EXPIRE, now_ms)
        else:
            listing.matcher.rest(order)

    def cancel(self, user: User, order: Order, now_ms: int) -> None:
        """Cancel an open order.

        Raises
        ------
        ApiError
            -2011 if it is not open
        """
        if not order.is_open:
            raise ApiError(-2011)
        self._end(user, order, Event.CANCEL, now_ms)

    def expire(self, user: User, order: Order, now_ms: int, *, reason: str = "0") -> None:
        """End an open order because its time is over, or for another reason of the exchange."""
        order.expiry_reason = reason
        self._end(user, order, Event.EXPIRE, now_ms)

    def force(self, user: User, order: Order, now_ms: int) -> None:
        """Execute an order of the exchange's own at the market, without the checks of a user's."""
        listing = self._listings[order.symbol]
        order.limit_e8 = _bound(listing, order.side)
        user.open_orders[order.order_id] = order
        self._tell_order(user, order, "NEW", now_ms)
        self._match(listing, order, now_ms)
        if order.is_open:
            self.expire(user, order, now_ms, reason="2")

    def cover(self, user: User, now_ms: int) -> None:
        """Set a negative wallet to zero, at the insurance fund's cost, and tell it."""
        missing_e8 = -user.ledger.account.wallet_e8
        user.ledger.deposit(missing_e8)
        self._tell(user, account_event(user.ledger, "INSURANCE_CLEAR", now_ms, [], missing_e8))

    def amend(
        self, user: User, order: Order, *, price_e8: int, qty_e8: int, modify_id: int, now_ms: int
    ) -> None:
        """Change price and quantity; the order goes to the end of the queue and may trade at once.

        An amendment to no more than what is executed, or a post-only order that would cross, cancels.

        Raises
        ------
        ApiError
            -2013 not open, -5025 no limit order, -5026 too often, -5027 nothing changes, or what the checks
            of a new order say
        """
        if not order.is_open:
            raise ApiError(-2013)
        if order.type != "LIMIT":
            raise ApiError(-5025)
        if order.amended_count >= _AMENDMENTS_MAX:
            raise ApiError(-5026)
        if (price_e8, qty_e8) == (order.price_e8, order.qty_e8):
            raise ApiError(-5027)
        listing = self._listings[order.symbol]
        check_quantity(listing.rules, qty_e8, market=False)
        check_price(listing.rules, price_e8, order.side, listing.mark_e8())
        crosses = order.time_in_force == "GTX" and listing.matcher.crosses(order.side, price_e8)
        if qty_e8 <= order.executed_e8 or crosses:
            self._end(user, order, Event.CANCEL, now_ms)
            return
        self._check_amended(user, order, listing, price_e8, qty_e8)
        listing.matcher.remove(order)
        order.price_e8 = order.limit_e8 = price_e8
        order.qty_e8, order.modify_id = qty_e8, modify_id
        order.amended_count += 1
        order.advance(Event.AMEND, now_ms)
        self._tell_order(user, order, "AMENDMENT", now_ms)
        self._match(listing, order, now_ms)
        if order.is_open:
            listing.matcher.rest(order)

    def on_trade(self, listing: Listing, price_e8: int, qty_e8: int, side: int, now_ms: int) -> None:
        """Fill resting orders by a trade of the source."""
        self._apply(listing, listing.matcher.on_trade(price_e8, qty_e8, side), now_ms)

    def on_book(self, listing: Listing, now_ms: int) -> None:
        """Fill resting orders that the book has moved onto."""
        self._apply(listing, listing.matcher.on_book(), now_ms)

    def _check_amended(self, user: User, order: Order, listing: Listing, price_e8: int, qty_e8: int) -> None:
        """Check notional and margin as of a new order in the old one's place."""
        kept = (order.price_e8, order.qty_e8)
        del user.open_orders[order.order_id]
        order.price_e8, order.qty_e8 = price_e8, qty_e8
        try:
            check_notional(listing.rules, order, listing.mark_e8())
            check_account(user, order, listing)
        finally:
            order.price_e8, order.qty_e8 = kept
            user.open_orders[order.order_id] = order

    def _match(self, listing: Listing, order: Order, now_ms: int) -> None:
        self._apply(listing, listing.matcher.take(order), now_ms)

    def _apply(self, listing: Listing, outcomes: Iterable[Outcome], now_ms: int) -> None:
        """Book the outcomes one by one; the matcher goes on with what each of them left."""
        for outcome in outcomes:
            user = self._users[outcome.order.owner]
            if isinstance(outcome, Prevented):
                outcome.order.expiry_reason = "1"
                self._end(user, outcome.order, Event.PREVENT, now_ms)
            elif outcome.order.is_open:
                self._fill(user, listing, outcome, now_ms)

    def _fill(self, user: User, listing: Listing, match: Match, now_ms: int) -> None:
        order, qty = match.order, match.qty_e8
        self._trade_count += 1
        number = self._trade_count
        booking = user.ledger.book(order, match.price_e8, qty, maker=match.maker, now_ms=now_ms)
        order.execute(match.price_e8, qty, now_ms)
        detail: dict[str, Any] = {
            "price_e8": match.price_e8,
            "qty_e8": qty,
            "trade_id": number,
            "maker": match.maker,
        }
        if not order.is_open:
            listing.matcher.remove(order)
            user.close(order)
        rules = listing.rules
        self._tell(user, trade_lite(order, rules, now_ms, **detail))
        named = [(order.symbol, order.position_side)]
        self._tell(user, account_event(user.ledger, "ORDER", now_ms, named))
        execution = "CALCULATED" if order.type == "LIQUIDATION" else Event.PART.wire
        self._tell_order(user, order, execution, now_ms, booking=booking, **detail)
        user.fills.append(
            {
                "symbol": order.symbol,
                "pair": order.symbol,
                "id": number,
                "orderId": order.order_id,
                "side": "BUY" if order.side > 0 else "SELL",
                "price": rules.price(match.price_e8),
                "qty": rules.qty(qty),
                "realizedPnl": text(booking.realised_e8, 8),
                "marginAsset": rules.quote,
                "quoteQty": text(notional_e8(match.price_e8, qty), 5),
                "commission": text(booking.fee_e8, 8),
                "commissionAsset": rules.quote,
                "time": now_ms,
                "positionSide": order.position_side,
                "maker": match.maker,
                "buyer": order.side > 0,
            }
        )
        self._expire_needless(user, order.symbol, now_ms)

    def _expire_needless(self, user: User, symbol: str, now_ms: int) -> None:
        """End the orders that may only reduce a position that is not there any more."""
        for order in tuple(user.open_orders.values()):
            if order.symbol == symbol and is_reducing(order) and not reducible_e8(user, order):
                order.expiry_reason = "4"
                self._end(user, order, Event.EXPIRE, now_ms)

    def _most_of(self, order: Order) -> int:
        if not is_reducing(order):
            return order.left_e8
        return min(order.left_e8, reducible_e8(self._users[order.owner], order))

    def _end(self, user: User, order: Order, event: Event, now_ms: int) -> None:
        self._listings[order.symbol].matcher.remove(order)
        order.advance(event, now_ms)
        user.close(order)
        self._tell_order(user, order, event.wire, now_ms)

    def _tell_order(self, user: User, order: Order, execution: str, now_ms: int, **detail: Any) -> None:
        sums = [0, 0]
        for item in user.open_orders.values():
            if item.symbol == order.symbol and item.price_e8:
                sums[item.side < 0] += notional_e8(item.price_e8, item.left_e8)
        rules = self._listings[order.symbol].rules
        event = order_event(order, rules, execution, now_ms, resting_e8=(sums[0], sums[1]), **detail)
        self._tell(user, event)


def _bound(listing: Listing, side: int) -> int:
    """Return the worst price at which a market order trades."""
    mark = listing.mark_e8()
    return mark + side * mark * listing.rules.market_bound_e8 // E8
