"""What tests/risk/machine.py draws: limits, books, views of a frame, conditions; a memory of each book."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from hypothesis import strategies as st

from gpuscalp.orders import SignalRow

LIMITS = st.fixed_dictionaries(
    {
        "max_order_usdt": st.sampled_from([1_200.0, 333.33]),
        "max_position_usdt": st.sampled_from([1_500.0, 700.0]),
        "max_gross_usdt": st.sampled_from([9_000.0, 1_800.0]),
        "max_leverage": st.sampled_from([20.0, 20.0, 0.9]),
        "max_trade_risk_pct": st.sampled_from([5.0, 0.2]),
        "max_daily_loss_usdt": st.sampled_from([1e6, 2.0, 20.0]),
        "max_drawdown_pct": st.sampled_from([90.0, 1.0]),
        "max_orders_per_s": st.sampled_from([20, 4, 2]),
        "max_orders_per_minute": st.sampled_from([200, 8]),
        "min_interval_ms": st.sampled_from([0, 150]),
        "max_open_orders_total": st.sampled_from([4, 1]),
        "max_volatility_bps": st.sampled_from([2_000.0, 2_000.0, 150.0, 40.0]),
        "max_jump_bps": st.sampled_from([800.0, 30.0]),
        "max_losses": st.sampled_from([1_000, 2, 1]),
        "breaker_trips_max": st.sampled_from([3, 0, 1]),
        "max_model_age_h": st.sampled_from([1_000.0, 1_000.0, 1_000.0, 13.0]),
    }
)
FIXED: dict[str, Any] = {
    "risk_sigmas": 4.0, "exit_reserve": 0.25, "max_spread_bps": 6.0,
    "max_quote_age_ms": 1_000, "max_collar_bps": 200.0, "volatility_ms": 1_000, "volatility_pause_ms": 700,
    "max_clock_error_ms": 300.0, "max_prediction_age_ms": 200.0, "max_edge_bps": 90.0,
    "min_confidence": 0.35, "min_agreement": 0.4, "loss_pause_ms": 900,
}  # fmt: skip
QTY = st.sampled_from([3, 1, 9, 40])
SIDE_LEVELS = st.lists(QTY, min_size=3, max_size=3)
MOVE = st.sampled_from([0, 1, -1, 2, -3, 10, -10, 40, -60, 700, -1_500])
# Of one symbol at one frame; mostly sound, so that orders do come about.
VIEW = st.fixed_dictionaries(
    {
        "edge": st.sampled_from([20.0, -20.0, 20.0, -20.0, 4.0, -4.0, math.nan, 0.0, 95.0]),
        "confidence": st.sampled_from([0.7, 0.7, 0.7, 0.36, 0.33, math.nan]),
        "agreement": st.sampled_from([1.0, 1.0, 1.0, 0.4, 0.39]),
        "spread": st.sampled_from([0.0, 2.0, 30.0, math.nan]),
        "sum": st.sampled_from([0.0, 0.0, 0.0, 0.0, 0.01]),
        "quality": st.sampled_from([0, 0, 0, 0, 0, 1, 8, 16, 64]),
        "age_ms": st.sampled_from([10.0, 10.0, 10.0, 1_000.0, 1_001.0, math.nan]),
        "quote": st.sampled_from(["as shown", "as shown", "as shown", "as shown", "none", "crossed"]),
    }
)
CONDITIONS = st.fixed_dictionaries(
    {
        "late_ms": st.sampled_from([5, 5, 5, 150, 201]),
        "clock": st.sampled_from([0.0, 0.0, -300.0, 301.0, math.nan]),
        "device": st.sampled_from([True, True, True, False]),
        "extra": st.sampled_from([None, None, None, (0, 4), (2, 0)]),
    }
)


@dataclass
class Shown:
    """What one side of one symbol's book has ever offered, and what was taken of it."""

    levels: dict[int, int] = field(default_factory=dict)
    offered: dict[int, int] = field(default_factory=dict)
    taken: dict[int, int] = field(default_factory=dict)

    def show(self, levels: dict[int, int]) -> None:
        for price, qty in levels.items():
            more = max(0, qty - self.levels.get(price, 0))
            self.offered[price] = self.offered.get(price, 0) + more
        self.levels = levels

    def take(self, side: int, price: int, qty: int) -> None:
        best = min(self.levels) if side > 0 else max(self.levels)
        assert side * (price - best) >= 0, "a taker is never better off than the book"
        self.taken[price] = self.taken.get(price, 0) + qty
        assert self.taken[price] <= self.offered.get(price, 0), "a displayed unit is taken once"


def signals(views: tuple[dict[str, Any], ...]) -> SignalRow:
    chances = []
    for view in views:
        rest = (1.0 - view["confidence"]) / 2
        row = [rest, rest, view["confidence"]] if view["edge"] > 0 else [view["confidence"], rest, rest]
        row[1] += view["sum"]
        chances.append(row)
    return SignalRow(
        probability=np.array(chances),
        agreement=np.array([view["agreement"] for view in views]),
        edge_bps=np.array([view["edge"] for view in views]),
        spread_bps=np.array([view["spread"] for view in views]),
    )
