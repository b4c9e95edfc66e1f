"""Recalibration in a session: within its bounds, written down, repeated to the bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gpuscalp.config import AdaptationConfig
from gpuscalp.contract import Contract
from gpuscalp.journal import RecordKind, read_records
from gpuscalp.live.adaptation import Adaptation
from gpuscalp.live.records import ModelRecord, Scaling, decode
from gpuscalp.live.session import Session
from gpuscalp.live.verify import verify
from gpuscalp.schema import NS_PER_S
from gpuscalp.succession.outcomes import Outcomes, Predicted
from tests.live import script

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

    def __init__(self, config: AdaptationConfig, foreign: Scaling = FOREIGN[0], foreign_at: int = -1) -> None:
        self.config, self.foreign, self.foreign_at = config, foreign, foreign_at
        self.adaptation: Adaptation | None = None
        self.made: list[ModelRecord] = []

    def __call__(self, session: Session) -> None:
        if self.adaptation is None:
            training = session.bundle.contract.training.config
            self.outcomes = Outcomes(len(session.about.instruments), training.label, training.grid)
            self.adaptation = Adaptation.of(session, self.config)
            assert self.adaptation is not None
            self.outcomes.told = [self.adaptation.mature]
            session.engine.watcher = self
        if session.engine.market is None:
            return
        if session.engine.frame_count == self.foreign_at:
            self.foreign_at = -1
            digest = session.engine.roles.lead.bundle
            session.on_model(ModelRecord("lead", digest, self.foreign, by="operator"), 1)
        elif (work := self.adaptation.due(session.engine.market.end_ns)) is not None and (record := work()):
            self.made.append(session.on_model(record, session.market.last_recv_ns))

    def on_step(self, market: Any, signals: Any, report: Any) -> None:
        said = signals.probability, signals.agreement
        self.outcomes.take([Predicted(market.end_ns, market.bid_px, market.ask_px, market.quality, *said)])

    def on_report(self, *told: Any) -> None:
        """Nothing follows from it."""

    def on_models(self, roles: Any) -> None:
        """The adaptation looks by itself."""

    def on_shadow(self, *told: Any) -> None:
        """There is none."""


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
