"""The device and the health of cards, on stand-ins for cards in every state."""

from __future__ import annotations

from typing import Any

import pytest

from gpuscalp.doctor.gpu import check_device, check_health
from gpuscalp.errors import DeviceError
from gpuscalp.monitoring.nvml import survey
from tests.fake_nvml import MIB, FakeCard, FakeNvml


@pytest.mark.parametrize(
    ("card", "status", "told"),
    [
        ({}, "ok", "1 well: NVIDIA Card"),
        ({"reasons": 0x1}, "ok", "well"),  # idle
        ({"reasons": 0x2}, "ok", "well"),  # clocks set by hand
        ({"reasons": 0x4}, "warn", "NVIDIA Card is slowed by its power cap"),
        ({"reasons": 0x20}, "warn", "by heat"),
        ({"reasons": 0x40 | 0x8}, "warn", "NVIDIA Card is slowed by its own protection from heat"),
        ({"reasons": 0x8}, "warn", "by its hardware"),
        ({"margin": 2}, "warn", "close to the heat"),
        ({"width": 8}, "warn", "PCIe lanes"),
        ({"free": 100 * MIB}, "warn", "100 MiB"),
        ({"rows": (0, 1, 1, 0)}, "warn", "wait to be replaced"),
        ({"rows": (0, 9, 0, 1)}, "fail", "remap_failed"),
        ({"ecc": {0: 0, 1: 3}}, "fail", "NVIDIA Card must not be used (ecc)"),
        ({"recovery": 1}, "fail", "recovery_gpu_reset"),
        ({"gone": 15}, "fail", "lost: GPU is lost"),
    ],
)
def test_card_is_judged_by_what_nvml_says(card, status, told):
    nvml = FakeNvml(FakeCard(**card))
    check = check_health(survey(nvml))
    assert check.status == status
    assert told in check.what
    assert check.code == (DeviceError.exit_code if status == "fail" else 0)
    assert check.what.count("slowed") <= 1, "one cause is told once"
    assert nvml.started == 0, "NVML has to be shut down again"


def test_damage_of_any_card_outweighs_the_worries_of_others():
    nvml = FakeNvml(FakeCard(reasons=0x4), FakeCard(uuid="GPU-2", ecc={0: 0, 1: 1}))
    assert check_health(survey(nvml)).status == "fail"


def test_value_holds_what_was_known_and_null_where_nothing_was():
    card = FakeCard(refused={"nvmlDeviceGetTemperature": 3}, free=9_000 * MIB)
    (value,) = check_health(survey(FakeNvml(card))).value
    assert value["name"] == "NVIDIA Card"
    assert (value["free_bytes"], value["ecc_errors"], value["slowed"]) == (9_000 * MIB, 0, ())
    assert (value["remap_pending"], value["remap_failed"], value["celsius"]) == (False, False, None)


def _not_started() -> FakeNvml:
    nvml = FakeNvml()
    nvml.start_error = 9
    return nvml


@pytest.mark.parametrize(
    ("found", "why"),
    [
        (None, "not installed"),
        (survey(_not_started()), "NVML does not start: error 9"),
        (survey(FakeNvml()), "no GPU"),
    ],
)
def test_without_cards_the_check_is_skipped_with_the_reason(found, why):
    check = check_health(found)
    assert check.status == "skip"
    assert why in check.what


def _described(device: str | None, requested: str, *, usable: bool) -> dict[str, Any]:
    cuda = {"usable": True} if usable else {"usable": False, "error": {"what": "too old", "fix": "a new one"}}
    return {"device": device, "requested": requested, "reason": "because", "cpu": {}, "cuda": cuda}


@pytest.mark.parametrize(
    ("described", "has_driver", "status", "code"),
    [
        (_described("cuda", "auto", usable=True), True, "ok", 0),
        (_described("cpu", "auto", usable=False), False, "ok", 0),
        (_described("cpu", "auto", usable=False), True, "warn", 0),
        (_described("cpu", "cpu", usable=False), True, "ok", 0),
        (_described(None, "cuda", usable=False), True, "fail", 6),
    ],
)
def test_device_is_judged_by_what_was_asked_for(described, has_driver, status, code):
    check = check_device(described, has_driver=has_driver)
    assert (check.status, check.code) == (status, code)
    if status != "ok":
        assert check.fix == "a new one"
