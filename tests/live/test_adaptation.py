"""Recalibration in a session: within its bounds, written down, repeated to the bit, whoever predicts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gpuscalp.config import AdaptationConfig
from gpuscalp.contract import Contract
from gpuscalp.journal import RecordKind, read_records
from gpuscalp.latency import LatencyHistogram
from gpuscalp.live.adaptation import Adaptation
from gpuscalp.live.monitor import Monitor
from gpuscalp.live.predictor import HostPredictor, Prediction
from gpuscalp.live.records import ModelRecord, Scaling, decode
from gpuscalp.live.session import Session
from gpuscalp.live.verify import verify
from gpuscalp.schema import NS_PER_S
from tests.live import script
from tests.live.test_models import InPart

# Steps every half second of a market of twelve: shorter than a session would be allowed to have.
CONFIG = AdaptationConfig(
    recalibrate=True,
    every_s=0.5,
    window_s=600.0,
    min_independent=1.0,
    max_bias=0.02,
    max_bias_per_hour=100.0,
    max_log_scale=0.02,
    max_log_scale_per_hour=100.0,
)


# The second could be a correction of the model's own, and is far beyond the bounds of one.
FOREIGN = [Scaling((2.0, 1.0, 1.0), (0.0, 0.0, 0.0)), Scaling((2.0, 2.0, 2.0), (0.8, 0.0, -0.8))]


class Driver:
    """Lets an adaptation see a session that is replayed, and do what it wants after each step."""

    def __init__(
        self,
        config: AdaptationConfig,
        foreign: Scaling = FOREIGN[0],
        foreign_at: int = -1,
        predictor: Callable[[Any], Any] | None = None,
    ) -> None:
        self.config, self.foreign, self.foreign_at = config, foreign, foreign_at
        self.predictor = predictor
        self.adaptation: Adaptation | None = None
        self.made: list[ModelRecord] = []

    def __call__(self, session: Session) -> None:
        if self.adaptation is None:
            self.adaptation = Adaptation.of(session, self.config)
            assert self.adaptation is not None
            session.engine.watcher = self.monitor = Monitor(session, LatencyHistogram())
            self.monitor.adapt = self.adaptation.mature
            if self.predictor is not None:
                session.engine.predictor = self.predictor(session.engine.predictor)
        if session.engine.market is None:
            return
        self.monitor.settle()
        if session.engine.frame_count == self.foreign_at:
            self.foreign_at = -1
            digest = session.engine.roles.lead.bundle
            session.on_model(ModelRecord("lead", digest, self.foreign, by="operator"), 1)
        elif (work := self.adaptation.due(session.engine.market.end_ns)) is not None and (record := work()):
            self.made.append(session.on_model(record, session.market.last_recv_ns))


class Losing:
    """Another predictor, whose device fails at each seventh frame."""

    def __init__(self, other: Any) -> None:
        self._predict, self._frames = other.predict, 0
        self.begin, self.use, self.signals = other.begin, other.use, other.signals

    def predict(self, x: Any, digests: Any, *, wanted: bool) -> Prediction:
        self._frames += 1
        found = self._predict(x, digests, wanted=wanted)
        return Prediction(None, True) if self._frames % 7 == 0 else found


def losing_in_part(host: HostPredictor) -> Losing:
    return Losing(InPart(host))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("adaptation")
    script.write_material(made, seconds=12, step_ms=50)
    return made


def replayed(folder: Path, name: str, driver: Driver) -> list[ModelRecord]:
    script.Material.of(folder).replay(folder / name, device="cpu", on_step=driver)
    return [
        decode(record, ModelRecord)
        for record in read_records(folder / name / "journal")
        if record.kind == RecordKind.MODEL
    ]


def test_steps_are_written_stay_in_their_bounds_and_verify(folder):
    driver = Driver(CONFIG)
    written = replayed(folder, "adapted", driver)
    assert written == driver.made
    assert len(written) >= 3
    before = np.zeros(3)
    for record in written:
        assert (record.role, record.by) == ("lead", "adaptation")
        bias = np.array(record.calibration.bias)
        assert np.abs(bias).max() <= CONFIG.max_bias + 1e-9
        assert np.abs(bias - before).max() <= CONFIG.max_bias_per_hour * CONFIG.every_s / 3_600 + 1e-9
        assert record.evidence["rows"] > 0
        assert record.evidence["independent_labels"] < record.evidence["rows"]
        before = bias
    found = verify(folder / "adapted")
    assert (found["differing"], found["verdicts_differing"]) == (0, 0)


def test_the_same_inputs_make_the_same_steps(folder):
    assert replayed(folder, "once", Driver(CONFIG)) == replayed(folder, "twice", Driver(CONFIG))


@pytest.mark.parametrize(
    ("by_cpu", "by_workers"), [(None, InPart), (Losing, losing_in_part)], ids=["sound", "with faults"]
)
def test_where_workers_predict_all_rows_count_as_the_cpu_finds_them(folder, tmp_path, by_cpu, by_workers):
    """Only those counted that the CPU had checked ahead of an order: there the lead is too sure of itself."""
    alone, shared = (Driver(CONFIG, predictor=each) for each in (by_cpu, by_workers))
    written = replayed(folder, str(tmp_path / "alone"), alone)
    assert len(written) >= 3
    assert replayed(folder, str(tmp_path / "shared"), shared) == written
    found, wanted = (each.monitor.outcomes for each in (shared, alone))
    assert found.quality() == wanted.quality()
    assert found.predicted_count.tolist() == wanted.predicted_count.tolist()
    assert found.confidence.sum == wanted.confidence.sum
    again = verify(tmp_path / "shared")
    assert (again["differing"], again["verdicts_differing"], again["unproved_differing"]) == (0, 0, 0)


@pytest.mark.parametrize("foreign", FOREIGN, ids=["one class", "all classes"])
def test_a_calibration_that_somebody_else_has_set_stays(folder, foreign, tmp_path):
    driver = Driver(CONFIG, foreign, foreign_at=40)
    written = replayed(folder, str(tmp_path / "foreign"), driver)
    assert written[-1].by == "operator"
    assert {record.by for record in written[:-1]} <= {"adaptation"}


def test_it_is_off_unless_it_is_wanted(folder):
    class _Nobody:
        bundle: Contract | None = None

    assert Adaptation.of(_Nobody(), AdaptationConfig()) is None  # type: ignore[arg-type]
    assert NS_PER_S * AdaptationConfig().every_s >= 60 * NS_PER_S
