"""What a look at an account makes of the exchange's replies, with an API that says what it is told to."""

from __future__ import annotations

import asyncio
import time
from decimal import Decimal
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("nautilus_trader", reason="NautilusTrader is not installed (extra nautilus)")

from nautilus_trader.adapters.binance.common.enums import BinanceOrderStatus
from nautilus_trader.adapters.binance.http.error import BinanceClientError

from gpuscalp.config import NautilusConfig
from gpuscalp.errors import DecodeError, FeedError
from gpuscalp.exchange.embedded import Exchange
from gpuscalp.exchange.server import DEMO_ACCOUNT, ServeSpec
from gpuscalp.execution.lifecycle import OrderState
from gpuscalp.execution.messages import OrderKind, OrderRequest, ReportKind
from gpuscalp.execution.reconcile import Found, FoundOrder, news
from gpuscalp.execution.remote import Heard, RemoteBroker
from gpuscalp.feeds.rest import WeightBudget
from gpuscalp.nautilus import account
from gpuscalp.nautilus.account import AccountView
from gpuscalp.nautilus.installed import LIVE
from gpuscalp.nautilus.keys import Keys
from gpuscalp.nautilus.looks import Looks
from gpuscalp.schema import E8
from tests.exchange.scripted import ScriptedSource, talking
from tests.tools import no_nautilus


class Api:
    """An account whose trades cost 0.01 BNB each."""

    def __init__(self) -> None:
        self.trades: list[Any] = []

    def trade(self, number: int) -> None:
        self.trades.append(
            SimpleNamespace(
                id=number, orderId=5, buyer=True, qty="1", price="50", maker=False, time=1,
                commissionAsset="BNB", commission="0.01",
            )
        )  # fmt: skip

    async def query_user_trades(self, symbol: str, from_id: int = 0, limit: int = 500) -> list[Any]:
        return [each for each in self.trades if each.id >= from_id]

    async def query_open_orders(self, symbol: str) -> list[Any]:
        return []

    query_open_algo_orders = query_open_orders

    async def query_futures_position_risk(self) -> list[Any]:
        return []

    async def query_futures_account_info(self) -> Any:
        return SimpleNamespace(assets=[])

    async def query_order(self, symbol: str, order_id: int) -> Any:
        return SimpleNamespace(clientOrderId="web")


def test_fees_in_another_currency_count_once_and_from_the_beginning_of_the_session() -> None:
    api, broker = Api(), RemoteBroker(1_000 * E8, 1)
    view = AccountView(api, ["BTCUSDT"])

    def look() -> tuple[str, ...]:
        return asyncio.run(view.look(broker, {})).fee_assets

    api.trade(10)
    assert look() == ()
    assert view.other_fees == {}, "older than the session"
    broker.take(Heard(ReportKind.SEEN, 0, 0, symbol=0, trade_id=10))
    api.trade(11)
    assert [look(), look()] == [("BNB",), ()]
    assert view.other_fees == {"BNB": Decimal("0.01")}
    broker.take(Heard(ReportKind.SEEN, 0, 0, symbol=0, trade_id=11))
    assert look() == ()
    assert view.other_fees == {"BNB": Decimal("0.01")}
    assert not view._counted, "what is dealt with is forgotten"
    api.trade(12)
    api.trades[-1].commission = "0"
    assert look() == (), "nothing was paid"
    api.trade(13)
    assert look() == ("BNB",), "resumed with the switch still on"


def test_a_look_that_fails_keeps_no_fee_from_being_told() -> None:
    api, broker = Api(), RemoteBroker(1_000 * E8, 1)
    view = AccountView(api, ["BTCUSDT"])
    broker.take(Heard(ReportKind.SEEN, 0, 0, symbol=0, trade_id=10))
    api.trade(11)
    balance = api.query_futures_account_info

    async def nothing() -> Any:
        raise ConnectionError("reset")

    api.query_futures_account_info = nothing  # type: ignore[method-assign]
    with pytest.raises(ConnectionError):
        asyncio.run(view.look(broker, {}))
    api.query_futures_account_info = balance  # type: ignore[method-assign]
    assert asyncio.run(view.look(broker, {})).fee_assets == ("BNB",)


@pytest.mark.parametrize(("price", "qty"), [("0", "1"), ("50", "0.00")])
def test_trade_without_price_or_quantity_is_refused_before_it_is_written(price: str, qty: str) -> None:
    """It came into the journal, and every start from there failed where it is booked."""
    api, broker = Api(), RemoteBroker(1_000 * E8, 1)
    view = AccountView(api, ["BTCUSDT"])
    api.trade(10)
    api.trades[0].price, api.trades[0].qty = price, qty
    asyncio.run(view.look(broker, {}))  # older than the session: only its number counts
    broker.take(Heard(ReportKind.SEEN, 0, 0, symbol=0, trade_id=9))
    with pytest.raises(DecodeError, match=f"without a price or a quantity.*BTCUSDT, trade 10.*qty {qty}"):
        asyncio.run(view.look(broker, {}))
    assert view.other_fees == {}


def test_every_state_of_an_order_is_known() -> None:
    """NEW_ADL and NEW_INSURANCE were not: while one was open, at a liquidation, every look failed."""
    view = AccountView(Api(), ["BTCUSDT"])
    states = {}
    for status in BinanceOrderStatus:
        order = SimpleNamespace(
            symbol="BTCUSDT", clientOrderId="n", status=status, orderId=1, executedQty="0"
        )
        states[status.value] = view._order(order).state
    assert states["NEW"] is states["NEW_ADL"] is states["NEW_INSURANCE"] is OrderState.ACCEPTED


STOP = OrderRequest(1, 0, -1, E8, 49 * E8, OrderKind.STOP_MARKET, reduce_only=True)
LIMIT = OrderRequest(1, 0, 1, E8, 49 * E8)


class Cancels:
    """Takes cancellations; refuses, or fails at, some of them."""

    def __init__(self, **errors: Exception) -> None:
        self.asked: list[tuple[str, dict[str, str]]] = []
        self._errors = errors

    async def cancel_order(self, **which: str) -> None:
        self._ask("order", which)

    async def cancel_algo_order(self, **which: str) -> None:
        self._ask("algo", which)

    def _ask(self, kind: str, which: dict[str, str]) -> None:
        self.asked.append((kind, which))
        if kind in self._errors:
            raise self._errors[kind]


ALGO, ORDER = ("algo", {"client_algo_id": "n"}), ("order", {"symbol": "BTCUSDT", "orig_client_order_id": "n"})
UNKNOWN = BinanceClientError(400, {"code": -2011, "msg": "Unknown order sent."}, {})


@pytest.mark.parametrize(
    ("request_", "errors", "asked"),
    [
        (LIMIT, {}, [ORDER]),
        (LIMIT, {"order": UNKNOWN}, [ORDER]),
        (STOP, {}, [ALGO]),
        (STOP, {"algo": UNKNOWN}, [ALGO, ORDER]),
        (STOP, {"algo": UNKNOWN, "order": UNKNOWN}, [ALGO, ORDER]),
    ],
)
def test_an_end_is_asked_for_by_name_where_the_order_is(
    request_: OrderRequest, errors: dict[str, Exception], asked: list[Any]
) -> None:
    api = Cancels(**errors)
    asyncio.run(AccountView(api, ["BTCUSDT"]).end("n", request_))
    assert api.asked == asked


def test_an_end_that_did_not_get_through_is_said() -> None:
    with pytest.raises(ConnectionError):
        asyncio.run(AccountView(Cancels(order=ConnectionError("reset")), ["BTCUSDT"]).end("n", LIMIT))


@pytest.mark.parametrize("status", [403, 418, 429])
@pytest.mark.parametrize("way", ["order", "algo", "stranger"])
def test_a_refusal_of_the_caller_is_no_word_about_an_order(way: str, status: int) -> None:
    """It once passed for one that has ended, and a second call followed at once."""
    refused = BinanceClientError(status, {"code": -1003, "msg": "Too many requests."}, {})
    api = Cancels(order=refused, algo=refused)
    view = AccountView(api, ["BTCUSDT"])
    call = {
        "order": lambda: view.end("n", LIMIT),
        "algo": lambda: view.end("n", STOP),
        "stranger": lambda: view.cancel(FoundOrder(0, "web_1", OrderState.ACCEPTED, 5)),
    }[way]
    with pytest.raises(BinanceClientError):
        asyncio.run(call())
    assert len(api.asked) == 1


@pytest.mark.skipif(bool(no_nautilus(LIVE)), reason=no_nautilus(LIVE))
async def test_the_adapter_ends_orders_by_their_names_and_knows_what_became_of_them() -> None:
    from gpuscalp.nautilus.node import open_account

    with Exchange(ScriptedSource(), ServeSpec(loop=True)) as exchange:
        async with talking(exchange) as client:
            place = NautilusConfig(where="local", rest_url=exchange.urls["rest"])
            view = open_account(place, Keys(DEMO_ACCOUNT.api_key, DEMO_ACCOUNT.secret), ["BTCUSDT"])
            far = {"type": "LIMIT", "price": "50000", "timeInForce": "GTC", "newClientOrderId": "entry"}
            stop = {"type": "STOP_MARKET", "triggerPrice": "50000", "algoType": "CONDITIONAL"}
            stop |= {"symbol": "BTCUSDT", "side": "SELL", "quantity": "0.010", "clientAlgoId": "stop"}
            assert (await client.order(**far))[0] == 200
            assert await view.executed_e8("entry", LIMIT) is None, "it has not ended"
            assert await view.executed_e8("nobody", LIMIT) is None
            assert (await client.order(newClientOrderId="bought"))[0] == 200
            assert await view.executed_e8("bought", LIMIT) == E8 // 100
            assert (await client.signed("POST", "/fapi/v1/algoOrder", **stop))[0] == 200
            for _ in range(2):  # the second time there is nothing to end
                await view.end("entry", LIMIT)
                await view.end("stop", STOP)
                for path in ("openOrders", "openAlgoOrders"):
                    assert await client.signed("GET", f"/fapi/v1/{path}", symbol="BTCUSDT") == (200, [])
            assert await view.executed_e8("entry", LIMIT) == 0


@pytest.mark.skipif(bool(no_nautilus(LIVE)), reason=no_nautilus(LIVE))
async def test_trades_are_read_page_by_page(monkeypatch: pytest.MonkeyPatch) -> None:
    from gpuscalp.nautilus.node import open_account

    monkeypatch.setattr(account, "_PAGE", 2)
    with Exchange(ScriptedSource(), ServeSpec(loop=True)) as exchange:
        async with talking(exchange) as client:
            place = NautilusConfig(where="local", rest_url=exchange.urls["rest"])
            view = open_account(place, Keys(DEMO_ACCOUNT.api_key, DEMO_ACCOUNT.secret), ["BTCUSDT"])
            bought = [(await client.order())[1]["orderId"] for _ in range(6)]
            found = await view._trades(0, 0)
            assert [each.venue_id for each in found] == bought
            found = await view._trades(0, found[2].trade_id)
            assert [each.venue_id for each in found] == bought[3:]


def hear(broker: RemoteBroker, found: Found) -> list[Heard]:
    heard = news(broker, found, number_of={}, overdue=(), known_ns=1)
    for each in heard:
        broker.take(each)
    return heard


@pytest.mark.parametrize("page", [1_000, 3, 2])
@pytest.mark.skipif(bool(no_nautilus(LIVE)), reason=no_nautilus(LIVE))
async def test_trades_of_last_week_are_older_than_the_session(
    monkeypatch: pytest.MonkeyPatch, page: int
) -> None:
    """The first look found none in seven days; the second one booked the history as fills of today."""
    from gpuscalp.nautilus.node import open_account

    monkeypatch.setattr(account, "_PAGE", page)
    monkeypatch.setattr(account, "_PAGE_S", 0.0)

    def age(server: Any) -> None:
        user = next(each for each in server.venue.users if each.api_key == DEMO_ACCOUNT.api_key)
        for row in user.fills:
            row["time"] -= 8 * 86_400_000
            # As an order that the exchange has sent by itself: its trades are always booked.
            user.closed_orders[row["orderId"]].client_id = f"autoclose-{row['orderId']}"

    all_ = {"symbol": "BTCUSDT", "fromId": 1}
    with Exchange(ScriptedSource(), ServeSpec(loop=True)) as exchange:
        async with talking(exchange) as client:
            place = NautilusConfig(where="local", rest_url=exchange.urls["rest"])
            view = open_account(place, Keys(DEMO_ACCOUNT.api_key, DEMO_ACCOUNT.secret), ["BTCUSDT"])
            for _ in range(4):
                await client.order()
            await asyncio.to_thread(exchange.ask, age)
            broker = RemoteBroker(1_000 * E8, 1)
            newest = max(
                each["id"] for each in (await client.signed("GET", "/fapi/v1/userTrades", **all_))[1]
            )
            hear(broker, await view.look(broker, {}))
            assert broker.seen == [newest]
            found = await view.look(broker, {})
            assert (found.trades, found.client_ids) == ([], {})
            assert hear(broker, found) == []
            await client.order()
            assert [each.trade_id for each in (await view.look(broker, {})).trades] > [newest]


def test_a_symbol_that_never_traded_begins_with_its_first_trade() -> None:
    api, broker = Api(), RemoteBroker(1_000 * E8, 1)
    view = AccountView(api, ["BTCUSDT"])
    hear(broker, asyncio.run(view.look(broker, {})))
    assert broker.seen == [0]
    api.trade(7)
    assert [each.trade_id for each in asyncio.run(view.look(broker, {})).trades] == [7]


def test_a_history_without_an_end_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    async def endless(symbol: str, from_id: int = 0, limit: int = 500) -> list[Any]:
        asked.append(from_id)
        return [SimpleNamespace(id=from_id + each) for each in range(limit if from_id else 0)]

    api = Api()
    api.query_user_trades = endless  # type: ignore[method-assign]
    monkeypatch.setattr(account, "_PAGE_S", 0.0)
    view = AccountView(api, ["BTCUSDT"])
    with pytest.raises(FeedError, match="BTCUSDT"):
        asyncio.run(view.look(RemoteBroker(1_000 * E8, 1), {}))
    assert asked == [0, *range(1, 200_000, 1_000)]


@pytest.mark.parametrize(("kind", "wait_s"), [("too_many", 60), ("banned", 200)])
@pytest.mark.skipif(bool(no_nautilus(LIVE)), reason=no_nautilus(LIVE))
async def test_what_the_adapter_raises_says_how_long_no_call_is_taken(kind: str, wait_s: int) -> None:
    """The end of a ban is in its text; the header Retry-After does not get through the adapter."""
    from gpuscalp.nautilus.node import open_account

    broker, budget = RemoteBroker(1_000 * E8, 1), WeightBudget(2_400, 200)
    with Exchange(ScriptedSource(), ServeSpec(loop=True)) as exchange:
        async with talking(exchange) as client:
            place = NautilusConfig(where="local", rest_url=exchange.urls["rest"])
            view = open_account(place, Keys(DEMO_ACCOUNT.api_key, DEMO_ACCOUNT.secret), ["BTCUSDT"])
            looks = Looks(
                view, broker, session_id="s", place=place, symbols=("BTCUSDT",), now=time.time_ns,
                hear=broker.take, budget=budget,
            )  # fmt: skip
            await client.control("POST", "faults", kind=kind, count=1, retry_after_s=200)
            assert not await looks._look("block")
            assert looks.patience_s == pytest.approx(wait_s, abs=5)
    assert budget.refusals == 1
