"""Every rule refuses at its limit, doubt refuses, losses latch, and the tables are what they say."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuscalp.config import RiskConfig
from gpuscalp.errors import ConfigError
from gpuscalp.risk import RULES, TRANSITIONS, Question, RiskEvent, RiskGate, RiskState
from gpuscalp.schema import NS_PER_DAY, Quality

E8 = 10**8
START = 10_000 * E8
NOON = 19_000 * NS_PER_DAY + NS_PER_DAY // 2

GOOD = Question(
    reducing=False,
    order_usdt=1_000.0,
    position_usdt=1_000.0,
    gross_usdt=1_000.0,
    min_notional_usdt=100.0,
    spread_bps=1.0,
    quote_age_ms=50.0,
    blocked_quality=0,
    confidence=0.6,
    agreement=1.0,
)


def gate() -> RiskGate:
    gate = RiskGate(RiskConfig(min_agreement=0.5), start_e8=START)
    gate.observe(NOON, START)
    return gate


def test_sound_intent_is_accepted() -> None:
    verdict = gate().judge(GOOD)
    assert verdict.accepted
    assert verdict.code == ""


@pytest.mark.parametrize(
    ("change", "code", "limit", "value"),
    [
        ({"order_usdt": 0.0}, "NO_SIZE", 1e-8, 0.0),
        ({"blocked_quality": 4}, "QUALITY", 0.0, 4.0),
        ({"quote_age_ms": 2_000.5}, "STALE_QUOTE", 2_000.0, 2_000.5),
        ({"spread_bps": -0.1}, "CROSSED", 0.0, -0.1),
        ({"spread_bps": 5.1}, "WIDE_SPREAD", 5.0, 5.1),
        ({"confidence": 0.33}, "LOW_CONFIDENCE", 0.34, 0.33),
        ({"agreement": 0.49}, "LOW_AGREEMENT", 0.5, 0.49),
        ({"order_usdt": 99.0}, "MIN_NOTIONAL", 100.0, 99.0),
        ({"order_usdt": 2_000.01}, "ORDER_TOO_LARGE", 2_000.0, 2_000.01),
        ({"position_usdt": 5_000.01}, "POSITION_TOO_LARGE", 5_000.0, 5_000.01),
        ({"gross_usdt": 20_000.01}, "GROSS_TOO_LARGE", 20_000.0, 20_000.01),
    ],
)
def test_rule_refuses_with_its_code_limit_and_value(
    change: dict[str, float], code: str, limit: float, value: float
) -> None:
    verdict = gate().judge(replace(GOOD, **change))
    assert (verdict.accepted, verdict.code, verdict.limit, verdict.value) == (False, code, limit, value)


def test_values_at_their_limit_pass() -> None:
    at_limit = replace(
        GOOD,
        order_usdt=2_000.0,
        position_usdt=5_000.0,
        gross_usdt=20_000.0,
        spread_bps=5.0,
        quote_age_ms=2_000.0,
        confidence=0.34,
        agreement=0.5,
    )
    assert gate().judge(at_limit).accepted


@pytest.mark.parametrize(
    "name", [field.name for field in fields(Question) if field.name not in {"reducing", "blocked_quality"}]
)
def test_unknown_number_refuses(name: str) -> None:
    assert not gate().judge(replace(GOOD, **{name: float("nan")})).accepted


def test_reducing_order_passes_where_an_opening_one_does_not() -> None:
    bad = replace(
        GOOD,
        order_usdt=1e6,
        position_usdt=1e6,
        gross_usdt=1e6,
        spread_bps=100.0,
        quote_age_ms=float("nan"),
        blocked_quality=1,
        confidence=0.0,
        agreement=0.0,
    )
    assert not gate().judge(bad).accepted
    assert gate().judge(replace(bad, reducing=True)).accepted
    assert gate().judge(replace(bad, reducing=True, order_usdt=0.0)).code == "NO_SIZE"


def test_codes_are_unique_and_every_limit_of_the_configuration_is_enforced() -> None:
    assert len({rule.code for rule in RULES}) == len(RULES)
    used = {str(rule.limit).removeprefix("config.") for rule in RULES if isinstance(rule.limit, str)}
    configured = {field for field in RiskConfig.__struct_fields__ if field != "blocked_quality"}
    assert configured <= used


def test_daily_loss_latches_into_reducing_at_the_limit() -> None:
    judge = gate()
    assert judge.observe(NOON + 1, START - 499 * E8) is None
    assert judge.judge(GOOD).accepted
    assert judge.observe(NOON + 2, START - 500 * E8) is RiskEvent.DAILY_LOSS
    assert judge.state is RiskState.REDUCING
    # The loss is won back, midnight passes: the gate stays where it is until somebody re-arms it.
    assert judge.observe(NOON + NS_PER_DAY, START + 500 * E8) is None
    assert judge.judge(GOOD).code == "REDUCING"
    assert judge.judge(replace(GOOD, reducing=True)).accepted
    judge.apply(RiskEvent.REARM)
    assert judge.judge(GOOD).accepted


def test_daily_loss_counts_from_the_equity_before_midnight() -> None:
    judge = gate()
    judge.observe(NOON + 1, START - 400 * E8)
    midnight = NOON + NS_PER_DAY // 2
    assert judge.observe(midnight, START - 700 * E8) is None
    assert judge.daily_loss_usdt == 300.0
    assert judge.observe(midnight + 1, START - 900 * E8) is RiskEvent.DAILY_LOSS


def test_drawdown_counts_from_the_highest_equity() -> None:
    judge = RiskGate(RiskConfig(max_daily_loss_usdt=1e9), start_e8=START)
    judge.observe(NOON, 2 * START)
    assert judge.observe(NOON + 1, 2 * START - 1_999 * E8) is None
    assert judge.observe(NOON + 2, 2 * START - 2_000 * E8) is RiskEvent.DRAWDOWN
    assert judge.drawdown_pct == 10.0


def test_rearmed_gate_measures_from_the_equity_of_now() -> None:
    judge = gate()
    judge.observe(NOON + 1, START - 600 * E8)
    judge.apply(RiskEvent.REARM)
    assert judge.observe(NOON + 2, START - 700 * E8) is None
    assert judge.daily_loss_usdt == 100.0


def test_halted_gate_passes_nothing() -> None:
    judge = gate()
    judge.apply(RiskEvent.HALT)
    assert judge.judge(GOOD).code == "HALTED"
    assert judge.judge(replace(GOOD, reducing=True)).code == "HALTED"


@pytest.mark.parametrize("state", list(RiskState))
@pytest.mark.parametrize("event", list(RiskEvent))
def test_only_rearming_leads_upwards_and_unknown_pairs_change_nothing(
    state: RiskState, event: RiskEvent
) -> None:
    judge = gate()
    judge.state = state
    if (state, event) not in TRANSITIONS:
        with pytest.raises(ValueError, match="no transition"):
            judge.apply(event)
        assert judge.state is state
        return
    judge.apply(event)
    rank = [RiskState.ACTIVE, RiskState.REDUCING, RiskState.HALTED]
    if event is RiskEvent.REARM:
        assert judge.state is RiskState.ACTIVE
    else:
        assert rank.index(judge.state) >= rank.index(state)


def test_gate_with_nothing_left_cannot_be_rearmed() -> None:
    judge = gate()
    judge.observe(NOON + 1, -1)
    with pytest.raises(ValueError, match="no transition"):
        judge.apply(RiskEvent.REARM)


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
        RiskGate(RiskConfig(blocked_quality=("GAPS",)), start_e8=START)
    assert "WARM_UP" in str(caught.value)
    assert gate().blocked_bits & Quality.WARM_UP
