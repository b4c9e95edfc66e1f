"""Probabilities against plain NumPy, and the same bits in a batch of any size."""

from __future__ import annotations

import numpy as np
import pytest

from gpuscalp.ops.probability import calibrate, combine

MEMBERS, CLASSES = 5, 3
SCALE, BIAS = np.array([0.7, 1.2, 0.9]), np.array([0.1, -0.3, 0.0])
RETURNS = np.array([-2.0, 0.1, 1.9])


def run(margins, scale=SCALE, bias=BIAS):
    rows = margins.shape[1]
    out = {
        "raw": np.empty((rows, CLASSES)),
        "probability": np.empty((rows, CLASSES)),
        "agreement": np.empty(rows),
        "spread": np.empty(rows),
        "edge_bps": np.empty(rows),
    }
    combine(np.ascontiguousarray(margins), scale, bias, RETURNS, *out.values())
    return out


def softmax(z):
    e = np.exp(z - z.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def naive(margins, scale=SCALE, bias=BIAS):
    member = softmax(margins.astype(np.float64))
    raw = member.mean(axis=0)
    probability = softmax(np.log(raw) * scale + bias)
    scaled = softmax(np.log(member) * scale + bias)
    return {
        "raw": raw,
        "probability": probability,
        "agreement": (scaled.argmax(axis=2) == probability.argmax(axis=1)).mean(axis=0),
        "spread": (scaled @ RETURNS).std(axis=0),
        "edge_bps": probability @ RETURNS,
    }


@pytest.mark.parametrize("rows", [0, 1, 31, 32, 33, 256])
def test_combination_equals_the_direct_formula(rng, rows):
    margins = (3.0 * rng.standard_normal((MEMBERS, rows, CLASSES))).astype(np.float32)
    found, wanted = run(margins), naive(margins)
    for name in wanted:
        np.testing.assert_allclose(found[name], wanted[name], rtol=1e-12, atol=1e-14, err_msg=name)


def test_row_has_the_same_bits_in_a_batch_of_any_size(rng):
    margins = (3.0 * rng.standard_normal((MEMBERS, 97, CLASSES))).astype(np.float32)
    whole = run(margins)
    for row in range(97):
        alone = run(margins[:, row : row + 1])
        for name in whole:
            assert alone[name].tobytes() == whole[name][row : row + 1].tobytes(), name


def test_calibration_alone_gives_the_bits_of_the_combination(rng):
    margins = (3.0 * rng.standard_normal((MEMBERS, 50, CLASSES))).astype(np.float32)
    found = run(margins)
    again = np.empty_like(found["raw"])
    calibrate(found["raw"], SCALE, BIAS, again)
    np.testing.assert_array_equal(again, found["probability"])


def test_identity_calibration_changes_nothing_but_the_last_place(rng):
    margins = rng.standard_normal((MEMBERS, 20, CLASSES)).astype(np.float32)
    found = run(margins, np.ones(CLASSES), np.zeros(CLASSES))
    np.testing.assert_allclose(found["probability"], found["raw"], rtol=1e-14)


def test_members_that_agree_have_no_spread():
    margins = np.tile(np.array([0.0, 1.0, 5.0], np.float32), (MEMBERS, 1, 1))
    found = run(margins)
    assert found["agreement"][0] == 1.0
    assert found["spread"][0] == pytest.approx(0.0, abs=1e-15)


def test_shift_of_the_calibration_is_no_disagreement():
    margins = np.tile(np.array([1.0, 0.9, 0.0], np.float32), (MEMBERS, 1, 1))
    found = run(margins, np.ones(CLASSES), np.array([0.0, 0.5, 0.0]))
    assert found["probability"][0].argmax() == 1
    assert found["agreement"][0] == 1.0


def test_extreme_margins_stay_finite():
    margins = np.zeros((MEMBERS, 2, CLASSES), np.float32)
    margins[:, 0, 0], margins[:, 1, 2] = 1e5, -1e5
    for scale in (SCALE, np.zeros(CLASSES)):
        found = run(margins, scale)
        for name in ("probability", "edge_bps", "spread", "agreement"):
            assert np.isfinite(found[name]).all(), name
        np.testing.assert_allclose(found["probability"].sum(axis=1), 1.0, rtol=1e-12)


def test_margin_that_is_no_number_gives_no_number():
    margins = np.zeros((MEMBERS, 2, CLASSES), np.float32)
    margins[2, 1, 1] = np.nan
    found = run(margins)
    for name in found:
        assert np.isfinite(found[name][0]).all(), name
        assert np.isnan(found[name][1]).all(), name
