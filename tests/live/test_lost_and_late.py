"""Frames whose prediction was lost or came too late: nothing acts on them, and the journal repeats them."""

from __future__ import annotations

from unittest import mock

import numpy as np
import pytest

from gpuscalp.journal import RecordKind, read_records
from gpuscalp.live import repeat
from gpuscalp.live.predictor import HostPredictor, Prediction, Told
from gpuscalp.live.records import SignalRecord, StateRecord, VerdictRecord, decode
from gpuscalp.live.verify import verify
from gpuscalp.strategy import PREDICTED_REASONS
from tests.live import script


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> script.Material:
    return script.write_material(tmp_path_factory.mktemp("material"), seconds=30)


class Failing:
    """The CPU's predictor; at each third frame it fails."""

    def __init__(self, ensemble) -> None:
        self._host = HostPredictor(ensemble)
        self.frames = 0

    def begin(self, closed, checkpoint) -> None:
        self.frames += 1

    def predict(self, x, digests, *, wanted):
        if self.frames % 3 == 0:
            return Prediction(None, True)
        return self._host.predict(x, digests, wanted=wanted)


class Unproved:
    """The CPU's predictor, of which row 1 is taken to be a worker's word."""

    def __init__(self, ensemble) -> None:
        self._host = HostPredictor(ensemble)

    def begin(self, closed, checkpoint) -> None:
        pass

    def predict(self, x, digests, *, wanted):
        unproved = np.array([False, True])
        return self._host.predict(x, digests, wanted=wanted)._replace(unproved=unproved)


def replayed(material, path, *, instead=None, **overrides):
    def on_step(session) -> None:
        if instead is not None and isinstance(session.engine.predictor, HostPredictor):
            session.engine.predictor = instead(session.bundle.ensemble)

    material.replay(path, overrides, device="cpu", on_step=on_step)
    return path


def told(path, kind, body):
    return [decode(record, body) for record in read_records(path / "journal") if record.kind == kind]


def predicted_intents(path) -> list[int]:
    """Return the frames of intents that act upon a prediction."""
    verdicts = told(path, RecordKind.VERDICT, VerdictRecord)
    return [each.end_ns for each in verdicts if each.reason in PREDICTED_REASONS]


def test_nothing_is_wanted_in_a_lost_frame_and_the_journal_repeats_it(material, tmp_path):
    path = replayed(material, tmp_path / "session", instead=Failing)
    signals = told(path, RecordKind.SIGNAL, SignalRecord)
    lost = {each.end_ns for each in signals if each.lost}
    assert len(lost) == pytest.approx(len(signals) / 3, abs=2)
    intents = predicted_intents(path)
    assert len(intents) > 20
    assert not lost & set(intents)
    assert not any(each.margins for each in signals if each.lost)
    found = verify(path)
    assert (found["differing"], found["verdicts_differing"]) == (0, 0), found["first"]


def test_a_session_goes_on_after_lost_frames_from_its_journal(material, tmp_path):
    """The second start repeats frames that were lost, on a predictor that never fails."""
    path = replayed(material, tmp_path / "session", instead=Failing)
    for each in (path / "checkpoints").iterdir():
        each.unlink()
    replayed(material, path)
    assert len(told(path, RecordKind.STATE, StateRecord)) == 0


def test_nothing_is_wanted_where_a_prediction_was_not_proved(material, tmp_path):
    path = replayed(material, tmp_path / "session", instead=Unproved)
    verdicts = told(path, RecordKind.VERDICT, VerdictRecord)
    predicted = [each.symbol for each in verdicts if each.reason in PREDICTED_REASONS]
    assert len(predicted) > 20
    assert 1 not in predicted[5:], "the first step is the CPU's own"
    found = verify(path)
    assert (found["differing"], found["verdicts_differing"], found["unproved_differing"]) == (0, 0, 0)
    # To whom it was not told that row 1 was unproved, it comes out in another way.
    with mock.patch.object(repeat, "recorded_device", return_value=Told):
        assert verify(path)["verdicts_differing"] > 0


@pytest.mark.parametrize(("latency_ms", "late"), [(199, False), (201, True)])
def test_a_late_prediction_never_reaches_the_gate(material, tmp_path, latency_ms, late):
    path = replayed(
        material, tmp_path / "session", **{"cost.compute.low_ms": latency_ms, "engine.deadline_ms": 200}
    )
    signals = [each for each in told(path, RecordKind.SIGNAL, SignalRecord) if each.margins]
    assert len(signals) > 100
    assert {each.late for each in signals} == {late}
    assert bool(predicted_intents(path)) is not late
    found = verify(path)
    assert (found["differing"], found["verdicts_differing"]) == (0, 0), found["first"]
