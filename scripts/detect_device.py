"""Print which build a machine can use: cpu, cuda13 or cuda12 (`make setup DEVICE=auto`).

Runs before anything is installed, so it knows only the standard library. It asks the driver, not the CUDA
toolkit: the wheels bring their own toolkit and need nothing but a driver that is new enough.
"""

from __future__ import annotations

import shutil
import subprocess
import sys

# The first driver branch of each CUDA major version (NVIDIA, CUDA compatibility table, minor-version column).
DRIVER_CUDA13 = 580
DRIVER_CUDA12 = 525
# CUDA 13 has no code for older chips, and kernels/ is compiled for this one and newer.
OLDEST_CAPABILITY = 7.5


def choose(query: str) -> tuple[str, str]:
    """Return the build and the reason for it.

    Parameters
    ----------
    query : str
        What ``nvidia-smi --query-gpu=driver_version,compute_cap --format=csv,noheader`` printed:
        one line a device, for instance ``580.95.05, 9.0``.
    """
    devices = []
    for line in query.splitlines():
        driver, _, capability = line.partition(",")
        try:
            devices.append((int(driver.split(".")[0]), float(capability)))
        except ValueError:
            continue
    if not devices:
        return "cpu", "nvidia-smi names no device"
    driver_major, capability_best = max(devices, key=lambda device: device[1])
    if capability_best < OLDEST_CAPABILITY:
        return "cpu", f"compute capability {capability_best} is below {OLDEST_CAPABILITY}"
    if driver_major >= DRIVER_CUDA13:
        return "cuda13", f"driver {driver_major}"
    if driver_major >= DRIVER_CUDA12:
        return "cuda12", f"driver {driver_major} is below {DRIVER_CUDA13}"
    return "cpu", f"driver {driver_major} is below {DRIVER_CUDA12}"


def ask_driver() -> str:
    """Return what nvidia-smi says, or nothing where it is absent, fails or hangs."""
    executable = shutil.which("nvidia-smi")
    if executable is None:
        return ""
    command = [executable, "--query-gpu=driver_version,compute_cap", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout if done.returncode == 0 else ""


if __name__ == "__main__":
    build, reason = choose(ask_driver())
    print(build)
    print(f"device: {build} ({reason})", file=sys.stderr)
