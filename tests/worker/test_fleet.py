"""Workers that live: how one comes to lead, keeps up, and answers what the CPU answers."""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from gpuscalp.frames import ClosedFrames
from gpuscalp.live.fleets import Fleets
from gpuscalp.worker.memory import RING_BYTES, SLOTS
from tests.waiting import until
from tests.worker.rig import FRAMES, SYMBOLS, WAIT_S, Rig, eager, fleet_of, specs

ALL = (range(SYMBOLS),)


def test_a_worker_leads_only_after_it_has_agreed_and_its_margins_are_the_cpus(rig, caplog):
    caplog.set_level(logging.INFO, "gpuscalp.worker")
    run = rig(agree_batches=30)
    found = run.step()
    assert found.missing == ALL
    assert not found.lost
    assert run.state() == "starting"
    assert run.fleet.status()["why"] == "cpu: worker 0 is starting"
    run.until(lambda: run.state() == "shadow")
    first = run.at - 1
    run.lead()
    # The last frame agreed is found at the beginning of the first one that it leads.
    assert run.at - first > 30
    status = run.fleet.status()
    agreed = status["workers"][0]["frames_agreed"]
    assert 30 <= agreed < run.at - first, "more of them while it still owes an answer"
    assert status["why"] == "workers lead"
    run.answered(300)  # the rig compares the margins
    assert [r.message.split(":")[0] for r in caplog.records] == [
        "worker 0 starts",
        f"worker 0 runs as a shadow from frame {first}",
        f"worker 0 leads after {agreed} equal frames",
    ]


def test_frames_that_nobody_predicts_prove_nothing_and_are_compared_all_the_same(rig):
    run = rig(agree_batches=5)
    run.until(lambda: run.state() == "shadow")
    until_s = time.monotonic() + WAIT_S
    while (worker := run.fleet.status()["workers"][0])["frames_answered"] <= 15:
        assert time.monotonic() < until_s, worker
        run.step(wait=False)
        time.sleep(0.005)
    assert worker["state"] == "shadow"
    assert worker["frames_agreed"] < 5
    run.lead()
    for _ in range(50):
        assert run.step(wait=False).missing == ALL
    assert run.step().missing == ()
    assert run.lost == []


def test_a_silence_makes_the_workers_start_cold_too(rig, closed):
    run = rig()
    run.lead()
    cold = [index for index, item in enumerate(closed) if item.restart and index > run.at]
    assert len(cold) > 5
    while run.at < cold[4] + 50:
        assert run.step().missing == ()
    assert run.rejected == run.lost == []


def test_a_shadow_that_was_held_up_catches_up(rig):
    run = rig(agree_batches=60)
    run.until(lambda: run.state() == "shadow")
    os.kill(run.pid(), signal.SIGSTOP)
    for _ in range(SLOTS // 2):
        run.step()
    assert run.fleet.status()["workers"][0]["frames_owed"] >= SLOTS // 2 - 1
    os.kill(run.pid(), signal.SIGCONT)
    run.lead()
    assert run.faults() == {}


def test_two_workers_share_the_rows(rig):
    run = rig(workers=2)
    run.lead()
    status = run.fleet.status()
    assert [worker["rows"] for worker in status["workers"]] == [[0, 2], [2, 5]]
    run.answered(100)


def test_a_row_without_a_worker_is_always_the_callers(rig, truth, closed):
    run = rig(workers=2)
    specs = [worker.spec for worker in run.fleet._workers]
    half = fleet_of(specs[1:], run.fleet._config)
    run.fleet.close()
    run.fleet = half
    half.start()
    run.until(lambda: run.state() == "leading")
    assert run.step().missing == (range(2),)
    assert not half.status()["leading"]
    assert half.status()["why"] == "cpu: some rows have no worker"
    half.close()


def test_neither_ctrl_c_nor_the_stop_of_a_service_ends_a_worker(rig):
    run = rig()
    run.lead()
    assert os.getsid(run.pid()) == run.pid(), "a terminal's signals go to the session alone"
    for number in (signal.SIGINT, signal.SIGTERM):
        os.kill(run.pid(), number)
    time.sleep(0.05)
    for _ in range(20):
        assert run.step().missing == ()


def test_one_thread_and_no_growth(rig):
    run = rig()
    run.lead()
    status = f"/proc/{run.pid()}/status"

    def of(name: str) -> int:
        with open(status) as file:  # noqa: PTH123
            return next(int(line.split()[1]) for line in file if line.startswith(name))

    assert of("Threads:") == 1
    for _ in range(200):
        run.step()
    before_kb = of("RssAnon:")
    for _ in range(1_000):
        run.step()
    assert of("RssAnon:") - before_kb < 500


def test_a_large_burst_passes_and_what_is_larger_than_the_ring_does_not(rig, closed):
    run = rig()
    run.lead()
    ticks = np.zeros(RING_BYTES // 64, closed[0].ticks.dtype)
    half = _frame(closed[run.at], ticks[: len(ticks) // 2 - 100])
    whole = _frame(closed[run.at + 1], ticks)
    digests = np.zeros(SYMBOLS, np.uint64)

    run.fleet.begin(half, dict)
    assert run.fleet.status()["workers"][0]["frames_owed"] == 1
    # What it computes of these ticks is of no interest here: any digests are wrong.
    assert run.fleet.finish(digests, wait=True).lost
    run.fleet.settle(None)
    assert run.faults() == {"wrong_answer": 1}

    run = rig()
    run.lead()
    run.fleet.begin(whole, dict)
    found = run.fleet.finish(digests, wait=True)
    assert found.missing == ALL
    assert not found.lost, "nobody had been asked"
    assert run.faults() == {"behind": 1}


def _frame(like: ClosedFrames, ticks: np.ndarray) -> ClosedFrames:
    offsets = np.linspace(0, len(ticks), SYMBOLS + 1).astype(np.int64)
    return ClosedFrames(like.end_ns, ticks, offsets, False)


def test_the_rounds_are_short(rig):
    run = rig()
    run.lead()
    spent = []
    for _ in range(300):
        began = time.perf_counter()
        run.step()
        spent.append(time.perf_counter() - began)
    # Typically 0.3 ms here; a busy machine may take its time, a wait by mistake would take 50 ms and more.
    assert np.median(spent) < 0.02


def test_the_frames_of_these_tests_are_what_they_should_be(closed):
    assert len(closed) == FRAMES
    assert sum(item.restart for item in closed) > 20
    assert all(int(b.end_ns[0]) > int(a.end_ns[0]) for a, b in pairwise(closed))


@pytest.mark.gpu
def test_a_gpu_answers_with_the_cpus_bits(rig):
    run = rig(device="cuda")
    run.lead()
    run.answered(500)
    assert run.fleet.status()["workers"][0]["device_facts"]["memory_bytes"] > 1 << 30


def test_a_leader_keeps_up_with_frames_that_nobody_waits_for(rig):
    """After a stall they come as fast as the session can compute them."""
    run = rig()
    run.lead()
    os.kill(run.pid(), signal.SIGSTOP)  # slower than the session, for a while
    timer = threading.Timer(0.5, os.kill, (run.pid(), signal.SIGCONT))
    timer.start()
    for _ in range(4 * SLOTS):
        run.step(wait=False)
    timer.join()
    assert run.step().missing == ()
    assert run.faults() == {}
    assert run.lost == run.rejected == []


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_workers_of_the_model_that_leads_now_have_the_bits_of_the_cpu(truth, closed, device):
    """Those before have left the card, and their replacements begin in mid-market with the session's state.

    Both models are the same here: what is tested is who is there, and when.
    """
    fleets = Fleets(lambda _: fleet_of(specs(truth, device=device), eager()), "a")
    try:
        first = fleets.look()
        run = Rig(truth, first, closed)
        run.lead()
        pid = run.pid()
        fleets.change("b")
        run.fleet = until(fleets.look, "a fleet")
        assert run.fleet is not first
        assert first.gone()
        assert not Path(f"/proc/{pid}").exists()
        run.lead()
        run.answered(100)
        assert run.faults() == {}
    finally:
        fleets.close()
