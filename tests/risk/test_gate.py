"""Every pair of state and event; losses latch; what is kept is all that is needed."""

from __future__ import annotations

from dataclasses import astuple
from math import nextafter
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuscalp import object_graph
from gpuscalp.config import RiskConfig
from gpuscalp.errors import ConfigError, UsageError
from gpuscalp.risk.gate import RiskEvent, RiskGate, RiskState
from gpuscalp.schema import NS_PER_DAY, Quality
from tests.gates import E8, GOOD, NOON, START, exit_of, gate, wild, with_limits


def test_daily_loss_latches_into_reducing_at_the_limit() -> None:
    judge = gate()
    assert judge.observe(NOON + 1, START - 500 * E8 + 1) is None
    assert judge.judge(GOOD).accepted
    assert judge.observe(NOON + 2, START - 500 * E8) is RiskEvent.DAILY_LOSS
    assert (judge.state, judge.cause, judge.since_ns) == (RiskState.REDUCING, RiskEvent.DAILY_LOSS, NOON + 2)
    # The loss is won back, midnight passes: the gate stays where it is until somebody re-arms it.
    assert judge.observe(NOON + NS_PER_DAY, START + 500 * E8) is None
    assert judge.judge(GOOD).code == "REDUCING"
    assert judge.judge(exit_of(GOOD, predicted=True)).accepted
    assert judge.apply(RiskEvent.REARM, NOON + NS_PER_DAY) is RiskState.ACTIVE
    assert judge.judge(GOOD).accepted


def test_loss_rules_refuse_by_themselves_at_the_limit() -> None:
    """The latch closes the gate; the two rules stand behind it, should the state be wrong."""
    judge = gate()
    judge.observe(NOON + 1, START - 500 * E8)
    judge.state = RiskState.ACTIVE
    assert judge.judge(GOOD).code == "DAILY_LOSS"
    judge.daily_loss_usdt = nextafter(500.0, 0.0)
    assert judge.judge(GOOD).accepted
    judge.drawdown_pct = 10.0
    assert judge.judge(GOOD).code == "DRAWDOWN"
    judge.drawdown_pct = nextafter(10.0, 0.0)
    assert judge.judge(GOOD).accepted


def test_daily_loss_counts_from_the_equity_before_midnight() -> None:
    judge = gate()
    judge.observe(NOON + 1, START - 400 * E8)
    midnight = NOON + NS_PER_DAY // 2
    assert judge.observe(midnight, START - 700 * E8) is None
    assert judge.daily_loss_usdt == 300.0
    assert judge.observe(midnight + 1, START - 900 * E8) is RiskEvent.DAILY_LOSS


def test_drawdown_counts_from_the_highest_equity() -> None:
    judge = gate(with_limits(max_daily_loss_usdt=1e9))
    judge.observe(NOON, 2 * START)
    assert judge.observe(NOON + 1, 2 * START - 2_000 * E8 + 1) is None
    assert judge.observe(NOON + 2, 2 * START - 2_000 * E8) is RiskEvent.DRAWDOWN
    assert judge.drawdown_pct == 10.0


def test_rearmed_gate_measures_from_the_equity_of_now() -> None:
    judge = gate()
    judge.observe(NOON + 1, START - 600 * E8)
    judge.apply(RiskEvent.REARM, NOON + 1)
    assert judge.observe(NOON + 2, START - 700 * E8) is None
    assert judge.daily_loss_usdt == 100.0


def test_pause_gives_no_limit_anew() -> None:
    """Whoever halted and resumed in time could lose five times a day's limit on one day."""
    judge = gate()
    judge.observe(NOON, START + 100 * E8)
    judge.observe(NOON + 1, START - 400 * E8)
    for stop in (RiskEvent.HALT_ENTRIES, RiskEvent.ALARM, RiskEvent.HALT):
        judge.apply(stop, NOON + 2)
        judge.apply(RiskEvent.REARM, NOON + 2)
        assert (judge.daily_loss_usdt, judge.drawdown_pct) == (400.0, 100 * 500 / 10_100)
    assert judge.observe(NOON + 3, START - 500 * E8) is RiskEvent.DAILY_LOSS


@pytest.mark.parametrize("recovered", [0, 1])
def test_of_loss_and_drawdown_the_one_that_reached_its_limit_begins_anew(recovered: int) -> None:
    """Also where it lies below again by what the exits brought: it would latch at the next trade."""
    judge = gate()
    judge.observe(NOON + 1, START - 500 * E8)
    judge.observe(NOON + 2, START - 500 * E8 + recovered)
    judge.apply(RiskEvent.REARM, NOON + 2)
    assert judge.daily_loss_usdt == 0.0
    assert judge.drawdown_pct == pytest.approx(5.0)
    judge = gate(with_limits(max_daily_loss_usdt=5_000.0))
    judge.observe(NOON + 1, START - 1_000 * E8)
    judge.observe(NOON + 2, START - 1_000 * E8 + recovered)
    judge.apply(RiskEvent.REARM, NOON + 2)
    assert judge.daily_loss_usdt == pytest.approx(1_000.0)
    assert judge.drawdown_pct == 0.0
    # Reached while the gate was closed for another reason.
    judge.apply(RiskEvent.HALT_ENTRIES, NOON + 2)
    judge.observe(NOON + 3, START - 5_000 * E8)
    judge.apply(RiskEvent.REARM, NOON + 3)
    assert judge.observe(NOON + 4, START - 5_000 * E8) is None


# What every pair leads to, written out; None = refused.
A, R, H = RiskState.ACTIVE, RiskState.REDUCING, RiskState.HALTED
PAIRS: dict[str, tuple[RiskState | None, RiskState | None, RiskState | None]] = {
    # event: from ACTIVE, from REDUCING, from HALTED
    "daily_loss": (R, R, H),
    "drawdown": (R, R, H),
    "loss_streak": (R, R, H),
    "halt_entries": (R, R, H),
    "reduce": (R, R, H),
    "flatten": (H, H, H),
    "stranger": (R, R, H),
    "alarm": (R, R, H),
    "halt": (H, H, H),
    "rearm": (None, A, A),
}


@pytest.mark.parametrize("state", list(RiskState))
@pytest.mark.parametrize("event", list(RiskEvent))
def test_every_pair_of_state_and_event(state: RiskState, event: RiskEvent) -> None:
    judge = gate()
    judge.state, judge.cause = state, RiskEvent.DRAWDOWN
    expected = PAIRS[event.value][[A, R, H].index(state)]
    if expected is None:
        with pytest.raises(UsageError, match="no transition"):
            judge.apply(event, NOON)
        assert (judge.state, judge.cause) == (state, RiskEvent.DRAWDOWN)
        return
    assert judge.apply(event, NOON + 7) is expected is judge.state
    # The cause is what led to the state, not what came after.
    assert judge.cause is (event if expected is not state else RiskEvent.DRAWDOWN)
    assert (judge.since_ns == NOON + 7) == (expected is not state)
    assert judge.judge(GOOD).accepted == (expected is A)
    assert judge.judge(exit_of(GOOD, predicted=False)).accepted == (expected is not H)


def test_what_comes_to_a_closed_gate_is_remembered_until_it_is_armed() -> None:
    """A stranger or an alarm at night, after a halt in the evening, had left no trace to be told of."""
    judge = gate()
    for event in (RiskEvent.HALT_ENTRIES, RiskEvent.STRANGER, RiskEvent.ALARM, RiskEvent.ALARM):
        judge.apply(event, NOON)
    assert judge.causes == [RiskEvent.HALT_ENTRIES, RiskEvent.STRANGER, RiskEvent.ALARM]
    # As a checkpoint keeps it.
    again = object_graph.decode(object_graph.encode(judge, external={}), external={})
    assert again.causes == judge.causes
    judge.apply(RiskEvent.REARM, NOON)
    assert judge.causes == []


def test_limit_that_is_just_reached_beside_the_one_that_latched_begins_anew_too() -> None:
    judge = gate()
    assert judge.observe(NOON + 1, START * 9 // 10) is RiskEvent.DAILY_LOSS
    assert judge.drawdown_pct == 10.0
    judge.apply(RiskEvent.REARM, NOON + 2)
    assert judge.observe(NOON + 3, START * 9 // 10) is None
    assert judge.state is RiskState.ACTIVE


def test_halted_gate_passes_nothing() -> None:
    judge = gate()
    judge.apply(RiskEvent.HALT, NOON)
    for question in (GOOD, exit_of(GOOD, predicted=True), exit_of(GOOD, predicted=False)):
        assert judge.judge(question).code == "HALTED"


def test_gate_with_nothing_left_cannot_be_rearmed() -> None:
    judge = gate()
    judge.observe(NOON + 1, 0)
    with pytest.raises(UsageError, match="no equity"):
        judge.apply(RiskEvent.REARM, NOON + 1)
    assert judge.state is RiskState.REDUCING


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("equity"), st.integers(-2 * START, 2 * START)),
        st.tuples(st.just("trade"), st.integers(-2, 1)),
        st.tuples(st.just("wild"), st.integers(0, 1)),
        st.tuples(st.just("order"), st.just(0)),
        st.tuples(st.just("event"), st.sampled_from(list(RiskEvent))),
    ),
    max_size=40,
)


def do(judge: RiskGate, at_ns: int, what: tuple[str, Any]) -> object:
    kind, value = what
    if kind == "trade":
        return judge.on_trade(value)
    if kind == "order":
        return judge.on_order(at_ns)
    if kind == "event":
        try:
            return judge.apply(value, at_ns)
        except UsageError as error:
            return str(error)
    volatility = np.array([99.0, 0.0][value:] + [0.0][:value]) if kind == "wild" else None
    equity = START + value if kind == "equity" else START
    return judge.observe(at_ns, equity, volatility), judge.judge(GOOD), judge.pause_ms(0), judge.pause_ms(1)


@given(STEPS, STEPS, st.integers(1, NS_PER_DAY // 4))
def test_restored_gate_answers_as_the_one_that_was_kept(
    before: list[Any], after: list[Any], step: int
) -> None:
    first, at_ns = gate(), NOON
    for what in before:
        at_ns += step
        do(first, at_ns, what)
    # As a checkpoint keeps it.
    second = object_graph.decode(object_graph.encode(first))
    assert second.snapshot() == first.snapshot()
    for what in after:
        at_ns += step
        assert do(first, at_ns, what) == do(second, at_ns, what)
    assert first.snapshot() == second.snapshot()
    assert (first.daily_loss_usdt, first.drawdown_pct) == (second.daily_loss_usdt, second.drawdown_pct)


def test_snapshot_is_plain() -> None:
    judge = gate()
    wild(judge, 100, 99.0, 1.0)
    judge.on_order(NOON)
    for value in astuple(judge.snapshot()):
        assert type(value) in (int, str, tuple)


@given(st.lists(st.integers(-2 * START, 2 * START), min_size=1, max_size=30), st.integers(1, NS_PER_DAY))
def test_latched_gate_never_opens_whatever_the_equity_does(path: list[int], step_ns: int) -> None:
    judge = gate()
    latched = False
    for index, change in enumerate(path):
        latched |= judge.observe(NOON + index * step_ns, START + change) is not None
        if latched:
            assert not judge.judge(GOOD).accepted
        if judge.daily_loss_usdt >= 500 or judge.drawdown_pct >= 10:
            assert latched


def test_unknown_quality_bit_in_the_configuration_is_refused() -> None:
    with pytest.raises(ConfigError, match="unknown quality bit") as caught:
        RiskGate(RiskConfig(blocked_quality=("GAPS",)), start_e8=START, symbol_count=1)
    assert "WARM_UP" in str(caught.value)
    assert gate().blocked_bits & Quality.WARM_UP


def test_reserve_that_would_stop_all_entries_is_refused() -> None:
    with pytest.raises(ConfigError, match="leaves no order"):
        RiskGate(RiskConfig(max_orders_per_s=1), start_e8=START, symbol_count=1)
    RiskGate(RiskConfig(max_orders_per_s=1, exit_reserve=0.0), start_e8=START, symbol_count=1)
