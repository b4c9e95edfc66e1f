"""The exchange itself: symbols, users, time. Messages of the source in, messages of the exchange out.

Owns: the composition of market, desk and user streams, and everything that happens by the clock: funding,
orders good till a date, countdowns, listen keys. Pure: the time comes in, sockets are elsewhere.

Call ``advance`` with the time before anything that happens at it; then ``on_message`` for the source's
messages, or the desk and the user methods for requests. Times are in ms of the exchange's clock; they never
go back.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from gpuscalp.exchange.algo import AlgoDesk
from gpuscalp.exchange.broadcast import Broadcast
from gpuscalp.exchange.desk import Desk
from gpuscalp.exchange.hub import Hub
from gpuscalp.exchange.ledger import POSITION_SIDES, Ledger
from gpuscalp.exchange.liquidation import Liquidator
from gpuscalp.exchange.listing import Listing
from gpuscalp.exchange.rules import SymbolRules
from gpuscalp.exchange.source import SourceMessage
from gpuscalp.exchange.userdata import account_event
from gpuscalp.exchange.users import User
from gpuscalp.schema import E8, Instrument

_MARGIN_CHECK_MS: Final = 1_000


@dataclass(frozen=True, slots=True)
class Account:
    """What an account starts with.

    Attributes
    ----------
    api_key, secret : secret of the HMAC key, or a public key in PEM for RSA and Ed25519
    balance_e8 : wallet at the start
    maker_e8, taker_e8 : commission, multiples of 1e-8 (20,000 = 0.02 %)
    """

    api_key: str
    secret: str
    balance_e8: int = 10_000 * E8
    maker_e8: int = 20_000
    taker_e8: int = 50_000


class Venue:
    """All state of the simulated exchange.

    Parameters
    ----------
    instruments : what is listed
    accounts : who may trade
    first_id : trades and changes of the books are numbered from there on
    """

    def __init__(
        self, instruments: Sequence[Instrument], accounts: Sequence[Account], *, first_id: int = 0
    ) -> None:
        self.hub = Hub()
        rules = [SymbolRules.of(item) for item in instruments]
        self.listings = {item.symbol: Listing(item, first_id) for item in rules}
        self.users = [
            User(
                number,
                item.api_key,
                item.secret,
                Ledger(
                    rules,
                    lambda symbol: self.listings[symbol].mark_e8(),
                    item.balance_e8,
                    item.maker_e8,
                    item.taker_e8,
                ),
            )
            for number, item in enumerate(accounts)
        ]
        self._by_key = {user.api_key: user for user in self.users}
        self.broadcast = Broadcast(self.hub, self.listings.values())
        self.desk = Desk(self.listings, self.users, self.tell)
        self.algo = AlgoDesk(self.desk, self.listings, self.tell)
        self.liquidator = Liquidator(self.desk, self.listings, self.hub)
        self.now_ms = 0
        self._margin_due_ms = 0
        self.funding: list[dict[str, Any]] = []
        self._funding_due: dict[str, int] = {}

    def user_of(self, api_key: str) -> User | None:
        return self._by_key.get(api_key)

    def tell(self, user: User, event: dict[str, Any]) -> None:
        """Send an event to a user's stream, if there is one."""
        if user.listen_key:
            self.hub.publish_user(user.listen_key, event)

    def on_message(self, message: SourceMessage, shift_ms: int) -> None:
        """Take one message of the source at the current time.

        A trade fills resting orders before the book shows what is left of the level, as on the venue.
        """
        listing = self.listings[message.symbol]
        now_ms = self.now_ms
        update = listing.on_message(message, now_ms, shift_ms)
        if update.trade is not None:
            trade = update.trade
            self.desk.on_trade(listing, trade.price_e8, trade.qty_e8, trade.side, now_ms)
            self.algo.on_price(listing, trade.price_e8, now_ms)
        elif update.book is not None:
            self.desk.on_book(listing, now_ms)
        elif update.mark:
            self.algo.on_price(listing, listing.trades[-1][1] if listing.trades else 0, now_ms)
        self.broadcast.on_update(listing, update, now_ms)
        if update.mark:
            self._check_margins()

    def advance(self, now_ms: int) -> None:
        """Let the clock run up to a time."""
        if now_ms <= self.now_ms:
            return
        if not self.now_ms:
            for user in self.users:
                # The moment of the deposit: some clients take a balance without a time for no balance.
                user.ledger.updated_ms = now_ms
        self.broadcast.advance(now_ms)
        self.now_ms = now_ms
        for user in self.users:
            self._end_overdue(user)
        if now_ms >= self._margin_due_ms:
            # Sources without mark prices have the mid for one, and no moment of its own.
            self._margin_due_ms = now_ms + _MARGIN_CHECK_MS
            self._check_margins()
        for listing in self.listings.values():
            due = self._funding_due.setdefault(listing.symbol, listing.funding_due_ms(now_ms))
            if now_ms >= due:
                self._charge_funding(listing, due)
                self._funding_due[listing.symbol] = listing.funding_due_ms(now_ms)
            else:
                self._funding_due[listing.symbol] = min(due, listing.funding_due_ms(now_ms))

    def expire_listen_key(self, user: User) -> None:
        """End a user stream the way the venue does when a key was not kept alive."""
        if user.listen_key:
            event = {"e": "listenKeyExpired", "E": self.now_ms, "listenKey": user.listen_key}
            self.tell(user, event)
            user.stop_listening()

    def _check_margins(self) -> None:
        for user in self.users:
            self.liquidator.check(user, self.now_ms)

    def _end_overdue(self, user: User) -> None:
        now_ms = self.now_ms
        if user.listen_key and now_ms >= user.listen_key_until_ms:
            self.expire_listen_key(user)
        for symbol, due_ms in tuple(user.countdowns.items()):
            if now_ms >= due_ms:
                del user.countdowns[symbol]
                for order in tuple(user.open_orders.values()):
                    if order.symbol == symbol:
                        self.desk.cancel(user, order, now_ms)
        for order in tuple(user.open_orders.values()):
            if order.good_till_ms and now_ms >= order.good_till_ms:
                self.desk.expire(user, order, now_ms)

    def _charge_funding(self, listing: Listing, due_ms: int) -> None:
        mark, rate = listing.mark_e8(), listing.funding_e8
        row = {"symbol": listing.symbol, "rate_e8": rate, "time": due_ms, "mark_e8": mark}
        self.funding = [*self.funding[-999:], row]
        for user in self.users:
            for side in POSITION_SIDES:
                if user.ledger.position(listing.symbol, side).qty_e8:
                    paid = user.ledger.fund(listing.symbol, side, mark, rate)
                    # Cross margin: the balance only, no position.
                    event = account_event(user.ledger, "FUNDING_FEE", self.now_ms, [], paid)
                    event["a"]["S"] = listing.symbol
                    self.tell(user, event)
