"""Corrections of a calibration: the fit against SciPy, and that no step leads out of the bounds."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize

from gpuscalp.config import AdaptationConfig
from gpuscalp.ensemble import Calibration
from gpuscalp.ops.probability import calibrate
from gpuscalp.schema import NS_PER_S
from gpuscalp.succession.recalibration import (
    BIAS_SD,
    LOG_SCALE_SD,
    ROWS_MAX,
    Correction,
    Recalibrator,
    Window,
    correction_in,
    fit,
    propose,
)

OWN = Calibration("vector", np.array([1.1, 0.9, 1.0]), np.array([0.05, -0.1, 0.0]))
TRUE = Correction(0.1, (0.2, -0.3, 0.1))
NOW_NS = 1_700_000_000 * NS_PER_S


def said(seed: int, rows: int) -> np.ndarray:
    """Return logarithms of a model's own probabilities, FLAT the likeliest."""
    logs = np.random.default_rng(seed).normal(size=(rows, 3)) * 0.6 + np.log([0.2, 0.6, 0.2])
    return logs - np.log(np.exp(logs).sum(axis=1, keepdims=True))


def came(seed: int, probability: np.ndarray) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (rng.random((len(probability), 1)) > probability.cumsum(axis=1)).sum(axis=1)


@pytest.mark.parametrize("independent", [50.0, 4_000.0])
def test_fit_is_the_minimum_that_scipy_finds(independent):
    logs = said(1, 4_000)
    labels = came(2, TRUE.probability(logs))

    def loss(theta: np.ndarray) -> float:
        z = logs * theta[0] + theta[1:]
        z -= np.log(np.exp(z).sum(axis=1, keepdims=True))
        prior = ((theta[0] - 1) / LOG_SCALE_SD) ** 2 + (theta[1:] ** 2).sum() / BIAS_SD**2
        return -z[np.arange(len(z)), labels].mean() + 0.5 * prior / independent

    best = minimize(loss, [1.0, 0.0, 0.0, 0.0], tol=1e-12).x
    found = fit(logs, labels, independent)
    assert found.log_scale == pytest.approx(np.log(best[0]), abs=1e-4)
    assert found.bias == pytest.approx(best[1:] - best[1:].mean(), abs=1e-4)


def test_few_labels_change_little_and_many_find_what_is_true():
    logs = said(3, ROWS_MAX)
    labels = came(4, TRUE.probability(logs))
    timid, bold = fit(logs, labels, 30.0), fit(logs, labels, 1e6)
    assert max(map(abs, timid.bias)) < 0.5 * max(map(abs, bold.bias))
    assert bold.bias == pytest.approx(TRUE.bias, abs=0.08)


def test_a_correction_is_a_calibration_of_its_own():
    raw = np.exp(said(5, 50))
    one, two = np.empty_like(raw), np.empty_like(raw)
    calibrate(raw, OWN.scale, OWN.bias, one)
    made = TRUE.applied(OWN)
    calibrate(raw, made.scale, made.bias, two)
    assert two == pytest.approx(TRUE.probability(np.log(one)))
    back = correction_in(OWN, made)
    assert (back.log_scale, back.bias) == (pytest.approx(TRUE.log_scale), pytest.approx(TRUE.bias))
    # What is added to every class alike changes no probability, and is no correction.
    alike = correction_in(OWN, Calibration("vector", made.scale, made.bias + 3.0))
    assert alike.bias == pytest.approx(TRUE.bias)
    assert correction_in(OWN, Calibration("vector", np.array([2.0, 1.0, 1.0]), OWN.bias)) is None


def test_no_step_leaves_the_bounds_and_steps_end_where_the_rows_lead():
    config = AdaptationConfig(
        recalibrate=True, every_s=600.0, max_bias=0.25, max_bias_per_hour=0.3, max_log_scale_per_hour=0.06
    )
    logs = said(6, ROWS_MAX)
    far = Correction(0.5, (0.9, -1.2, 0.3))
    window, now = Window(logs, came(7, far.probability(logs)), 1e6), Correction.none(3)
    for _ in range(100):
        found = propose(window, now, config)
        if found is None:
            break
        after = found.correction
        assert max(abs(a - b) for a, b in zip(after.bias, now.bias, strict=True)) <= 0.3 / 6 + 1e-12
        assert abs(after.log_scale - now.log_scale) <= 0.06 / 6 + 1e-12
        assert max(map(abs, after.bias)) <= 0.25 + 1e-12
        assert abs(after.log_scale) <= config.max_log_scale + 1e-12
        assert found.corrected_log_loss < found.log_loss
        now = after
    assert found is None, "it comes to rest"
    # The whole of it is shortened: cut class by class it would have done harm (it did, once).
    assert now.bias[1] == pytest.approx(-0.25, abs=0.02)
    assert now.bias[0] == pytest.approx(0.25 * 0.9 / 1.2, abs=0.03)


def test_rows_are_taken_back_to_what_the_model_said_itself():
    """Rows said under a correction lead to the same window as rows said without."""
    logs = said(8, 3_000)
    labels = came(9, TRUE.probability(logs))
    config = AdaptationConfig(window_s=7_200.0, min_independent=100.0)
    fits = []
    for correction in (Correction.none(3), Correction(0.05, (0.1, -0.2, 0.1))):
        made = Recalibrator(config, class_count=3, labels_per_row=0.1)
        made.restart(correction, forget=True)
        for at in range(0, 3_000, 10):
            part = slice(at, at + 10)
            made.take(
                correction.probability(logs[part]), labels[part], np.arange(10), NOW_NS + at * 2 * NS_PER_S
            )
        window = made.window(NOW_NS + 6_000 * NS_PER_S)
        assert window.independent == pytest.approx(300.0, rel=0.02), "each row is worth a tenth of a label"
        fits.append(fit(window.logs, window.came, window.independent))
    assert fits[1].log_scale == pytest.approx(fits[0].log_scale, abs=1e-6)
    assert fits[1].bias == pytest.approx(fits[0].bias, abs=1e-6)


def test_old_rows_do_not_count_and_too_few_say_nothing():
    config = AdaptationConfig(window_s=600.0, min_independent=100.0)
    made = Recalibrator(config, class_count=3, labels_per_row=1.0)
    probability = np.full((50, 3), 1 / 3)
    for second in range(100):
        made.take(probability, np.zeros(50, np.int64), np.zeros(50, np.int64), NOW_NS + second * NS_PER_S)
    assert made.window(NOW_NS + 100 * NS_PER_S).independent == pytest.approx(5_000, rel=0.05)
    assert made.window(NOW_NS + 701 * NS_PER_S) is None
    made.restart(Correction.none(3), forget=True)
    assert made.window(NOW_NS + 100 * NS_PER_S) is None


@pytest.mark.parametrize(
    ("alike", "low", "high"), [(-1.0, 0.0, 0.5), (0.0, 0.9, 1.1), (0.7, 5, 9), (1.0, 14, 20)]
)
def test_symbols_that_move_together_are_not_counted_as_independent(alike, low, high):
    """20 symbols of one market counted as 20: the noise of a few labels was taken for what is true."""
    rng = np.random.default_rng(4)
    made = Recalibrator(AdaptationConfig(window_s=7_200.0), class_count=3, labels_per_row=1.0)
    moved, own = rng.normal(size=(3_000, 1)), rng.normal(size=(3_000, 20))
    moved = np.sqrt(abs(alike)) * moved + np.sqrt(1 - abs(alike)) * own
    labels = 1 + (moved > 0.8).astype(np.int64) - (moved < -0.8)
    if alike < 0:  # always so many of each
        labels = rng.permuted(np.tile(np.repeat([0, 1, 2], [4, 12, 4]), (3_000, 1)), axis=1)
    hit = np.stack([labels == k for k in range(3)], axis=2)
    share = 0.7 * rng.dirichlet([3, 4, 3], (3_000, 20)) + 0.3 * hit  # it knows something, and not how often
    for at in range(0, 3_000, 2):  # two frames at a time
        end_ns, two = NOW_NS + np.repeat([at, at + 1], 20) * NS_PER_S, slice(at, at + 2)
        made.take(share[two].reshape(40, 3), labels[two].ravel(), end_ns, int(end_ns[-1]))
        made.take(share[0, :0], labels[0, :0], end_ns[:0], int(end_ns[-1]))  # nothing
    off = hit - share
    off -= off.mean(axis=(0, 1))
    effect = np.square(off.sum(axis=1)).sum() / np.square(off).sum()
    assert low < effect < high
    window = made.window(NOW_NS + 3_000 * NS_PER_S)
    assert 60_000 / window.independent == pytest.approx(max(effect, 1.0), rel=0.02)


def test_symbols_are_worth_what_they_are_in_the_window():
    """Counted since the process began, symbols that fall together after a calm day were still independent."""
    rng = np.random.default_rng(4)
    config = AdaptationConfig(window_s=600.0, min_independent=100)
    made = Recalibrator(config, class_count=3, labels_per_row=1.0)
    share, worth = np.full((20, 3), 1 / 3), []
    for at in range(3_600):
        labels = rng.integers(0, 3, 20)
        end_ns = NOW_NS + at * NS_PER_S
        made.take(share, labels[:1].repeat(20) if at // 1_200 == 1 else labels, np.full(20, end_ns), end_ns)
        if at % 1_200 == 1_199:
            worth.append(made.window(end_ns).independent / (600 * 20))
    assert worth == pytest.approx([1.0, 1 / 20, 1.0], rel=0.15)
