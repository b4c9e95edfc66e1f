"""At least 10,000 steps of the machine in tests/risk/machine.py, and what chance may not bring each time."""

from __future__ import annotations

from collections import Counter

from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.risk.machine import MS, RiskMachine
from tests.thorough import THOROUGH

# The test fails if Hypothesis ran fewer rules than that.
STEPS_MIN = 10_000
# About 42 steps each.
EXAMPLES, STEPS_PER_EXAMPLE = 400 if THOROUGH else 300, 50


def test_whatever_comes_no_limit_is_passed_and_no_unit_is_lost() -> None:
    RiskMachine.step_count, RiskMachine.seen = 0, Counter()
    run_state_machine_as_test(
        RiskMachine,
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=STEPS_PER_EXAMPLE,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
    assert RiskMachine.step_count >= STEPS_MIN
    # A machine that never trades, or never meets its rules, would prove nothing.
    assert set(+RiskMachine.seen) >= {
        "entry", "exit", "active", "reducing", "halted", "HALTED", "REDUCING", "ORDER_RATE_S", "ENTRY_RATE_S",
        "DEVICE", "QUALITY", "NO_SIZE", "VOLATILITY", "COOL_DOWN", "maker", "would not rest",
    }, RiskMachine.seen  # fmt: skip


def prepared(**limits: float) -> RiskMachine:
    machine = RiskMachine()
    wide = {
        "max_order_usdt": 1_200.0, "max_position_usdt": 1_500.0, "max_gross_usdt": 9_000.0,
        "max_leverage": 20.0, "max_trade_risk_pct": 5.0, "max_daily_loss_usdt": 1e6, "max_drawdown_pct": 99.0,
        "max_orders_per_s": 20, "max_orders_per_minute": 200, "min_interval_ms": 0,
        "max_open_orders_total": 4, "max_volatility_bps": 2_000.0, "max_jump_bps": 800.0, "max_losses": 1_000,
        "breaker_trips_max": 3, "max_model_age_h": 1_000.0,
    }  # fmt: skip
    machine.start({**wide, **limits}, 100, 1_000.0, False, (3.0, 10.0), 1, "next")
    return machine


def all_invariants(machine: RiskMachine) -> None:
    machine.state_is_as_the_events_say()
    machine.nothing_is_at_the_broker_that_was_not_accepted()
    machine.money_balances_to_the_last_unit()


def test_liquidation_reaches_the_trader_as_fills_of_nobody() -> None:
    machine = prepared()
    machine.sound_frames_close((1, 0), [0, 0])
    assert machine.oracle.symbols[0].qty > 0
    RiskMachine.seen = Counter()
    machine.market_turns_against_us(1_000)
    assert machine.seen["liquidation"] == 1
    machine.sound_frames_close((0, 0), [0, 0])
    all_invariants(machine)
    assert [one.qty for one in machine.oracle.symbols] == [0, 0]
    assert machine.trader.open_orders == {}
    assert not machine.inbox


def test_flattening_goes_on_until_nothing_is_held() -> None:
    machine = prepared()
    machine.sound_frames_close((1, -1), [0, 0])
    machine.operator_stops("flatten")
    RiskMachine.seen = Counter()
    # Nothing but a few units on offer, at new prices each time: every frame closes a part.
    for _ in range(12):
        for symbol in (0, 1):
            machine.now_ns += 20 * MS
            machine.display(symbol, 3, 1, [1, 1, 1], [1, 1, 1], far=0)
        machine.close_sound_frame(20, (1, 1))
        all_invariants(machine)
    assert machine.seen["flattened"] > 2
    assert machine.trader.gate.halted
    assert not machine.flattening
    assert [one.qty for one in machine.oracle.symbols] == [0, 0]


def test_restart_while_orders_are_on_their_way_loses_nothing() -> None:
    machine = prepared()
    machine.close_sound_frame(100, (1, -1))
    assert len(machine.oracle.open) == 2
    machine.process_restarts()
    machine.sound_frames_close((1, -1), [0, 0, 0, 0, 0, 0, 0])
    all_invariants(machine)
    assert machine.oracle.ids == sorted(set(machine.oracle.ids))
    assert len(machine.oracle.ids) >= 4
