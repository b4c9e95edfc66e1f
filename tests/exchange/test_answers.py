"""Answers that no client here asks for: in the documented form, with the values of the market or account.

The form is that of Binance's USD-M documentation, as its own SDK has it in its models
(binance-sdk-derivatives-trading-usds-futures 18.0.1).
"""

from __future__ import annotations

from typing import Any

import pytest

from tests.exchange.conftest import START_MS, Bench

BTC, ETH = "BTCUSDT", "ETHUSDT"


@pytest.fixture
def two() -> Bench:
    return Bench((BTC, ETH))


def test_open_order_is_told_until_it_ends(bench: Bench) -> None:
    path = "/fapi/v1/openOrder"
    order_id = bench.order("BUY", 1.5, 99.0, newClientOrderId="mine")["orderId"]
    found = bench.call("GET", path, symbol=BTC, orderId=order_id)
    assert set(found) >= {
        *("avgPrice", "clientOrderId", "cumQuote", "executedQty", "orderId", "origQty", "origType", "price"),
        *("reduceOnly", "side", "positionSide", "status", "stopPrice", "closePosition", "symbol", "time"),
        *("timeInForce", "type", "updateTime", "workingType", "priceProtect", "priceMatch"),
        *("selfTradePreventionMode", "goodTillDate"),
    }
    assert (found["price"], found["origQty"], found["status"], found["time"]) == (
        *("99.0", "1.500", "NEW"),
        START_MS,
    )
    assert bench.call("GET", path, symbol=BTC, origClientOrderId="mine") == found
    bench.call("DELETE", "/fapi/v1/order", symbol=BTC, orderId=order_id)
    assert bench.call("GET", path, symbol=BTC, orderId=order_id)["code"] == -2013


def test_account_config_tells_the_mode(bench: Bench) -> None:
    config = {
        "feeTier": 0,
        "canTrade": True,
        "canDeposit": True,
        "canWithdraw": True,
        "dualSidePosition": False,
        "updateTime": 0,
        "multiAssetsMargin": False,
        "tradeGroupId": -1,
    }
    assert bench.call("GET", "/fapi/v1/accountConfig") == config


def test_margin_type_changes_only_without_orders_and_position(two: Bench) -> None:
    def change(symbol: str, kind: str) -> Any:
        return two.call("POST", "/fapi/v1/marginType", symbol=symbol, marginType=kind)

    assert change(ETH, "ISOLATED") == {"code": 200, "msg": "success"}
    told = {row["symbol"]: row["marginType"] for row in two.call("GET", "/fapi/v1/symbolConfig")}
    assert told == {BTC: "CROSSED", ETH: "ISOLATED"}
    assert change(ETH, "ISOLATED")["code"] == -4046
    assert change(ETH, "BOTH")["code"] == -1130
    order_id = two.order("BUY", 1, 99.0)["orderId"]
    assert change(BTC, "ISOLATED")["code"] == -4047
    two.call("DELETE", "/fapi/v1/order", symbol=BTC, orderId=order_id)
    two.order("BUY", 1)
    assert change(BTC, "ISOLATED")["code"] == -4048
    assert change(ETH, "CROSSED")["code"] == 200


_DONE = {"code": 200, "msg": "The operation of cancel all open order is done."}


def test_all_open_orders_of_a_symbol_are_cancelled_and_told(two: Bench) -> None:
    mine = [two.order("BUY", 1, price)["orderId"] for price in (99.0, 99.1)]
    other = two.order("BUY", 1, 99.0, symbol=ETH)["orderId"]
    foreign = two.order("BUY", 1, 99.0, key="bob")["orderId"]
    two.events()
    assert two.call("DELETE", "/fapi/v1/allOpenOrders", symbol=BTC) == _DONE
    assert [(event["o"]["i"], event["o"]["X"]) for event in two.events()] == [
        (number, "CANCELED") for number in mine
    ]
    assert [row["orderId"] for row in two.call("GET", "/fapi/v1/openOrders")] == [other]
    assert [row["orderId"] for row in two.call("GET", "/fapi/v1/openOrders", key="bob")] == [foreign]
    assert two.call("DELETE", "/fapi/v1/allOpenOrders")["code"] == -1102


def test_all_open_algo_orders_of_a_symbol_are_cancelled(two: Bench) -> None:
    def stop(symbol: str, trigger: str) -> int:
        number: int = two.call(
            "POST", "/fapi/v1/algoOrder", algoType="CONDITIONAL", symbol=symbol, side="SELL",
            type="STOP_MARKET", triggerPrice=trigger, quantity="1",
        )["algoId"]  # fmt: skip
        return number

    mine, other = [stop(BTC, "99.0"), stop(BTC, "98.0")], stop(ETH, "99.0")
    assert two.call("DELETE", "/fapi/v1/algoOpenOrders", symbol=BTC) == _DONE
    assert [row["algoId"] for row in two.call("GET", "/fapi/v1/openAlgoOrders")] == [other]
    ended = two.call("GET", "/fapi/v1/allAlgoOrders", symbol=BTC)
    assert {row["algoId"]: row["algoStatus"] for row in ended} == dict.fromkeys(mine, "CANCELED")
