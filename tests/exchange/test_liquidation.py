"""An account whose margin is used up."""

from __future__ import annotations

from typing import Any

from tests.exchange.conftest import Bench, e8


def _deep(bench: Bench, bid: float) -> None:
    bench.book(
        [(bid - step / 10, 50_000.0) for step in range(5)],
        [(bid + 0.1 + step / 10, 50_000.0) for step in range(5)],
    )


def _long(bench: Bench) -> None:
    """Give alice, who has 100,000, a long position of 1,900,000."""
    _deep(bench, 99.9)
    for _ in range(2):
        assert bench.order("BUY", 9_500, 100.0, newOrderRespType="RESULT")["status"] == "FILLED"
    bench.order("BUY", 1, 95.0)
    bench.events()


def test_nothing_happens_above_the_maintenance_margin(bench: Bench) -> None:
    _long(bench)
    bench.mark(97.0)
    assert bench.events() == []


def test_positions_are_closed_orders_expire_and_the_stream_tells(bench: Bench) -> None:
    heard: list[Any] = []
    bench.listen("/market/ws/btcusdt@forceOrder", heard.append)
    _long(bench)
    _deep(bench, 95.9)
    bench.mark(95.0)
    events = [event["o"] for event in bench.events()]
    assert [(item["x"], item["X"]) for item in events] == [
        ("EXPIRED", "EXPIRED"),
        ("NEW", "NEW"),
        ("CALCULATED", "FILLED"),
    ]
    assert events[0]["er"] == "5"
    assert events[1]["c"].startswith("autoclose-")
    assert bench.call("GET", "/fapi/v3/positionRisk") == []
    assert bench.call("GET", "/fapi/v1/openOrders") == []
    assert [(item["o"]["S"], item["o"]["z"]) for item in heard] == [("SELL", "19000.000")]
    assert bench.call("GET", "/fapi/v2/balance")[0]["balance"][0] != "-"


def test_a_negative_wallet_is_paid_by_the_insurance_fund(bench: Bench) -> None:
    _long(bench)
    _deep(bench, 90.0)
    bench.mark(90.0)
    account = bench.venue.users[0].ledger.account
    assert account.wallet_e8 == 0
    assert account.cash_e8 == account.equity_e8([e8(90.0)] * 3) == 0
    paid = [item for item in bench.heard["alice"] if item["e"] == "ACCOUNT_UPDATE"][-1]["a"]
    assert (paid["m"], paid["B"][0]["wb"]) == ("INSURANCE_CLEAR", "0.00000000")


def test_what_the_book_cannot_take_is_closed_at_the_next_check(bench: Bench) -> None:
    _long(bench)
    bench.book([(95.0, 10_000.0)], [(95.1, 10_000.0)])
    bench.mark(95.0)
    assert bench.call("GET", "/fapi/v3/positionRisk")[0]["positionAmt"] == "9000.000"
    _deep(bench, 94.9)
    bench.venue.advance(bench.venue.now_ms + 1_000)
    assert bench.call("GET", "/fapi/v3/positionRisk") == []
