"""What the rules make of a session's models, and of what was trained: with parts made by hand."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from gpuscalp.config import LiveConfig, PromotionConfig, RetrainingConfig
from gpuscalp.errors import ModelError
from gpuscalp.live.records import ModelRecord
from gpuscalp.live.roles import BY_RETRAINING, BY_RULE, Roles
from gpuscalp.live.succession import Succession
from gpuscalp.risk.gate import RiskState

A, B, C = (letter * 64 for letter in "abc")
NOW_NS = 1_700_000_000 * 10**9


class Lived:
    """A session whose models change at once, and its succession.

    Parameters
    ----------
    broken, fault : a model that cannot be used, and what comes of it
    candidate : what lies in the place of the candidate
    begins : do not let its succession begin yet
    """

    def __init__(
        self, path: Path, *, broken: str = "", candidate: str = C, begins: bool = True, **config: Any
    ) -> None:
        self.roles, self.taken, self.broken = Roles(A), list[ModelRecord](), broken
        self.fault: Exception = ModelError("damaged")
        self.add_fails = True
        self.candidate, self.sources = candidate, list[Path]()
        self.rivals = SimpleNamespace(
            leaves="", promotes=False, gaps=dict, evidence=dict, status=lambda: {"test": None, "watch": None}
        )
        self.market = SimpleNamespace(last_recv_ns=0, exch_ns=0, models_waiting=0)
        gate = SimpleNamespace(state=RiskState.ACTIVE)
        grid = SimpleNamespace(frame_ms=100)
        training = SimpleNamespace(config=SimpleNamespace(grid=grid))
        self._parts: Any = (
            SimpleNamespace(
                path=path,
                about=SimpleNamespace(created_ns=NOW_NS, instruments=[None]),
                bundle=SimpleNamespace(contract=SimpleNamespace(training=training)),
                market=self.market,
                engine=SimpleNamespace(frame_count=0, roles=self.roles, trader=SimpleNamespace(gate=gate)),
                models=SimpleNamespace(add=self.add, path_of=lambda digest: path / digest),
            ),
            LiveConfig(**config),
            SimpleNamespace(rivals=self.rivals),
            self.use,
        )
        if begins:
            self.begin()

    def begin(self) -> None:
        self.succession = Succession(*self._parts)

    def add(self, source: Path, *, now_ns: int) -> str:
        self.sources.append(source)
        if self.candidate == self.broken and self.add_fails:
            raise self.fault
        return self.candidate

    async def use(self, record: ModelRecord, *, still: Any = None) -> None:
        if record.bundle == self.broken:
            raise self.fault
        assert still is None or still(self.roles)
        self.taken.append(record)
        self.roles.take(record, len(self.taken), 0)

    async def polled(self, count: int = 3, now_ns: int = NOW_NS) -> None:
        for _ in range(count):
            self.succession.poll(now_ns)
            while (change := self.succession._change) is not None and not change.done():
                await asyncio.sleep(0.001)


def test_a_shadow_is_promoted_though_the_model_before_cannot_be_used(tmp_path):
    """A way back that was barred once barred the way forward as well, for as long as the lead was off."""

    async def run() -> Lived:
        lived = Lived(tmp_path, broken=A, promotion=PromotionConfig(by="rule"))
        lived.roles.take(ModelRecord("lead", B, by=BY_RULE), 1, 10)
        lived.roles.take(ModelRecord("shadow", C), 2, 20)
        lived.rivals.leaves = "log_loss"
        await lived.polled()
        assert A in lived.succession.status()["unusable"]
        assert not lived.taken
        lived.rivals.promotes = True
        await lived.polled(1)
        return lived

    lived = asyncio.run(run())
    assert [(each.bundle, each.by) for each in lived.taken] == [(C, BY_RULE)]


@pytest.mark.parametrize("fault", [MemoryError(), ValueError("not a model")])
@pytest.mark.parametrize("of", ["adding", "using"])
def test_a_model_that_does_not_fit_into_memory_leaves_the_session_as_it_is(tmp_path, fault, of):
    """It once ended the session, though the same model by hand was refused."""
    trained(tmp_path)

    async def run() -> Lived:
        lived = Lived(tmp_path, broken=C, retraining=RetrainingConfig(every_hours=1.0))
        lived.fault = fault
        if of == "using":
            lived.add_fails = False
        await lived.polled()
        return lived

    lived = asyncio.run(run())
    assert lived.succession.status()["unusable"] == {C: str(fault) or "MemoryError"}
    assert not lived.taken


def trained(path: Path, **changes: Any) -> None:
    """Leave what a process that has trained C leaves, and the kill of its session."""
    answer = {"digest": C, "bundle": "/elsewhere/retraining/candidate", "rows": 5, "metrics": {"ic": 0.1}}
    (path / "retraining").mkdir(exist_ok=True)
    (path / "retraining" / "answer.json").write_text(json.dumps(answer | changes))


DAILY = RetrainingConfig(every_hours=24.0)
SHADOW = ModelRecord("shadow", C, by=BY_RETRAINING)


def test_what_was_trained_before_a_kill_is_taken_up_by_the_next_process(tmp_path):
    """A session that was restarted daily, shortly after each retraining, never had a new model."""
    trained(tmp_path)
    lived = Lived(tmp_path, retraining=DAILY)
    asyncio.run(lived.polled())
    assert [(each.role, each.bundle, each.by) for each in lived.taken] == [("shadow", C, BY_RETRAINING)]
    assert lived.taken[0].evidence["rows"] == 5.0
    assert lived.sources == [tmp_path / "retraining" / "candidate"], "a session may have been moved"
    again = Lived(tmp_path, retraining=DAILY, begins=False)  # killed before the record was flushed
    again.begin()
    asyncio.run(again.polled())
    assert [each.bundle for each in again.taken] == [C]


@pytest.mark.parametrize("then", ["in the shadow", "removed", "in the lead", "another one since"])
def test_what_was_taken_up_is_not_taken_up_again(tmp_path, then):
    trained(tmp_path)
    lived = Lived(tmp_path, retraining=DAILY, begins=False)
    lived.roles.take(SHADOW, 1, 10)
    if then == "removed":
        lived.roles.take(ModelRecord("shadow", "", by="operator"), 2, 20)
    elif then == "in the lead":
        lived.roles.take(ModelRecord("lead", C, by=BY_RULE), 2, 20)
    elif then == "another one since":
        lived.roles.take(ModelRecord("shadow", B, by="operator"), 2, 20)
    lived.begin()
    asyncio.run(lived.polled())
    assert not lived.taken
    assert not lived.sources


def test_a_record_that_no_batch_has_taken_yet_is_waited_for(tmp_path):
    trained(tmp_path)
    lived = Lived(tmp_path, retraining=DAILY, begins=False)
    lived.market.models_waiting = 1
    lived.begin()
    asyncio.run(lived.polled())
    lived.roles.take(SHADOW, 1, 10)
    lived.market.models_waiting = 0
    asyncio.run(lived.polled())
    assert not lived.taken
    assert not lived.sources


@pytest.mark.parametrize(
    ("candidate", "broken", "told"),
    [(C, C, "the candidate cannot be used: damaged"), (B, "", f"the candidate is {B[:12]} by now")],
    ids=["half of it after a power cut", "of a retraining by hand since"],
)
def test_a_candidate_that_is_not_what_was_trained_is_told(tmp_path, candidate, broken, told):
    trained(tmp_path)
    lived = Lived(tmp_path, retraining=DAILY, candidate=candidate, broken=broken)
    asyncio.run(lived.polled())
    found = lived.succession.status()["retraining"]
    assert (found["state"], lived.taken) == ("failed", [])
    assert found["reason"].startswith(told)


@pytest.mark.parametrize(
    "changes",
    [{"digest": 7}, {"digest": None}, {"rows": "many"}, {"metrics": None}, {"bundle": None}],
    ids=lambda it: next(iter(it)),
)
def test_an_answer_that_is_none_is_passed_by(tmp_path, changes):
    trained(tmp_path, **changes)
    lived = Lived(tmp_path, retraining=DAILY)
    asyncio.run(lived.polled())
    assert not lived.sources
    answer = tmp_path / "retraining" / "answer.json"
    for text in ("", "{", "[]", "7", '{"error": {"what": "too few rows"}}'):
        answer.write_text(text)
        lived = Lived(tmp_path, retraining=DAILY)
        asyncio.run(lived.polled())
        assert not lived.sources


def test_a_session_that_does_not_retrain_takes_nothing_up(tmp_path):
    trained(tmp_path)
    lived = Lived(tmp_path)
    asyncio.run(lived.polled())
    assert not lived.sources


async def test_the_next_attempt_waits_until_what_was_trained_has_been_taken_up(tmp_path, monkeypatch):
    """It would empty the answer, and put another candidate into the place of the one that is being copied."""
    trained(tmp_path)
    lived = Lived(tmp_path, retraining=RetrainingConfig(every_hours=1.0, rows_min=1), begins=False)
    lived._parts[0].engine.frame_count = 10_000
    lived.market.models_waiting = 1
    lived.begin()
    begun: list[int] = []
    retrainer = lived.succession._retrainer
    monkeypatch.setattr(retrainer, "start", lambda lead, now_ns: begun.append(len(lived.taken)))
    monkeypatch.setattr(retrainer, "obstacle", lambda: "")
    late_ns = time.time_ns() + 9 * 3_600 * 10**9
    await lived.polled(2, late_ns)
    assert not begun
    lived.market.models_waiting = 0
    await lived.polled(2, late_ns)
    assert begun == [1]
