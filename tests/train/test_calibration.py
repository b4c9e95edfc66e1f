"""Vector scaling: it finds the distortion that was put in, and stays put where it has nothing to go by."""

from __future__ import annotations

import numpy as np
import pytest

from gpuscalp.train.calibration import fit_vector_scaling
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
    found = fit_vector_scaling(said, direction, np.ones(50_000))
    assert found.kind == "vector"
    np.testing.assert_allclose(found.scale, 1 / 3, atol=0.02)
    assert np.abs(apply(said, found) - true).mean() < 0.005
    assert log_loss(apply(said, found), direction) < log_loss(said, direction) - 0.2


def test_calibrated_model_is_left_nearly_alone(rng):
    _, direction, said = drawn(rng, 50_000, 1.0)
    found = fit_vector_scaling(said, direction, np.ones(50_000))
    np.testing.assert_allclose(found.scale, 1.0, atol=0.05)


def test_model_that_knows_nothing_is_flattened_but_not_turned_round(rng):
    said = rng.dirichlet([2.0, 2.0, 2.0], 20_000)
    direction = said.argmin(axis=1).astype(np.int8)  # the opposite comes every time
    found = fit_vector_scaling(said, direction, np.ones(20_000))
    np.testing.assert_allclose(found.scale, 0.0, atol=1e-6)


def test_few_independent_labels_move_little(rng):
    _, direction, said = drawn(rng, 5_000, 3.0)
    many = fit_vector_scaling(said, direction, np.ones(5_000))
    few = fit_vector_scaling(said, direction, np.full(5_000, 1e-3))
    assert np.abs(few.scale - 1.0).max() < 0.5 * np.abs(many.scale - 1.0).min()


def test_no_rows_give_the_identity():
    found = fit_vector_scaling(np.empty((0, 3)), np.empty(0, np.int8), np.empty(0))
    assert found.kind == "none"
    assert found.scale.tolist() == [1.0, 1.0, 1.0]


@pytest.mark.parametrize("zero", [0, 2])
def test_probability_of_zero_does_not_break_the_fit(zero):
    raw = np.tile([0.5, 0.5, 0.5], (100, 1)) * 1.0
    raw[:, zero] = 0.0
    found = fit_vector_scaling(raw, np.full(100, 1, np.int8), np.ones(100))
    assert np.isfinite(found.scale).all()
    assert np.isfinite(found.bias).all()
