"""The device and the health of cards, on stand-ins for cards in every state."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from gpuscalp.doctor.gpu import Health, check_device, check_health, import_nvml, read_health
from gpuscalp.errors import DeviceError

GIB = 1 << 30
WELL = Health("Card", 8 * GIB, 0, (), False, False, 55)


class FakeNvmlError(Exception):
    pass


class FakeNvml:
    """The part of ``pynvml`` that is used; ``unsupported`` names questions that the card does not answer."""

    NVMLError = FakeNvmlError
    NVML_MEMORY_ERROR_TYPE_UNCORRECTED = 1
    NVML_VOLATILE_ECC = 0
    NVML_TEMPERATURE_GPU = 0

    def __init__(
        self, cards: list[dict[str, Any]], *, start: str | None = None, unsupported: str = ""
    ) -> None:
        self.cards, self.start, self.unsupported = cards, start, unsupported
        self.open = 0

    def nvmlInit(self) -> None:  # noqa: N802
        if self.start is not None:
            raise FakeNvmlError(self.start)
        self.open += 1

    def nvmlShutdown(self) -> None:  # noqa: N802
        self.open -= 1

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        return len(self.cards)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> dict[str, Any]:  # noqa: N802
        return self.cards[index]

    def nvmlDeviceGetName(self, handle: dict[str, Any]) -> bytes:  # noqa: N802
        return b"Card"

    def nvmlDeviceGetMemoryInfo(self, handle: dict[str, Any]) -> Any:  # noqa: N802
        return SimpleNamespace(total=16 * GIB, free=self._told(handle, "free", 8 * GIB), used=0)

    def nvmlDeviceGetTotalEccErrors(self, handle: dict[str, Any], kind: int, counter: int) -> int:  # noqa: N802
        assert (kind, counter) == (1, 0), "uncorrectable, since the driver was loaded"
        return self._told(handle, "ecc", 0)

    def nvmlDeviceGetCurrentClocksEventReasons(self, handle: dict[str, Any]) -> int:  # noqa: N802
        return self._told(handle, "reasons", 0)

    def nvmlDeviceGetRemappedRows(self, handle: dict[str, Any]) -> tuple[int, int, int, int]:  # noqa: N802
        return self._told(handle, "rows", (0, 0, 0, 0))

    def nvmlDeviceGetTemperature(self, handle: dict[str, Any], sensor: int) -> int:  # noqa: N802
        return self._told(handle, "celsius", 55)

    def _told(self, handle: dict[str, Any], name: str, usual: Any) -> Any:
        if name == self.unsupported:
            raise FakeNvmlError("Not Supported")
        return handle.get(name, usual)


@pytest.mark.parametrize(
    ("card", "status", "told"),
    [
        ({}, "ok", "1 well: Card"),
        ({"reasons": 0x1}, "ok", "well"),  # idle
        ({"reasons": 0x2}, "ok", "well"),  # clocks set by hand
        ({"reasons": 0x4}, "warn", "power cap"),
        ({"reasons": 0x40 | 0x8}, "warn", "hardware slowdown, heat (hardware)"),
        ({"free": 100 << 20}, "warn", "100 MiB"),
        ({"rows": (0, 1, 1, 0)}, "warn", "wait to be replaced"),
        ({"rows": (0, 9, 0, 1)}, "fail", "damaged"),
        ({"ecc": 3}, "fail", "3 errors"),
    ],
)
def test_card_is_judged_by_what_nvml_says(card, status, told):
    nvml = FakeNvml([card])
    check = check_health(read_health(nvml))
    assert check.status == status
    assert told in check.what
    assert check.code == (DeviceError.exit_code if status == "fail" else 0)
    assert nvml.open == 0, "NVML has to be shut down again"


def test_damage_of_any_card_outweighs_the_worries_of_others():
    nvml = FakeNvml([{"reasons": 0x4}, {"ecc": 1}])
    assert check_health(read_health(nvml)).status == "fail"


@pytest.mark.parametrize("name", ["free", "ecc", "reasons", "rows", "celsius"])
def test_question_that_a_card_does_not_answer_is_no_worry(name):
    found = read_health(FakeNvml([{}], unsupported=name))
    assert check_health(found).status == "ok"
    assert None in check_health(found).value[0].values()


@pytest.mark.parametrize(
    ("found", "why"),
    [
        (None, "not installed"),
        (read_health(FakeNvml([], start="Driver Not Loaded")), "Driver Not Loaded"),
        (read_health(FakeNvml([])), "no GPU"),
    ],
)
def test_without_cards_the_check_is_skipped_with_the_reason(found, why):
    check = check_health(found)
    assert check.status == "skip"
    assert why in check.what


def test_stand_in_has_the_names_of_the_real_library():
    nvml = import_nvml()
    if nvml is None:
        pytest.skip("nvidia-ml-py is not installed")
    names = [name for name in dir(FakeNvml) if name.lower().startswith("nvml")]
    assert not [name for name in names if not hasattr(nvml, name)]


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
