"""Telling live rows from training rows: the area against SciPy's rank test, the classifier on known drift."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import mannwhitneyu

from gpuscalp.drift.adversarial import _auc, compare, training_floors
from gpuscalp.drift.stability import Distribution

NAMES = ("price.level", "price.noise", "flow.spread", "flow.noise", "rare.sometimes", "time.hour")


def rows(seed: int, count: int, *, drifted: bool = False) -> np.ndarray:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(count, len(NAMES)))
    if drifted:
        x[:, 0] += 1.0
        x[:, 2] *= 2.0
    x[rng.random(count) < (0.6 if drifted else 0.2), 4] = np.nan
    return x.astype(np.float32)


@pytest.fixture(scope="module")
def found():
    trained = rows(1, 2_000)
    edges = Distribution.of(trained).edges
    floors = training_floors(trained, edges, NAMES)
    answers = {}
    for drifted in (False, True):
        live = rows(2, 1_500, drifted=drifted)
        answers[drifted] = {each.group: each for each in compare(trained, live, edges, NAMES, floors)}
    return answers


def test_area_is_that_of_the_rank_test():
    rng = np.random.default_rng(4)
    old, new = np.round(rng.normal(size=300), 1), np.round(rng.normal(0.5, 1, 200), 1)
    wanted = mannwhitneyu(new, old).statistic / (len(old) * len(new))
    assert _auc(old, new) == pytest.approx(wanted)


def test_rows_of_the_same_kind_cannot_be_told_apart(found):
    assert set(found[False]) == {"price", "flow", "rare"}, "the clock goes round by itself"
    for each in found[False].values():
        assert each.auc == pytest.approx(0.5, abs=0.04)
        assert each.floor == pytest.approx(0.5, abs=0.04)
        assert not each.stands_out


def test_a_level_a_spread_and_what_is_missing_are_seen_on_rows_that_were_not_learned(found):
    drifted = found[True]
    # Of two normal laws one apart: P(new > old) = Φ(1 / √2) = 0.760; tenths lose a little.
    assert drifted["price"].auc == pytest.approx(0.76, abs=0.03)
    # Of a normal law and one twice as wide, told apart by the square: 2·atan(2)/π = 0.705.
    assert drifted["flow"].auc == pytest.approx(0.70, abs=0.03)
    # Missing in 0.6 instead of 0.2 of the rows: 0.5 + 0.4 / 2.
    assert drifted["rare"].auc == pytest.approx(0.70, abs=0.03)
    for each in drifted.values():
        assert each.low <= each.auc <= each.high
        assert each.stands_out
