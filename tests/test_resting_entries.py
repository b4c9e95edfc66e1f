"""When an entry that rests is cancelled, and when it goes on."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from gpuscalp.risk.gate import RiskEvent
from gpuscalp.schema import Quality
from tests.trading import DOWN, MS, NAN, NOW, RESTS, UP, market, resting, signals, step, trader


def test_entry_is_cancelled_when_its_time_is_up_and_asked_again_when_nobody_answers() -> None:
    machine, order = resting()
    cancels = {at: step(machine, market(at), UP).cancels for at in (100, 400, 500, 600, 2_400, 2_500)}
    asked = [at for at, ids in cancels.items() if ids]
    assert asked == [500, 2_500]
    assert cancels[500] == (order.order_id,)


@pytest.mark.parametrize(
    "why",
    [
        "opinion", "gate", "losses", "volatility", "frame", "program", "device", "clock", "model", "age",
        "spread", "mark", "jump",
    ],
)  # fmt: skip
def test_entry_is_cancelled_when_nobody_wants_it_or_it_would_not_be_opened_any_more(why: str) -> None:
    """One that rested went on through a pause after losses or volatility, and was filled in it."""
    limits = {"max_losses": 1, "max_model_age_h": 1.0, "max_collar_bps": 50.0}
    machine, order = resting(sections={"risk": limits, "other": {"trained_until_ns": NOW}})
    if why == "gate":
        machine.apply(RiskEvent.HALT_ENTRIES, 0)
    if why == "losses":
        machine.gate.on_trade(-1)
    if why == "model":
        machine.trained_until_ns = NOW - 3_600 * 10**9
    bid = {"volatility": 602_000, "jump": 603_100}.get(why, 600_000)
    row = market(
        100,
        bid=(bid, 20_000),
        spread=(500 if why == "spread" else 1, 1),
        quality=(Quality.GAP if why == "frame" else Quality.LATE, Quality.GAP),
        age_ms=2_001.0 if why == "age" else 10.0,
    )
    if why == "mark":
        row.mark[0] = 61_000.0
    extra = np.array([Quality.CLOCK_DRIFT if why == "program" else 0, Quality.GAP], np.uint32)
    conditions: dict[str, Any] = {"device": {"device_ok": False}, "clock": {"clock_error_ms": NAN}}.get(
        why, {}
    )
    done = step(machine, row, DOWN if why == "opinion" else UP, extra_quality=extra, **conditions)
    assert done.cancels == (order.order_id,)


def test_decision_that_comes_late_or_a_limit_on_new_entries_cancels_nothing() -> None:
    limits = {"max_prediction_age_ms": 50.0, "max_open_orders_total": 1, "max_gross_usdt": 1_000.0}
    machine, _ = resting(sections={"risk": limits})
    row = market(100)
    weak = signals(-50.0, NAN, confidence=0.30)
    assert step(machine, row, weak, now_ns=row.end_ns + 60 * MS).cancels == ()


def test_doubts_about_another_symbol_or_a_weak_opinion_cancel_nothing() -> None:
    machine, _ = resting()
    extra = np.array([0, Quality.GAP], np.uint32)
    weak = signals(-50.0, NAN, confidence=0.35)
    assert step(machine, market(100, quality=(0, Quality.GAP)), weak, extra_quality=extra).cancels == ()


def test_no_entry_rests_longer_than_a_position_is_held() -> None:
    machine = trader(orders={**RESTS, "post_only_ms": 60_000})
    (order,) = step(machine, market(0), UP).orders
    assert step(machine, market(900), UP).cancels == ()
    assert step(machine, market(1_000), UP).cancels == (order.order_id,)
