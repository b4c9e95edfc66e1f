"""Random users, orders, trades and books: nothing is created, lost, or told twice."""

from __future__ import annotations

from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from tests.exchange.conftest import SECRETS, Bench, e8
from tests.thorough import examples

KEYS = st.sampled_from(sorted(SECRETS))
SIDES = st.sampled_from(["BUY", "SELL"])
PRICES = st.integers(985, 1_015).map(lambda tenths: tenths / 10)
QUANTITIES = st.integers(60, 2_500).map(lambda steps: steps / 1_000)


class Market(RuleBasedStateMachine):
    """Two users at one book; what they hear is booked by an account of our own."""

    def __init__(self) -> None:
        super().__init__()
        self.bench = Bench()
        self.told = {key: {"qty": 0, "cash": 0, "fills": 0} for key in SECRETS}
        self.order_ids: dict[str, list[int]] = {key: [] for key in SECRETS}
        self.traded: dict[int, int] = {}

    @rule(
        key=KEYS,
        side=SIDES,
        price=PRICES,
        qty=QUANTITIES,
        force=st.sampled_from(["GTC", "IOC", "FOK", "GTX"]),
        prevention=st.sampled_from(["NONE", "EXPIRE_MAKER", "EXPIRE_TAKER", "EXPIRE_BOTH"]),
        reduce_only=st.booleans(),
    )
    def limit(
        self, key: str, side: str, price: float, qty: float, force: str, prevention: str, reduce_only: bool
    ) -> None:
        more: dict[str, Any] = {"timeInForce": force, "selfTradePreventionMode": prevention}
        if reduce_only:
            more["reduceOnly"] = "true"
        self._take(key, self.bench.order(side, qty, price, key=key, **more))

    @rule(key=KEYS, side=SIDES, qty=QUANTITIES)
    def market(self, key: str, side: str, qty: float) -> None:
        self._take(key, self.bench.order(side, qty, key=key))

    @rule(key=KEYS, which=st.integers(0, 50))
    def cancel(self, key: str, which: int) -> None:
        if self.order_ids[key]:
            number = self.order_ids[key][which % len(self.order_ids[key])]
            self.bench.call("DELETE", "/fapi/v1/order", key, symbol="BTCUSDT", orderId=number)

    @rule(key=KEYS, which=st.integers(0, 50), price=PRICES, qty=QUANTITIES, side=SIDES)
    def amend(self, key: str, which: int, price: float, qty: float, side: str) -> None:
        if self.order_ids[key]:
            number = self.order_ids[key][which % len(self.order_ids[key])]
            values = {"symbol": "BTCUSDT", "orderId": number, "side": side}
            self.bench.call(
                "PUT", "/fapi/v1/order", key, **values, quantity=f"{qty:.3f}", price=f"{price:.1f}"
            )

    @rule(price=PRICES, qty=QUANTITIES, side=st.sampled_from([1, -1]))
    def trade(self, price: float, qty: float, side: int) -> None:
        self.bench.trade(price, qty, side)

    @rule(bid=st.integers(985, 1_012), spread=st.integers(1, 3), qty=st.integers(1, 4))
    def book(self, bid: int, spread: int, qty: int) -> None:
        bids = [((bid - away) / 10, float(qty + away)) for away in range(4)]
        asks = [((bid + spread + away) / 10, float(qty + away)) for away in range(4)]
        self.bench.book(bids, asks)

    @rule(price=PRICES)
    def mark(self, price: float) -> None:
        self.bench.mark(price)

    def _take(self, key: str, answer: dict[str, Any]) -> None:
        if "orderId" in answer:
            self.order_ids[key].append(answer["orderId"])

    @invariant()
    def what_is_told_is_what_is_booked(self) -> None:
        for user in self.bench.venue.users:
            told = self.told[user.api_key]
            for event in self.bench.events(user.api_key):
                body = event["o"]
                if body["x"] not in ("TRADE", "CALCULATED"):
                    continue
                side = 1 if body["S"] == "BUY" else -1
                price, qty, fee = (e8(float(body[name])) for name in ("L", "l", "n"))
                told["qty"] += side * qty
                told["cash"] -= side * price * qty // 10**8 + fee
                told["fills"] += 1
                self.traded[body["i"]] = self.traded.get(body["i"], 0) + qty
                assert self.traded[body["i"]] == e8(float(body["z"])) <= e8(float(body["q"]))
            account = user.ledger.account
            assert account.positions[0].qty_e8 == told["qty"]
            assert account.cash_e8 - account.start_e8 == told["cash"]
            assert len(user.fills) == told["fills"]

    @invariant()
    def both_money_books_agree(self) -> None:
        mark = self.bench.venue.listings["BTCUSDT"].mark_e8()
        for user in self.bench.venue.users:
            account = user.ledger.account
            value = sum(position.value_e8(mark) for position in account.positions)
            assert account.cash_e8 + value == account.equity_e8([mark] * 3)

    @invariant()
    def resting_orders_are_the_open_orders(self) -> None:
        resting = {order.order_id for order in self.bench.venue.listings["BTCUSDT"].matcher}
        open_ids = {number for user in self.bench.venue.users for number in user.open_orders}
        assert resting == open_ids
        for user in self.bench.venue.users:
            assert all(order.is_open and order.left_e8 > 0 for order in user.open_orders.values())
            assert not any(order.is_open for order in user.closed_orders.values())

    @invariant()
    def displayed_units_are_taken_once(self) -> None:
        book = self.bench.venue.listings["BTCUSDT"].book
        for side in (book.bids, book.asks):
            assert all(0 <= taken <= side.qty[price] for price, taken in side.taken.items())


TestMarket = Market.TestCase
TestMarket.settings = settings(max_examples=examples(40), stateful_step_count=40)
