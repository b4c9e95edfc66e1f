"""A gate with limits of its own, and a question that passes all of them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgspec
import numpy as np

from gpuscalp.config import RiskConfig
from gpuscalp.risk.gate import RiskGate
from gpuscalp.risk.rules import Question
from gpuscalp.schema import NS_PER_DAY

E8 = 10**8
MS = 1_000_000
SECOND = 10**9
START = 10_000 * E8
NOON = 19_000 * NS_PER_DAY + NS_PER_DAY // 2

GOOD = Question(
    reducing=False,
    predicted=True,
    order_usdt=1_000.0,
    position_usdt=1_000.0,
    gross_usdt=1_000.0,
    leverage=0.1,
    trade_risk_pct=0.01,
    min_notional_usdt=100.0,
    open_orders_total=1,
    since_trade_ms=1_000.0,
    spread_bps=1.0,
    quote_age_ms=50.0,
    collar_bps=2.0,
    jump_bps=0.5,
    volatility_bps=1.0,
    pause_ms=0.0,
    blocked_quality=0,
    clock_error_ms=1.0,
    prediction_age_ms=20.0,
    model_age_h=5.0,
    device_faults=0,
    edge_bps=10.0,
    probability_error=0.0,
    confidence=0.6,
    agreement=1.0,
)
LIMITS = RiskConfig(
    max_position_usdt=5_000.0, max_gross_usdt=20_000.0, max_order_usdt=2_000.0, max_leverage=3.0,
    max_trade_risk_pct=0.5, max_daily_loss_usdt=500.0, max_drawdown_pct=10.0, max_orders_per_s=8,
    max_orders_per_minute=40, exit_reserve=0.25, min_interval_ms=200,
    max_open_orders_total=6, max_spread_bps=5.0, max_quote_age_ms=2_000, max_collar_bps=100.0,
    max_jump_bps=50.0, max_volatility_bps=30.0, volatility_pause_ms=1_000, max_clock_error_ms=250.0,
    max_prediction_age_ms=300.0, max_model_age_h=168.0, max_edge_bps=80.0, min_confidence=0.34,
    min_agreement=0.5, max_losses=3, loss_pause_ms=5_000, breaker_trips_max=2,
)  # fmt: skip


def gate(config: RiskConfig = LIMITS, symbol_count: int = 2) -> RiskGate:
    made = RiskGate(config, start_e8=START, symbol_count=symbol_count)
    made.observe(NOON, START)
    return made


def with_limits(**changes: Any) -> RiskConfig:
    return msgspec.structs.replace(LIMITS, **changes)


def exit_of(question: Question, *, predicted: bool) -> Question:
    return replace(question, reducing=True, predicted=predicted)


def wild(judge: RiskGate, at_ms: int, *volatility: float) -> tuple[float, ...]:
    """Let symbols be as volatile as that; return what is left of their pauses, ms."""
    judge.observe(NOON + at_ms * MS, START, np.array(volatility))
    return tuple(judge.pause_ms(index) for index in range(len(volatility)))
