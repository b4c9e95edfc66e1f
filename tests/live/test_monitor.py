"""The monitor of a session that is driven by hand: what it counts is what training would have made of it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from gpuscalp.bench import frame_close
from gpuscalp.drift.stability import bin_counts, psi
from gpuscalp.labels import BLOCKED, label_frames
from gpuscalp.live import monitor as monitor_module
from gpuscalp.live.monitor import Monitor
from gpuscalp.live.records import ModelRecord, Scaling
from gpuscalp.live.roles import Roles
from gpuscalp.orders import MarketRow, SignalRow
from gpuscalp.schema import FrameBlock
from gpuscalp.score import REASONS, score
from gpuscalp.trader import StepReport

SYMBOLS, FRAMES = 6, 1_100


class Witness:
    """Stands between the engine and the monitor, and keeps copies of everything that passes."""

    made: Witness | None = None

    def __init__(self, monitor: Monitor) -> None:
        Witness.made = self
        self.monitor, self.session = monitor, monitor._session
        self.steps_ns, self.settles_ns = [], [0]
        self.markets: list[MarketRow] = []
        self.said: list[np.ndarray] = []
        self.features: list[np.ndarray] = []
        self.longest = 0

    def on_step(self, market: MarketRow, signals: SignalRow, report: StepReport) -> None:
        self.markets.append(market)
        self.said.append(signals.probability.copy())
        self.features.append(self.session.engine.stream.there.features[:, :, 0].copy())
        self.monitor.on_step(market, signals, report)
        self.longest = max(self.longest, len(self.monitor._waiting))
        self.steps_ns.append(0)

    def on_report(self, *told: Any) -> None:
        self.monitor.on_report(*told)

    def settle(self) -> None:
        """Never: the monitor has to help itself."""

    @property
    def sound(self) -> np.ndarray:
        """bool[T, S]: rows that training could have used."""
        quality = np.stack([each.quality for each in self.markets])
        return (quality & BLOCKED) == 0


@pytest.fixture(scope="module")
def witness(tmp_path_factory) -> Witness:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(frame_close, "_Watched", Witness)
        frame_close.measure(
            tmp_path_factory.mktemp("driven"), symbols=SYMBOLS, rate=600, frames=FRAMES, warm_up=0, rounds=2
        )
    assert Witness.made is not None
    Witness.made.monitor.settle()
    return Witness.made


def test_frames_that_nobody_asks_for_do_not_pile_up(witness):
    assert len(witness.markets) == FRAMES
    assert witness.longest == monitor_module._WAITING_MAX - 1
    assert not witness.monitor._waiting
    assert not witness.monitor._sampled


def test_labels_are_those_of_the_whole_recording(witness):
    config = witness.session.bundle.contract.training.config
    count = (FRAMES, SYMBOLS)
    block = FrameBlock(
        end_ns=np.array([each.end_ns for each in witness.markets]),
        channels=np.empty((FRAMES, 0, SYMBOLS), np.float32),
        quality=np.stack([each.quality for each in witness.markets]),
        bid_px=np.stack([each.bid_px for each in witness.markets]),
        ask_px=np.stack([each.ask_px for each in witness.markets]),
        mark=np.empty(count),
    )
    labels = label_frames(block, config.label, config.grid)
    said = np.stack(witness.said)
    good = labels.valid & np.isfinite(said).all(axis=2)
    assert good.sum() > 500
    outcomes = witness.monitor.outcomes
    came, named = labels.direction[good], said[good].argmax(axis=1)
    assert outcomes.matured_count.tolist() == np.bincount(came, minlength=3).tolist()
    quality = outcomes.quality()
    assert quality.rows == good.sum()
    assert quality.accuracy == pytest.approx((came == named).mean())


def test_drift_sees_each_symbol_in_turn_and_sound_rows_alone(witness):
    stream = witness.session.engine.stream
    assert np.shares_memory(stream.there.features, stream._here.features), "it is what the model was given"
    sound = witness.sound
    taken = []
    turn = 0
    for frame in range(FRAMES):
        rows = range(turn, min(turn + 4, SYMBOLS))
        taken += [witness.features[frame][row] for row in rows if sound[frame, row]]
        turn = 0 if turn + 4 >= SYMBOLS else turn + 4
    drift = witness.monitor.drift.drift
    assert drift.rows() == len(taken) > 1_000
    trained = witness.session.bundle.reference.trained
    x = np.array(taken)
    wanted = psi(trained.shares, bin_counts(trained.edges, x) / len(x))
    found = psi(trained.shares, drift._counts.total() / drift.rows())
    assert found == pytest.approx(wanted)


def test_doubtful_rows_are_those_that_training_would_leave_out(witness):
    assert witness.monitor._rows == FRAMES * SYMBOLS
    assert witness.monitor._doubtful == np.count_nonzero(~witness.sound)


def _status(**changes: Any) -> dict[str, Any]:
    """Return what the monitor reads of a status, of a session that is well."""
    return {
        "engine": {"late_predictions": 0, "lost_frames": 0, "faults": {}},
        "feeds": {
            "messages": {"gaps": 0, "rejects": 0},
            "silent": [],
            "unsynced": [],
            "connections_lost": {},
        },
        "frames": FRAMES,
        "last_frame_age_ms": 100.0,
        "clock": {"drifted": False},
        "drawdown_pct": 0.0,
        "state": "active",
        "health": {"device": [], "venue": []},
    } | changes


def test_what_happened_before_this_process_costs_nothing_and_what_happens_then_does(witness):
    monitor = witness.monitor
    now_ns = witness.markets[-1].end_ns
    old = {"late_predictions": 500, "lost_frames": 500, "faults": {"hang": 9}}
    first = monitor.status(_status(engine=old), now_ns)["score"]
    words = {each["reason"] for each in first["lost"]}
    assert not words & {"late_predictions", "device", "gaps", "rejects", "connections"}
    later = monitor.status(
        _status(
            engine=old | {"late_predictions": 600, "faults": {"hang": 10}},
            frames=2 * FRAMES,
            state="halted",
            clock={"drifted": True},
            feeds=_status()["feeds"] | {"silent": ["A", "B"], "connections_lost": {"public": 5}},
        ),
        now_ns,
    )["score"]
    lost = {each["reason"]: each for each in later["lost"]}
    assert lost["late_predictions"]["value"] == pytest.approx(100 / FRAMES)
    assert lost["late_predictions"]["points"] == 5.0
    assert lost["device"] == {"part": "errors", "reason": "device", "points": 2.0, "value": 1.0}
    assert lost["gate"]["points"] == 8.0
    assert lost["clock"]["points"] == 3.0
    assert lost["silent"] == {"part": "data", "reason": "silent", "points": 6.0, "value": 2 / SYMBOLS}
    assert lost["connections"]["points"] == 1.5
    assert later["value"] == pytest.approx(100 - sum(each["points"] for each in later["lost"]))
    assert {each["reason"] for each in later["lost"]} <= {reason.word for reason in REASONS}
    distrusted = monitor.status(_status(engine=old, health={"device": ["gpu0:lost"], "venue": []}), now_ns)
    assert {each["reason"]: each["points"] for each in distrusted["score"]["lost"]}["device"] == 6.0


def test_another_lead_begins_the_hour_anew_and_another_calibration_does_not(witness):
    monitor, digest = witness.monitor, witness.session.bundle.contract.digest
    roles, end_ns = Roles(digest), witness.markets[-1].end_ns
    before = monitor.outcomes.quality()
    roles.take(ModelRecord("lead", digest, Scaling((2.0,) * 3, (0.0,) * 3)), end_ns + 1, end_ns)
    monitor.on_models(roles)
    assert monitor.outcomes.quality() == before
    assert before is not None
    roles.take(ModelRecord("lead", "0" * 64), end_ns + 1, end_ns)
    monitor.on_models(roles)
    assert monitor.outcomes.quality() is None


def test_an_hour_later_it_is_forgotten(witness):
    now_ns = witness.markets[-1].end_ns + 2 * 3_600 * 10**9
    found = witness.monitor.status(_status(frames=2 * FRAMES), now_ns)
    assert found["predictions"]["live"] is None
    assert found["drift"]["rows"] == 0
    assert found["score"]["value"] == score({}).value == 100.0
