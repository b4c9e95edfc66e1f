"""Factors against their formulas, limits at their edge, and never a size that a limit would refuse."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from math import inf, isnan, nan
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuscalp.config import RiskConfig, SizingConfig
from gpuscalp.orders import Intent, IntentKind
from gpuscalp.risk.sizing import Sizing, Surroundings
from gpuscalp.schema import Instrument

E8 = 10**8
# Tick 0.01, step 0.001, at least 0.002 a piece.
COIN = Instrument("COINUSDT", "synthetic", 1_000_000, 100_000, 200_000, 5 * E8, "synthetic")
INTENT = Intent(0, 1, IntentKind.ENTER, 1_000.0, "edge", 0.6, 1.0, 6.0, 2.0)
AROUND = Surroundings(
    price_e8=100 * E8,
    held_e8=0,
    open_e8=0,
    others_e8=0,
    equity_e8=10_000 * E8,
    drawdown_pct=0.0,
    volatility_bps=5.0,
    edge_spread_bps=0.0,
)
OFF = SizingConfig(target_volatility_bps="off", kelly_fraction="off", drawdown=False)
# Limits far away, so that only the one under test cuts.
WIDE: dict[str, Any] = {
    "max_order_usdt": 1e9, "max_position_usdt": 1e9, "max_gross_usdt": 1e9, "max_leverage": "off",
    "max_trade_risk_pct": "off",
}  # fmt: skip


def scale(around: Surroundings = AROUND, intent: Intent = INTENT, **config: Any) -> float:
    settings = msgspec.structs.replace(OFF, **config)
    return Sizing(settings, RiskConfig()).scale(intent, around)


def qty(around: Surroundings = AROUND, intent: Intent = INTENT, **risk: Any) -> int:
    sizing = Sizing(OFF, RiskConfig(**{**WIDE, **risk}))
    return sizing.qty_e8(intent, sizing.scale(intent, around), around, COIN)


@pytest.mark.parametrize(
    ("target", "sigma", "most", "expected"),
    [
        (10.0, 40.0, 1.0, 0.25),
        (10.0, 10.0, 1.0, 1.0),
        (10.0, 2.5, 1.0, 1.0),
        (10.0, 2.5, 3.0, 3.0),
        (10.0, 5.0, 3.0, 2.0),
        (10.0, 0.0, 2.0, 2.0),
    ],
)
def test_volatility_target(target: float, sigma: float, most: float, expected: float) -> None:
    around = replace(AROUND, volatility_bps=sigma)
    assert scale(around, target_volatility_bps=target, max_scale=most) == expected


@pytest.mark.parametrize(
    ("fraction", "sigma", "spread", "equity", "expected"),
    [
        # Edge 6 less cost 2 = 4 bps. Share = fraction · k · 4e-4 / (σ · 1e-4)².
        (0.25, 100.0, 0.0, 10_000, 0.25 * 4e-4 / 1e-4 * 10),
        (0.25, 1_000.0, 0.0, 10_000, 0.25 * 4e-4 / 1e-2 * 10),
        (0.5, 1_000.0, 0.0, 10_000, 0.5 * 4e-4 / 1e-2 * 10),
        (0.25, 1_000.0, 4.0, 10_000, 0.25 * 4e-4 / 1e-2 * 10 / 2),
        (0.25, 1_000.0, 12.0, 10_000, 0.25 * 4e-4 / 1e-2 * 10 / 10),
        (0.25, 1_000.0, 0.0, 2_500, 0.25 * 4e-4 / 1e-2 * 2.5),
        (0.25, 1_000.0, inf, 10_000, 0.0),
        (0.25, 1_000.0, 0.0, 0, 0.0),
        (0.25, 1_000.0, 0.0, -5, 0.0),
    ],
)
def test_kelly(fraction: float, sigma: float, spread: float, equity: int, expected: float) -> None:
    around = replace(AROUND, volatility_bps=sigma, edge_spread_bps=spread, equity_e8=equity * E8)
    for intent in (INTENT, replace(INTENT, side=-1, edge_bps=-6.0)):
        found = scale(around, intent, kelly_fraction=fraction, max_scale=100.0)
        assert found == pytest.approx(expected, rel=1e-12)
        assert scale(around, intent, kelly_fraction=fraction) == pytest.approx(min(1.0, expected))


def test_kelly_bets_nothing_on_an_edge_that_costs_eat() -> None:
    assert scale(intent=replace(INTENT, edge_bps=2.0), kelly_fraction=1.0) == 0.0
    assert scale(intent=replace(INTENT, edge_bps=1.0), kelly_fraction=1.0) == 0.0


def test_kelly_bets_on_less_than_a_basis_point_too() -> None:
    thin = replace(INTENT, edge_bps=-2.5, cost_bps=2.0)
    # 0.25 of 0.5 bps / (1,000 bps)² of 10,000, over 1,000.
    assert scale(replace(AROUND, volatility_bps=1_000.0), thin, kelly_fraction=0.25) == pytest.approx(0.0125)


def test_kelly_survives_numbers_at_the_ends_of_float64() -> None:
    tiny = replace(INTENT, edge_bps=1e-300, cost_bps=0.0)
    for spread in (0.0, 1e300):
        for sigma in (0.0, 1e-300, 1e300):
            around = replace(AROUND, volatility_bps=sigma, edge_spread_bps=spread)
            found = scale(around, tiny, kelly_fraction=0.25)
            assert isnan(found) or 0.0 <= found <= 1.0


@pytest.mark.parametrize(("drawdown", "expected"), [(0.0, 1.0), (2.5, 0.75), (10.0, 0.0), (99.0, 0.0)])
def test_drawdown(drawdown: float, expected: float) -> None:
    assert scale(replace(AROUND, drawdown_pct=drawdown), drawdown=True) == expected


def test_factors_multiply_and_never_exceed_the_scale_that_is_allowed() -> None:
    around = replace(AROUND, volatility_bps=20.0, drawdown_pct=5.0)
    each: tuple[dict[str, Any], ...]
    each = ({"target_volatility_bps": 10.0}, {"kelly_fraction": 0.25}, {"drawdown": True})
    assert [scale(around, **one) for one in each] == [0.5, 1.0, 0.5]
    assert scale(around, **each[0], **each[1], **each[2]) == 0.25
    calm = replace(AROUND, volatility_bps=1.0)
    assert scale(calm, target_volatility_bps=10.0, kelly_fraction=0.25, max_scale=3.0) == 3.0
    assert scale(calm, target_volatility_bps=10.0, kelly_fraction=0.25) == 1.0


@pytest.mark.parametrize(
    ("change", "config"),
    [
        ({"volatility_bps": nan}, {"target_volatility_bps": 10.0}),
        ({"volatility_bps": nan}, {"kelly_fraction": 0.25}),
        ({"edge_spread_bps": nan}, {"kelly_fraction": 0.25}),
    ],
)
def test_unknown_number_gives_no_size(change: dict[str, float], config: dict[str, Any]) -> None:
    around = replace(AROUND, **change)  # type: ignore[arg-type]
    sizing = Sizing(msgspec.structs.replace(OFF, **config), RiskConfig(**WIDE))
    assert isnan(sizing.scale(INTENT, around))
    assert sizing.qty_e8(INTENT, sizing.scale(INTENT, around), around, COIN) == 0
    # Switched off, the number is not needed.
    assert qty(around) == 10 * E8


@given(
    usdt=st.integers(100, 100_000),
    factor=st.fractions(0, 3, max_denominator=64),
    price=st.integers(1, 10**7),
)
def test_quantity_is_worth_the_base_amount_times_its_scale(usdt: int, factor: Fraction, price: int) -> None:
    """Nothing but the limits cut it, and these are far away: what the scale says is what is bought."""
    sizing = Sizing(OFF, RiskConfig(**WIDE))
    found = sizing.qty_e8(
        replace(INTENT, notional_usdt=float(usdt)),
        float(factor),
        replace(AROUND, price_e8=price * E8 // 100),
        COIN,
    )
    exact = usdt * factor * E8 * 100 / price
    # One unit of money at most is lost to float64 before the price divides.
    whole = (int(exact - Fraction(100, price)) // 100_000, int(exact) // 100_000)
    assert found // 100_000 in whole or (found == 0 and whole[0] < 2)
    assert found % 100_000 == 0


def test_quantity_is_rounded_down_to_the_step_and_below_the_minimum_is_nothing() -> None:
    assert qty(replace(AROUND, price_e8=300 * E8)) == 333_300_000
    assert qty(intent=replace(INTENT, notional_usdt=0.2)) == 200_000
    assert qty(intent=replace(INTENT, notional_usdt=0.19)) == 0
    assert qty(replace(AROUND, price_e8=0)) == 0


@pytest.mark.parametrize(
    ("risk", "around", "usdt"),
    [
        ({"max_order_usdt": 400.0}, {}, 400),
        ({"max_position_usdt": 400.0}, {}, 400),
        ({"max_position_usdt": 400.0}, {"held_e8": E8}, 300),
        ({"max_position_usdt": 400.0}, {"held_e8": E8, "open_e8": 50 * E8}, 250),
        ({"max_position_usdt": 400.0}, {"held_e8": 4 * E8}, 0),
        ({"max_position_usdt": 400.0}, {"held_e8": 9 * E8}, 0),
        ({"max_gross_usdt": 700.0}, {"others_e8": 200 * E8, "held_e8": E8}, 400),
        ({"max_gross_usdt": 700.0}, {"others_e8": 900 * E8}, 0),
        ({"max_leverage": 0.05}, {"others_e8": 100 * E8}, 400),
        ({"max_leverage": 0.05, "max_gross_usdt": 300.0}, {}, 300),
        ({"max_leverage": 0.05, "max_gross_usdt": 800.0}, {}, 500),
        ({"max_leverage": 0.05}, {"equity_e8": 0}, 0),
        ({"max_leverage": 0.05}, {"equity_e8": -1}, 0),
        # 4 standard deviations of 5 bps are 20: 0.01 % of 10,000 is 1 USDT, which is 20 bps of 500.
        ({"max_trade_risk_pct": 0.01, "risk_sigmas": 4.0}, {}, 500),
        ({"max_trade_risk_pct": 0.01, "stop_bps": 50.0}, {}, 200),
        ({"max_trade_risk_pct": 0.01, "stop_bps": 50.0}, {"volatility_bps": nan}, 200),
        ({"max_trade_risk_pct": 0.01}, {"volatility_bps": nan}, 0),
        ({"max_trade_risk_pct": 0.01}, {"volatility_bps": 0.0}, 1_000),
        ({"max_trade_risk_pct": 0.01}, {"equity_e8": 0}, 0),
    ],
)
def test_limit_cuts_to_what_it_leaves(risk: dict[str, Any], around: dict[str, Any], usdt: int) -> None:
    assert qty(replace(AROUND, **around), **risk) == usdt * E8 // 100


def test_order_keeps_the_limit_on_its_risk_where_the_division_rounds_up() -> None:
    """0.7 % of 67,609 are 85 bps of 55,678, but the float64 0.7 is a little less, so 55,678 is too much."""
    assert 0.7 * 67_609.0 * 100.0 / 85.0 == 55_678.0
    assert 55_678 * Fraction(85, 100) / 67_609 > Fraction(0.7)
    rich = replace(AROUND, price_e8=E8, equity_e8=67_609 * E8)
    wanted = replace(INTENT, notional_usdt=1e6)
    assert qty(rich, wanted, max_trade_risk_pct=0.7, stop_bps=85.0) == 55_678 * E8 - COIN.step_size_e8


LIMIT = st.floats(1e-6, 1e7)


@given(
    order=LIMIT, position=LIMIT, gross=LIMIT, leverage=st.floats(1e-9, 200), risk_pct=st.floats(1e-9, 100),
    wanted=st.floats(1e-3, 1e7), price=st.integers(1, 10**14), step=st.sampled_from([1, 7, 1_000, E8]),
    held=st.integers(0, 10**12), opened=st.integers(0, 10**14), others=st.integers(0, 10**14),
    equity=st.integers(-(10**12), 10**15), sigma=st.floats(0, 1e4),
)  # fmt: skip
def test_size_keeps_every_limit_and_one_more_step_would_not(
    order: float, position: float, gross: float, leverage: float, risk_pct: float, wanted: float,
    price: int, step: int, held: int, opened: int, others: int, equity: int, sigma: float,
) -> None:  # fmt: skip
    """The rules in exact fractions, with the wanted amount as one more limit."""
    risk = RiskConfig(
        max_order_usdt=order, max_position_usdt=position, max_gross_usdt=gross, max_leverage=leverage,
        max_trade_risk_pct=risk_pct, risk_sigmas=4.0,
    )  # fmt: skip
    instrument = Instrument("X", "x", 1, step, step, 0, "x")
    around = Surroundings(price, held, opened, others, equity, 0.0, sigma, 0.0)
    intent = replace(INTENT, notional_usdt=wanted)
    sizing = Sizing(OFF, risk)
    found = sizing.qty_e8(intent, sizing.scale(intent, around), around, instrument)
    assert found >= 0
    assert found % step == 0

    def kept(quantity: int, slack: Fraction) -> bool:
        value = Fraction(price * quantity, E8 * E8)
        after = Fraction(price * (held + quantity), E8 * E8) + Fraction(opened, E8)
        total = after + Fraction(others, E8)
        own = Fraction(equity, E8)
        lost = value * 4 * Fraction(sigma) / 10_000
        return (
            value <= Fraction(wanted) * slack
            and value <= Fraction(order) * slack
            and after <= Fraction(position) * slack
            and total <= Fraction(gross) * slack
            and own > 0
            and total <= Fraction(leverage) * own * slack
            and lost <= Fraction(risk_pct) / 100 * own * slack
        )

    # A float64 limit is met by all that rounds to it: 1e-15 is some units of the last place.
    if found:
        assert kept(found, 1 + Fraction(1, 10**15))
    # Amounts are whole units of 1e-8, so the room may be one unit less than the exact one.
    unit_steps = 1 + E8 // (price * step)
    assert not kept(found + (1 + unit_steps) * step, 1 - Fraction(1, 10**12))


@given(st.floats(allow_nan=True), st.floats(allow_nan=True), st.floats(0, 1e3), st.floats(0, 100))
def test_scale_is_between_nothing_and_what_is_allowed_or_unknown(
    sigma: float, spread: float, edge: float, drawdown: float
) -> None:
    around = replace(AROUND, volatility_bps=abs(sigma), edge_spread_bps=abs(spread), drawdown_pct=drawdown)
    sizing = Sizing(SizingConfig(), RiskConfig())
    found = sizing.scale(replace(INTENT, edge_bps=edge), around)
    assert isnan(found) or 0.0 <= found <= 1.0


def test_defaults_never_enlarge() -> None:
    assert SizingConfig().max_scale == 1.0
