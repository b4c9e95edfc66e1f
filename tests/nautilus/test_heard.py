"""What an execution that NautilusTrader tells of becomes: each of its words, by itself."""

from __future__ import annotations

from decimal import Decimal
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("nautilus_trader", reason="NautilusTrader is not installed (extra nautilus)")

from nautilus_trader.model.currencies import USDT
from nautilus_trader.model.enums import LiquiditySide, OrderSide
from nautilus_trader.model.objects import Money, Price, Quantity

from gpuscalp.execution.messages import ReportKind
from gpuscalp.execution.remote import Heard
from gpuscalp.nautilus.heard import heard_of
from gpuscalp.schema import E8


def event(name: str, **more: Any) -> Any:
    return type(name, (SimpleNamespace,), {})(ts_event=1_000, **more)


@pytest.mark.nautilus
@pytest.mark.parametrize(("theirs", "side"), [(OrderSide.BUY, 1), (OrderSide.SELL, -1)])
@pytest.mark.parametrize(("liquidity", "maker"), [(LiquiditySide.MAKER, True), (LiquiditySide.TAKER, False)])
def test_fill_is_heard_with_its_side_and_whether_it_rested(
    theirs: OrderSide, side: int, liquidity: LiquiditySide, maker: bool
) -> None:
    told = event(
        "OrderFilled",
        trade_id="7",
        venue_order_id=SimpleNamespace(value="90"),
        commission=Money(Decimal("0.00012345"), USDT),
        order_side=theirs,
        last_qty=Quantity.from_str("0.001"),
        last_px=Price.from_str("60000.1"),
        liquidity_side=liquidity,
    )
    found = heard_of(told, 4, 2, now_ns=2_000, quote="USDT", cancelling=False, filled_e8=0)
    assert found == Heard(
        ReportKind.FILL, 1_000, 2_000, 4, 2, venue_id=90, trade_id=7, side=side, qty_e8=E8 // 1_000,
        price_e8=6_000_010_000_000, fee_e8=12_345, maker=maker, reason="",
    )  # fmt: skip


@pytest.mark.parametrize("cancelling", [True, False])
def test_end_is_a_cancellation_where_we_asked_for_it(cancelling: bool) -> None:
    told = event("OrderCanceled")
    found = heard_of(told, 4, 2, now_ns=2_000, quote="USDT", cancelling=cancelling, filled_e8=5)
    kind = ReportKind.CANCELED if cancelling else ReportKind.EXPIRED
    assert found == Heard(kind, 1_000, 2_000, 4, 2, executed_e8=5)
