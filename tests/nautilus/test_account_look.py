"""What one look at an account finds: each list of it, and what was asked for that."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("nautilus_trader", reason="NautilusTrader is not installed (extra nautilus)")

from nautilus_trader.adapters.binance.common.enums import BinanceOrderStatus
from nautilus_trader.adapters.binance.http.error import BinanceClientError

from gpuscalp.execution.lifecycle import OrderState
from gpuscalp.execution.messages import OrderKind, OrderRequest, ReportKind
from gpuscalp.execution.reconcile import Found, FoundOrder
from gpuscalp.execution.remote import Heard, RemoteBroker
from gpuscalp.nautilus.account import AccountView
from gpuscalp.schema import E8

SYMBOLS = ("BTCUSDT", "ETHUSDT")
OPEN, FILLED = BinanceOrderStatus.NEW, BinanceOrderStatus.FILLED
UNKNOWN = {"code": -2013, "msg": "Order does not exist."}


def order(number: int, name: str, *, symbol: str = "BTCUSDT", status: Any = OPEN, executed: str = "0") -> Any:
    return SimpleNamespace(
        symbol=symbol, clientOrderId=name, status=status, orderId=number, executedQty=executed
    )


def algo(number: int, name: str, *, symbol: str = "BTCUSDT", status: str = "NEW", actual: str = "") -> Any:
    return SimpleNamespace(
        symbol=symbol, clientAlgoId=name, algoStatus=status, algoId=number, actualOrderId=actual
    )


class Api:
    """An account that holds what it is given, and remembers what it was asked."""

    def __init__(self, **held: list[Any]) -> None:
        self.held = held
        self.asked: list[tuple[str, Any]] = []

    async def query_open_orders(self, symbol: str | None) -> list[Any]:
        self.asked.append(("open", symbol))
        return [each for each in self.held.get("open", []) if symbol in (None, each.symbol)]

    async def query_open_algo_orders(self, symbol: str | None) -> list[Any]:
        self.asked.append(("open_algo", symbol))
        return [each for each in self.held.get("open_algo", []) if symbol in (None, each.symbol)]

    async def query_order(
        self, symbol: str, order_id: int | None = None, orig_client_order_id: str | None = None
    ) -> Any:
        self.asked.append(("order", order_id or orig_client_order_id))
        for each in self.held.get("orders", []):
            if symbol == each.symbol and (
                each.orderId == order_id or each.clientOrderId == orig_client_order_id
            ):
                return each
        raise BinanceClientError(400, UNKNOWN, {})

    async def query_algo_order(self, client_algo_id: str) -> Any:
        self.asked.append(("algo", client_algo_id))
        for each in self.held.get("algos", []):
            if each.clientAlgoId == client_algo_id:
                return each
        raise BinanceClientError(400, UNKNOWN, {})

    async def query_user_trades(self, symbol: str, from_id: int = 0, limit: int = 500) -> list[Any]:
        found = [each for each in self.held.get("trades", []) if each.symbol == symbol and each.id >= from_id]
        return found[:limit]

    async def query_futures_position_risk(self) -> list[Any]:
        return self.held.get("positions", [])

    async def query_futures_account_info(self) -> Any:
        return SimpleNamespace(assets=[])


def trade(number: int, venue_id: int, symbol: str = "BTCUSDT") -> Any:
    return SimpleNamespace(
        id=number, symbol=symbol, orderId=venue_id, buyer=True, qty="1", price="50", maker=False, time=1,
        commissionAsset="USDT", commission="0.02",
    )  # fmt: skip


def broker_of(*requests: OrderRequest) -> RemoteBroker:
    """Return a broker that has seen the account before, and has sent these."""
    broker = RemoteBroker(1_000 * E8, len(SYMBOLS))
    for symbol in range(len(SYMBOLS)):
        broker.take(Heard(ReportKind.SEEN, 0, 0, symbol=symbol, trade_id=0))
    for request in requests:
        broker.submit(request, 0)
    return broker


def look(api: Api, broker: RemoteBroker, **names: int) -> Found:
    return asyncio.run(AccountView(api, SYMBOLS).look(broker, names))


LIMIT = OrderRequest(1, 0, 1, E8, 49 * E8)
STOP = OrderRequest(2, 0, -1, E8, 49 * E8, OrderKind.STOP_MARKET, reduce_only=True)


def test_orders_in_symbols_that_are_not_traded_are_not_looked_at() -> None:
    api = Api(
        open=[order(5, "a"), order(6, "b", symbol="XRPUSDT"), order(7, "c", symbol="ETHUSDT")],
        open_algo=[algo(8, "d", symbol="XRPUSDT"), algo(9, "e", symbol="ETHUSDT", actual="12")],
    )
    assert list(look(api, broker_of()).orders) == [
        FoundOrder(0, "a", OrderState.ACCEPTED, 5),
        FoundOrder(1, "c", OrderState.ACCEPTED, 7),
        FoundOrder(1, "e", OrderState.ACCEPTED, 12, algo_id=9),
    ]


@pytest.mark.parametrize(("count", "by_symbol"), [(2, True), (39, True), (40, False), (41, False)])
def test_open_orders_are_asked_for_in_the_way_that_weighs_less(count: int, by_symbol: bool) -> None:
    """Of one symbol the list weighs 1, of all 40."""
    api, symbols = Api(), tuple(f"A{number}USDT" for number in range(count))
    view = AccountView(api, symbols)
    asyncio.run(view.look(RemoteBroker(1_000 * E8, count), {}))
    asked = [symbol for kind, symbol in api.asked if kind == "open"]
    assert asked == (list(symbols) if by_symbol else [None])
    assert view.weight - AccountView(api, symbols[:1]).weight == 2 * (min(count, 40) - 1) + 5 * (count - 1)


def test_positions_are_those_of_the_symbols_that_are_traded_and_others_are_named() -> None:
    def position(symbol: str, qty: str, price: str) -> Any:
        return SimpleNamespace(symbol=symbol, positionAmt=qty, entryPrice=price)

    api = Api(
        positions=[
            position("XRPUSDT", "-3.5", "0.5"),
            position("ETHUSDT", "-0.020", "2500.123456785"),
            position("BTCUSDT", "0.000", "0.0"),
            position("DOGEUSDT", "0", "0.0"),
        ]
    )
    view = AccountView(api, SYMBOLS)
    found = asyncio.run(view.look(broker_of(), {}))
    assert list(found.positions) == [(0, 0), (-E8 // 50, 250_012_345_678)]
    assert view.others == ("XRPUSDT -3.5",)
    api.held["positions"] = []
    asyncio.run(view.look(broker_of(), {}))
    assert view.others == ()


def test_a_trade_is_a_strangers_where_no_order_of_ours_has_its_number() -> None:
    """An order is ours in three ways: it is open, was asked for by its name, or its number was heard. Whose a
    strange one is, is asked once for as long as nobody has dealt with it."""
    api = Api(
        open=[order(5, "open")],
        orders=[order(6, "asked", status=FILLED, executed="1"), order(9, "web_9", status=FILLED)],
        trades=[trade(1, 5), trade(2, 6), trade(3, 7), trade(4, 9), trade(5, 10)],
    )
    broker = broker_of(LIMIT, OrderRequest(3, 0, 1, E8, 49 * E8))
    broker.take(Heard(ReportKind.ACCEPTED, 0, 0, 3, 0, venue_id=7))
    view = AccountView(api, SYMBOLS)
    found = asyncio.run(view.look(broker, {"asked": 1}))
    assert found.client_ids == {9: "web_9", 10: ""}, "the exchange knows 10 no more"
    assert [each.trade_id for each in found.trades] == [1, 2, 3, 4, 5]
    assert found.asked == {1: FoundOrder(0, "asked", OrderState.FILLED, 6, executed_e8=E8)}
    api.asked.clear()
    assert asyncio.run(view.look(broker, {"asked": 1})).client_ids == {9: "web_9", 10: ""}
    assert ("order", 9) not in api.asked
    for number in (4, 5):
        broker.take(Heard(ReportKind.SEEN, 0, 0, symbol=0, trade_id=number))
    assert asyncio.run(view.look(broker, {})).client_ids == {}
    assert not view._client_ids


@pytest.mark.parametrize(
    ("held", "found"),
    [
        ({}, None),
        ({"algos": [algo(8, "stop")]}, FoundOrder(0, "stop", OrderState.ACCEPTED, algo_id=8)),
        (  # it has gone off: what counts is the order that came of it
            {
                "algos": [algo(8, "stop", status="FINISHED", actual="40")],
                "orders": [order(40, "of_the_exchange", status=FILLED, executed="1")],
            },
            FoundOrder(0, "stop", OrderState.FILLED, 40, executed_e8=E8),
        ),
        (
            {"algos": [algo(8, "stop", status="CANCELED", actual="0")]},
            FoundOrder(0, "stop", OrderState.CANCELED, algo_id=8),
        ),
    ],
    ids=["unknown", "waits", "gone off", "cancelled"],
)
def test_what_became_of_a_stop_is_asked_of_the_condition_and_then_of_its_order(
    held: dict[str, list[Any]], found: FoundOrder | None
) -> None:
    assert look(Api(**held), broker_of(STOP), stop=2).asked == {2: found}


def test_an_order_that_is_open_or_has_ended_here_is_not_asked_for() -> None:
    api = Api(open=[order(5, "open")])
    assert look(api, broker_of(LIMIT), open=1, gone=77).asked == {}
    assert not [each for each in api.asked if each[0] == "order"]


@pytest.mark.parametrize(
    ("which", "way"),
    [
        (FoundOrder(1, "web", OrderState.ACCEPTED, 5), ("order", {"symbol": "ETHUSDT", "order_id": 5})),
        (FoundOrder(1, "web", OrderState.ACCEPTED, algo_id=8), ("algo", {"algo_id": 8})),
        (  # it has gone off: there is an order to end, and no condition
            FoundOrder(1, "web", OrderState.ACCEPTED, 5, algo_id=8),
            ("order", {"symbol": "ETHUSDT", "order_id": 5}),
        ),
    ],
)
def test_a_strangers_order_is_ended_where_it_is(which: FoundOrder, way: tuple[str, Any]) -> None:
    asked = []

    class Cancels:
        async def cancel_order(self, **words: Any) -> None:
            asked.append(("order", words))

        async def cancel_algo_order(self, **words: Any) -> None:
            asked.append(("algo", words))

    asyncio.run(AccountView(Cancels(), SYMBOLS).cancel(which))
    assert asked == [way]


def test_a_refusal_of_a_question_is_no_word_that_the_order_is_unknown() -> None:
    class Refuses(Api):
        async def query_order(self, **_: Any) -> Any:
            raise BinanceClientError(
                400, {"code": -1021, "msg": "Timestamp for this request is outside."}, {}
            )

    with pytest.raises(BinanceClientError):
        look(Refuses(), broker_of(LIMIT), entry=1)
