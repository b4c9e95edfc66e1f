"""Variates against their laws, and the exponential against the C library's."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from gpuscalp.ops.variates import exp_minus, exponential


@given(st.floats(min_value=0.0, max_value=44.0))
def test_exp_minus_agrees_with_the_library_to_four_units_in_the_last_place(x):
    assert exp_minus(x) == pytest.approx(math.exp(-x), rel=1e-15)


@pytest.mark.parametrize(("x", "expected"), [(0.0, 1.0), (50.0, 0.0), (1e9, 0.0)])
def test_exp_minus_is_exact_at_zero_and_vanishes_far_out(x, expected):
    assert exp_minus(x) == pytest.approx(expected, abs=1e-18)


def test_exp_minus_never_rises():
    x = np.linspace(0.0, 46.0, 20_001)
    values = np.array([exp_minus(value) for value in x])
    assert (np.diff(values) <= 0).all()


def test_exponential_follows_its_law():
    rng = np.random.Generator(np.random.PCG64(20))
    draws = np.array([exponential(rng) for _ in range(50_000)])
    # 50,000 draws tell a change of the rate by 1 % from none; a wrong parity of the runs is far beyond it.
    assert stats.kstest(draws, "expon").pvalue > 1e-3
    assert draws.mean() == pytest.approx(1.0, abs=0.02)
    assert np.corrcoef(draws[:-1], draws[1:])[0, 1] == pytest.approx(0.0, abs=0.02)


def test_exponential_uses_only_the_uniforms_of_the_generator():
    """The scalar loop below reads the same stream, so a seed means the same on every platform."""
    fast, plain = (np.random.Generator(np.random.PCG64(5)) for _ in range(2))
    for _ in range(200):
        whole = 0
        while True:
            run = [plain.random()]
            while True:
                run.append(plain.random())
                if run[-1] >= run[-2]:
                    break
            if len(run) % 2 == 0:
                break
            whole += 1
        assert exponential(fast) == whole + run[0]
