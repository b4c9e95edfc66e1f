"""Alive and ready, from plain facts: each reason alone, and none of them where all is well."""

from __future__ import annotations

import threading
import time
from typing import Any
from unittest import mock

import pytest

from gpuscalp.live import probes
from gpuscalp.live.probes import Pulse, alive, ready

S = 10**9
NOW, WALL = 1_000 * S, 2_000 * S
WELL: dict[str, Any] = {
    "written_ns": WALL - S // 2,
    "state": "active",
    "cause": None,
    "model": {"bundle": "abc", "expires_in_s": 3_600.0},
    "health": {"device": [], "venue": []},
    "symbols": ["BTCUSDT", "ETHUSDT"],
    "warming": [],
    "last_frame_age_ms": 120.0,
    "feeds": {"silent": [], "off_tick": [], "unsynced": []},
    "clock": {"drifted": False},
}


def running(**changes: Any) -> Pulse:
    return Pulse(**{"beat_ns": NOW - S // 100, "phase": "running", **changes})


def judged(**changes: Any) -> tuple[bool, list[str], list[str]]:
    answer = ready(running(), WELL | changes, NOW, WALL)
    return answer["ok"], [x["what"] for x in answer["reasons"]], [x["what"] for x in answer["partly"]]


@pytest.mark.parametrize(
    ("pulse", "reasons"),
    [
        (running(), []),
        (running(beat_ns=NOW - 6 * S), ["loop"]),
        (running(working_ns=NOW - 10 * S), []),
        (running(working_ns=NOW - 61 * S), ["engine"]),
        (Pulse(NOW - 200 * S), []),  # repeats its journal
        (Pulse(NOW - 301 * S), ["loop"]),
        (Pulse(NOW, phase="stopping"), []),
    ],
)
def test_alive(pulse, reasons):
    answer = alive(pulse, NOW)
    assert (answer["ok"], [each["what"] for each in answer["reasons"]]) == (not reasons, reasons)


@pytest.mark.parametrize(
    ("changes", "reasons"),
    [
        ({}, []),
        ({"state": "halted", "cause": "daily_loss"}, ["gate"]),
        ({"written_ns": WALL - 11 * S}, ["status"]),
        ({"last_frame_age_ms": None}, ["frames"]),
        ({"last_frame_age_ms": 5_001.0}, ["frames"]),
        ({"warming": ["BTCUSDT", "ETHUSDT"]}, ["warm_up"]),
        ({"feeds": {"silent": ["BTCUSDT", "ETHUSDT"], "off_tick": [], "unsynced": []}}, ["feed"]),
        ({"feeds": {"silent": [], "off_tick": ["BTCUSDT", "ETHUSDT"], "unsynced": []}}, ["tick_size"]),
        ({"feeds": {"silent": [], "off_tick": [], "unsynced": ["BTCUSDT", "ETHUSDT"]}}, ["books"]),
        ({"model": {"bundle": "", "expires_in_s": None}}, ["model"]),
        ({"model": {"bundle": "abc", "expires_in_s": None}}, []),  # models that do not expire
        ({"model": {"bundle": "abc", "expires_in_s": 0.0}}, ["model"]),
        ({"health": {"device": ["gpu0:memory"], "venue": []}}, ["device"]),
        ({"health": {"device": [], "venue": ["account:unreachable"]}}, ["venue"]),
    ],
)
def test_ready(changes, reasons):
    assert judged(**changes) == (not reasons, reasons, [])


@pytest.mark.parametrize(
    ("changes", "partly"),
    [
        ({"state": "reducing"}, ["gate"]),
        ({"warming": ["BTCUSDT"]}, ["warm_up"]),
        (
            {"feeds": {"silent": ["ETHUSDT"], "off_tick": ["BTCUSDT"], "unsynced": ["BTCUSDT"]}},
            ["feed", "tick_size", "books"],
        ),
        ({"clock": {"drifted": True}}, ["clock"]),
    ],
)
def test_trouble_with_some_symbols_leaves_it_ready(changes, partly):
    assert judged(**changes) == (True, [], partly)


def test_not_ready_before_and_after():
    for pulse, status in ((Pulse(NOW), {}), (running(), {}), (Pulse(NOW, "stopping"), WELL)):
        answer = ready(pulse, status, NOW, WALL)
        assert not answer["ok"]
        assert answer["reasons"]


def test_who_is_not_alive_is_not_ready():
    assert not ready(running(beat_ns=0), WELL, NOW, WALL)["ok"]


def test_waiting_for_a_frame_ends_with_the_next_one_and_without_any():
    pulse = running()
    pulse.frame_done.set()  # the last frame is over for who knows how long
    began = time.monotonic()
    pulse.wait_frame()
    assert time.monotonic() - began >= probes.WAIT_S
    thread = threading.Thread(target=pulse.wait_frame)
    with mock.patch.object(probes, "WAIT_S", 60.0):
        thread.start()
        while thread.is_alive():
            pulse.frame_done.set()
            thread.join(0.01)
        assert time.monotonic() - began < 30.0
