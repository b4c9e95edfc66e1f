"""The GPU: whether it can be used, and whether it is well.

Owns: the checks ``device`` and ``gpu_health``. Never: holds an array, or changes a setting of a card.

Health comes from NVML (``nvidia-ml-py``) and covers every card that the driver shows, whichever of them a
session would use. Source of names and bits: NVIDIA, "NVML API Reference", nvmlClocksEventReasons.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final, TypeVar

from gpuscalp.device import RequestedDevice
from gpuscalp.doctor.check import Check, fail, ok, skip, warn
from gpuscalp.errors import DeviceError

T = TypeVar("T")

# A session's arrays take megabytes; the context, the loaded kernels and CuPy's pool take several hundred.
FREE_BYTES_MIN: Final = 1 << 30

# Reasons that take speed away; a card that idles or keeps to set clocks is well.
_SLOWED: Final[Mapping[int, str]] = {
    0x04: "power cap",
    0x08: "hardware slowdown",
    0x20: "heat (software)",
    0x40: "heat (hardware)",
    0x80: "power brake",
}


@dataclass(frozen=True, slots=True)
class Health:
    """One card. None where the card does not tell.

    ``ecc_errors``: uncorrectable, since the driver was loaded; ``slowed``: why its clocks are held down;
    ``remap_pending``: memory rows will be replaced at the next reset; ``remap_failed``: none are left.
    """

    name: str
    free_bytes: int | None
    ecc_errors: int | None
    slowed: tuple[str, ...] | None
    remap_pending: bool | None
    remap_failed: bool | None
    celsius: int | None


def check_device(described: Mapping[str, Any], *, has_driver: bool) -> Check:
    """Judge what ``gpuscalp.device.describe`` says.

    Parameters
    ----------
    described : its answer
    has_driver : whether the machine has an NVIDIA driver, so that a GPU may be expected
    """
    requested: RequestedDevice = described["requested"]
    cuda = described["cuda"]
    if described["device"] is None:
        error = cuda["error"]
        return fail("device", error["what"], error["fix"], described, kind=DeviceError)
    if requested == "auto" and not cuda["usable"] and has_driver:
        error = cuda["error"]
        what = f"the GPU cannot be used, a session runs on the CPU: {error['what']}"
        return warn("device", what, error["fix"], described)
    return ok("device", f"{described['device']}: {described['reason']}", described)


def import_nvml() -> Any | None:
    """Return the module of nvidia-ml-py, None where it is not installed."""
    try:
        import pynvml
    except ImportError:
        return None
    return pynvml


def read_health(nvml: Any) -> list[Health] | str:
    """Ask every card.

    Parameters
    ----------
    nvml : the module ``pynvml``, or what behaves like it

    Returns
    -------
    list of Health, or why nobody could be asked
    """
    try:
        nvml.nvmlInit()
    except nvml.NVMLError as error:
        return f"NVML does not start: {error}"
    try:
        handles = [nvml.nvmlDeviceGetHandleByIndex(index) for index in range(nvml.nvmlDeviceGetCount())]
        return [_health_of(nvml, handle) for handle in handles]
    except nvml.NVMLError as error:
        return f"NVML does not answer: {error}"
    finally:
        nvml.nvmlShutdown()


def check_health(found: list[Health] | str | None) -> Check:
    """Judge the cards together; None where nvidia-ml-py is not installed."""
    if found is None:
        return skip("gpu_health", "nvidia-ml-py is not installed")
    if isinstance(found, str):
        return skip("gpu_health", found)
    if not found:
        return skip("gpu_health", "the driver shows no GPU")
    value = [asdict(card) for card in found]
    for card in found:
        if card.remap_failed or card.ecc_errors:
            return fail(
                "gpu_health",
                f"{card.name}: its memory is damaged"
                if card.remap_failed
                else f"{card.name}: {card.ecc_errors} errors of its memory that could not be corrected",
                "use --device cpu; reset the card (nvidia-smi --gpu-reset), replace it if they come back",
                value,
                kind=DeviceError,
            )
    worries: list[tuple[str, str]] = []
    for card in found:
        if card.remap_pending:
            worries.append((f"{card.name}: rows of its memory wait to be replaced", "reset the card"))
        if card.slowed:
            worries.append(
                (
                    f"{card.name} is slowed: {', '.join(card.slowed)}",
                    "look at cooling and power (nvidia-smi -q)",
                )
            )
        if card.free_bytes is not None and card.free_bytes < FREE_BYTES_MIN:
            worries.append(
                (
                    f"{card.name}: {card.free_bytes >> 20} MiB of its memory are free",
                    "end the other programs on it (nvidia-smi)",
                )
            )
    if worries:
        whats, fixes = zip(*worries, strict=True)
        return warn("gpu_health", "; ".join(whats), "; ".join(dict.fromkeys(fixes)), value)
    return ok("gpu_health", f"{len(found)} well: {', '.join(card.name for card in found)}", value)


def _health_of(nvml: Any, handle: Any) -> Health:
    def told(question: Callable[[], T]) -> T | None:
        """Return the answer; None where this card, this driver or this version of NVML does not know it."""
        try:
            return question()
        except (nvml.NVMLError, AttributeError):
            return None

    name = nvml.nvmlDeviceGetName(handle)
    memory = told(lambda: nvml.nvmlDeviceGetMemoryInfo(handle).free)
    ecc = told(
        lambda: nvml.nvmlDeviceGetTotalEccErrors(
            handle, nvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED, nvml.NVML_VOLATILE_ECC
        )
    )
    reasons = told(lambda: nvml.nvmlDeviceGetCurrentClocksEventReasons(handle))
    rows = told(lambda: nvml.nvmlDeviceGetRemappedRows(handle))  # corrected, uncorrected, pending, failed
    celsius = told(lambda: nvml.nvmlDeviceGetTemperature(handle, nvml.NVML_TEMPERATURE_GPU))
    return Health(
        name=name.decode() if isinstance(name, bytes) else str(name),
        free_bytes=None if memory is None else int(memory),
        ecc_errors=None if ecc is None else int(ecc),
        slowed=None
        if reasons is None
        else tuple(text for bit, text in _SLOWED.items() if int(reasons) & bit),
        remap_pending=None if rows is None else bool(rows[2]),
        remap_failed=None if rows is None else bool(rows[3]),
        celsius=None if celsius is None else int(celsius),
    )
