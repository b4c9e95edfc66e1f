"""Orders from the door to the user stream."""

from __future__ import annotations

from typing import Any

import pytest

from tests.exchange.conftest import Bench, e8


def test_a_market_order_fills_at_the_book_pays_the_taker_fee_and_tells_in_order(bench: Bench) -> None:
    answer = bench.order("BUY", 1.5, newOrderRespType="RESULT")
    assert (answer["status"], answer["executedQty"]) == ("FILLED", "1.500")
    kinds = [event["e"] for event in bench.heard["alice"]]
    one = ["TRADE_LITE", "ACCOUNT_UPDATE", "ORDER_TRADE_UPDATE"]
    assert kinds == ["ORDER_TRADE_UPDATE", *one, *one]
    fills = bench.events()
    assert [(item["o"]["x"], item["o"]["X"], item["o"]["L"]) for item in fills] == [
        ("NEW", "NEW", "0"),
        ("TRADE", "PARTIALLY_FILLED", "100.1"),
        ("TRADE", "FILLED", "100.2"),
    ]
    # 0.05 % of 100.1 and of 50.1
    assert [item["o"]["n"] for item in fills[1:]] == ["0.05005000", "0.02505000"]
    assert [item["o"]["m"] for item in fills[1:]] == [False, False]
    position = bench.call("GET", "/fapi/v3/positionRisk")[0]
    assert (position["positionAmt"], position["entryPrice"][:8]) == ("1.500", "100.1333")


def test_a_resting_order_fills_as_maker_after_the_queue(bench: Bench) -> None:
    assert bench.order("BUY", 0.5, 100.0)["status"] == "NEW"
    bench.trade(100.0, 1.2, -1)
    fill = bench.events()[-1]["o"]
    assert (fill["X"], fill["l"], fill["L"], fill["m"]) == ("PARTIALLY_FILLED", "0.200", "100.0", True)
    assert fill["n"] == "0.00400000"


def test_post_only_that_would_cross_is_refused_and_leaves_no_trace(bench: Bench) -> None:
    answer = bench.order("BUY", 0.5, 100.1, timeInForce="GTX")
    assert answer["code"] == -5022
    assert bench.heard["alice"] == []
    assert bench.call("GET", "/fapi/v1/openOrders") == []


def test_fill_or_kill_fills_all_or_nothing(bench: Bench) -> None:
    assert bench.order("BUY", 3.5, 100.2, timeInForce="FOK")["code"] == -5021
    answer = bench.order("BUY", 3.0, 100.2, timeInForce="FOK", newOrderRespType="RESULT")
    assert answer["status"] == "FILLED"


def test_immediate_or_cancel_expires_what_is_left(bench: Bench) -> None:
    answer = bench.order("BUY", 1.5, 100.1, timeInForce="IOC", newOrderRespType="RESULT")
    assert (answer["status"], answer["executedQty"]) == ("EXPIRED", "1.000")
    assert bench.events()[-1]["o"]["er"] == "2"


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"symbol": "NOPEUSDT"}, -1121),
        ({"side": "HOLD"}, -1117),
        ({"type": "STOP_MARKET"}, -4120),
        ({"type": "ICEBERG"}, -1116),
        ({"timeInForce": "DAY"}, -1115),
        ({"quantity": "0"}, -4003),
        ({"quantity": "0.0005"}, -1111),
        ({"quantity": "20000"}, -4005),
        ({"quantity": "abc"}, -1102),
        ({"price": "100.05"}, -1111),
        ({"price": "120.0"}, -4016),
        ({"price": "0"}, -4001),
        ({"quantity": "0.010"}, -4164),
        ({"positionSide": "LONG"}, -4061),
        ({"newClientOrderId": "no blanks"}, -4015),
        ({"quantity": "9000"}, -2027),
        ({"reduceOnly": "true"}, -2022),
        ({"timeInForce": "GTD"}, -5040),
    ],
)
def test_a_bad_order_gets_the_venues_code_and_changes_nothing(
    bench: Bench, change: dict[str, str], code: int
) -> None:
    if code == -2027:
        bench.call("POST", "/fapi/v1/leverage", symbol="BTCUSDT", leverage=125)
        bench.heard["alice"].clear()
    params: dict[str, Any] = {"symbol": "BTCUSDT", "side": "BUY", "type": "LIMIT", "timeInForce": "GTC"}
    params |= {"quantity": "1", "price": "100.0"}
    assert bench.call("POST", "/fapi/v1/order", **(params | change))["code"] == code
    assert bench.heard["alice"] == []


def test_margin_is_checked_with_the_open_orders(bench: Bench) -> None:
    # 100,000 at leverage 20 carries a notional of 2,000,000: 20,000 contracts at 100.
    assert bench.order("BUY", 9000, 99.0)["status"] == "NEW"
    assert bench.order("BUY", 9000, 99.0)["status"] == "NEW"
    assert bench.order("BUY", 9000, 99.0)["code"] == -2019


def test_an_amendment_needs_both_values_and_loses_the_place_in_the_queue(bench: Bench) -> None:
    order = bench.order("BUY", 1, 99.9)
    path, ids = "/fapi/v1/order", {"symbol": "BTCUSDT", "side": "BUY", "orderId": order["orderId"]}
    assert bench.call("PUT", path, **ids, quantity="1")["code"] == -1102
    assert bench.call("PUT", path, **ids, quantity="1", price="99.9")["code"] == -5027
    changed = bench.call("PUT", path, **ids, quantity="2", price="100.0")
    assert (changed["price"], changed["origQty"], changed["status"]) == ("100.0", "2.000", "NEW")
    assert bench.events()[-1]["o"]["x"] == "AMENDMENT"
    bench.trade(100.0, 1.0, -1)  # all of it goes to the queue that was there before
    assert bench.events() == []


def test_a_post_only_order_amended_across_the_book_is_cancelled(bench: Bench) -> None:
    order = bench.order("BUY", 1, 99.9, timeInForce="GTX")
    ids = {"symbol": "BTCUSDT", "side": "BUY", "orderId": order["orderId"]}
    assert bench.call("PUT", "/fapi/v1/order", **ids, quantity="1", price="100.2")["status"] == "CANCELED"


def test_cancel_query_and_lists_agree(bench: Bench) -> None:
    order = bench.order("BUY", 1, 99.9, newClientOrderId="mine")
    ids = {"symbol": "BTCUSDT", "origClientOrderId": "mine"}
    assert bench.call("GET", "/fapi/v1/order", **ids)["orderId"] == order["orderId"]
    assert len(bench.call("GET", "/fapi/v1/openOrders", symbol="BTCUSDT")) == 1
    assert bench.order("BUY", 1, 99.8, newClientOrderId="mine")["code"] == -4116
    assert bench.call("DELETE", "/fapi/v1/order", **ids)["status"] == "CANCELED"
    assert bench.call("DELETE", "/fapi/v1/order", **ids)["code"] == -2011
    assert bench.call("GET", "/fapi/v1/order", **ids)["status"] == "CANCELED"
    assert bench.call("GET", "/fapi/v1/order", symbol="BTCUSDT", orderId=1)["code"] == -2013
    assert [item["status"] for item in bench.call("GET", "/fapi/v1/allOrders", symbol="BTCUSDT")] == [
        "CANCELED"
    ]


def test_pages_are_the_newest_or_the_oldest_from_a_number_on(bench: Bench) -> None:
    """It once was the newest in any case: whoever read on from a number lost what lay between."""
    orders = [bench.order("BUY", 0.1)["orderId"] for _ in range(5)]
    trades = [each["id"] for each in bench.call("GET", "/fapi/v1/userTrades", symbol="BTCUSDT")]
    assert len(trades) == 5

    def page(path: str, key: str, **more: Any) -> list[int]:
        return [each[key] for each in bench.call("GET", path, symbol="BTCUSDT", limit=2, **more)]

    for path, key, name, ids in (
        ("/fapi/v1/userTrades", "id", "fromId", trades),
        ("/fapi/v1/allOrders", "orderId", "orderId", orders),
    ):
        assert page(path, key) == ids[-2:]
        assert page(path, key, **{name: ids[1]}) == ids[1:3]
        assert page(path, key, **{name: 0}) == ids[:2]
        assert page(path, key, **{name: ids[4] + 1}) == []


def test_who_names_no_time_and_no_number_gets_the_trades_of_seven_days(bench: Bench) -> None:
    order = bench.order("BUY", 0.1)["orderId"]
    bench.order("BUY", 0.1)
    old, new = bench.venue.users[0].fills
    old["time"] -= 7 * 86_400_000 + 1

    def trades(**more: Any) -> list[int]:
        return [each["id"] for each in bench.call("GET", "/fapi/v1/userTrades", symbol="BTCUSDT", **more)]

    assert trades() == [new["id"]]
    assert trades(fromId=1) == trades(startTime=old["time"]) == [old["id"], new["id"]]
    assert trades(orderId=order) == trades(endTime=old["time"]) == [old["id"]]


def test_a_batch_answers_each_order_for_itself(bench: Bench) -> None:
    good = (
        '{"symbol":"BTCUSDT","side":"BUY","type":"LIMIT","timeInForce":"GTC","quantity":"1","price":"99.0"}'
    )
    bad = good.replace("99.0", "99.05")
    answers = bench.call("POST", "/fapi/v1/batchOrders", batchOrders=f"[{good},{bad}]")
    assert (answers[0]["status"], answers[1]["code"]) == ("NEW", -1111)
    gone = bench.call(
        "DELETE", "/fapi/v1/batchOrders", symbol="BTCUSDT", orderIdList=f"[{answers[0]['orderId']},7]"
    )
    assert (gone[0]["status"], gone[1]["code"]) == ("CANCELED", -2011)


def test_reduce_only_closes_no_more_than_the_position_and_then_expires(bench: Bench) -> None:
    bench.order("BUY", 1)
    assert bench.order("SELL", 2, 100.2, reduceOnly="true")["status"] == "NEW"
    bench.events()
    bench.trade(100.3, 5, 1)
    ends = [(item["o"]["X"], item["o"]["er"]) for item in bench.events()]
    assert ends == [("PARTIALLY_FILLED", "0"), ("EXPIRED", "4")]
    assert bench.call("GET", "/fapi/v3/positionRisk") == []


def test_the_countdown_cancels_what_is_open_when_it_runs_out(bench: Bench) -> None:
    bench.order("BUY", 1, 99.0)
    bench.call("POST", "/fapi/v1/countdownCancelAll", symbol="BTCUSDT", countdownTime=5_000)
    bench.venue.advance(bench.venue.now_ms + 4_999)
    assert len(bench.call("GET", "/fapi/v1/openOrders")) == 1
    bench.venue.advance(bench.venue.now_ms + 1)
    assert bench.call("GET", "/fapi/v1/openOrders") == []
    assert bench.events()[-1]["o"]["x"] == "CANCELED"


def test_an_order_good_till_a_date_expires_at_it(bench: Bench) -> None:
    till = bench.venue.now_ms + 700_000
    bench.order("BUY", 1, 99.0, timeInForce="GTD", goodTillDate=till)
    bench.venue.advance(till - 1)
    assert bench.call("GET", "/fapi/v1/openOrders") != []
    bench.venue.advance(till)
    assert bench.call("GET", "/fapi/v1/openOrders") == []


def test_price_match_takes_the_price_of_the_level_that_it_names(bench: Bench) -> None:
    params = {"symbol": "BTCUSDT", "side": "BUY", "type": "LIMIT", "timeInForce": "GTC", "quantity": "1"}
    assert bench.call("POST", "/fapi/v1/order", **params, priceMatch="QUEUE")["price"] == "100.0"
    assert bench.call("POST", "/fapi/v1/order", **params, priceMatch="OPPONENT")["price"] == "100.1"
    assert bench.call("POST", "/fapi/v1/order", **params, priceMatch="OPPONENT_20")["code"] == -5038


def test_a_stop_triggers_and_becomes_a_market_order(bench: Bench) -> None:
    bench.order("BUY", 1)
    stop = {"algoType": "CONDITIONAL", "symbol": "BTCUSDT", "side": "SELL", "type": "STOP_MARKET"}
    answer = bench.call("POST", "/fapi/v1/algoOrder", **stop, triggerPrice="99.5", closePosition="true")
    assert answer["algoStatus"] == "NEW"
    assert len(bench.call("GET", "/fapi/v1/openAlgoOrders")) == 1
    bench.trade(99.6, 0.1, -1)
    bench.heard["alice"].clear()
    bench.trade(99.5, 0.1, -1)
    states = [event["o"]["X"] for event in bench.heard["alice"] if event["e"] == "ALGO_UPDATE"]
    assert states == ["TRIGGERED", "FINISHED"]
    assert bench.call("GET", "/fapi/v3/positionRisk") == []


def test_a_stop_that_would_trigger_at_once_is_refused(bench: Bench) -> None:
    stop = {"algoType": "CONDITIONAL", "symbol": "BTCUSDT", "side": "SELL", "type": "STOP_MARKET"}
    answer = bench.call("POST", "/fapi/v1/algoOrder", **stop, triggerPrice="100.5", quantity="1")
    assert answer["code"] == -2021


def test_a_trailing_stop_is_refused_and_not_listed_among_the_types(bench: Bench) -> None:
    stop = {"algoType": "CONDITIONAL", "symbol": "BTCUSDT", "side": "SELL", "type": "TRAILING_STOP_MARKET"}
    answer = bench.call("POST", "/fapi/v1/algoOrder", **stop, callbackRate="1", quantity="1")
    assert answer["code"] == -1116
    assert bench.call("GET", "/fapi/v1/openAlgoOrders") == []
    types = bench.call("GET", "/fapi/v1/exchangeInfo")["symbols"][0]["orderTypes"]
    assert "STOP_MARKET" in types
    assert "TRAILING_STOP_MARKET" not in types


def test_funding_is_charged_at_its_time_and_told(bench: Bench) -> None:
    bench.order("BUY", 1)
    due = bench.call("GET", "/fapi/v1/premiumIndex", symbol="BTCUSDT")["nextFundingTime"]
    before = bench.venue.users[0].ledger.account.wallet_e8
    bench.heard["alice"].clear()
    bench.venue.users[0].listen_key_until_ms = due + 1
    bench.venue.advance(due)
    paid = bench.venue.users[0].ledger.account.wallet_e8 - before
    assert paid == -e8(100.0 * 0.0001)
    event = next(item for item in bench.heard["alice"] if item["e"] == "ACCOUNT_UPDATE")
    assert (event["a"]["m"], event["a"]["S"], event["a"]["B"][0]["bc"]) == ("FUNDING_FEE", "BTCUSDT", "-0.01")


def test_money_is_conserved_between_two_users_and_the_fees(bench: Bench) -> None:
    bench.order("SELL", 1, 100.05 + 0.05, key="bob")  # rests at 100.1 behind the displayed unit
    bench.order("BUY", 1.5)
    alice, bob = (user.ledger for user in bench.venue.users)
    assert alice.position("BTCUSDT", "BOTH").qty_e8 == e8(1.5)
    assert bob.position("BTCUSDT", "BOTH").qty_e8 == -e8(0.5)
    for ledger in (alice, bob):
        prices = [bench.venue.listings["BTCUSDT"].mark_e8()] * 3
        cash_book = ledger.account.cash_e8 + sum(
            position.value_e8(price) for position, price in zip(ledger.account.positions, prices, strict=True)
        )
        assert cash_book == ledger.account.equity_e8(prices)


def test_hedge_mode_keeps_two_positions(bench: Bench) -> None:
    assert bench.call("POST", "/fapi/v1/positionSide/dual", dualSidePosition="true")["code"] == 200
    assert bench.order("BUY", 1)["code"] == -4061
    bench.order("BUY", 1, positionSide="LONG")
    bench.order("SELL", 0.5, positionSide="SHORT")
    rows = bench.call("GET", "/fapi/v3/positionRisk")
    assert {row["positionSide"]: row["positionAmt"] for row in rows} == {"LONG": "1.000", "SHORT": "-0.500"}
