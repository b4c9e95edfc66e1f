"""What an execution that NautilusTrader tells of becomes: each of its words, by itself."""

from __future__ import annotations

from decimal import Decimal
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("nautilus_trader", reason="NautilusTrader is not installed (extra nautilus)")

from nautilus_trader.model.currencies import BNB, USDT
from nautilus_trader.model.enums import LiquiditySide, OrderSide
from nautilus_trader.model.objects import Money, Price, Quantity

from gpuscalp.execution.messages import ReportKind
from gpuscalp.execution.remote import Heard
from gpuscalp.nautilus.heard import heard_of
from gpuscalp.schema import E8


def event(name: str, **more: Any) -> Any:
    return type(name, (SimpleNamespace,), {})(ts_event=1_000, **more)


def fill(**changes: Any) -> Any:
    told: dict[str, Any] = {
        "trade_id": "7",
        "venue_order_id": SimpleNamespace(value="90"),
        "commission": Money(Decimal("0.00012345"), USDT),
        "order_side": OrderSide.BUY,
        "last_qty": Quantity.from_str("0.001"),
        "last_px": Price.from_str("60000.1"),
        "liquidity_side": LiquiditySide.TAKER,
    }
    return event("OrderFilled", **told | changes)


def heard(told: Any, *, cancelling: bool = False, filled_e8: int = 0) -> Heard | None:
    return heard_of(told, 4, 2, now_ns=2_000, quote="USDT", cancelling=cancelling, filled_e8=filled_e8)


@pytest.mark.nautilus
@pytest.mark.parametrize(("theirs", "side"), [(OrderSide.BUY, 1), (OrderSide.SELL, -1)])
@pytest.mark.parametrize(("liquidity", "maker"), [(LiquiditySide.MAKER, True), (LiquiditySide.TAKER, False)])
def test_fill_is_heard_with_its_side_and_whether_it_rested(
    theirs: OrderSide, side: int, liquidity: LiquiditySide, maker: bool
) -> None:
    found = heard(fill(order_side=theirs, liquidity_side=liquidity))
    assert found == Heard(
        ReportKind.FILL, 1_000, 2_000, 4, 2, venue_id=90, trade_id=7, side=side, qty_e8=E8 // 1_000,
        price_e8=6_000_010_000_000, fee_e8=12_345, maker=maker, reason="",
    )  # fmt: skip


@pytest.mark.parametrize("cancelling", [True, False])
def test_end_is_a_cancellation_where_we_asked_for_it(cancelling: bool) -> None:
    found = heard(event("OrderCanceled"), cancelling=cancelling, filled_e8=5)
    kind = ReportKind.CANCELED if cancelling else ReportKind.EXPIRED
    assert found == Heard(kind, 1_000, 2_000, 4, 2, executed_e8=5)


def test_expiry_is_one_whoever_asked() -> None:
    for cancelling in (True, False):
        found = heard(event("OrderExpired"), cancelling=cancelling, filled_e8=5)
        assert found == Heard(ReportKind.EXPIRED, 1_000, 2_000, 4, 2, executed_e8=5)


@pytest.mark.parametrize(
    "told",
    [
        {"trade_id": "none"},
        {"last_px": Price.from_str("0.0")},
        {"last_qty": Quantity.from_str("0.000")},
    ],
)
def test_fill_that_could_never_be_booked_is_left_to_the_exchange(told: dict[str, Any]) -> None:
    assert heard(fill(**told)) is None


def test_smallest_fill_is_heard() -> None:
    least = {"last_px": Price.from_str("0.00000001"), "last_qty": Quantity.from_str("0.00000001")}
    found = heard(fill(**least))
    assert found is not None
    assert (found.price_e8, found.qty_e8) == (1, 1)


def test_fee_in_another_currency_is_none_of_the_balance() -> None:
    found = heard(fill(commission=Money(Decimal("0.5"), BNB)))
    assert found is not None
    assert (found.fee_e8, found.reason) == (0, "fee in BNB")


@pytest.mark.parametrize(
    ("name", "reason", "told"),
    [
        ("OrderRejected", "{'code': -2019, 'msg': 'Margin is insufficient.'}", (ReportKind.REJECTED, -2019)),
        ("OrderRejected", "{'code': -1007, 'msg': 'Timeout waiting for response.'}", None),
        ("OrderRejected", "<html>502, iso-8859-1</html>", None),
        ("OrderDenied", "NOTIONAL_EXCEEDS_FREE_BALANCE", (ReportKind.REJECTED, 0)),
        (
            "OrderCancelRejected",
            "{'code': -2011, 'msg': 'Unknown order sent.'}",
            (ReportKind.CANCEL_REJECTED, -2011),
        ),
        ("OrderCancelRejected", "connection reset", (ReportKind.CANCEL_REJECTED, 0)),
        ("OrderPendingUpdate", "anything", None),
    ],
)
def test_refusal_is_one_only_where_the_exchange_has_said_it(
    name: str, reason: str, told: tuple[ReportKind, int] | None
) -> None:
    """What never reached it, or whose answer says nothing, may be an order all the same. One that Nautilus
    denies was never sent."""
    found = heard(event(name, reason=reason))
    wanted = told and Heard(told[0], 1_000, 2_000, 4, 2, code=told[1], reason=reason)
    assert found == wanted


def test_number_of_an_accepted_order_is_not_believed() -> None:
    told = event("OrderAccepted", venue_order_id=SimpleNamespace(value="90"))
    assert heard(told) == Heard(ReportKind.ACCEPTED, 1_000, 2_000, 4, 2)


def test_long_reason_is_cut() -> None:
    found = heard(event("OrderDenied", reason="x" * 500))
    assert found is not None
    assert found.reason == "x" * 200
