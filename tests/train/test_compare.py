"""The count of what two predictors disagree on, with predictors whose answers are known."""

from __future__ import annotations

import numpy as np
import pytest

from gpuscalp.ensemble import Calibration, Ensemble, Signals
from gpuscalp.errors import ParityError
from gpuscalp.train.compare import Comparer, decisions, total
from tests.ops.forests import random_forest

RETURNS = np.array([-2.0, 0.0, 2.0])


@pytest.fixture
def ensemble(rng):
    forest = random_forest(rng, depths=[2, 2, 2], member_count=1)
    return Ensemble(forest, Calibration.identity(3), RETURNS)


def test_differences_and_flips_are_those_of_the_rows(ensemble):
    ours = np.array([[[3.0, 0.0, 0.0], [0.0, 0.0, 3.0], [0.0, 3.0, 0.0], [0.0, 0.1, 0.0]]], np.float32)
    theirs = ours.copy()
    theirs[0, 1] = [3.0, 0.0, 0.0]  # another class, and sold instead of bought
    theirs[0, 3] = [0.0, 0.1, 0.25]  # another class, but nobody acts on it
    comparer = Comparer(ensemble, lambda _: ours, lambda _: theirs)
    comparer.add(None, ensemble.combine(ours))
    comparer.add(None, ensemble.combine(ours))
    found = total([comparer], "told")
    assert (found.made, found.rows, found.margins) == (True, 8, 24)
    assert (found.class_flips, found.decision_flips) == (4, 2)
    assert found.class_flips_per_million == 500_000.0
    assert found.decision_flips_per_million == 250_000.0
    assert found.margin == 3.0
    assert found.probability == pytest.approx((np.exp(3.0) - 1.0) / (np.exp(3.0) + 2.0))


def test_folds_are_added_up(ensemble):
    ours = np.zeros((1, 5, 3), np.float32)
    comparers = [
        Comparer(ensemble, lambda _: ours, lambda _, by=by: ours + np.float32(by)) for by in (0.5, 0.25)
    ]
    for comparer in comparers:
        comparer.add(None, ensemble.combine(ours))
    found = total(comparers, "told")
    assert (found.rows, found.margin) == (10, 0.5)
    assert found.probability < 1e-12  # the same shift of all classes


def test_one_bit_between_the_forests_is_an_error(ensemble):
    ours = np.ones((1, 2, 3), np.float32)
    theirs = ours.copy()
    theirs[0, 1, 2] = np.nextafter(np.float32(1.0), np.float32(2.0))
    comparer = Comparer(ensemble, lambda _: theirs, lambda _: ours)
    with pytest.raises(ParityError, match="both devices") as caught:
        comparer.add(None, ensemble.combine(ours))
    assert caught.value.value == "1 of 6 margins differ"


def test_nothing_compared_says_so():
    found = total([], "not made: told")
    assert found.to_dict() == {"made": False, "reason": "not made: told"}


def test_decision_takes_confidence_and_agreement():
    probability = np.array([[0.1, 0.2, 0.7], [0.7, 0.2, 0.1], [0.3, 0.31, 0.39], [0.1, 0.2, 0.7]])
    edge = probability @ RETURNS
    agreement = np.array([1.0, 1.0, 1.0, 0.4])
    signals = Signals(probability, agreement, edge * 0, edge, np.zeros((1, 4, 3), np.float32), probability)
    assert decisions(signals).tolist() == [1, -1, 0, 0]
