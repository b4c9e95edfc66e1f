"""Every rule at its limit, just below, just above and with NaN; every scope; every limit in use."""

from __future__ import annotations

from dataclasses import fields, replace
from math import inf, nan, nextafter
from pathlib import Path

import pytest

from gpuscalp.config import RiskConfig
from gpuscalp.risk.rules import RULES, Question
from tests.gates import GOOD, exit_of, gate, with_limits

# code: (what is compared, its limit, the side on which it passes, the scope), from docs/risk.md.
OF_QUESTION: dict[str, tuple[str, float, str, str]] = {
    "NO_SIZE": ("order_usdt", 1e-8, "min", "all"),
    "DEVICE": ("device_faults", 0, "max", "predicted"),
    "CLOCK_ERROR": ("clock_error_ms", 250.0, "max", "opening"),
    "QUALITY": ("blocked_quality", 0, "max", "opening"),
    "STALE_QUOTE": ("quote_age_ms", 2_000.0, "max", "opening"),
    "LATE_PREDICTION": ("prediction_age_ms", 300.0, "max", "predicted"),
    "MODEL_EXPIRED": ("model_age_h", 168.0, "max", "predicted"),
    "BAD_PROBABILITY": ("probability_error", 1e-6, "max", "predicted"),
    "EDGE_RANGE": ("edge_bps", 80.0, "max", "predicted"),
    "CROSSED": ("spread_bps", 0.0, "min", "opening"),
    "WIDE_SPREAD": ("spread_bps", 5.0, "max", "opening"),
    "PRICE_COLLAR": ("collar_bps", 100.0, "max", "opening"),
    "PRICE_JUMP": ("jump_bps", 50.0, "max", "opening"),
    "VOLATILITY": ("volatility_bps", 30.0, "max", "opening"),
    "VOLATILITY_PAUSE": ("pause_ms", 0.0, "max", "opening"),
    "LOW_CONFIDENCE": ("confidence", 0.34, "min", "opening"),
    "LOW_AGREEMENT": ("agreement", 0.5, "min", "opening"),
    "MIN_INTERVAL": ("since_trade_ms", 200.0, "min", "opening"),
    "OPEN_ORDERS_TOTAL": ("open_orders_total", 6, "max", "opening"),
    "MIN_NOTIONAL": ("order_usdt", 100.0, "min", "opening"),
    "ORDER_TOO_LARGE": ("order_usdt", 2_000.0, "max", "opening"),
    "POSITION_TOO_LARGE": ("position_usdt", 5_000.0, "max", "opening"),
    "GROSS_TOO_LARGE": ("gross_usdt", 20_000.0, "max", "opening"),
    "LEVERAGE": ("leverage", 3.0, "max", "opening"),
    "TRADE_RISK": ("trade_risk_pct", 0.5, "max", "opening"),
}
OF_GATE = {
    "HALTED": "all", "REDUCING": "opening", "DAILY_LOSS": "opening", "DRAWDOWN": "opening",
    "COOL_DOWN": "opening", "ORDER_RATE_S": "all", "ORDER_RATE_M": "all", "ENTRY_RATE_S": "opening",
    "ENTRY_RATE_M": "opening",
}  # fmt: skip


def neighbours(limit: float) -> tuple[float, float]:
    """Return the nearest values below and above a limit."""
    if isinstance(limit, int):
        return limit - 1, limit + 1
    return nextafter(limit, -inf), nextafter(limit, inf)


def test_table_of_this_test_is_complete() -> None:
    assert {rule.code: rule.scope for rule in RULES} == {
        **{code: row[3] for code, row in OF_QUESTION.items()},
        **OF_GATE,
    }
    assert len({rule.code for rule in RULES}) == len(RULES)
    assert gate().judge(GOOD).accepted


def test_every_limit_of_the_configuration_is_used() -> None:
    used = {str(rule.limit).removeprefix("config.") for rule in RULES if isinstance(rule.limit, str)}
    # What sizes, times and shares of other limits mean; each has a test of its own.
    others = {
        "blocked_quality", "risk_sigmas", "stop_bps", "exit_reserve", "volatility_ms", "volatility_pause_ms",
        "max_losses", "loss_pause_ms", "breaker_trips_max",
    }  # fmt: skip
    assert set(RiskConfig.__struct_fields__) - others <= used


@pytest.mark.parametrize("code", OF_QUESTION)
def test_value_at_its_limit_passes_and_the_next_one_is_refused(code: str) -> None:
    name, limit, side, _ = OF_QUESTION[code]
    below, above = neighbours(limit)
    inside, outside = (below, above) if side == "max" else (above, below)
    judge = gate()
    for value in (limit, inside):
        verdict = judge.judge(replace(GOOD, **{name: value}))
        # The smallest order is below the exchange's minimum: another rule's business.
        assert verdict.accepted or (code, verdict.code) == ("NO_SIZE", "MIN_NOTIONAL"), verdict
    verdict = judge.judge(replace(GOOD, **{name: outside}))
    assert (verdict.accepted, verdict.code, verdict.limit, verdict.value) == (False, code, limit, outside)


@pytest.mark.parametrize("name", sorted({row[0] for row in OF_QUESTION.values()} | {"min_notional_usdt"}))
def test_unknown_number_refuses(name: str) -> None:
    verdict = gate().judge(replace(GOOD, **{name: nan}))
    assert not verdict.accepted
    assert verdict.code in {
        code for code, row in OF_QUESTION.items() if name in (row[0], "min_notional_usdt")
    }


@pytest.mark.parametrize("code", OF_QUESTION)
def test_scope_decides_which_exits_a_rule_stops(code: str) -> None:
    name, _, _, scope = OF_QUESTION[code]
    bad = replace(GOOD, **{name: nan})
    judge = gate()
    assert judge.judge(exit_of(bad, predicted=False)).accepted == (name != "order_usdt")
    assert judge.judge(exit_of(bad, predicted=True)).accepted == (scope == "opening" and name != "order_usdt")


def test_all_fields_of_a_question_are_judged() -> None:
    judged = {row[0] for row in OF_QUESTION.values()}
    assert {field.name for field in fields(Question)} == judged | {
        "reducing",
        "predicted",
        "min_notional_usdt",
    }


@pytest.mark.parametrize(
    ("limit", "name"),
    [
        ("max_leverage", "leverage"),
        ("max_trade_risk_pct", "trade_risk_pct"),
        ("max_collar_bps", "collar_bps"),
        ("max_jump_bps", "jump_bps"),
        ("max_volatility_bps", "volatility_bps"),
        ("max_clock_error_ms", "clock_error_ms"),
        ("max_prediction_age_ms", "prediction_age_ms"),
        ("max_model_age_h", "model_age_h"),
        ("max_edge_bps", "edge_bps"),
    ],
)
def test_rule_that_is_off_passes_even_the_unknown(limit: str, name: str) -> None:
    judge = gate(with_limits(**{limit: "off"}))
    assert judge.judge(replace(GOOD, **{name: nan})).accepted
    assert judge.judge(replace(GOOD, **{name: 1e300})).accepted


@pytest.mark.parametrize("name", ["daily_loss_usdt", "drawdown_pct"])
def test_unknown_loss_refuses(name: str) -> None:
    judge = gate()
    setattr(judge, name, nan)
    assert not judge.judge(GOOD).accepted
    assert judge.judge(exit_of(GOOD, predicted=False)).accepted


def test_documentation_has_every_code_and_every_limit() -> None:
    text = (Path(__file__).parent.parent.parent / "docs" / "risk.md").read_text(encoding="utf-8")
    shown = text.replace("`ORDER_RATE_*`", "")
    for rule in RULES:
        assert f"`{rule.code}`" in shown
    for name in RiskConfig.__struct_fields__:
        assert f"`{name}`" in shown
