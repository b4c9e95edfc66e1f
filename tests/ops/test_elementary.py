"""exp and log against Python's decimal arithmetic, to 40 digits."""

from __future__ import annotations

import decimal
import math
from collections.abc import Callable
from decimal import Decimal

import numpy as np
import pytest

from gpuscalp.ops import elementary

DIGITS = decimal.Context(prec=40, Emin=-10_000, Emax=10_000)


def errors(
    function: Callable[[float], float], exact: Callable[[Decimal], Decimal], values: np.ndarray
) -> np.ndarray:
    """Return errors in units in the last place of the exact result."""
    found = []
    for value in values.tolist():
        truth = exact(Decimal(value))
        unit = Decimal(math.ulp(float(truth)))
        found.append(float(DIGITS.divide(DIGITS.subtract(Decimal(function(value)), truth), unit)))
    return np.abs(found)


@pytest.mark.parametrize(("low", "high"), [(-745.1, -708.0), (-708.0, 709.7), (-30.0, 0.0), (-1e-3, 1e-3)])
def test_exp_is_right_to_the_last_place(rng, low, high):
    assert errors(elementary.exp, DIGITS.exp, rng.uniform(low, high, 1_500)).max() < 1.5


def test_exp_never_falls():
    """A rate that decays by it stays below the one that a candidate was drawn by."""
    values = np.array([elementary.exp(x) for x in np.linspace(-46.0, 0.0, 20_001)])
    assert (np.diff(values) >= 0).all()
    assert values[-1] == 1.0


@pytest.mark.parametrize(
    "draw",
    [
        lambda rng: rng.uniform(0, 1, 1_500),
        lambda rng: rng.uniform(1, 3, 1_500),
        lambda rng: 1 + rng.uniform(-1e-6, 1e-6, 500),
        lambda rng: 2.0 ** rng.uniform(-1_070, 1_020, 1_500),
    ],
    ids=["probabilities", "sums", "about one", "all sizes"],
)
def test_log_is_right_to_the_last_place(rng, draw):
    values = draw(rng)
    assert errors(elementary.log, DIGITS.ln, values[values != 1]).max() < 1.0


def test_ends_of_the_range():
    assert elementary.exp(0.0) == 1.0
    assert elementary.exp(-800.0) == elementary.exp(-math.inf) == 0.0
    assert elementary.exp(-745.0) == math.exp(-745.0) == 5e-324
    assert elementary.exp(709.7) == pytest.approx(math.exp(709.7), rel=1e-15)
    assert elementary.exp(710.5) == elementary.exp(math.inf) == math.inf
    assert elementary.log(1.0) == 0.0
    assert elementary.log(0.0) == elementary.log(-0.0) == -math.inf
    assert elementary.log(math.inf) == math.inf
    assert elementary.log(5e-324) == math.log(5e-324)
    for function in (elementary.exp, elementary.log):
        assert math.isnan(function(math.nan))
    assert math.isnan(elementary.log(-1.0))
    assert math.isnan(elementary.log(-math.inf))
