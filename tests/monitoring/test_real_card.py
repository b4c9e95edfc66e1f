"""The cards of this machine, where it has any: what only a driver can show."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest

from gpuscalp.device import cuda_bus_ids
from gpuscalp.monitoring.gpu_poller import GpuPoller
from gpuscalp.monitoring.nvml import import_nvml, read_card
from gpuscalp.monitoring.nvml_cards import Card, visible_cards
from gpuscalp.monitoring.nvml_events import CardEvents

pytestmark = pytest.mark.gpu
MIB = 1 << 20


@pytest.fixture
def nvml() -> Iterator[Any]:
    module = import_nvml()
    assert module is not None, "nvidia-ml-py is part of the extra dev"
    module.nvmlInit()
    yield module
    module.nvmlShutdown()


def _visible(nvml: Any) -> list[Card]:
    return visible_cards(nvml, os.environ, cuda_bus_ids())


def test_cards_are_those_that_cuda_uses_in_its_order(nvml):
    import cupy

    cards = _visible(nvml)
    assert len(cards) == cupy.cuda.runtime.getDeviceCount()
    for card in cards:
        properties = cupy.cuda.runtime.getDeviceProperties(card.index)
        sample = read_card(nvml, card, at_ns=0)
        assert sample.lost is None
        if card.mig is None:
            assert card.name == properties["name"].decode()
        # NVML counts what the driver keeps for itself, CUDA does not.
        assert sample.total_bytes == pytest.approx(properties["totalGlobalMem"], rel=0.1)


def test_memory_that_is_taken_is_missed(nvml):
    import cupy

    card = _visible(nvml)[0]
    missed = []
    with cupy.cuda.Device(0):
        held = cupy.cuda.alloc(MIB)  # the context, before the first look
        for _ in range(20):  # whoever else uses the card may give some back meanwhile
            before = read_card(nvml, card, at_ns=0, pids=(os.getpid(),))
            more = cupy.cuda.Memory(512 * MIB)
            after = read_card(nvml, card, at_ns=0, pids=(os.getpid(),))
            assert before.free_bytes is not None
            assert after.free_bytes is not None
            missed.append((before.free_bytes - after.free_bytes) // MIB)
            if after.own_bytes is not None:  # in a container the driver may name other processes
                assert after.own_bytes >= 512 * MIB
            del more
            if 500 <= missed[-1] < 600:
                break
        del held
    assert 500 <= missed[-1] < 600, missed


def test_events_can_be_listened_to_and_none_comes_from_a_card_that_is_well(nvml):
    for card in _visible(nvml):
        events = CardEvents(nvml)
        events.listen(card)
        events.drain()
        assert events.last_xid in (0, None)
        assert (events.xids, events.words) == ((), ())
        events.close()


def test_poll_costs_little_processor_time(nvml, capsys):
    cards = _visible(nvml)
    poller = GpuPoller(nvml, partial(_visible, nvml), every_ms=100)
    poller.start()
    until = time.monotonic() + 30
    while poller.latest.count < 5 and time.monotonic() < until:
        time.sleep(0.05)
    found = poller.latest
    assert poller.stop()
    wall_ms, busy_ms = found.cost_ns / 1e6, found.cpu_ns / 1e6
    with capsys.disabled():
        print(f"\npoll of {len(cards)} cards: {wall_ms:.1f} ms, processor {busy_ms:.1f} ms")
    assert found.count >= 5
    assert wall_ms < 250 * len(cards)
    assert busy_ms < 25 * len(cards)
