"""Faults of signed requests, and what whoever sends orders must do: with the table of the order's life, and
with a trader that waits for its order."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import aiohttp
import numpy as np
import pytest

from gpuscalp.config import BacktestConfig, CostConfig, RiskConfig, SizingConfig, StrategyConfig
from gpuscalp.errors import ExecutionError
from gpuscalp.exchange.embedded import Exchange
from gpuscalp.execution.booking import book
from gpuscalp.execution.lifecycle import OrderEvent, OrderState, next_state
from gpuscalp.execution.messages import Report, ReportKind
from gpuscalp.live.records import client_id
from gpuscalp.orders import Conditions, Fill, MarketRow, Order, SignalRow
from gpuscalp.schema import E8
from gpuscalp.strategy import SKIP_REASONS
from gpuscalp.trader import Trader
from tests.exchange.scripted import ScriptedSource, silence, take, talking


class Desk:
    """A trader of one symbol that wants to buy at every frame, and the order that it has on its way.

    ``state`` follows the table; nothing but an event of the table moves it.
    """

    def __init__(self) -> None:
        self.trader = Trader(
            BacktestConfig(
                strategy=StrategyConfig(order_usdt=600.0),
                sizing=SizingConfig(target_volatility_bps="off", kelly_fraction="off"),
                risk=RiskConfig(blocked_quality=(), max_trade_risk_pct="off"),
                cost=CostConfig(taker_fee_bps=0.0),
            ),
            ScriptedSource().instruments,
            horizon_ms=1_000,
            trained_until_ns=time.time_ns(),
        )
        self.state = OrderState.NEW
        self._frames = 0
        self.frame()  # without a frame before it nobody knows whether the mid has jumped

    def frame(self, later_s: int = 0) -> tuple[tuple[Order, ...], dict[str, int]]:
        """Decide on the next frame; return the orders, and why there were none."""
        self._frames += 1
        now_ns = time.time_ns() + self._frames + later_s * 10**9
        market = MarketRow(
            end_ns=now_ns,
            bid_px=np.array([600_000], np.int32),
            ask_px=np.array([600_001], np.int32),
            mark=np.array([60_000.0]),
            quality=np.zeros(1, np.uint32),
            age_ms=np.zeros(1, np.float32),
        )
        signals = SignalRow(
            probability=np.array([[0.05, 0.05, 0.9]]),
            agreement=np.ones(1),
            edge_bps=np.array([5.0]),
            spread_bps=np.zeros(1),
        )
        report = self.trader.step(
            market, signals, Conditions(now_ns=now_ns, clock_error_ms=0.0, device_ok=True, extra_quality=None)
        )
        return report.orders, dict(zip(SKIP_REASONS, report.skips.tolist(), strict=True))

    def hear(self, order: Order, event: OrderEvent, kind: ReportKind, fill: Fill | None = None) -> None:
        """Let an event happen to the order, and book what it means."""
        self.state = next_state(self.state, event, order_id=order.order_id)
        left = order.qty_e8 - (0 if fill is None else fill.qty_e8)
        book(
            self.trader,
            Report(
                kind=kind,
                order_id=order.order_id,
                symbol_index=0,
                at_ns=time.time_ns(),
                known_ns=time.time_ns(),
                state=self.state,
                left_e8=left,
                fill=fill,
            ),
        )

    def answer(self, order: Order, found: dict[str, Any]) -> None:
        """Take what the exchange says of an order by its client id."""
        if found.get("code") == -2013:
            self.hear(order, OrderEvent.REJECT, ReportKind.REJECTED)
            return
        assert found["status"] == "FILLED"
        self.hear(order, OrderEvent.ACCEPT, ReportKind.ACCEPTED)
        qty_e8 = round(float(found["executedQty"]) * E8)
        price_e8 = round(float(found["avgPrice"]) * E8)
        now_ns = time.time_ns()
        fill = Fill(order.order_id, 0, order.side, qty_e8, price_e8, 0, now_ns, order.mid2_e8)
        self.hear(order, OrderEvent.FILL_REST, ReportKind.FILL, fill)


@pytest.mark.parametrize("kind", ["timeout_executed", "timeout_lost", "unknown_executed", "unknown_lost"])
async def test_an_order_without_an_answer_has_not_failed_and_blocks_until_a_query_by_its_client_id(
    exchange: Exchange, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with talking(exchange) as client:
        desk = Desk()
        (order,), _ = desk.frame()
        name = client_id(f"{kind:.12}", order.order_id)
        asked = {"quantity": f"{order.qty_e8 / E8:.3f}", "newClientOrderId": name}
        await client.control("POST", "faults", kind=kind, count=1, path="/fapi/v1/order", delay_ms=50)
        try:
            status, told = await client.order(**asked)
            assert (status, told["code"]) == (503, -1000)
        except aiohttp.ClientError:
            assert kind.startswith("timeout")
        # It may have been carried out. Nothing new is wanted while nobody knows.
        for _ in range(3):
            orders, skips = desk.frame()
            assert orders == ()
            assert skips["order_open"] == 1
        assert desk.trader.account.positions[0].qty_e8 == 0
        # The exchange knows the name, or it does not: that alone settles it.
        _, found = await client.signed("GET", "/fapi/v1/order", symbol="BTCUSDT", origClientOrderId=name)
        desk.answer(order, found)
        executed = kind.endswith("executed")
        assert desk.state is (OrderState.FILLED if executed else OrderState.REJECTED)
        assert desk.trader.account.positions[0].qty_e8 == (order.qty_e8 if executed else 0)
        # Held, or free for a new order after a while, which gets a name of its own.
        assert desk.frame()[0] == ()
        again, skips = desk.frame(later_s=0 if executed else 2)
        assert (again == ()) is executed
        assert all(each.order_id > order.order_id for each in again)
        assert skips["order_open"] == 0
        with pytest.raises(ExecutionError):
            next_state(desk.state, OrderEvent.FILL_PART, order_id=order.order_id)
    # A broken connection is what was asked for, and no error of the exchange.
    assert not caplog.records


async def test_a_resting_order_without_an_answer_is_found_open_and_cannot_be_placed_twice_under_its_name(
    exchange: Exchange,
) -> None:
    async with talking(exchange) as client:
        resting = {"type": "LIMIT", "timeInForce": "GTC", "price": "50000.0", "newClientOrderId": "resting-1"}
        await client.control("POST", "faults", kind="timeout_executed", count=1, path="/fapi/v1/order")
        with pytest.raises(aiohttp.ClientError):
            await client.order(**resting)
        # Who sends it again instead of asking is saved by the name, and only by the name.
        assert (await client.order(**resting))[1]["code"] == -4116
        _, found = await client.signed(
            "GET", "/fapi/v1/order", symbol="BTCUSDT", origClientOrderId="resting-1"
        )
        assert found["status"] == "NEW"
        _, canceled = await client.signed(
            "DELETE", "/fapi/v1/order", symbol="BTCUSDT", origClientOrderId="resting-1"
        )
        assert canceled["status"] == "CANCELED"


async def test_a_cancel_without_an_answer_was_carried_out_or_not_and_a_query_says_which(
    exchange: Exchange,
) -> None:
    async with talking(exchange) as client:
        for kind, status in (("timeout_executed", "CANCELED"), ("timeout_lost", "NEW")):
            name = {"origClientOrderId": f"cancel-{kind}", "symbol": "BTCUSDT"}
            placed = {"type": "LIMIT", "timeInForce": "GTC", "price": "50000.0"}
            await client.order(newClientOrderId=name["origClientOrderId"], **placed)
            # Not once: this HTTP client repeats a DELETE by itself when a used connection breaks.
            await client.control("POST", "faults", kind=kind, path="/fapi/v1/order", delay_ms=20)
            with pytest.raises(aiohttp.ClientError):
                await client.signed("DELETE", "/fapi/v1/order", **name)
            await client.control("DELETE", "faults")
            found = (await client.signed("GET", "/fapi/v1/order", **name))[1]
            assert found["status"] == status
            await client.signed("DELETE", "/fapi/v1/order", **name)


async def test_a_refused_timestamp_is_known_to_be_not_executed_and_is_signed_again_by_the_servers_time(
    exchange: Exchange,
) -> None:
    async with talking(exchange) as client:
        await client.control("POST", "faults", kind="clock_skew", skew_ms=7_000)
        status, told = await client.order(newClientOrderId="late-1")
        assert (status, told["code"]) == (400, -1021)
        # A refusal is an answer: the order never was one, and there is nothing to be asked.
        assert next_state(OrderState.NEW, OrderEvent.REJECT, order_id=1) is OrderState.REJECTED
        server_ms = (await client.get("/fapi/v1/time"))["serverTime"]
        client.offset_ms = server_ms - time.time_ns() // 1_000_000
        _, missing = await client.signed(
            "GET", "/fapi/v1/order", symbol="BTCUSDT", origClientOrderId="late-1"
        )
        assert missing["code"] == -2013
        status, told = await client.order(newClientOrderId="late-2", newOrderRespType="RESULT")
        assert (status, told["status"]) == (200, "FILLED")


@pytest.mark.parametrize(("kind", "status"), [("too_many", 429), ("banned", 418), ("maintenance", 503)])
async def test_an_order_refused_at_the_door_is_not_executed_and_what_waits_in_vain_says_how_long(
    exchange: Exchange, kind: str, status: int
) -> None:
    async with talking(exchange) as client:
        await client.control("POST", "faults", kind=kind, count=1, path="/fapi/v1/order", retry_after_s=7)
        async with client.http.post(f"{client.urls['rest']}/fapi/v1/order") as reply:
            assert reply.status == status
            told = await reply.json()
            # Maintenance has no end that anybody knows.
            assert reply.headers.get("Retry-After") == (None if kind == "maintenance" else "7")
        if kind == "banned":
            until_ms = int(told["msg"].partition("until ")[2].partition(".")[0])
            assert 5_000 < until_ms - time.time() * 1_000 < 8_000
        _, positions = await client.signed("GET", "/fapi/v1/openOrders", symbol="BTCUSDT")
        assert positions == []


async def test_what_an_expired_listen_key_has_kept_silent_is_found_by_rest_and_a_new_key_goes_on(
    exchange: Exchange,
) -> None:
    async with talking(exchange) as client:
        _, key = await client.signed("POST", "/fapi/v1/listenKey")
        async with client.stream(f"/private/ws/{key['listenKey']}") as old:
            await client.control("POST", "faults", kind="listen_key")
            assert (await take(old, 1))[0]["e"] == "listenKeyExpired"
            # The order is carried out, and its stream says nothing: silence is no answer.
            await client.order(newClientOrderId="unheard")
            assert await silence(old)
        _, found = await client.signed("GET", "/fapi/v1/order", symbol="BTCUSDT", origClientOrderId="unheard")
        assert found["status"] == "FILLED"
        _, fills = await client.signed("GET", "/fapi/v1/userTrades", symbol="BTCUSDT")
        assert found["orderId"] in {each["orderId"] for each in fills}
        _, new = await client.signed("POST", "/fapi/v1/listenKey")
        assert new["listenKey"] != key["listenKey"]
        async with client.stream(f"/private/ws/{new['listenKey']}") as stream:
            await client.order(newClientOrderId="heard")
            async with asyncio.timeout(5):
                while True:
                    event = (await take(stream, 1))[0]
                    if event["e"] == "ORDER_TRADE_UPDATE" and event["o"]["X"] == "FILLED":
                        break
            assert event["o"]["c"] == "heard"
