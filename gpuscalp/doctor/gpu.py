"""The GPU: whether it can be used, and whether it is well.

Owns: the checks ``device`` and ``gpu_health``, and what to do about each thing that can be wrong with a card.
Never: asks a card itself (gpuscalp.monitoring.nvml), holds an array, or changes a setting of a card.

Health covers every card that the driver shows, whichever of them a session would use.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from gpuscalp.config import GpuHealthConfig
from gpuscalp.device import RequestedDevice
from gpuscalp.doctor.check import Check, fail, ok, skip, warn
from gpuscalp.errors import DeviceError
from gpuscalp.monitoring.gpu_judgement import judge_card
from gpuscalp.monitoring.nvml import CardSample

# Before a start: a session's arrays take megabytes; the context, the loaded kernels and CuPy's pool take
# several hundred.
_CONFIG: Final = GpuHealthConfig(min_free_mib=1_024)

# What a doubt or a slowdown means, and what helps.
_WORRIES: Final[Mapping[str, tuple[str, str]]] = {
    "power_cap": ("is slowed by its power cap", "look at its power limit (nvidia-smi -q -d POWER)"),
    "sw_thermal": ("is slowed by heat", "look at its cooling (nvidia-smi -q -d TEMPERATURE)"),
    "hw_thermal": ("is slowed by its own protection from heat", "look at its cooling (nvidia-smi -q)"),
    "power_brake": ("is slowed by the power supply's brake", "look at the power supply (nvidia-smi -q)"),
    "hw_slowdown": ("is slowed by its hardware", "look at cooling and power (nvidia-smi -q)"),
    "margin": ("is close to the heat at which it slows down", "look at its cooling (nvidia-smi -q)"),
    "memory": ("has little free memory", "end the other programs on it (nvidia-smi)"),
    "pcie_width": ("uses a part of its PCIe lanes only", "seat the card anew, look at the slot"),
    "remap_pending": ("has memory rows that wait to be replaced", "reset the card"),
}


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


def check_health(found: Sequence[CardSample] | str | None) -> Check:
    """Judge the cards together.

    Parameters
    ----------
    found : as ``gpuscalp.monitoring.nvml.survey`` returns; None where nvidia-ml-py is not installed
    """
    if found is None:
        return skip("gpu_health", "nvidia-ml-py is not installed")
    if isinstance(found, str):
        return skip("gpu_health", found)
    if not found:
        return skip("gpu_health", "the driver shows no GPU")
    value = describe_health(found)
    worries: list[tuple[str, str]] = []
    for card in found:
        verdict, name = judge_card(card, _CONFIG), card.name or f"GPU {card.index}"
        if verdict.failed:
            why = f": {card.lost}" if card.lost else ""
            return fail(
                "gpu_health",
                f"{name} must not be used ({', '.join(verdict.failed)}{why})",
                "use --device cpu; reset the card (nvidia-smi --gpu-reset), replace it if it comes back",
                value,
                kind=DeviceError,
            )
        for word in dict.fromkeys((*verdict.doubtful, *(card.slowed or ()))):
            if word == "hw_slowdown" and word not in verdict.doubtful:
                continue  # its cause is named
            what, fix = _WORRIES[word]
            free = f" ({(card.free_bytes or 0) >> 20} MiB)" if word == "memory" else ""
            worries.append((f"{name} {what}{free}", fix))
    if worries:
        whats, fixes = zip(*worries, strict=True)
        return warn("gpu_health", "; ".join(whats), "; ".join(dict.fromkeys(fixes)), value)
    return ok("gpu_health", f"{len(found)} well: {', '.join(card.name or '?' for card in found)}", value)


def describe_health(found: Sequence[CardSample]) -> list[dict[str, Any]]:
    """Return samples with their verdicts, ready for JSON."""
    shown = []
    for card in found:
        verdict = judge_card(card, _CONFIG)
        shown.append(
            msgspec.to_builtins(card) | {"failed": list(verdict.failed), "doubtful": list(verdict.doubtful)}
        )
    return shown
