"""Vector scaling: it finds the distortion that was put in, and stays put where it has nothing to go by."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import norm

from gpuscalp.train.calibration import BIAS_SD, SCALE_SD, _counted_for, fit_vector_scaling
from gpuscalp.train.metrics import log_loss


def drawn(rng, rows, sharpness):
    """True probabilities, classes drawn from them, and what an overconfident model says."""
    z = rng.standard_normal((rows, 3))
    true = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
    direction = (rng.random(rows)[:, None] > np.cumsum(true, axis=1)).sum(axis=1).clip(0, 2).astype(np.int8)
    said = true**sharpness
    return true, direction, said / said.sum(axis=1, keepdims=True)


def apply(raw, calibration):
    z = np.log(raw) * calibration.scale + calibration.bias
    e = np.exp(z - z.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def test_overconfident_model_is_brought_back_to_the_true_probabilities(rng):
    true, direction, said = drawn(rng, 50_000, 3.0)
    found = fit_vector_scaling(said, direction, np.ones(50_000), np.arange(50_000))
    assert found.kind == "vector"
    np.testing.assert_allclose(found.scale, 1 / 3, atol=0.02)
    assert np.abs(apply(said, found) - true).mean() < 0.005
    assert log_loss(apply(said, found), direction) < log_loss(said, direction) - 0.2


def test_calibrated_model_is_left_nearly_alone(rng):
    _, direction, said = drawn(rng, 50_000, 1.0)
    found = fit_vector_scaling(said, direction, np.ones(50_000), np.arange(50_000))
    np.testing.assert_allclose(found.scale, 1.0, atol=0.05)


def test_fit_is_the_best_by_the_formula_it_is_told_by(rng):
    """Log loss and prior in plain words: no other scale or bias nearby is better, nor is the identity."""
    _, direction, said = drawn(rng, 3_000, 2.0)
    direction[rng.random(3_000) < 0.4] = 2  # and one class comes more often than is said
    labels = 700.0
    weight = np.full(3_000, labels / 3_000)
    found = fit_vector_scaling(said, direction, weight, np.arange(3_000))
    centre = np.log(said).mean(axis=0)

    def cost(scale, bias):
        e = np.exp(np.log(said) * scale + bias)
        given = (e / e.sum(axis=1, keepdims=True))[np.arange(3_000), direction]
        lean = bias - (1.0 - scale) * centre
        prior = ((scale - 1.0) ** 2).sum() / SCALE_SD**2 + (lean**2).sum() / BIAS_SD**2
        return -np.log(given).sum() * labels / 3_000 + prior / 2

    best = cost(found.scale, found.bias)
    assert best < cost(np.ones(3), np.zeros(3)) - 1.0
    for step in 0.01, -0.01:
        for k in range(3):
            aside = step * np.eye(3)[k]
            assert best < cost(found.scale + aside, found.bias - aside * centre)
            assert best < cost(found.scale, found.bias + aside)


def test_model_that_knows_nothing_is_flattened_but_not_turned_round(rng):
    said = rng.dirichlet([2.0, 2.0, 2.0], 20_000)
    direction = said.argmin(axis=1).astype(np.int8)  # the opposite comes every time
    found = fit_vector_scaling(said, direction, np.ones(20_000), np.arange(20_000))
    np.testing.assert_allclose(found.scale, 0.0, atol=1e-6)


def test_few_independent_labels_move_little(rng):
    _, direction, said = drawn(rng, 5_000, 3.0)
    many = fit_vector_scaling(said, direction, np.ones(5_000), np.arange(5_000))
    few = fit_vector_scaling(said, direction, np.full(5_000, 1e-3), np.arange(5_000))
    assert np.abs(few.scale - 1.0).max() < 0.5 * np.abs(many.scale - 1.0).min()


def test_no_rows_give_the_identity():
    found = fit_vector_scaling(np.empty((0, 3)), np.empty(0, np.int8), np.empty(0), np.empty(0, np.int64))
    assert found.kind == "none"
    assert found.scale.tolist() == [1.0, 1.0, 1.0]


@pytest.mark.parametrize("zero", [0, 2])
def test_probability_of_zero_does_not_break_the_fit(zero):
    raw = np.tile([0.5, 0.5, 0.5], (100, 1)) * 1.0
    raw[:, zero] = 0.0
    found = fit_vector_scaling(raw, np.full(100, 1, np.int8), np.ones(100), np.arange(100))
    assert np.isfinite(found.scale).all()
    assert np.isfinite(found.bias).all()


def of_symbols(rng, symbols, common):
    """Rows of 200 instants whose symbols share so much of what moves them; what is said is right."""
    z = rng.normal(0, 0.3, (200, symbols, 3))
    said = np.exp(z) / np.exp(z).sum(axis=-1, keepdims=True)
    moved = np.sqrt(common) * rng.normal(size=(200, 1)) + np.sqrt(1 - common) * rng.normal(
        size=(200, symbols)
    )
    direction = (norm.cdf(moved)[..., None] > said.cumsum(axis=-1)[..., :2]).sum(axis=-1).astype(np.int8)
    return said.reshape(-1, 3), direction.ravel(), np.repeat(np.arange(200), symbols)


def test_symbols_that_are_copies_give_the_calibration_of_one(rng):
    """Each counted as independent evidence: twenty of them outweighed the prior twenty times."""
    said, direction, end_ns = of_symbols(rng, 1, 0.0)
    one = fit_vector_scaling(said, direction, np.ones(200), end_ns)
    each = [np.repeat(values, 20, axis=0) for values in (said, direction, np.ones(200), end_ns)]
    copies = fit_vector_scaling(*each)
    np.testing.assert_allclose(copies.scale, one.scale, atol=1e-3)
    np.testing.assert_allclose(copies.bias, one.bias, atol=1e-3)


def test_what_a_model_leans_by_does_not_count_as_moving_together(rng):
    """A constant error is in every row alike, and says nothing of the rows beside it."""
    error = rng.normal(size=(400, 3))
    end_ns = np.repeat(np.arange(20), 20)
    leaning = error + np.array([[0.5, -2.0, 1.0]])
    assert _counted_for(leaning, end_ns) == pytest.approx(_counted_for(error, end_ns))


@pytest.mark.parametrize(("common", "least", "most"), [(0.0, 1.0, 1.3), (0.7, 4.0, 20.0)])
def test_symbols_count_as_far_as_they_move_for_themselves(rng, common, least, most):
    said, direction, end_ns = of_symbols(rng, 20, common)
    assert least <= _counted_for(np.eye(3)[direction] - said, end_ns) < most


def test_right_model_of_symbols_that_move_together_does_not_lean_where_the_market_went(rng):
    leans = []
    for _ in range(10):
        said, direction, end_ns = of_symbols(rng, 20, 0.7)
        for at in (end_ns, np.arange(len(said))):  # as it is, and as if every row had an instant of its own
            given = apply(said, fit_vector_scaling(said, direction, np.ones(len(said)), at))
            leans.append(abs((given - said).mean(axis=0) @ [-1, 0, 1]))
    assert np.mean(leans[::2]) < 0.6 * np.mean(leans[1::2])
