"""What NVML says of one card: a sample in which everything may be unknown but whether it is lost.

Owns: NVML's names, units and bits. Never: judges (gpu_judgement.py), waits, or changes a setting of a card.
The module ``pynvml`` (nvidia-ml-py) comes in as an argument, so that a stand-in can be read as well.

Source: NVIDIA, "NVML API Reference" (device queries, nvmlClocksEventReasons, field values).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from typing import Any, Final, TypeVar

from msgspec import Struct

from gpuscalp.monitoring.nvml_cards import Card, all_cards
from gpuscalp.monitoring.nvml_events import CardEvents

T = TypeVar("T")

# Reasons that take speed away. The others: it idles, its clocks were set, or it keeps step with others.
SLOWED: Final[Mapping[int, str]] = {
    0x04: "power_cap",
    0x08: "hw_slowdown",
    0x20: "sw_thermal",
    0x40: "hw_thermal",
    0x80: "power_brake",
}
# NVML_GPU_RECOVERY_ACTION_…, by their numbers.
_RECOVERY: Final = (
    "none",
    "gpu_reset",
    "node_reboot",
    "drain_p2p",
    "drain_and_reset",
    "recover_imex_domain",
    "bus_reset",
    "system_reboot",
)


class CardSample(Struct, frozen=True, kw_only=True):
    """One card at one moment. None where the card, its driver or this version of NVML does not tell.

    Attributes
    ----------
    index : as in ``Card``
    at_ns : wall clock
    lost : why it does not answer any more; everything below is None then
    gpu_percent, memory_percent : share of the last interval in which a kernel ran, or memory was moved. Never
        known of a card in MIG mode
    used_bytes, free_bytes, total_bytes, own_bytes : memory, of the slice where there is one; ``own_bytes`` by
        the processes that were asked for, None where NVML shows none of them (as in a container)
    margin_celsius : to the temperature at which it slows itself down
    energy_mj : millijoules since the driver was loaded
    clock_event_mask : NVML's bits; ``slowed`` names those that take speed away
    ecc_errors, ecc_corrected : since the driver was loaded; the former could not be corrected
    remap_pending, remap_failed : memory rows will be replaced at the next reset; none are left to do so
    rx_kb_s, tx_kb_s : PCIe, over the last 20 ms
    replays : of PCIe packets, since the driver was loaded
    recovery : what the driver asks for, "none" where nothing
    last_xid, xids, events : as in ``CardEvents``
    """

    index: int
    at_ns: int
    uuid: str | None = None
    bus_id: str | None = None
    name: str | None = None
    lost: str | None = None
    driver: str | None = None
    mig: bool | None = None
    gpu_percent: int | None = None
    memory_percent: int | None = None
    used_bytes: int | None = None
    free_bytes: int | None = None
    total_bytes: int | None = None
    own_bytes: int | None = None
    celsius: int | None = None
    margin_celsius: int | None = None
    power_watts: float | None = None
    power_limit_watts: float | None = None
    energy_mj: int | None = None
    sm_mhz: int | None = None
    sm_mhz_max: int | None = None
    memory_mhz: int | None = None
    memory_mhz_max: int | None = None
    clock_event_mask: int | None = None
    slowed: tuple[str, ...] | None = None
    ecc_errors: int | None = None
    ecc_corrected: int | None = None
    remap_pending: bool | None = None
    remap_failed: bool | None = None
    rx_kb_s: int | None = None
    tx_kb_s: int | None = None
    link_generation: int | None = None
    link_generation_max: int | None = None
    link_width: int | None = None
    link_width_max: int | None = None
    replays: int | None = None
    recovery: str | None = None
    last_xid: int | None = None
    xids: tuple[int, ...] = ()
    events: tuple[str, ...] = ()


def import_nvml() -> Any | None:
    """Return the module of nvidia-ml-py, None where it is not installed."""
    try:
        import pynvml
    except ImportError:
        return None
    return pynvml


def survey(nvml: Any, *, at_ns: int = 0) -> list[CardSample] | str:
    """Ask every card of the machine once, or return why nobody could be asked."""
    try:
        nvml.nvmlInit()
    except nvml.NVMLError as error:
        return f"NVML does not start: {error}"
    try:
        return [read_card(nvml, card, at_ns=at_ns) for card in all_cards(nvml)]
    except nvml.NVMLError as error:
        return f"NVML does not answer: {error}"
    finally:
        with suppress(nvml.NVMLError):  # it has gone with the driver meanwhile: what was read was read
            nvml.nvmlShutdown()


def read_card(
    nvml: Any,
    card: Card,
    *,
    at_ns: int,
    pids: Collection[int] = (),
    events: CardEvents | None = None,
) -> CardSample:
    """Ask one card everything. Takes some 40 ms: NVML measures PCIe for 20 ms in each direction.

    Parameters
    ----------
    nvml : the module ``pynvml``, started, or what behaves like it
    at_ns : wall clock, to be noted
    pids : processes whose memory is ours
    events : of this card, for what has happened since they were asked for; drained
    """
    if events is not None:
        events.drain()
    known: dict[str, Any] = {
        "index": card.index,
        "at_ns": at_ns,
        "uuid": card.uuid,
        "bus_id": card.bus_id,
        "name": card.name,
    }
    if events is not None:
        known |= {"last_xid": events.last_xid, "xids": events.xids, "events": events.words}
    if card.handle is None:
        return CardSample(**known, lost=card.fault)
    try:
        found = _answers(_Asker(nvml), nvml, card, pids)
    except _LostError as error:
        return CardSample(**known, lost=str(error))
    return CardSample(**known, **found)


class _LostError(Exception):
    """The card is gone. In NVML's words."""


class _Asker:
    """Puts questions, and tells "not known" from "gone"."""

    def __init__(self, nvml: Any) -> None:
        self._nvml = nvml
        self._gone = {
            nvml.NVML_ERROR_GPU_IS_LOST,  # it has fallen off the bus
            nvml.NVML_ERROR_RESET_REQUIRED,
            nvml.NVML_ERROR_UNINITIALIZED,  # the driver was loaded anew under us
            nvml.NVML_ERROR_DRIVER_NOT_LOADED,
        }

    def __call__(self, question: Callable[[], T], *, vital: bool = False) -> T | None:
        """Return the answer, None where it is not known.

        ``vital``: a question that every card answers, or refuses as not supported; "unknown error" to it
        means that the card is gone. Some cards answer so to other questions while they are well.
        """
        try:
            return question()
        except ValueError:
            return None  # nvidia-ml-py cannot read the answer
        except self._nvml.NVMLError as error:
            code = getattr(error, "value", None)
            if code in self._gone or (vital and code == self._nvml.NVML_ERROR_UNKNOWN):
                raise _LostError(str(error)) from None
            return None


def _answers(ask: _Asker, nvml: Any, card: Card, pids: Collection[int]) -> dict[str, Any]:
    handle = card.handle
    # Of what a slice has for itself, NVML tells only memory and processes.
    part = handle if card.mig is None else card.mig
    memory = ask(lambda: nvml.nvmlDeviceGetMemoryInfo(part), vital=True)
    mig = ask(lambda: nvml.nvmlDeviceGetMigMode(handle)[0] == nvml.NVML_DEVICE_MIG_ENABLE)
    busy = None if mig else ask(lambda: nvml.nvmlDeviceGetUtilizationRates(handle))
    return {
        "driver": ask(lambda: str(nvml.nvmlSystemGetDriverVersion())),
        "mig": mig,
        "gpu_percent": None if busy is None else int(busy.gpu),
        "memory_percent": None if busy is None else int(busy.memory),
        "used_bytes": None if memory is None else int(memory.used),
        "free_bytes": None if memory is None else int(memory.free),
        "total_bytes": None if memory is None else int(memory.total),
        "own_bytes": _own_bytes(ask(lambda: nvml.nvmlDeviceGetComputeRunningProcesses(part)), pids),
        **_heat_and_power(ask, nvml, handle),
        **_clocks(ask, nvml, handle),
        **_memory_health(ask, nvml, handle),
        **_pcie(ask, nvml, handle),
        "recovery": _recovery(ask, nvml, handle),
    }


def _heat_and_power(ask: _Asker, nvml: Any, handle: Any) -> dict[str, Any]:
    milliwatts = ask(lambda: nvml.nvmlDeviceGetPowerUsage(handle))
    limit = ask(lambda: nvml.nvmlDeviceGetEnforcedPowerLimit(handle))
    return {
        "celsius": ask(lambda: int(nvml.nvmlDeviceGetTemperature(handle, nvml.NVML_TEMPERATURE_GPU))),
        "margin_celsius": ask(lambda: int(nvml.nvmlDeviceGetMarginTemperature(handle))),
        "power_watts": None if milliwatts is None else milliwatts / 1_000,
        "power_limit_watts": None if limit is None else limit / 1_000,
        "energy_mj": ask(lambda: int(nvml.nvmlDeviceGetTotalEnergyConsumption(handle))),
    }


def _clocks(ask: _Asker, nvml: Any, handle: Any) -> dict[str, Any]:
    mask = ask(lambda: int(nvml.nvmlDeviceGetCurrentClocksEventReasons(handle)))
    return {
        "sm_mhz": ask(lambda: int(nvml.nvmlDeviceGetClockInfo(handle, nvml.NVML_CLOCK_SM))),
        "sm_mhz_max": ask(lambda: int(nvml.nvmlDeviceGetMaxClockInfo(handle, nvml.NVML_CLOCK_SM))),
        "memory_mhz": ask(lambda: int(nvml.nvmlDeviceGetClockInfo(handle, nvml.NVML_CLOCK_MEM))),
        "memory_mhz_max": ask(lambda: int(nvml.nvmlDeviceGetMaxClockInfo(handle, nvml.NVML_CLOCK_MEM))),
        "clock_event_mask": mask,
        "slowed": None if mask is None else tuple(word for bit, word in SLOWED.items() if mask & bit),
    }


def _memory_health(ask: _Asker, nvml: Any, handle: Any) -> dict[str, Any]:
    def errors(kind: int) -> int:
        return int(nvml.nvmlDeviceGetTotalEccErrors(handle, kind, nvml.NVML_VOLATILE_ECC))

    rows = ask(lambda: nvml.nvmlDeviceGetRemappedRows(handle))  # corrected, uncorrected, pending, failed
    return {
        "ecc_errors": ask(lambda: errors(nvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED)),
        "ecc_corrected": ask(lambda: errors(nvml.NVML_MEMORY_ERROR_TYPE_CORRECTED)),
        "remap_pending": None if rows is None else bool(rows[2]),
        "remap_failed": None if rows is None else bool(rows[3]),
    }


def _pcie(ask: _Asker, nvml: Any, handle: Any) -> dict[str, Any]:
    def throughput(direction: int) -> int:
        return int(nvml.nvmlDeviceGetPcieThroughput(handle, direction))

    return {
        "rx_kb_s": ask(lambda: throughput(nvml.NVML_PCIE_UTIL_RX_BYTES)),
        "tx_kb_s": ask(lambda: throughput(nvml.NVML_PCIE_UTIL_TX_BYTES)),
        "link_generation": ask(lambda: int(nvml.nvmlDeviceGetCurrPcieLinkGeneration(handle))),
        "link_generation_max": ask(lambda: int(nvml.nvmlDeviceGetMaxPcieLinkGeneration(handle))),
        "link_width": ask(lambda: int(nvml.nvmlDeviceGetCurrPcieLinkWidth(handle))),
        "link_width_max": ask(lambda: int(nvml.nvmlDeviceGetMaxPcieLinkWidth(handle))),
        "replays": ask(lambda: int(nvml.nvmlDeviceGetPcieReplayCounter(handle))),
    }


def _recovery(ask: _Asker, nvml: Any, handle: Any) -> str | None:
    def question() -> int | None:
        (found,) = nvml.nvmlDeviceGetFieldValues(handle, [nvml.NVML_FI_DEV_GET_GPU_RECOVERY_ACTION])
        return int(found.value.uiVal) if found.nvmlReturn == nvml.NVML_SUCCESS else None

    action = ask(question)
    if action is None:
        return None
    return _RECOVERY[action] if action < len(_RECOVERY) else f"action_{action}"


def _own_bytes(processes: list[Any] | None, pids: Collection[int]) -> int | None:
    told = [each.usedGpuMemory for each in processes or () if each.pid in pids]
    known = [int(used) for used in told if used is not None]
    return sum(known) if known else None
