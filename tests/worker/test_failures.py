"""Workers that fail: seen at once, taken over for, never listened to again, and replaced."""

from __future__ import annotations

import gc
import logging
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from gpuscalp.worker.memory import SLOTS
from tests.conftest import missing_gpu
from tests.waiting import until
from tests.worker.rig import SYMBOLS, Rig, eager, fleet_of, specs

ALL = (range(SYMBOLS),)
AT = 120  # frames of the process, by which it leads
# A worker that hangs is found after the first; whoever waited for another one that has failed would wait for
# the second. Both are long: on a busy machine a worker that is well may be that late.
HANG_MS, ANSWER_MS = 2_000, 20_000
TAKEOVER_S = 10.0


def _to_fault(run: Rig) -> tuple[int, float]:
    """Take frames until a leading worker fails; return the lost frame, and seconds to the CPU's answer."""
    while True:
        began = time.monotonic()
        found = run.step()
        if found.lost:
            assert found.missing == ALL
            following = run.step()
            assert not following.lost
            assert following.missing == ALL
            return run.at - 2, time.monotonic() - began
        time.sleep(0.001)


@pytest.mark.parametrize(
    ("words", "reason", "detail"),
    [
        (f"out_of_memory:at_frame={AT}", "out_of_memory", "OutOfMemoryError"),
        (f"illegal_address:at_frame={AT}", "illegal_address", "cudaErrorIllegalAddress"),
        (f"device_lost:at_frame={AT}", "device_lost", "cudaErrorDevicesUnavailable"),
        (f"hang:at_frame={AT}", "hang", "has no answer after"),
        (f"killed:at_frame={AT}", "killed", "signal SIGKILL|ending"),
        (f"wrong_answer:part=digest,at_frame={AT}", "wrong_answer", "the features of 1 symbols differ"),
    ],
)
def test_a_fault_loses_its_own_frame_and_a_fresh_process_has_to_prove_itself(
    rig, caplog, words, reason, detail
):
    run = rig(words, answer_ms=HANG_MS if reason == "hang" else ANSWER_MS)
    run.until(lambda: run.state() == "shadow")
    synced = run.at - 1
    run.lead()
    pid = run.pid()
    lost, took_s = _to_fault(run)
    assert lost == synced + AT, "exactly the frame at which it failed"
    assert took_s < TAKEOVER_S
    status = run.fleet.status()
    worker = status["workers"][0]
    assert worker["faults"] == {reason: 1}
    assert status["lost_frames"] == 1
    assert worker["last_fault"]["reason"] == reason
    assert re.search(detail, worker["last_fault"]["detail"])
    assert abs(worker["last_fault"]["at_ns"] - time.time_ns()) < 10e9
    warned = [record.message for record in caplog.records if record.levelno == logging.WARNING]
    assert warned.pop() == f"frame {lost} is lost: nobody predicts it, 1 so far"
    assert len(warned) == 1
    assert f"worker 0 failed while leading: {reason}" in warned[0]
    # The next one begins like the first, and this time nothing happens.
    agreed = worker["frames_agreed"]
    run.lead()
    worker = run.fleet.status()["workers"][0]
    assert 10 <= worker["frames_agreed"] - agreed < 40, "more where it had to catch up"
    assert worker["restarts"] == 1
    assert worker["pid"] != pid
    for _ in range(2 * AT):
        assert run.step().missing == ()
    assert run.lost == [lost]
    assert run.rejected == []
    assert not Path(f"/proc/{pid}").exists(), "nothing is left of it, not even a zombie"


def test_a_wrong_margin_of_a_leader_is_the_callers_to_find(rig):
    run = rig(f"wrong_answer:at_frame={AT}")
    run.lead()
    run.until(lambda: bool(run.rejected))
    status = run.fleet.status()
    assert run.faults() == {"wrong_answer": 1}
    assert f"margins of row {SYMBOLS - 1} differ" in status["workers"][0]["last_fault"]["detail"]
    assert status["lost_frames"] == 1
    assert run.step().missing == ALL
    run.lead()
    assert len(run.rejected) == 1


def test_a_shadow_with_a_wrong_margin_never_leads(rig):
    run = rig("wrong_answer:at_frame=5,always=true", agree_batches=10)
    run.until(lambda: run.faults() == {"wrong_answer": 2})
    status = run.fleet.status()
    assert "1 of 30 margins differ" in status["workers"][0]["last_fault"]["detail"]
    assert run.lost == run.rejected == []
    assert status["lost_frames"] == 0


def test_a_wrong_canary_is_found_although_every_answer_is_right(rig):
    run = rig(f"wrong_answer:part=canary,at_frame={AT}")
    run.lead()
    run.until(lambda: bool(run.faults()))
    assert run.faults() == {"wrong_answer": 1}
    assert "canary" in run.fleet.status()["workers"][0]["last_fault"]["detail"]
    run.lead()
    assert run.rejected == []


def test_a_frame_that_was_not_waited_for_is_compared_when_its_answer_comes(rig):
    run = rig(f"wrong_answer:part=digest,at_frame={AT}")
    run.until(lambda: run.state() == "shadow")
    wrong = run.at - 1 + AT
    run.lead()
    while run.at < wrong:
        run.step()
    run.step(wait=False)
    for _ in range(2):  # after the second one it has answered
        run.beat()
    found = run.step()
    assert not found.lost, "no prediction was made of the frame that was wrong"
    assert found.missing == ALL
    assert run.faults() == {"wrong_answer": 1}


def test_a_leader_that_dies_between_two_frames_loses_none(rig):
    run = rig()
    run.lead()
    pid = run.pid()
    os.kill(pid, signal.SIGKILL)
    while _alive(pid):
        time.sleep(0.002)
    found = run.step()
    assert not found.lost
    assert found.missing == ALL
    assert run.faults() == {"killed": 1}
    assert run.fleet.status()["lost_frames"] == 0


def test_an_answer_that_comes_too_late_is_not_heard(rig):
    run = rig(answer_ms=HANG_MS)
    run.lead()
    process = run.fleet._workers[0].process
    pid, board = run.pid(), process.board
    os.kill(pid, signal.SIGSTOP)
    before = board.margins.copy()
    found = run.step()
    assert found.lost
    assert run.faults() == {"hang": 1}
    # It was ended although it stood still, before it could answer.
    run.until(lambda: not Path(f"/proc/{pid}").exists())
    assert board.margins.tobytes() == before.tobytes()
    board.margins[:] = 1e9  # as if it had answered, where it would have
    run.lead()
    for _ in range(2 * SLOTS):
        assert run.step().missing == ()
    assert run.rejected == []


def test_a_leader_that_gives_no_sign_of_life_is_ended_before_it_is_needed(rig):
    ahead_ns = 0
    run = rig(options={"monotonic_ns": lambda: time.monotonic_ns() + ahead_ns})
    run.lead()
    os.kill(run.pid(), signal.SIGSTOP)
    time.sleep(0.15)
    run.fleet._workers[0].look()  # the last beat is seen
    ahead_ns = 20_000_000_000
    found = run.step()
    assert run.faults() == {"hang": 1}
    assert not found.lost
    assert "no sign of life" in run.fleet.status()["workers"][0]["last_fault"]["detail"]


def test_a_shadow_that_falls_too_far_behind_is_given_up(rig):
    run = rig(agree_batches=100_000)
    run.until(lambda: run.state() == "shadow")
    os.kill(run.pid(), signal.SIGSTOP)
    for _ in range(SLOTS + 2):
        run.step()
    assert run.faults() == {"behind": 1}
    assert run.lost == []


def test_one_of_two_fails_and_the_other_goes_on(rig):
    run = rig(workers=2, restart_ms=60_000)
    run.lead()
    other = run.pid(1)
    assert run.step(between=lambda: run.kill(0)).lost
    for _ in range(20):
        assert run.step().missing == (range(2),), "the other one's rows are still its own"
    status = run.fleet.status()
    assert not status["leading"]
    assert status["why"] == "cpu: worker 0 failed: killed"
    run.fleet._workers[0]._restart_at_ns = 0  # the next one is due
    run.lead()
    assert run.pid(1) == other
    assert run.faults(1) == {}
    assert run.step().missing == ()
    assert run.rejected == []
    assert len(run.lost) == 1


@pytest.mark.parametrize(("gpu", "failed"), [(1, ["leading", "failed"]), (None, ["failed", "failed"])])
def test_a_fault_that_others_have_found_ends_a_worker(rig, gpu, failed):
    run = rig(workers=2, restart_ms=60_000)
    run.lead()
    lost = run.step(between=lambda: run.fleet.fail(gpu, "ecc")).lost
    assert lost
    assert [run.state(0), run.state(1)] == failed
    assert run.faults(1) == {"ecc": 1}
    run.fleet.fail(gpu, "ecc")
    assert run.faults(1) == {"ecc": 1}, "it has failed already"
    assert not run.step().lost


def test_a_worker_that_cannot_start_is_tried_again_later_and_later(rig):
    ahead_ns = 0
    run = rig(
        "start_failed:always=true",
        restart_ms=20_000,
        restart_max_ms=100_000,
        options={"monotonic_ns": lambda: time.monotonic_ns() + ahead_ns},
    )
    for failures, wait_ms in enumerate([20_000, 40_000, 80_000, 100_000, 100_000], 1):
        run.until(lambda count=failures: run.faults() == {"start_failed": count})
        worker = run.fleet.status()["workers"][0]
        assert wait_ms - 10_000 < worker["restart_in_ms"] <= wait_ms
        assert "the NVIDIA driver does not start" in worker["last_fault"]["detail"]
        run.step()
        assert run.state() == "failed"
        ahead_ns += wait_ms * 1_000_000
    assert run.fleet.status()["workers"][0]["restarts"] == 4


def test_a_worker_that_has_led_for_long_is_replaced_as_after_its_first_failure(rig):
    ahead_ns = 0
    run = rig(restart_ms=20_000, options={"monotonic_ns": lambda: time.monotonic_ns() + ahead_ns})
    waits_ms = []
    for led_ms in (0, 0, 61_000):
        run.lead()
        ahead_ns += led_ms * 1_000_000
        run.beat()  # a sign of life after the jump
        run.step()
        run.fleet.fail(None, "ecc")
        waits_ms.append(run.fleet.status()["workers"][0]["restart_in_ms"])
        ahead_ns += waits_ms[-1] * 1_000_000
    assert [round(wait_ms, -4) for wait_ms in waits_ms] == [20_000, 40_000, 20_000]


def test_a_worker_that_is_not_ready_in_time_is_ended(rig):
    run = rig(start_ms=1)
    time.sleep(0.05)
    run.step()
    assert run.faults() == {"start_failed": 1}
    assert "not ready after 1 ms" in run.fleet.status()["workers"][0]["last_fault"]["detail"]


def test_a_process_that_ends_at_its_start_leaves_its_last_words(rig, truth):
    run = rig()
    os.kill(run.pid(), signal.SIGSEGV)
    run.until(lambda: bool(run.faults()))
    assert run.faults() == {"start_failed": 1}
    assert "SIGSEGV" in run.fleet.status()["workers"][0]["last_fault"]["detail"]


def test_a_process_that_cannot_be_had_is_a_failed_start(rig, monkeypatch):
    before = _descriptors()
    run = rig(restart_ms=60_000)
    pid = run.pid()
    run.fleet.fail(None, "ecc")
    run.until(lambda: not Path(f"/proc/{pid}").exists())
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    run.fleet._workers[0].start()
    assert run.faults() == {"ecc": 1, "start_failed": 1}
    assert "no process" in run.fleet.status()["workers"][0]["last_fault"]["detail"]
    assert not run.step().lost
    assert len(_descriptors()) <= len(before) + 2, "the ring and its mapping alone are still there"


def test_an_error_of_its_own_ends_a_process_which_says_where(rig):
    run = rig()
    run._stream.checkpoint = lambda: {"identity": np.zeros(32, np.uint8)}
    run.until(lambda: bool(run.faults()))
    assert run.faults() == {"killed": 1}
    detail = run.fleet.status()["workers"][0]["last_fault"]["detail"]
    assert "exit code 1" in detail
    assert "ShapeError: checkpoint of another graph" in detail


@pytest.mark.skipif(missing_gpu() is None, reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_a_failed_start(rig):
    run = rig(device="cuda")
    run.until(lambda: bool(run.faults()))
    assert run.faults() == {"start_failed": 1}
    assert "DeviceError" in run.fleet.status()["workers"][0]["last_fault"]["detail"]


@pytest.mark.gpu
@pytest.mark.parametrize("kind", ["out_of_memory", "illegal_address", "hang", "killed"])
def test_a_gpu_comes_back_after_a_fault(rig, kind):
    run = rig(f"{kind}:at_frame={AT}", device="cuda", answer_ms=HANG_MS if kind == "hang" else ANSWER_MS)
    run.lead()
    _, took_s = _to_fault(run)
    assert took_s < TAKEOVER_S
    assert run.faults() == {kind: 1}
    run.lead()
    assert run.rejected == []


def test_closing_leaves_nothing_and_says_what_does_not_end(truth, closed, monkeypatch):
    gc.collect()
    before = _descriptors()
    fleet = fleet_of(specs(truth, workers=2), eager())
    fleet.start()
    run = Rig(truth, fleet, closed)
    run.lead()
    pids = [run.pid(0), run.pid(1)]
    fleet.fail(0, "ecc")
    run.step()
    monkeypatch.setattr("gpuscalp.worker.process.Process.gone", lambda *_: False)  # stuck in a driver
    assert not fleet.close()
    assert not fleet.gone()
    monkeypatch.undo()
    assert fleet.close()
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)
    del run, fleet
    gc.collect()
    assert _descriptors() == before


def _descriptors() -> list[str]:
    found = []
    for path in Path("/proc/self/fd").iterdir():
        try:
            found.append(str(path.readlink()))
        except FileNotFoundError:  # that of the listing itself
            continue
    return sorted(name for name in found if "gpuscalp" in name or name.startswith(("pipe:", "socket:")))


_SESSION = """
import sys, time
from pathlib import Path
from tests.worker.rig import Rig, eager, fleet_of, frames, specs, Truth, write_truth
from gpuscalp.worker import parse_fault
truth = write_truth(Path(sys.argv[1]))
fleet = fleet_of(specs(truth, faults=[parse_fault(text) for text in sys.argv[2:]]), eager(answer_ms=60_000))
fleet.start()
run = Rig(truth, fleet, frames(truth.pipeline))
run.lead()
print(run.pid(), flush=True)
while True:
    run.step()
    time.sleep(0.001)
"""


@pytest.mark.parametrize("faults", [[], [f"hang:at_frame={AT}"]], ids=["serving", "hanging"])
def test_a_worker_does_not_outlive_its_session(tmp_path, faults):
    shared = _shared()
    command = [sys.executable, "-c", _SESSION, str(tmp_path / "bundle"), *faults]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as session:
        pid = int(session.stdout.readline())
        time.sleep(0.5)  # by now it hangs
        assert Path(f"/proc/{pid}").exists()
        session.kill()
    until(lambda: not _alive(pid), "its end")
    assert _shared() == shared


def _shared() -> list[str]:
    """Return what workers may have left in shared memory; sessions with NautilusTrader keep a log there."""
    names = sorted(path.name for path in Path("/dev/shm").iterdir())
    ours = [name for name in names if name.startswith(("gpuscalp", "psm_"))]
    return [name for name in ours if not name.startswith("gpuscalp-nautilus-")]


def _alive(pid: int) -> bool:
    """Say whether a process is there; one that nobody has taken up yet is not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False
