"""A stand-in for the module ``pynvml``: cards in any state, also one that falls ill while it is watched.

It has the names of the real module that gpuscalp uses and no others; a test compares them with the installed
one. A question that a card was not told to answer is refused as the real one refuses it.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from gpuscalp.monitoring.nvml import CardSample

MIB = 1 << 20
GIB = 1 << 30


class FakeNvmlError(Exception):
    def __init__(self, value: int) -> None:
        super().__init__(value)
        self.value = value

    def __str__(self) -> str:
        words = {
            3: "Not Supported",
            10: "Timeout",
            15: "GPU is lost",
            999: "Unknown Error",
            1: "Uninitialized",
        }
        return words.get(self.value, f"error {self.value}")


@dataclass(eq=False)
class FakeSlice:
    """A MIG slice; ``free`` and ``total`` in bytes."""

    uuid: str
    gpu_instance: int = 1
    compute_instance: int = 0
    free: int = 9 * GIB
    total: int = 10 * GIB
    processes: dict[int, int] = field(default_factory=dict)
    parent: FakeCard | None = None


@dataclass(eq=False)
class FakeCard:
    """A card that is well. ``refused`` names functions and the error that each of them gives."""

    uuid: str = "GPU-11111111-aaaa"
    bus_id: str = "00000000:3B:00.0"
    name: str = "NVIDIA Card"
    free: int = 70 * GIB
    total: int = 80 * GIB
    gpu: int = 37
    memory: int = 12
    processes: dict[int, int | None] = field(default_factory=dict)
    celsius: int = 55
    margin: int = 30
    milliwatts: int = 310_500
    limit_milliwatts: int = 700_000
    energy: int = 123_456
    clocks: dict[int, int] = field(default_factory=lambda: {1: 1_755, 2: 2_619})
    max_clocks: dict[int, int] = field(default_factory=lambda: {1: 1_980, 2: 2_619})
    reasons: int = 0
    ecc: dict[int, int] = field(default_factory=lambda: {0: 2, 1: 0})
    rows: tuple[int, int, int, int] = (0, 0, 0, 0)
    pcie: dict[int, int] = field(default_factory=lambda: {0: 111, 1: 222})  # sent and received, KB/s
    generation: int = 4
    max_generation: int = 5
    width: int = 16
    max_width: int = 16
    replays: int = 3
    recovery: int = 0
    recovery_return: int = 0
    slices: list[FakeSlice | None] = field(default_factory=list)
    supported_events: int = 0xFFFF
    refused: dict[str, int] = field(default_factory=dict)
    gone: int | None = None  # the error that everything gives


# What is read of such a card when its clocks are slowed and a row of its memory is to be mapped anew.
SAMPLE = CardSample(
    index=0,
    at_ns=7,
    uuid="GPU-11111111-aaaa",
    bus_id="00000000:3B:00.0",
    name="NVIDIA Card",
    lost=None,
    driver="580.95.05",
    mig=False,
    gpu_percent=37,
    memory_percent=12,
    used_bytes=10 * GIB,
    free_bytes=70 * GIB,
    total_bytes=80 * GIB,
    own_bytes=3 * MIB,
    celsius=55,
    margin_celsius=30,
    power_watts=310.5,
    power_limit_watts=700.0,
    energy_mj=123_456,
    sm_mhz=1_755,
    sm_mhz_max=1_980,
    memory_mhz=2_619,
    memory_mhz_max=2_619,
    clock_event_mask=0x49,
    slowed=("hw_slowdown", "hw_thermal"),
    ecc_errors=0,
    ecc_corrected=2,
    remap_pending=True,
    remap_failed=False,
    rx_kb_s=222,
    tx_kb_s=111,
    link_generation=4,
    link_generation_max=5,
    link_width=16,
    link_width_max=16,
    replays=3,
    recovery="none",
    last_xid=0,
)


class FakeNvml:
    """The module.

    Attributes
    ----------
    cards : to be changed at will, from any thread
    version : raised by ``reload``: handles from before are worth nothing then
    started : how often it was started and not stopped
    sets : event sets that have not been freed
    """

    NVMLError = FakeNvmlError
    NVML_SUCCESS = 0
    NVML_ERROR_UNINITIALIZED = 1
    NVML_ERROR_DRIVER_NOT_LOADED = 9
    NVML_ERROR_GPU_IS_LOST = 15
    NVML_ERROR_RESET_REQUIRED = 16
    NVML_ERROR_UNKNOWN = 999
    NVML_TEMPERATURE_GPU = 0
    NVML_CLOCK_SM = 1
    NVML_CLOCK_MEM = 2
    NVML_MEMORY_ERROR_TYPE_CORRECTED = 0
    NVML_MEMORY_ERROR_TYPE_UNCORRECTED = 1
    NVML_VOLATILE_ECC = 0
    NVML_PCIE_UTIL_TX_BYTES = 0
    NVML_PCIE_UTIL_RX_BYTES = 1
    NVML_DEVICE_MIG_ENABLE = 1
    NVML_FI_DEV_GET_GPU_RECOVERY_ACTION = 230
    nvmlEventTypeDoubleBitEccError = 0x2  # noqa: N815
    nvmlEventTypeXidCriticalError = 0x8  # noqa: N815
    nvmlEventTypeGpuUnavailableError = 0x4000  # noqa: N815

    def __init__(self, *cards: FakeCard) -> None:
        self.cards = list(cards)
        self.start_error: int | None = None
        self.version = self.started = self.starts = 0
        self.sets: list[_EventSet] = []
        self.hang: threading.Event | None = None

    # For tests

    def reload(self) -> None:
        """Load the driver anew: everything that was open has gone."""
        self.version += 1
        self.started = 0
        self.sets.clear()

    def happen(self, card: FakeCard, kind: int, data: int = 0, *, instance: int = 0xFFFFFFFF) -> None:
        """Let an event come."""
        for each in self.sets:
            for handle, wanted in each.registered:
                if handle.what is card and wanted & kind:
                    each.waiting.append(
                        SimpleNamespace(
                            device=handle,
                            eventType=kind,
                            eventData=data,
                            gpuInstanceId=instance,
                            computeInstanceId=0xFFFFFFFF,
                        )
                    )

    # The module's functions

    def nvmlInit(self) -> None:  # noqa: N802
        if self.hang is not None:
            self.hang.wait()
        if self.start_error is not None:
            raise FakeNvmlError(self.start_error)
        self.started += 1
        self.starts += 1

    def nvmlShutdown(self) -> None:  # noqa: N802
        if not self.started:
            raise FakeNvmlError(1)
        self.started -= 1

    def nvmlSystemGetDriverVersion(self) -> str:  # noqa: N802
        self._check()
        for card in self.cards:
            if (code := card.refused.get("nvmlSystemGetDriverVersion")) is not None:
                raise FakeNvmlError(code)
        return "580.95.05"

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        self._check()
        return len(self.cards)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> _Handle:  # noqa: N802
        self._check()
        handle = _Handle(self.cards[index], self.version)
        self._asked("nvmlDeviceGetHandleByIndex", handle)
        return handle

    def nvmlDeviceGetUUID(self, handle: _Handle) -> str:  # noqa: N802
        return str(self._asked("nvmlDeviceGetUUID", handle).uuid)

    def nvmlDeviceGetName(self, handle: _Handle) -> str:  # noqa: N802
        what = self._asked("nvmlDeviceGetName", handle)
        return what.name if isinstance(what, FakeCard) else "NVIDIA Card MIG 1g.10gb"

    def nvmlDeviceGetPciInfo(self, handle: _Handle) -> Any:  # noqa: N802
        return SimpleNamespace(busId=self._card("nvmlDeviceGetPciInfo", handle).bus_id)

    def nvmlDeviceGetMemoryInfo(self, handle: _Handle) -> Any:  # noqa: N802
        what = self._asked("nvmlDeviceGetMemoryInfo", handle)
        return SimpleNamespace(free=what.free, total=what.total, used=what.total - what.free)

    def nvmlDeviceGetComputeRunningProcesses(self, handle: _Handle) -> list[Any]:  # noqa: N802
        found = self._asked("nvmlDeviceGetComputeRunningProcesses", handle).processes
        return [SimpleNamespace(pid=pid, usedGpuMemory=used) for pid, used in found.items()]

    def nvmlDeviceGetUtilizationRates(self, handle: _Handle) -> Any:  # noqa: N802
        card = self._card("nvmlDeviceGetUtilizationRates", handle)
        if card.slices:
            raise FakeNvmlError(3)
        return SimpleNamespace(gpu=card.gpu, memory=card.memory)

    def nvmlDeviceGetTemperature(self, handle: _Handle, sensor: int) -> int:  # noqa: N802
        assert sensor == 0
        return self._card("nvmlDeviceGetTemperature", handle).celsius

    def nvmlDeviceGetMarginTemperature(self, handle: _Handle) -> int:  # noqa: N802
        return self._card("nvmlDeviceGetMarginTemperature", handle).margin

    def nvmlDeviceGetPowerUsage(self, handle: _Handle) -> int:  # noqa: N802
        return self._card("nvmlDeviceGetPowerUsage", handle).milliwatts

    def nvmlDeviceGetEnforcedPowerLimit(self, handle: _Handle) -> int:  # noqa: N802
        return self._card("nvmlDeviceGetEnforcedPowerLimit", handle).limit_milliwatts

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: _Handle) -> int:  # noqa: N802
        return self._card("nvmlDeviceGetTotalEnergyConsumption", handle).energy

    def nvmlDeviceGetClockInfo(self, handle: _Handle, kind: int) -> int:  # noqa: N802
        return self._card("nvmlDeviceGetClockInfo", handle).clocks[kind]

    def nvmlDeviceGetMaxClockInfo(self, handle: _Handle, kind: int) -> int:  # noqa: N802
        return self._card("nvmlDeviceGetMaxClockInfo", handle).max_clocks[kind]

    def nvmlDeviceGetCurrentClocksEventReasons(self, handle: _Handle) -> int:  # noqa: N802
        return self._card("nvmlDeviceGetCurrentClocksEventReasons", handle).reasons

    def nvmlDeviceGetTotalEccErrors(self, handle: _Handle, kind: int, counter: int) -> int:  # noqa: N802
        assert counter == 0, "since the driver was loaded"
        return self._card("nvmlDeviceGetTotalEccErrors", handle).ecc[kind]

    def nvmlDeviceGetRemappedRows(self, handle: _Handle) -> tuple[int, int, int, int]:  # noqa: N802
        return self._card("nvmlDeviceGetRemappedRows", handle).rows

    def nvmlDeviceGetPcieThroughput(self, handle: _Handle, counter: int) -> int:  # noqa: N802
        return self._card("nvmlDeviceGetPcieThroughput", handle).pcie[counter]

    def nvmlDeviceGetCurrPcieLinkGeneration(self, handle: _Handle) -> int:  # noqa: N802
        return self._card("nvmlDeviceGetCurrPcieLinkGeneration", handle).generation

    def nvmlDeviceGetMaxPcieLinkGeneration(self, handle: _Handle) -> int:  # noqa: N802
        return self._card("nvmlDeviceGetMaxPcieLinkGeneration", handle).max_generation

    def nvmlDeviceGetCurrPcieLinkWidth(self, handle: _Handle) -> int:  # noqa: N802
        return self._card("nvmlDeviceGetCurrPcieLinkWidth", handle).width

    def nvmlDeviceGetMaxPcieLinkWidth(self, handle: _Handle) -> int:  # noqa: N802
        return self._card("nvmlDeviceGetMaxPcieLinkWidth", handle).max_width

    def nvmlDeviceGetPcieReplayCounter(self, handle: _Handle) -> int:  # noqa: N802
        return self._card("nvmlDeviceGetPcieReplayCounter", handle).replays

    def nvmlDeviceGetFieldValues(self, handle: _Handle, fields: list[int]) -> list[Any]:  # noqa: N802
        card = self._card("nvmlDeviceGetFieldValues", handle)
        assert fields == [230]
        return [SimpleNamespace(value=SimpleNamespace(uiVal=card.recovery), nvmlReturn=card.recovery_return)]

    def nvmlDeviceGetMigMode(self, handle: _Handle) -> list[int]:  # noqa: N802
        mode = 1 if self._card("nvmlDeviceGetMigMode", handle).slices else 0
        return [mode, mode]

    def nvmlDeviceGetMaxMigDeviceCount(self, handle: _Handle) -> int:  # noqa: N802
        return len(self._card("nvmlDeviceGetMaxMigDeviceCount", handle).slices)

    def nvmlDeviceGetMigDeviceHandleByIndex(self, handle: _Handle, index: int) -> _Handle:  # noqa: N802
        card = self._card("nvmlDeviceGetMigDeviceHandleByIndex", handle)
        found = card.slices[index]
        if found is None:
            raise FakeNvmlError(6)  # not found
        found.parent = card
        return _Handle(found, self.version)

    def nvmlDeviceGetGpuInstanceId(self, handle: _Handle) -> int:  # noqa: N802
        return int(self._asked("nvmlDeviceGetGpuInstanceId", handle).gpu_instance)

    def nvmlDeviceGetComputeInstanceId(self, handle: _Handle) -> int:  # noqa: N802
        return int(self._asked("nvmlDeviceGetComputeInstanceId", handle).compute_instance)

    def nvmlDeviceGetSupportedEventTypes(self, handle: _Handle) -> int:  # noqa: N802
        return self._card("nvmlDeviceGetSupportedEventTypes", handle).supported_events

    def nvmlEventSetCreate(self) -> _EventSet:  # noqa: N802
        self._check()
        found = _EventSet()
        self.sets.append(found)
        return found

    def nvmlDeviceRegisterEvents(self, handle: _Handle, kinds: int, events: _EventSet) -> None:  # noqa: N802
        card = self._card("nvmlDeviceRegisterEvents", handle)
        assert not kinds & ~card.supported_events, "the real one refuses all then"
        events.registered.append((handle, kinds))

    def nvmlEventSetWait(self, events: _EventSet, timeout_ms: int) -> Any:  # noqa: N802
        self._check()
        if events not in self.sets:
            raise FakeNvmlError(1)
        if any(handle.what.gone is not None for handle, _ in events.registered) and not events.waiting:
            raise FakeNvmlError(15)
        if not events.waiting:
            raise FakeNvmlError(10)
        return events.waiting.pop(0)

    def nvmlEventSetFree(self, events: _EventSet) -> None:  # noqa: N802
        self._check()
        self.sets.remove(events)

    def _check(self) -> None:
        if not self.started:
            raise FakeNvmlError(1)

    def _asked(self, name: str, handle: _Handle) -> Any:
        """Return the card or slice; refuse what it refuses."""
        self._check()
        if handle.version != self.version:
            raise FakeNvmlError(2)  # invalid argument
        what = handle.what
        card = what.parent if isinstance(what, FakeSlice) else what
        if card not in self.cards or card.gone is not None:
            raise FakeNvmlError(card.gone or 15)
        if (code := card.refused.get(name)) is not None:
            raise FakeNvmlError(code)
        return what

    def _card(self, name: str, handle: _Handle) -> FakeCard:
        what = self._asked(name, handle)
        if not isinstance(what, FakeCard):
            raise FakeNvmlError(3)  # not told of a slice
        return what


@dataclass(eq=False)
class _Handle:
    what: Any
    version: int


@dataclass(eq=False)
class _EventSet:
    registered: list[tuple[_Handle, int]] = field(default_factory=list)
    waiting: list[Any] = field(default_factory=list)
