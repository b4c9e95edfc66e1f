"""Order events of NautilusTrader as reports. They are made by hand: their attributes are all that counts."""

from __future__ import annotations

from decimal import Decimal
from types import SimpleNamespace
from typing import Any

from gpuscalp.execution.lifecycle import OrderState
from gpuscalp.execution.messages import Report, ReportKind
from gpuscalp.nautilus.reports import Reporter

E8 = 10**8
RAW = 10**16
BUYS, SELLS = 1, 2
MAKER, TAKER = 1, 2
NAMES = ["BTCUSDT-PERP.BINANCE", "ETHUSDT-PERP.BINANCE"]
BEST = [(100 * E8, 101 * E8), (0, 0)]


def event(kind: str, number: int | str, at_ns: int = 1_000, **more: Any) -> Any:
    name = f"gs-s1-{number}" if isinstance(number, int) else number
    return type(kind, (SimpleNamespace,), {})(client_order_id=name, ts_event=at_ns, **more)


def filled(number: int | str, qty: str, price: str, trade: str, **more: Any) -> Any:
    fields: dict[str, Any] = {
        "order_side": BUYS,
        "liquidity_side": TAKER,
        "instrument_id": NAMES[0],
        "commission": SimpleNamespace(as_decimal=lambda: Decimal("0.00123456")),
    }
    return event(
        "OrderFilled",
        number,
        last_qty=SimpleNamespace(raw=int(Decimal(qty) * RAW)),
        last_px=SimpleNamespace(raw=int(Decimal(price) * RAW)),
        trade_id=trade,
        **(fields | more),
    )


def reporter(delay_ns: int = 0) -> Reporter:
    made = Reporter("s1", NAMES, precision=16, best=BEST, delay_ns=delay_ns)
    made.sent(1, 0, 3 * E8)
    return made


def kinds(reports: list[Report]) -> list[tuple[ReportKind, OrderState | None]]:
    return [(report.kind, report.state) for report in reports]


def test_an_order_is_accepted_filled_in_parts_and_ended_each_once() -> None:
    made = reporter()
    assert made.told(event("OrderSubmitted", 1), 5) == []
    (accepted,) = made.told(event("OrderAccepted", 1), 10)
    assert (accepted.kind, accepted.state, accepted.left_e8) == (
        ReportKind.ACCEPTED, OrderState.ACCEPTED, 3 * E8,
    )  # fmt: skip
    (part,) = made.told(filled(1, "1", "101", "t1"), 20)
    assert (part.kind, part.state, part.left_e8) == (
        ReportKind.FILL, OrderState.PARTIALLY_FILLED, 2 * E8,
    )  # fmt: skip
    assert made.told(filled(1, "1", "101", "t1"), 21) == []  # once more, as after a reconnect
    (rest,) = made.told(filled(1, "2", "101.5", "t2"), 30)
    assert (rest.state, rest.left_e8) == (OrderState.FILLED, 0)
    fill = rest.fill
    assert fill is not None
    assert (fill.order_id, fill.symbol_index, fill.side, fill.qty_e8, fill.price_e8) == (
        1, 0, 1, 2 * E8, 10_150_000_000,
    )  # fmt: skip
    assert (fill.fee_e8, fill.mid2_e8, fill.touch_e8) == (123_456, 201 * E8, 101 * E8)
    assert made.told(event("OrderExpired", 1), 40) == []
    assert made.told(event("OrderAccepted", 1), 41) == []
    assert made.repeated_count == 3


def test_a_fill_without_an_acceptance_brings_it_along() -> None:
    reports = reporter().told(filled(1, "3", "101", "t1"), 10)
    assert kinds(reports) == [
        (ReportKind.ACCEPTED, OrderState.ACCEPTED),
        (ReportKind.FILL, OrderState.FILLED),
    ]


def test_an_order_that_nobody_cancelled_has_expired_whatever_it_is_called() -> None:
    made = reporter()
    made.sent(2, 0, E8)
    made.sent(3, 0, E8)
    assert kinds(made.told(event("OrderCanceled", 1), 10)) == [(ReportKind.EXPIRED, OrderState.EXPIRED)]
    assert made.cancelling(2)
    assert kinds(made.told(event("OrderCanceled", 2), 10)) == [(ReportKind.CANCELED, OrderState.CANCELED)]
    assert made.cancelling(3)
    refused = event("OrderCancelRejected", 3, reason="{'code': -2011, 'msg': 'Unknown order sent.'}")
    (report,) = made.told(refused, 11)
    assert (report.kind, report.state, report.code) == (ReportKind.CANCEL_REJECTED, None, -2011)
    # It goes on, and what ends it then is not our cancellation.
    assert kinds(made.told(event("OrderCanceled", 3), 12)) == [(ReportKind.EXPIRED, OrderState.EXPIRED)]
    assert not made.cancelling(1)


def test_a_refusal_keeps_the_code_of_the_exchange_where_there_is_one() -> None:
    for reason, post_only, code in (
        ("{'code': -2019, 'msg': 'Margin is insufficient.'}", False, -2019),
        ("POST_ONLY LimitOrder BUY limit px would have been a TAKER", True, -5022),
        ("NOTIONAL_EXCEEDS_FREE_BALANCE", False, 0),
        ("code -9999", False, 0),  # one that nobody here knows
    ):
        made = reporter()
        (report,) = made.told(event("OrderRejected", 1, reason=reason, due_post_only=post_only), 10)
        assert (report.kind, report.state) == (ReportKind.REJECTED, OrderState.REJECTED)
        assert (report.code, report.reason) == (code, reason)


def test_what_rested_was_filled_at_its_own_price_and_a_blank_market_has_no_mid() -> None:
    made = reporter()
    (_, report) = made.told(filled(1, "3", "100.5", "t1", liquidity_side=MAKER, order_side=SELLS), 10)
    assert report.maker
    assert report.fill is not None
    assert (report.fill.side, report.fill.touch_e8) == (-1, 10_050_000_000)
    made.sent(2, 1, E8)
    (_, report) = made.told(filled(2, "1", "7", "t2", instrument_id=NAMES[1]), 10)
    assert report.fill is not None
    assert report.fill.mid2_e8 == 14 * E8


def test_times_never_go_back_and_are_known_after_their_way() -> None:
    made = reporter(delay_ns=7)
    made.sent(2, 0, E8)
    (first,) = made.told(event("OrderAccepted", 1, at_ns=100), 100)
    (second,) = made.told(event("OrderAccepted", 2, at_ns=90), 95)
    assert [(each.at_ns, each.known_ns) for each in (first, second)] == [(100, 107), (100, 107)]
    third = made.funding(1, -5 * E8, 120, 130)
    assert (third.kind, third.at_ns, third.known_ns) == (ReportKind.FUNDING, 120, 137)
    assert (third.symbol_index, third.money_e8) == (1, -5 * E8)


def test_executions_of_orders_that_are_not_ours_are_foreign() -> None:
    made = reporter()
    (report,) = made.told(filled("autoclose-1", "3", "99", "t1", order_side=SELLS), 10)
    assert (report.kind, report.order_id, report.symbol_index) == (ReportKind.FILL, -1, 0)
    assert made.told(event("OrderAccepted", "web_1"), 10) == []
    assert made.told(filled("web_2", "1", "99", "t2", instrument_id="XRPUSDT-PERP.BINANCE"), 10) == []
    assert made.foreign_count == 1
