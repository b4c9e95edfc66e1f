"""Chooses the device that arrays live on: ``cpu``, ``cuda``, or ``auto``, and says why.

Owns the question "can this process use a GPU?" and its answer in words. A device that was asked for by name
is never replaced silently: ``cuda`` is an error where it cannot run, only ``auto`` falls back, and then its
``reason`` says what was missing. Where it is told how much there is to do, ``auto`` takes the device that was
measured to do it in time (``gpuscalp.device_profile``). Never compiles a kernel and never holds an array;
CuPy is imported only when a GPU is wanted.
"""

from __future__ import annotations

import math
import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal, get_args

from gpuscalp.device_profile import DeviceProfile, NoProfile, Workload, decide
from gpuscalp.errors import DeviceError, UsageError

DeviceName = Literal["cpu", "cuda"]
RequestedDevice = Literal["cpu", "cuda", "auto"]

# Turing. CUDA 13 compiles for nothing older, and the kernels are tested from here on.
OLDEST_COMPUTE_CAPABILITY = (7, 5)

# Values of cudaError_t that a user can do something about, by their number (CUDA Runtime API, "Data types").
_ERROR_INSUFFICIENT_DRIVER = 35
_ERROR_DEVICES_UNAVAILABLE = 46
_ERROR_NO_DEVICE = 100

_NOT_LOOKED_FOR = NoProfile("no device profile was looked for")
_INSTALL_FIX = (
    "make setup DEVICE=cuda13 (driver 580 or newer) or DEVICE=cuda12 in the checkout, or use --device cpu"
)


@dataclass(frozen=True, slots=True)
class DeviceChoice:
    """The device of a run.

    Parameters
    ----------
    name : str
        ``"cpu"`` or ``"cuda"``: where the arrays will live.
    reason : str
        Why this one; for a fallback, what the GPU lacks and what to do about it.
    details : mapping
        Facts about the device, ready for JSON; for ``cuda`` those of :func:`probe_cuda`.
    """

    name: DeviceName
    reason: str
    details: Mapping[str, object] = field(default_factory=lambda: MappingProxyType({}))


def resolve(
    requested: RequestedDevice,
    *,
    workload: Workload | None = None,
    deadline_ms: float = math.inf,
    profile: DeviceProfile | NoProfile = _NOT_LOOKED_FOR,
) -> DeviceChoice:
    """Turn a requested device into the one that is used.

    Parameters
    ----------
    requested : str
        ``"cpu"`` never touches a GPU. ``"cuda"`` uses one or fails. ``"auto"`` uses one where it can and, as
        far as ``profile`` says, where that is the better choice for ``workload``.
    workload : Workload, optional
        What ``auto`` chooses for; None: for anything.
    deadline_ms : float
        A step that takes longer is of no use.
    profile : DeviceProfile or NoProfile
        What was measured on this very machine.

    Returns
    -------
    DeviceChoice

    Raises
    ------
    DeviceError
        If ``"cuda"`` was asked for and cannot run here.
    UsageError
        If ``requested`` is none of the three.
    """
    if requested == "cpu":
        return DeviceChoice("cpu", "the CPU was asked for", _cpu_details())
    if requested == "cuda":
        details = probe_cuda()
        return DeviceChoice("cuda", f"asked for; found {_title(details)}", details)
    if requested == "auto":
        return _best(workload, deadline_ms, profile)
    raise UsageError(
        "unknown device",
        where="device",
        value=requested,
        fix=f"one of {', '.join(get_args(RequestedDevice))}",
    )


def core_count() -> int:
    """Return the cores that this process may use.

    ``os.cpu_count`` counts those that taskset or a container's set of cores has taken away. A share of their
    time (``docker --cpus``) takes no core away: that is told by ``gpuscalp.doctor.machine``.
    """
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def probe_cuda() -> Mapping[str, object]:
    """Look for a GPU that can run the kernels, and open a context on it.

    The device is CuPy's current one: the first that ``CUDA_VISIBLE_DEVICES`` shows, unless the caller chose.

    Returns
    -------
    mapping
        ``name, compute_capability, memory_bytes, device_index, device_count, pci_bus_id, driver_version,
        runtime_version, nvrtc_version, cupy_version``; CUDA versions as ``"13.0"``.

    Raises
    ------
    DeviceError
        With what is missing (CuPy, driver, device, compute capability, NVRTC) and how to get it.
    """
    cupy = import_cupy()
    runtime = cupy.cuda.runtime
    driver_version = int(runtime.driverGetVersion())
    if driver_version == 0:
        raise DeviceError(
            "no NVIDIA driver is installed",
            where="libcuda",
            fix="install the driver, give the container access to the GPU, or use --device cpu",
        )
    try:
        device_count = int(runtime.getDeviceCount())
        device_index = int(runtime.getDevice())
        properties: dict[str, Any] = runtime.getDeviceProperties(device_index)
    except runtime.CUDARuntimeError as error:
        raise _runtime_fault(error, driver_version, int(runtime.runtimeGetVersion())) from error

    name = properties["name"]
    title = name.decode() if isinstance(name, bytes) else str(name)
    capability = (int(properties["major"]), int(properties["minor"]))
    if capability < OLDEST_COMPUTE_CAPABILITY:
        raise DeviceError(
            f"{title} is too old for the kernels",
            where="compute capability",
            value="{}.{}".format(*capability),
            fix="use a GPU of compute capability {}.{} or newer, or --device cpu".format(
                *OLDEST_COMPUTE_CAPABILITY
            ),
        )
    compiler_version = nvrtc_version()
    try:
        # Freeing nothing creates the context: a card in exclusive use or in a fault says so here, not later.
        runtime.free(0)
    except runtime.CUDARuntimeError as error:
        raise _runtime_fault(error, driver_version, int(runtime.runtimeGetVersion())) from error
    return MappingProxyType(
        {
            "name": title,
            "compute_capability": "{}.{}".format(*capability),
            "memory_bytes": int(properties["totalGlobalMem"]),
            "device_index": device_index,
            "device_count": device_count,
            # CuPy's own "uuid" ends at the first zero byte: NVML tells the UUID of the card at this address.
            "pci_bus_id": str(runtime.deviceGetPCIBusId(device_index)),
            "driver_version": _dotted(driver_version),
            "runtime_version": _dotted(int(runtime.runtimeGetVersion())),
            "nvrtc_version": compiler_version,
            "cupy_version": str(cupy.__version__),
        }
    )


def cuda_bus_ids() -> tuple[str, ...]:
    """Return the PCI bus ids of the GPUs that CUDA shows this process, in its order; () where there are none.

    NVML, which tells how a card is, counts other cards in another order. Creates no context.
    """
    try:
        runtime = import_cupy().cuda.runtime
    except DeviceError:
        return ()
    try:
        return tuple(str(runtime.deviceGetPCIBusId(index)) for index in range(int(runtime.getDeviceCount())))
    except runtime.CUDARuntimeError:
        return ()


def describe(
    requested: RequestedDevice = "auto",
    *,
    workload: Workload | None = None,
    deadline_ms: float = math.inf,
    profile: DeviceProfile | NoProfile = _NOT_LOOKED_FOR,
) -> dict[str, object]:
    """Return what ``gpuscalp device --json`` prints; never raises for a missing GPU.

    The parameters are those of ``resolve``.

    Returns
    -------
    dict
        ``device`` (``None`` where ``requested`` cannot run), ``requested``, ``reason``, ``cpu`` (facts) and
        ``cuda``: ``{"usable": true, …facts}`` or ``{"usable": false, "error": {…}}``.
    """
    cuda: dict[str, object]
    try:
        cuda = {"usable": True, **probe_cuda()}
    except DeviceError as error:
        cuda = {"usable": False, "error": error.to_dict()}
    try:
        choice = resolve(requested, workload=workload, deadline_ms=deadline_ms, profile=profile)
    except DeviceError as error:
        name, reason = None, str(error)
    else:
        name, reason = choice.name, choice.reason
    return {
        "device": name,
        "requested": requested,
        "reason": reason,
        "cpu": dict(_cpu_details()),
        "cuda": cuda,
    }


def import_cupy() -> Any:
    """Return the module ``cupy``; importing it needs no driver.

    Raises
    ------
    DeviceError
        If CuPy is absent or cannot be loaded.
    """
    try:
        import cupy
    except ModuleNotFoundError as error:
        if error.name != "cupy":
            raise DeviceError(
                "CuPy is damaged", where="import cupy", value=error, fix=_INSTALL_FIX
            ) from error
        raise DeviceError("CuPy is not installed", where="import cupy", fix=_INSTALL_FIX) from error
    except Exception as error:
        if isinstance(error, OSError) and error.filename is not None:
            # CuPy makes the folder of its cache while it is imported.
            raise DeviceError(
                f"CuPy cannot be imported: {error.strerror}",
                where="import cupy",
                value=str(error.filename),
                fix="name a folder that can be written to with CUPY_CACHE_DIR, or use --device cpu",
            ) from error
        # CuPy reports a library that does not load with several kinds of error.
        raise DeviceError(
            "CuPy cannot be imported", where="import cupy", value=error, fix=_INSTALL_FIX
        ) from error
    return cupy


def nvrtc_version() -> str:
    """Return NVRTC's version, as ``"13.0"``; needs no driver.

    Raises
    ------
    DeviceError
        If CuPy or NVRTC is missing.
    """
    cupy = import_cupy()
    try:
        major, minor = cupy.cuda.nvrtc.getVersion()
    except Exception as error:
        # A missing libnvrtc arrives as RuntimeError, ImportError or an error of cuda-pathfinder, by version.
        raise DeviceError("NVRTC is missing", where="libnvrtc", value=error, fix=_INSTALL_FIX) from error
    return f"{major}.{minor}"


def _best(workload: Workload | None, deadline_ms: float, profile: DeviceProfile | NoProfile) -> DeviceChoice:
    """Choose between the devices that can be used."""
    found: dict[DeviceName, Mapping[str, object]] = {"cpu": _cpu_details()}
    try:
        found = {"cuda": probe_cuda(), **found}
        reason = f"found {_title(found['cuda'])}"
    except DeviceError as error:
        reason = f"no usable GPU: {error}"
    name: DeviceName = next(iter(found))
    if workload is None:
        return DeviceChoice(name, reason, found[name])
    if isinstance(profile, NoProfile):
        told = profile.why
    elif (decision := decide(profile, workload, deadline_ms, tuple(found))) is None:
        told = f"the device profile says nothing of {workload.symbols:,} symbols and {workload.trees:,} trees"
    else:
        return DeviceChoice(decision.device, f"{reason}; {decision.reason}", found[decision.device])
    if name == "cuda":
        reason += f"; {told}: gpuscalp bench crossover measures which device is the faster"
    return DeviceChoice(name, reason, found[name])


def _runtime_fault(error: Exception, driver_version: int, runtime_version: int) -> DeviceError:
    status = getattr(error, "status", None)
    if status == _ERROR_INSUFFICIENT_DRIVER:
        return DeviceError(
            "the NVIDIA driver is older than CuPy's CUDA runtime",
            where="driver",
            value=f"driver for CUDA {_dotted(driver_version)}, runtime {_dotted(runtime_version)}",
            fix="update the driver, make setup DEVICE=cuda12, or use --device cpu",
        )
    if status == _ERROR_NO_DEVICE:
        return DeviceError(
            "no GPU is visible to this process",
            where="CUDA_VISIBLE_DEVICES",
            value=os.environ.get("CUDA_VISIBLE_DEVICES"),
            fix="check nvidia-smi and CUDA_VISIBLE_DEVICES, or use --device cpu",
        )
    if status == _ERROR_DEVICES_UNAVAILABLE:
        return DeviceError(
            "the GPU is in exclusive use by another process",
            where="compute mode",
            fix="end the other process, choose another GPU with CUDA_VISIBLE_DEVICES, or use --device cpu",
        )
    return DeviceError(
        "the GPU does not answer",
        where="CUDA runtime",
        value=error,
        fix="look at nvidia-smi and the kernel log, or use --device cpu",
    )


def _cpu_details() -> Mapping[str, object]:
    return MappingProxyType({"machine": platform.machine(), "core_count": core_count()})


def _title(details: Mapping[str, object]) -> str:
    return f"{details['name']}, compute capability {details['compute_capability']}"


def _dotted(version: int) -> str:
    """Return ``"13.2"`` for CUDA's 13020."""
    return f"{version // 1000}.{version % 1000 // 10}"
