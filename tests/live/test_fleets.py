"""Workers when another model leads: the CPU predicts at once, and none answers for a model not its own."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from types import SimpleNamespace

import numpy as np
import pytest

from gpuscalp.config import LiveConfig
from gpuscalp.ensemble import Calibration, Ensemble
from gpuscalp.live import fleets
from gpuscalp.live.fleets import Fleets
from gpuscalp.live.predictor import FleetPredictor
from gpuscalp.live.workers import engine_status
from tests.live.test_predictor import FEATURES, SYMBOLS, Found, ScriptedFleet
from tests.ops.forests import random_forest


class Workers(ScriptedFleet):
    """Workers of one model: they say its margins."""

    gpus = frozenset({0})

    def __init__(
        self, told: list[str], digest: str, ensemble: Ensemble, x: np.ndarray, ended: threading.Event
    ) -> None:
        super().__init__()
        self._told, self._digest, self._ended = told, digest, ended
        self.found = Found(ensemble.predict(x).margins)

    def start(self) -> None:
        self._told.append(f"start {self._digest}")

    def close(self) -> bool:
        self._told.append(f"close {self._digest}")
        return self.gone()

    def gone(self) -> bool:
        return self._ended.is_set()

    def pids(self) -> tuple[int, ...]:
        return (1,)

    def status(self):
        workers = [
            {
                "gpu": gpu,
                "device": "cuda",
                "faults": {reason: 1, "killed": 1},
                "restarts": 2,
                "last_fault": {"reason": reason, "at_ns": at_ns},
            }
            for gpu, reason, at_ns in ((0, "hang", 7), (1, "behind", 5), (0, "killed", 6))
        ]
        return {"leading": True, "why": "", "workers": workers}


def past(count: int) -> list[dict[str, object]]:
    """Return what has to be kept of so many ``Workers``."""
    return [
        {
            "gpu": 0,
            "faults": {"hang": count, "killed": 2 * count},
            "restarts": 4 * count,
            "last_fault": {"reason": "hang", "at_ns": 7},
        },
        {
            "gpu": 1,
            "faults": {"behind": count, "killed": count},
            "restarts": 2 * count,
            "last_fault": {"reason": "behind", "at_ns": 5},
        },
    ]


class Scene:
    def __init__(self, rng: np.random.Generator) -> None:
        self.told: list[str] = []
        self.gate, self.making = threading.Event(), threading.Event()
        self.ended = threading.Event()  # processes that are killed are gone
        self.ended.set()
        self.broken = False
        self.x = rng.standard_normal((SYMBOLS, FEATURES)).astype(np.float32)
        self.models = {
            digest: Ensemble(
                random_forest(rng, depths=[2, 3, 4] * members * 3, member_count=members, class_count=3),
                Calibration.identity(),
                np.array([-3.0, 0.0, 3.0]),
            )
            for digest, members in (("a", 2), ("b", 3), ("c", 1))
        }
        self.gate.set()
        self.fleets = Fleets(self._make, "a")
        self.predictor = FleetPredictor(self.models["a"], self.fleets, lambda _: np.ones(SYMBOLS, bool))

    def _make(self, digest: str) -> Workers:
        self.making.set()
        self.gate.wait(30)
        if self.broken:
            raise OSError("no memory")
        return Workers(self.told, digest, self.models[digest], self.x, self.ended)

    def use(self, digest: str, ensemble: Ensemble | None = None) -> None:
        self.predictor.use(digest, ensemble or self.models[digest])

    def frame(self, digest: str):
        """Assert that a frame is predicted by a model, to the bit."""
        self.predictor.begin(None, dict)
        found = self.predictor.predict(self.x, np.zeros(SYMBOLS, np.uint64), wanted=True)
        assert not found.lost
        assert np.array_equal(found.signals.margins, self.models[digest].predict(self.x).margins)
        return found.signals

    def settle(self) -> None:
        """Wait for what is done in the background."""
        self.fleets._background.submit(int).result(30)


@pytest.fixture
def scene(rng: np.random.Generator) -> Iterator[Scene]:
    made = Scene(rng)
    yield made
    made.gate.set()
    made.fleets.close()


@pytest.fixture
def stuck(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> Scene:
    """The model has changed, and a process of the workers before is stuck in its driver."""
    monkeypatch.setattr(fleets, "_LOOK_S", 0.001)
    scene.ended.clear()
    scene.use("b")
    while "does not end" not in scene.fleets.status()["why"]:
        time.sleep(0.001)
    return scene


def test_no_workers_are_started_beside_a_process_that_does_not_end(stuck: Scene) -> None:
    """Each change of model put one more process on a card that was wedged."""
    stuck.use("c")
    stuck.frame("c")
    assert not stuck.predictor.leads
    assert "does not end" in stuck.fleets.status()["why"]
    assert stuck.told == ["start a", "close a"]
    stuck.ended.set()
    stuck.settle()
    stuck.frame("c")
    assert stuck.predictor.leads
    assert stuck.told == ["start a", "close a", "start c"]


def test_session_ends_while_a_process_does_not(stuck: Scene) -> None:
    stuck.fleets.close()
    assert stuck.told == ["start a", "close a"]


def test_the_cpu_predicts_until_the_workers_of_the_new_model_are_there(scene: Scene) -> None:
    scene.frame("a")
    assert scene.predictor.leads
    scene.gate.clear()
    scene.use("b")
    scene.frame("b")
    assert not scene.predictor.leads
    status = scene.fleets.status()
    assert (status["leading"], status["workers"]) == (False, [])
    assert status["past_workers"] == past(1)
    assert "being started" in status["why"]
    scene.gate.set()
    scene.settle()
    scene.frame("b")
    assert scene.predictor.leads
    assert scene.told == ["start a", "close a", "start b"], "room is made first"
    assert scene.fleets.status()["past_workers"] == past(1), "counted once"


def test_faults_of_the_workers_of_earlier_models_stay_in_the_status(scene: Scene) -> None:
    """Their replacements were kept nowhere, and their faults without the GPU."""
    engine = SimpleNamespace(predictor=scene.predictor, late_count=0, lost_count=0)
    about = SimpleNamespace(device="cuda", config=LiveConfig())
    before = engine_status(engine, about)
    assert (before["faults"], before["past_workers"]) == ({"hang": 1, "behind": 1, "killed": 3}, [])
    scene.gate.clear()
    scene.use("b")
    between = engine_status(engine, about)
    assert (between["faults"], between["past_workers"]) == (before["faults"], past(1))
    assert between["last_fault"] == before["last_fault"] == {"reason": "hang", "at_ns": 7}
    scene.gate.set()
    scene.settle()
    scene.frame("b")
    after = engine_status(engine, about)
    assert after["faults"] == {"hang": 2, "behind": 2, "killed": 6}
    assert len(after["workers"]) == 3


def test_a_calibration_alone_needs_no_other_workers(scene: Scene) -> None:
    before = scene.frame("a").probability
    a = scene.models["a"]
    sharp = Calibration("vector", np.full(3, 2.0), np.zeros(3))
    scene.use("a", Ensemble(a.forest, sharp, a.class_return_bps))
    after = scene.frame("a").probability
    assert scene.predictor.leads
    assert not np.array_equal(before, after)
    assert scene.told == ["start a"]


def test_changes_that_follow_one_another_leave_the_workers_of_the_last(scene: Scene) -> None:
    scene.gate.clear()
    for digest in ("b", "c", "a", "c"):
        scene.use(digest)
        scene.frame(digest)
    scene.gate.set()
    scene.settle()
    scene.frame("c")
    scene.fleets.close()
    alive = {word for word in "abc" if scene.told.count(f"start {word}") > scene.told.count(f"close {word}")}
    assert alive == set()
    assert scene.told[-2:] == ["start c", "close c"]


def test_workers_that_end_before_they_are_taken_up_are_counted_too(scene: Scene) -> None:
    """Their processes may not have started, which is a fault."""
    scene.gate.clear()
    scene.making.clear()
    scene.use("b")
    assert scene.making.wait(30)
    scene.use("c")
    scene.gate.set()
    scene.settle()
    assert scene.told == ["start a", "close a", "start b", "close b", "start c"]
    assert scene.fleets.status()["past_workers"] == past(2)


def test_workers_that_cannot_be_had_leave_the_cpu_and_it_is_said(scene: Scene) -> None:
    scene.broken = True
    scene.use("b")
    scene.settle()
    scene.frame("b")
    assert "cannot be started: no memory" in scene.fleets.status()["why"]
    assert scene.fleets.pids() == ()
    scene.predictor.fail(0, "xid79")  # of a card, while nobody is there to be told
    scene.broken = False
    scene.use("c")
    scene.settle()
    scene.frame("c")
    assert scene.fleets.look().failed == [(0, "xid79")]
