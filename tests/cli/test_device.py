"""``gpuscalp device``: the health of the cards beside the choice of a device."""

from __future__ import annotations

import json
import sys

from tests.fake_nvml import GIB, MIB, FakeCard, FakeNvml


def test_device_shows_the_health_of_each_card(cli, monkeypatch):
    nvml = FakeNvml(FakeCard(free=60 * GIB), FakeCard("GPU-2", "00000000:5E:00.0", free=100 * MIB, gone=None))
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    shown = cli("device")
    assert shown.code == 0
    assert shown.stdout.splitlines()[-2:] == [
        "gpu 0: NVIDIA Card, well, 61440 of 81920 MiB free, 55 C",
        "gpu 1: NVIDIA Card, doubtful, memory, 100 of 81920 MiB free, 55 C",
    ]
    answer = json.loads(cli("device", "--json").stdout)
    assert [card["uuid"] for card in answer["health"]] == ["GPU-11111111-aaaa", "GPU-2"]
    assert [card["doubtful"] for card in answer["health"]] == [[], ["memory"]]
    nvml.cards[0].gone = 15
    assert cli("device").stdout.splitlines()[-2] == "gpu 0: ?, failed, lost"


def test_device_without_nvml_has_no_health_and_works(cli, monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert json.loads(cli("device", "--json").stdout)["health"] is None
    assert "gpu 0" not in cli("device").stdout
