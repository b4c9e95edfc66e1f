"""The device profile of this machine, on disk, and the device that a program takes because of it.

Owns: where the profile lies, what identifies this machine, reading and writing. Never: measures.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import msgspec

from gpuscalp import __version__
from gpuscalp.config import EngineConfig
from gpuscalp.device import RequestedDevice, describe
from gpuscalp.device_profile import DeviceProfile, Machine, NoProfile, Workload
from gpuscalp.errors import UNREADABLE
from gpuscalp.files import pretty, replace_file
from gpuscalp.monitoring.nvml import CardSample, import_nvml, survey
from gpuscalp.monitoring.nvml_cards import bus_numbers
from gpuscalp.user import user_folder


def describe_choice(
    requested: RequestedDevice,
    workload: Workload,
    *,
    deadline_ms: float | None = None,
    path: Path | None = None,
) -> dict[str, object]:
    """Return ``describe``'s answer for so much work, with ``workload``, ``deadline_ms`` and ``profile``.

    Parameters
    ----------
    deadline_ms : None takes that of a session's defaults
    """
    path = path or profile_path()
    deadline_ms = EngineConfig().deadline_ms if deadline_ms is None else deadline_ms
    answer = describe(
        requested,
        workload=workload,
        deadline_ms=deadline_ms,
        profile=read_profile(path, this_machine()),
    )
    return answer | {"workload": workload._asdict(), "deadline_ms": deadline_ms, "profile": str(path)}


def profile_path(environ: Mapping[str, str] = os.environ) -> Path:
    """Return where the profile lies: in ``gpuscalp`` below ``$XDG_CONFIG_HOME`` or ``~/.config``."""
    return user_folder("XDG_CONFIG_HOME", ".config", environ) / "device_profile.json"


def read_profile(path: Path, machine: Machine) -> DeviceProfile | NoProfile:
    """Return the profile of a machine, or why there is none: ``auto`` goes on without."""
    try:
        profile = msgspec.json.decode(path.read_bytes(), type=DeviceProfile)
    except FileNotFoundError:
        return NoProfile(f"there is no device profile ({path})")
    except (OSError, *UNREADABLE) as error:
        return NoProfile(f"the device profile {path} cannot be read ({error})")
    differs = profile.machine.differs(machine)
    if differs is not None:
        return NoProfile(f"the device profile {path} is of another machine ({differs})")
    return profile


def write_profile(path: Path, profile: DeviceProfile) -> None:
    """Write a profile in one step, its folder if need be."""
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_file(path, pretty(profile))


def this_machine() -> Machine:
    """Return what identifies this machine; opens a context on its GPU, if one can be used."""
    described: Any = describe()
    cuda = described["cuda"]
    known: dict[str, Any] = {}
    if cuda["usable"]:
        card = _card(cuda["pci_bus_id"])
        known = {
            "gpu": cuda["name"],
            "gpu_uuid": card.uuid,
            # The driver's own number, or at least the CUDA that it is made for.
            "driver": card.driver or f"CUDA {cuda['driver_version']}",
            "cupy": cuda["cupy_version"],
        }
    return Machine(
        cpu=processor(),
        cores=described["cpu"]["core_count"],
        gpuscalp=__version__,
        numba=version("numba"),
        **known,
    )


def _card(pci_bus_id: str) -> CardSample:
    """Return what NVML says of the card at an address; its numbers of cards are not those of CUDA."""
    nvml = import_nvml()
    found = [] if nvml is None else survey(nvml)
    if not isinstance(found, str):
        for sample in found:
            if sample.bus_id is not None and bus_numbers(sample.bus_id) == bus_numbers(pci_bus_id):
                return sample
    return CardSample(index=0, at_ns=0)


def processor(proc: Path = Path("/proc")) -> str:
    """Return the processor's name, as the system gives it."""
    try:
        lines = (proc / "cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
