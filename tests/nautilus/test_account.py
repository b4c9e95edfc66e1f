"""What a look at an account makes of the exchange's replies, with an API that says what it is told to."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("nautilus_trader", reason="NautilusTrader is not installed (extra nautilus)")

from gpuscalp.execution.messages import ReportKind
from gpuscalp.execution.remote import Heard, RemoteBroker
from gpuscalp.nautilus.account import AccountView
from gpuscalp.schema import E8


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

    def look() -> None:
        asyncio.run(view.look(broker, {}))

    api.trade(10)
    look()
    assert view.other_fees == {}, "older than the session"
    broker.take(Heard(ReportKind.SEEN, 0, 0, symbol=0, trade_id=10))
    api.trade(11)
    look()
    look()
    assert view.other_fees == {"BNB": Decimal("0.01")}
    broker.take(Heard(ReportKind.SEEN, 0, 0, symbol=0, trade_id=11))
    look()
    assert view.other_fees == {"BNB": Decimal("0.01")}
    assert not view._counted, "what is dealt with is forgotten"
