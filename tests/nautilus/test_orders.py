"""Each kind of order of ours as NautilusTrader submits it, made by its own factory."""

from __future__ import annotations

from decimal import Decimal
from itertools import count, product

import pytest

pytest.importorskip("nautilus_trader", reason="NautilusTrader is not installed (extra nautilus)")

from nautilus_trader.common.component import TestClock
from nautilus_trader.common.factories import OrderFactory
from nautilus_trader.model.enums import OrderSide, OrderType, TriggerType
from nautilus_trader.model.enums import TimeInForce as Theirs
from nautilus_trader.model.identifiers import ClientOrderId, StrategyId, TraderId

from gpuscalp.execution.messages import OrderRequest
from gpuscalp.nautilus.instruments import to_nautilus
from gpuscalp.nautilus.orders import order_of
from gpuscalp.orders import BUY, SELL, OrderKind, TimeInForce
from gpuscalp.schema import E8, Instrument

# tick 0.10, step 0.001
COIN = Instrument("BTCUSDT", "binance_usdm", E8 // 10, E8 // 1_000, E8 // 1_000, 5 * E8, "exchange_info")
TYPES = {
    OrderKind.MARKET: OrderType.MARKET,
    OrderKind.LIMIT: OrderType.LIMIT,
    OrderKind.STOP_MARKET: OrderType.STOP_MARKET,
}
FORCES = {"gtc": Theirs.GTC, "gtx": Theirs.GTC, "ioc": Theirs.IOC, "fok": Theirs.FOK}
CASES = [
    *product([OrderKind.MARKET], ["ioc"], [True, False]),
    *product([OrderKind.LIMIT], FORCES, [True, False]),
    *product([OrderKind.STOP_MARKET], ["gtc"], [True]),
]


@pytest.mark.nautilus
@pytest.mark.parametrize("side", [BUY, SELL])
def test_order_is_submitted_as_it_was_meant(side: int) -> None:
    """A side, a price or a post-only that were lost here would be lost at the exchange."""
    factory = OrderFactory(TraderId("GPU-001"), StrategyId("S-001"), clock=TestClock())
    instrument, numbers = to_nautilus(COIN), count(1)
    for kind, force, reduce_only in CASES:
        price = 0 if kind is OrderKind.MARKET else 6_000_010_000_000
        asked = OrderRequest(1, 0, side, 12_300_000, price, kind, TimeInForce(force), reduce_only)
        name = ClientOrderId(f"gs-s-{next(numbers)}")
        made = order_of(factory, asked, instrument, name, market=Theirs.IOC)
        assert made.client_order_id == name
        assert made.instrument_id == instrument.id
        assert made.order_type == TYPES[kind]
        assert made.side == (OrderSide.BUY if side > 0 else OrderSide.SELL)
        assert made.quantity.as_decimal() == Decimal("0.123")
        assert made.is_reduce_only == reduce_only
        assert made.time_in_force == FORCES[force]
        if kind is OrderKind.LIMIT:
            assert made.price.as_decimal() == Decimal("60000.1")
            assert made.is_post_only == (force == "gtx")
        elif kind is OrderKind.STOP_MARKET:
            assert made.trigger_price.as_decimal() == Decimal("60000.1")
            assert made.trigger_type == TriggerType.LAST_PRICE
