"""Answers that no client here asks for: in the documented form, with the values of the market or account.

The form is that of Binance's USD-M documentation, as its own SDK has it in its models
(binance-sdk-derivatives-trading-usds-futures 18.0.1).
"""

from __future__ import annotations

from typing import Any

import pytest

from tests.exchange.conftest import START_MS, Bench

BTC, ETH = "BTCUSDT", "ETHUSDT"
_EIGHT_HOURS_MS = 8 * 3_600_000


@pytest.fixture
def two() -> Bench:
    return Bench((BTC, ETH))


def _weight(bench: Bench, path: str, **params: Any) -> int:
    before, after = (
        int(bench.reply("GET", each, **more).headers["X-MBX-USED-WEIGHT-1M"])
        for each, more in (("/fapi/v1/time", {}), (path, params))
    )
    return after - before


def test_trades_are_the_newest_ones_oldest_first(bench: Bench) -> None:
    bench.trade(100.1, 0.5, 1)
    bench.trade(100.0, 2.0, -1)
    rest = {"time": START_MS, "isRPITrade": False}
    wanted = [
        {"id": 1, "price": "100.1", "qty": "0.500", "quoteQty": "50.05", "isBuyerMaker": False, **rest},
        {"id": 2, "price": "100.0", "qty": "2.000", "quoteQty": "200.00", "isBuyerMaker": True, **rest},
    ]
    assert bench.call("GET", "/fapi/v1/trades", symbol=BTC) == wanted
    assert bench.call("GET", "/fapi/v1/trades", symbol=BTC, limit=1) == wanted[1:]
    assert bench.call("GET", "/fapi/v1/trades", symbol=BTC, limit=1_001)["code"] == -1130


def test_funding_rates_are_those_that_were_charged(two: Bench) -> None:
    """Their times were not looked at: who read on from a time was given the newest ones again."""
    first_ms = (START_MS // _EIGHT_HOURS_MS + 1) * _EIGHT_HOURS_MS
    two.mark(100.0, rate=0.0003)
    two.venue.advance(first_ms)
    two.mark(101.5, rate=-0.0001)
    two.venue.advance(first_ms + _EIGHT_HOURS_MS)
    wanted = [
        {
            "symbol": BTC,
            "fundingRate": rate,
            "fundingTime": at_ms,
            "markPrice": mark,
            "rateType": "Regular",
        }
        for at_ms, rate, mark in (
            (first_ms, "0.00030000", "100.00000000"),
            (first_ms + _EIGHT_HOURS_MS, "-0.00010000", "101.50000000"),
        )
    ]

    def rates(**params: Any) -> Any:
        return two.call("GET", "/fapi/v1/fundingRate", symbol=BTC, **params)

    assert rates() == wanted
    assert rates(limit=1) == rates(startTime=first_ms + 1) == wanted[1:]
    assert rates(endTime=first_ms) == rates(startTime=first_ms, limit=1) == wanted[:1]
    assert [row["symbol"] for row in two.call("GET", "/fapi/v1/fundingRate")] == [BTC, ETH, BTC, ETH]


def test_funding_info_is_of_every_symbol(two: Bench) -> None:
    wanted = [
        {
            "symbol": symbol,
            "adjustedFundingRateCap": "0.02000000",
            "adjustedFundingRateFloor": "-0.02000000",
            "fundingIntervalHours": 8,
            "disclaimer": False,
        }
        for symbol in (BTC, ETH)
    ]
    assert two.call("GET", "/fapi/v1/fundingInfo") == wanted


def test_book_ticker_is_the_best_of_the_book(two: Bench) -> None:
    path = "/fapi/v1/ticker/bookTicker"
    two.book([(101.0, 0.25)], [(101.2, 4.0)], ETH, update_id=2)
    wanted = {
        "symbol": ETH,
        "bidPrice": "101.0",
        "bidQty": "0.250",
        "askPrice": "101.2",
        "askQty": "4.000",
        "lastUpdateId": two.call("GET", "/fapi/v1/depth", symbol=ETH)["lastUpdateId"],
        "time": START_MS,
    }
    assert two.call("GET", path, symbol=ETH) == wanted
    both = two.call("GET", path)
    assert (both[0]["symbol"], both[0]["bidPrice"], both[1]) == (BTC, "100.0", wanted)
    assert (_weight(two, path, symbol=ETH), _weight(two, path)) == (2, 5)


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_price_ticker_is_the_last_trade_and_before_the_first_the_mark_price(two: Bench, version: str) -> None:
    path = f"/fapi/{version}/ticker/price"
    two.mark(100.3, ETH)
    two.trade(99.9, 1.0, -1)
    prices = [{"symbol": name, "price": px, "time": START_MS} for name, px in ((BTC, "99.9"), (ETH, "100.3"))]
    assert two.call("GET", path) == prices
    assert two.call("GET", path, symbol=ETH) == prices[1]
    assert (_weight(two, path, symbol=ETH), _weight(two, path)) == (1, 2)


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


def test_positions_of_v2_are_of_all_symbols_with_their_settings(two: Bench) -> None:
    path = "/fapi/v2/positionRisk"
    two.order("BUY", 1)
    held, none = two.call("GET", path)
    wanted = {
        "symbol": BTC,
        "positionSide": "BOTH",
        "positionAmt": "1.000",
        "entryPrice": "100.1",
        "markPrice": "100.00000000",
        "unRealizedProfit": "-0.10000000",
        "notional": "100.00000000",
        "marginType": "cross",
        "isAutoAddMargin": "false",
        "isolatedMargin": "0",
        "isolatedWallet": "0",
        "leverage": "20",
        "updateTime": START_MS,
    }
    assert {name: held[name] for name in wanted} == wanted
    assert set(held) >= {"breakEvenPrice", "liquidationPrice", "maxNotionalValue"}
    assert (none["symbol"], none["positionAmt"], none["leverage"]) == (ETH, "0.000", "20")
    assert two.call("GET", path, symbol=ETH) == [none]
    sides = two.call("GET", path, key="bob", symbol=ETH)
    assert [row["positionSide"] for row in sides] == ["BOTH"]
    two.call("POST", "/fapi/v1/positionSide/dual", key="bob", dualSidePosition="true")
    sides = two.call("GET", path, key="bob", symbol=ETH)
    assert [row["positionSide"] for row in sides] == ["BOTH", "LONG", "SHORT"]


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
    bench.call("POST", "/fapi/v1/positionSide/dual", dualSidePosition="true")
    assert bench.call("GET", "/fapi/v1/accountConfig") == {**config, "dualSidePosition": True}


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
