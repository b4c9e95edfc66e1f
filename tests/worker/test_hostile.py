"""Processes that are no workers at all: whatever they say, or do not say, the session goes on."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

from gpuscalp.worker import process
from tests.worker.rig import WAIT_S, Rig, Truth, eager, fleet_of, specs

# What every one of them begins with; then comes what it does.
_HEAD = """
import os, socket, sys, threading, time
import msgspec
from gpuscalp.worker.faults import Fault
from gpuscalp.worker.link import Answered, Canary, Failed, Frame, Link, Ready, Sync
raw = socket.socket(fileno=int(sys.argv[1]))
def say(message):
    raw.setblocking(True)
    raw.send(message if isinstance(message, bytes) else msgspec.msgpack.encode(message))
def hear():
    raw.setblocking(True)
    while True:
        message = msgspec.msgpack.decode(raw.recv(1 << 16), type=Frame | Sync)
        if isinstance(message, Frame):
            return message
def rest():
    time.sleep(600)
"""
# Whoever waited for such a process would wait for an answer: twice as long.
_LIMIT_S, ANSWER_MS = 10.0, 20_000


@pytest.fixture
def hostile(monkeypatch, truth: Truth, closed):
    """Return a function that starts a fleet whose process runs some lines of Python."""
    fleets = []
    launched = subprocess.Popen

    def started(lines: str, **config: int) -> Rig:
        def instead(command, **options):
            return launched([sys.executable, "-c", _HEAD + lines, *command[4:]], **options)

        monkeypatch.setattr(process.subprocess, "Popen", instead)
        fleet = fleet_of(specs(truth), eager(**({"restart_ms": 3_600_000, "answer_ms": ANSWER_MS} | config)))
        fleets.append(fleet)
        fleet.start()
        return Rig(truth, fleet, closed)

    yield started
    for fleet in fleets:
        fleet.close()


def _until_failed(run: Rig) -> dict[str, int]:
    """Take frames until the process has been given up; none of them may take long."""
    longest_s = 0.0

    def failed() -> bool:
        return bool(run.faults())

    until = time.monotonic() + WAIT_S
    while not failed():
        assert time.monotonic() < until, run.fleet.status()
        began = time.monotonic()
        run.step()
        longest_s = max(longest_s, time.monotonic() - began)
        time.sleep(0.02)
    assert longest_s < _LIMIT_S
    assert run.lost == run.rejected == []
    assert len(str(run.fleet.status())) < 20_000, "what it says is kept short"
    return run.faults()


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        (r"say(b'\xff\x00nonsense'); rest()", "wrong_answer"),
        ("say(bytes(100_000)); rest()", "wrong_answer"),
        ("say(msgspec.msgpack.encode({'type': 'Answered', 'index': 'x'})); rest()", "wrong_answer"),
        ("say(Frame(0, 0, 0, False, 0)); rest()", "wrong_answer"),
        ("say(Answered(0, 1)); rest()", "wrong_answer"),
        ("say(Ready({})); hear(); say(Ready({})); rest()", "wrong_answer"),
        ("say(Ready({})); frame = hear(); say(Answered(frame.index - 1, 1)); rest()", "wrong_answer"),
        ("say(Ready({})); frame = hear(); say(Answered(frame.index + 1, 1)); rest()", "wrong_answer"),
        ("say(Ready({})); frame = hear(); say(Answered(frame.index, 1)); rest()", "wrong_answer"),
        ("say(Ready({'x': msgspec.msgpack.Ext(5, b'')})); hear(); say(Canary('')); rest()", "wrong_answer"),
        ("say(Canary('0' * 64)); rest()", "wrong_answer"),
        ("say(Failed(Fault.DEVICE_LOST, 'x' * 60_000)); rest()", "device_lost"),
        ("raw.close(); rest()", "start_failed"),
        ("say(Ready({})); hear(); raw.close(); rest()", "killed"),
        ("raw.close(); os.fork(); sys.stdout.write('x' * 60_000 + chr(10)); sys.exit(7)", "start_failed"),
        ("say(Ready({})); rest()", "behind|hang"),
        ("say(Ready({})); raw.shutdown(socket.SHUT_RD); rest()", "killed"),
    ],
)  # fmt: skip
def test_nonsense_is_a_fault_of_the_worker_and_of_nobody_else(hostile, lines, reason):
    assert set(_until_failed(hostile(lines))) <= set(reason.split("|"))


@pytest.mark.parametrize(
    "lines",
    [
        "while True: os.write(1, b'x' * 65_536)",
        "while True: say(Ready({}))",
    ],
)
def test_one_who_never_stops_talking_holds_nobody_up(hostile, lines):
    run = hostile(lines, start_ms=1_000)
    assert set(_until_failed(run)) <= {"start_failed", "wrong_answer"}
