"""A trader over two symbols with good conditions: what the tests of the trading step start from."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from gpuscalp.config import (
    AccountConfig,
    BacktestConfig,
    CostConfig,
    OrdersConfig,
    RiskConfig,
    SizingConfig,
    StrategyConfig,
)
from gpuscalp.orders import Conditions, Fill, MarketRow, Order, SignalRow
from gpuscalp.schema import Instrument
from gpuscalp.trader import StepReport, Trader

E8 = 10**8
MS = 1_000_000
NOW = 1_700_000_000 * 10**9
INSTRUMENTS = (
    Instrument("AAAUSDT", "synthetic", 10_000_000, 100_000, 100_000, 100 * E8, "synthetic"),
    Instrument("BBBUSDT", "synthetic", 1_000, E8, E8, 5 * E8, "synthetic"),
)


# Sizes as asked for; tests/risk/test_sizing.py has the factors.
PLAIN: dict[str, Any] = {"target_volatility_bps": "off", "kelly_fraction": "off", "drawdown": False}


def trader(*, warm: bool = True, **sections: dict[str, Any]) -> Trader:
    """Return a trader that has seen one frame before the first one, so that the move to it is known."""
    made = Trader(
        BacktestConfig(
            strategy=StrategyConfig(**sections.get("strategy", {})),
            sizing=SizingConfig(**{**PLAIN, **sections.get("sizing", {})}),
            risk=RiskConfig(**{"max_model_age_h": "off", **sections.get("risk", {})}),
            cost=CostConfig(taker_fee_bps=5.0),
            account=AccountConfig(start_usdt=10_000.0),
            orders=OrdersConfig(**sections.get("orders", {})),
        ),
        INSTRUMENTS,
        horizon_ms=1_000,
        **{"trained_until_ns": None, **sections.get("other", {})},
    )
    if warm:
        step(made, market(-100), NOTHING)
    return made


def step(machine: Trader, row: MarketRow, said: SignalRow, **changes: Any) -> StepReport:
    """Step under good conditions, 20 ms after the end of the frame."""
    good = Conditions(now_ns=row.end_ns + 20 * MS, clock_error_ms=0.0, device_ok=True, extra_quality=None)
    return machine.step(row, said, replace(good, **changes))


def market(
    at_ms: int,
    bid: tuple[int, int] = (600_000, 20_000),
    spread: tuple[int, int] = (1, 1),
    quality: tuple[int, int] = (0, 0),
    age_ms: float = 10.0,
) -> MarketRow:
    bids = np.array(bid, np.int32)
    return MarketRow(
        end_ns=NOW + at_ms * MS,
        bid_px=bids,
        ask_px=(bids + np.array(spread)).astype(np.int32),
        mark=np.array([price * one.tick_size_e8 / E8 for price, one in zip(bid, INSTRUMENTS, strict=True)]),
        quality=np.array(quality, np.uint32),
        age_ms=np.full(2, age_ms, np.float32),
    )


def signals(*edges: float, confidence: float = 0.7) -> SignalRow:
    low = (1 - confidence) / 2
    return SignalRow(
        probability=np.array(
            [[low, low, confidence] if edge > 0 else [confidence, low, low] for edge in edges]
        ),
        agreement=np.ones(len(edges)),
        edge_bps=np.array(edges, dtype=np.float64),
        spread_bps=np.zeros(len(edges)),
    )


NAN = float("nan")
UP, DOWN, NOTHING = signals(50.0, NAN), signals(-50.0, NAN), signals(NAN, NAN)
# What the first symbol costs in ``market(0)``.
ASK_E8 = 6_000_010_000_000


def fill(order: Order, price_e8: int, qty_e8: int | None = None, at_ms: int = 0) -> Fill:
    qty = order.qty_e8 if qty_e8 is None else qty_e8
    return Fill(
        order_id=order.order_id,
        symbol_index=order.symbol_index,
        side=order.side,
        qty_e8=qty,
        price_e8=price_e8,
        fee_e8=0,
        exec_ns=NOW + at_ms * MS,
        mid2_e8=2 * price_e8,
    )


def complete(machine: Trader, order: Order, price_e8: int, *, at_ms: int = 0) -> None:
    """Fill an order in full, and end it."""
    machine.on_fill(fill(order, price_e8, at_ms=at_ms))
    machine.on_done(order.order_id)


def enter(machine: Trader) -> Order:
    """Let a trader buy the first symbol; return the order, filled at the ask."""
    (order,) = step(machine, market(0), UP).orders
    complete(machine, order, ASK_E8)
    return order


def held() -> Trader:
    machine = trader()
    enter(machine)
    return machine


RESTS: dict[str, Any] = {"entry": "post_only", "post_only_ms": 500}


def resting(*, sections: dict[str, Any] | None = None, **orders: Any) -> tuple[Trader, Order]:
    """Return a trader whose entry rests since 0 ms."""
    machine = trader(orders={**RESTS, **orders}, **(sections or {}))
    (order,) = step(machine, market(0), UP).orders
    return machine, order
