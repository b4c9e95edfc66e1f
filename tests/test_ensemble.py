"""The ensemble: shapes it refuses, and answers that do not depend on the batch."""

from __future__ import annotations

import numpy as np
import pytest

from gpuscalp.ensemble import Calibration, Ensemble
from gpuscalp.errors import ModelError, ShapeError
from gpuscalp.labels import CLASSES
from gpuscalp.ops.forest import Forest, ForestScratch

COLUMNS = 4


def stumps(member_count: int = 3, seed: int = 0) -> Forest:
    """One tree with one split per member and class."""
    rng = np.random.default_rng(seed)
    trees = member_count * len(CLASSES)
    return Forest(
        left=np.tile(np.array([1, -1, -1], np.int32), trees),
        right=np.tile(np.array([2, -1, -1], np.int32), trees),
        feature=(np.tile([1, 0, 0], trees) * np.repeat(rng.integers(0, COLUMNS, trees), 3)).astype(np.int32),
        value=rng.standard_normal(3 * trees).astype(np.float32),
        default_left=np.tile([True, False, False], trees),
        tree_start=np.arange(0, 3 * trees + 1, 3, dtype=np.int64),
        tree_member=np.repeat(np.arange(member_count, dtype=np.int32), len(CLASSES)),
        tree_class=np.tile(np.arange(len(CLASSES), dtype=np.int32), member_count),
        base=np.full((member_count, len(CLASSES)), 0.5, np.float32),
        objective="multi:softprob",
        feature_count=COLUMNS,
    )


def ensemble_of(forest: Forest) -> Ensemble:
    return Ensemble(
        forest,
        Calibration("vector", np.array([0.8, 1.1, 0.9]), np.array([0.0, 0.2, -0.1])),
        np.array([-2.0, 0.0, 2.0]),
    )


@pytest.mark.parametrize("batch", [1, 2, 3, 64, 65])
def test_prediction_of_a_row_does_not_depend_on_the_batch(rng, batch):
    ensemble = ensemble_of(stumps())
    x = rng.standard_normal((130, COLUMNS)).astype(np.float32)
    x[rng.random(x.shape) < 0.2] = np.nan
    whole = ensemble.predict(x)
    scratch = ForestScratch.of(ensemble.forest)
    for first in range(0, len(x), batch):
        part = ensemble.predict(np.ascontiguousarray(x[first : first + batch]), scratch=scratch)
        for name in ("probability", "agreement", "spread", "edge_bps"):
            wanted = getattr(whole, name)[first : first + batch]
            assert getattr(part, name).tobytes() == wanted.tobytes(), name


def test_signals_have_the_shapes_of_the_interface():
    ensemble = ensemble_of(stumps(member_count=5))
    signals = ensemble.predict(np.zeros((7, COLUMNS), np.float32))
    assert len(signals) == 7
    assert signals.margins.shape == (5, 7, 3)
    assert signals.margins.dtype == np.float32
    assert signals.probability.shape == (7, 3)
    assert signals.probability.dtype == np.float64
    np.testing.assert_allclose(signals.probability.sum(axis=1), 1.0, rtol=1e-12)
    np.testing.assert_allclose(signals.edge_bps, signals.probability @ ensemble.class_return_bps, rtol=1e-12)


def test_no_rows_give_no_signals():
    assert len(ensemble_of(stumps()).predict(np.empty((0, COLUMNS), np.float32))) == 0


@pytest.mark.parametrize(
    "x",
    [
        np.zeros((2, COLUMNS + 1), np.float32),
        np.zeros(COLUMNS, np.float32),
        np.zeros((2, COLUMNS), np.float64),
        np.zeros((COLUMNS, 2), np.float32).T,
    ],
    ids=["columns", "axes", "dtype", "order"],
)
def test_rows_of_another_form_are_refused(x):
    with pytest.raises(ShapeError):
        ensemble_of(stumps()).predict(x)


@pytest.mark.parametrize(
    ("calibration", "returns"),
    [
        (Calibration.identity(2), np.zeros(3)),
        (Calibration.identity(3), np.zeros(4)),
        (Calibration.identity(3), np.array([0.0, np.nan, 0.0])),
        (Calibration("vector", np.array([1.0, np.inf, 1.0]), np.zeros(3)), np.zeros(3)),
    ],
)
def test_parts_that_do_not_fit_are_refused(calibration, returns):
    with pytest.raises(ModelError):
        Ensemble(stumps(), calibration, returns)
