"""Whole sessions whose predictions come from worker processes that fail: nothing acts on a failure.

The workers run the CPU's twins, so that everything but the GPU is real: processes, shared memory, signals.
Time is the market's, at a pace at which workers get ready before it is over.
"""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest

from gpuscalp.journal import RecordKind, read_records
from gpuscalp.live import replay
from gpuscalp.live.directory import read_about
from gpuscalp.live.records import SignalRecord, VerdictRecord, decode
from gpuscalp.live.verify import verify
from gpuscalp.live.workers import engine_status, predicting
from gpuscalp.orders import SignalRow
from gpuscalp.strategy import PREDICTED_REASONS
from gpuscalp.worker import parse_fault
from tests.live import script

AT_FRAME = 60  # after its start: by then the worker leads
SECONDS, SPEED = 300, 12.0


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> script.Material:
    return script.write_material(tmp_path_factory.mktemp("material"), seconds=SECONDS, step_ms=50)


@dataclass
class Run:
    """A session that has ended, how its workers stood after each step, and what those who watch it heard."""

    path: Path
    engines: list[dict[str, Any]] = field(default_factory=list)
    longest_s: float = 0.0
    heard: dict[int, bytes] = field(default_factory=dict)  # probabilities of all rows, by frame

    def on_step(self, market, signals, report) -> None:
        self._hear(market.end_ns, signals)

    def on_whole(self, end_ns, lead, shadow) -> None:
        assert end_ns not in self.heard
        self._hear(end_ns, lead)

    def on_report(self, report, order, booked) -> None:
        pass

    def _hear(self, end_ns: int, said: SignalRow) -> None:
        if np.isfinite(said.probability).all():
            self.heard[end_ns] = said.probability.tobytes()

    def signals(self) -> list[SignalRecord]:
        records = read_records(self.path / "journal")
        return [decode(record, SignalRecord) for record in records if record.kind == RecordKind.SIGNAL]

    def predicted_intents(self) -> set[int]:
        records = read_records(self.path / "journal")
        verdicts = [decode(record, VerdictRecord) for record in records if record.kind == RecordKind.VERDICT]
        return {each.end_ns for each in verdicts if each.reason in PREDICTED_REASONS}


def run(material, path, faults=(), *, until=None, device="cpu", **overrides) -> Run:
    """Replay the market with workers; end early once ``until`` says so of the engine's status."""
    found = Run(path)
    began = [time.monotonic()]

    class EnoughError(Exception):
        pass

    def on_step(session) -> None:
        session.engine.watcher = found
        now = time.monotonic()
        found.longest_s = max(found.longest_s, now - began[0])
        began[0] = now
        found.engines.append(engine_status(session.engine, session.about))
        if until is not None and until(found.engines[-1]):
            raise EnoughError

    changes = {
        "engine.agree_batches": 10,
        "engine.restart_ms": 300,
        "engine.canary_ms": 100,
        # A busy machine must not look like a worker that hangs.
        "engine.answer_ms": 1_000 if any("hang" in fault for fault in faults) else 20_000,
        "engine.workers": "cpu" if device == "cpu" else "gpu",
        **overrides,
    }
    parsed = tuple(parse_fault(text) for text in faults)

    def with_faults(session, engine):
        return predicting(session, engine, parsed)

    with mock.patch.object(replay, "predicting", with_faults), contextlib.suppress(EnoughError):
        material.replay(path, changes, device=device, speed=SPEED, on_step=on_step)
    return found


@pytest.fixture(scope="module")
def alone(material, tmp_path_factory) -> Run:
    """A session of the CPU alone."""
    found = Run(tmp_path_factory.mktemp("alone") / "session")

    def on_step(session) -> None:
        session.engine.watcher = found

    material.replay(found.path, device="cpu", on_step=on_step)
    return found


def check(found: Run, alone: Run) -> list[SignalRecord]:
    """Assert what holds whatever fails; return the lost frames."""
    signals, by_cpu = found.signals(), {each.end_ns: each for each in alone.signals()}
    lost = [each for each in signals if each.lost]
    assert not {each.end_ns for each in lost} & found.predicted_intents()
    assert found.predicted_intents(), "nothing was ever wanted"
    for each in signals:
        assert each.rows == by_cpu[each.end_ns].rows
        assert each.margins == (b"" if each.lost else by_cpu[each.end_ns].margins)
    again = verify(found.path)
    assert (again["differing"], again["verdicts_differing"]) == (0, 0), again["first"]
    assert found.engines[-1]["lost_frames"] == len(lost)
    told = {each.end_ns for each in signals if not each.lost}
    assert found.heard == {at: said for at, said in alone.heard.items() if at in told}
    return lost


def recovered(reason: str):
    """Whether a worker has failed for a reason, and its replacement leads."""
    return lambda status: status["faults"].get(reason, 0) > 0 and status["leading"]


@pytest.mark.parametrize(
    "kind",
    [
        "out_of_memory",
        "hang",
        "wrong_answer",
        "killed",
        # To the session they are what the first is: tests/worker/test_failures.py tells them apart.
        pytest.param("illegal_address", marks=pytest.mark.thorough),
        pytest.param("device_lost", marks=pytest.mark.thorough),
    ],
)
def test_a_leading_worker_that_fails_costs_one_frame_and_is_replaced(material, alone, tmp_path, kind):
    found = run(material, tmp_path / "session", [f"{kind}:at_frame={AT_FRAME}"], until=recovered(kind))
    lost = check(found, alone)
    assert len(lost) == 1
    assert max(each.stages_ns[1] for each in lost) < 10e9, "the CPU waited for the answer of another fault"
    states = [status["leading"] for status in found.engines]
    first = states.index(True)
    assert False in states[first:], "the fault was not noticed"
    assert states[-1], "the replacement never led"
    last = found.engines[-1]
    assert last["faults"] == {kind: 1}
    assert last["last_fault"]["reason"] == kind
    assert last["last_fault"]["detail"]


def test_a_worker_that_never_starts_costs_nothing(material, alone, tmp_path):
    found = run(
        material,
        tmp_path / "session",
        ["start_failed:at_frame=0"],
        until=recovered("start_failed"),
    )
    assert check(found, alone) == []
    assert found.engines[-1]["leading"]


def test_the_rows_of_two_workers_fail_apart(material, alone, tmp_path):
    """One worker of two dies: the other goes on with its rows, the CPU takes over the rest."""
    found = run(
        material,
        tmp_path / "session",
        [f"killed:at_frame={AT_FRAME}"],
        until=recovered("killed"),
        **{"engine.gpus": 2},
    )
    assert len(check(found, alone)) == 1
    states = [[worker["state"] for worker in status["workers"]] for status in found.engines]
    assert any(second == "leading" and first != "leading" for first, second in states)
    assert found.engines[-1]["workers"][1]["restarts"] == 0


@pytest.mark.parametrize("at", [AT_FRAME, AT_FRAME + 1])
def test_a_wrong_row_on_which_nothing_could_follow_is_no_part_of_the_session(material, tmp_path, at):
    """Its turn comes at every second frame of two symbols. At the others its wrong margins went into the
    journal as if they were the session's: it did not verify, and could not be started again."""
    quiet = {"strategy.min_confidence": 0.999}
    found = run(
        material,
        tmp_path / "session",
        [f"wrong_answer:at_frame={at}"],
        until=lambda status: sum(each["frames_answered"] for each in status["workers"]) > AT_FRAME + 20,
        **quiet,
    )
    assert not found.predicted_intents()
    assert any(each.unproved for each in found.signals())
    again = verify(found.path)
    assert (again["differing"], again["verdicts_differing"]) == (0, 0), again["first"]
    assert again["unproved_differing"] + found.engines[-1]["faults"].get("wrong_answer", 0) == 1
    steps_left = iter(range(AT_FRAME))
    with contextlib.suppress(StopIteration):
        replay.run_replay(
            [material.recording],
            found.path,
            config=read_about(found.path).config,
            exchange_info=material.info,
            on_step=lambda _: next(steps_left),
        )
    assert next(steps_left, None) is None, "it does not go on"


@pytest.mark.gpu
def test_a_session_on_a_gpu_has_the_bits_of_the_cpu(material, alone, tmp_path):
    found = run(material, tmp_path / "session", device="cuda")
    assert check(found, alone) == []
    assert sum(status["leading"] for status in found.engines) > 100


@pytest.mark.gpu
@pytest.mark.parametrize("kind", ["out_of_memory", "illegal_address", "hang", "wrong_answer", "killed"])
def test_a_gpu_that_fails_costs_one_frame(material, alone, tmp_path, kind):
    found = run(
        material,
        tmp_path / "session",
        [f"{kind}:at_frame={AT_FRAME}"],
        until=recovered(kind),
        device="cuda",
    )
    assert len(check(found, alone)) == 1
