"""How far workers are trusted: rows that could move money are computed once more, the others in turn."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from gpuscalp.ensemble import Calibration, Ensemble
from gpuscalp.live.predictor import FleetPredictor, HostPredictor
from tests.ops.forests import random_forest

SYMBOLS, FEATURES = 7, 5


class Found:
    def __init__(self, margins, missing=(), lost=False):
        self.margins, self.missing, self.lost = margins, missing, lost


class ScriptedFleet:
    """Answers with margins that the test has prepared, and notes what it is told."""

    def __init__(self):
        self.found = None
        self.waited, self.settled, self.rejected, self.failed, self.begun = [], [], [], [], 0

    def begin(self, closed, checkpoint):
        self.begun += 1

    def finish(self, digests, *, wait):
        self.waited.append(wait)
        return self.found

    def settle(self, margins):
        self.settled.append(margins)

    def reject(self, row):
        self.rejected.append(row)

    def fail(self, gpu, reason):
        self.failed.append((gpu, reason))


@pytest.fixture
def ensemble(rng):
    forest = random_forest(rng, depths=[2, 3, 4] * 6, member_count=2, class_count=3)
    return Ensemble(forest, Calibration.identity(), np.array([-3.0, 0.0, 3.0]))


@pytest.fixture
def x(rng):
    return rng.standard_normal((SYMBOLS, FEATURES)).astype(np.float32)


def predictor(ensemble, acting=()):
    fleet = ScriptedFleet()
    mask = np.zeros(SYMBOLS, bool)
    mask[list(acting)] = True
    fleets = SimpleNamespace(look=lambda: fleet)
    return FleetPredictor(ensemble, fleets, lambda signals: mask.copy()), fleet


def truth(ensemble, x):
    return ensemble.predict(x).margins


def flipped(margins, row):
    """Return margins of which one, of the last member and class, has another lowest bit."""
    wrong = margins.copy()
    wrong.view(np.uint32)[-1, row, -1] ^= 1
    return wrong


def predict(predictor, x, *, wanted=True):
    return predictor.predict(x, np.zeros(SYMBOLS, np.uint64), wanted=wanted)


def test_right_answers_count_and_are_settled(ensemble, x):
    chosen, fleet = predictor(ensemble, acting=range(SYMBOLS))
    fleet.found = Found(truth(ensemble, x))
    signals, lost, unproved = predict(chosen, x)
    assert unproved is None
    assert not lost
    wanted, _, _ = HostPredictor(ensemble).predict(x, np.zeros(SYMBOLS, np.uint64), wanted=True)
    assert np.array_equal(signals.probability, wanted.probability)
    assert np.array_equal(fleet.settled[0], wanted.margins)
    assert not fleet.rejected


@pytest.mark.parametrize("row", range(SYMBOLS))
def test_one_bit_in_a_row_that_could_act_loses_the_frame(ensemble, x, row):
    chosen, fleet = predictor(ensemble, acting=[row])
    fleet.found = Found(flipped(truth(ensemble, x), row))
    assert predict(chosen, x) == (None, True, None)
    assert (fleet.rejected, fleet.settled) == ([row], [None])


def test_a_wrong_row_that_never_acts_is_found_when_its_turn_comes(ensemble, x):
    chosen, fleet = predictor(ensemble)
    fleet.found = Found(flipped(truth(ensemble, x), 4))
    frames = 0
    while not predict(chosen, x).lost:
        frames += 1
        assert frames < SYMBOLS
    assert fleet.rejected == [4]


def test_rows_that_nobody_answers_are_the_cpus_own(ensemble, x):
    chosen, fleet = predictor(ensemble, acting=range(SYMBOLS))
    margins = truth(ensemble, x).copy()
    margins[:, 2:5] = 77.0
    fleet.found = Found(margins, missing=(range(2, 5),))
    signals, lost, unproved = predict(chosen, x)
    assert unproved is None
    assert not lost
    assert np.array_equal(signals.margins, truth(ensemble, x))
    assert not fleet.rejected


def test_rows_that_a_worker_alone_has_computed_are_named(ensemble, x):
    chosen, fleet = predictor(ensemble, acting=[1])
    fleet.found = Found(truth(ensemble, x), missing=(range(5, 7),))
    seen = []
    for _ in range(SYMBOLS):
        seen.append(set(np.flatnonzero(predict(chosen, x).unproved).tolist()))
    assert set().union(*seen) == {0, 2, 3, 4}, "neither what could act nor the CPU's own"
    assert sorted(map(len, seen)) == [3, 3, 3, 3, 4, 4, 4], "each in its turn is proved"


def test_a_lost_frame_is_predicted_by_nobody(ensemble, x):
    chosen, fleet = predictor(ensemble, acting=range(SYMBOLS))
    fleet.found = Found(truth(ensemble, x), lost=True)
    assert predict(chosen, x) == (None, True, None)
    assert fleet.settled == [None]


def test_an_old_frame_is_not_waited_for(ensemble, x):
    chosen, fleet = predictor(ensemble)
    fleet.found = Found(np.full((2, SYMBOLS, 3), np.nan, np.float32), missing=(range(SYMBOLS),))
    assert predict(chosen, x, wanted=False) == (None, False, None)
    assert fleet.waited == [False]


def test_a_failure_that_others_have_seen_reaches_the_fleet_with_the_next_frame(ensemble):
    chosen, fleet = predictor(ensemble)
    chosen.fail(1, "xid79")
    assert not fleet.failed
    chosen.begin(None, dict)
    assert (fleet.failed, fleet.begun) == ([(1, "xid79")], 1)


def test_a_failure_that_others_see_while_a_frame_is_out_reaches_the_fleet_before_its_answer_counts(
    ensemble, x
):
    chosen, fleet = predictor(ensemble)
    fleet.found = Found(truth(ensemble, x))
    fleet.finish = lambda digests, *, wait: Found(fleet.found.margins, lost=bool(fleet.failed))
    chosen.begin(None, dict)
    chosen.fail(0, "lost")
    assert predict(chosen, x) == (None, True, None)


def test_without_frames_a_card_that_is_told_of_again_and_again_takes_no_memory(ensemble):
    chosen, fleet = predictor(ensemble)
    for _ in range(10_000):
        chosen.fail(0, "lost")
    chosen.begin(None, dict)
    assert 0 < len(fleet.failed) < 1_000
