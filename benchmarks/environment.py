"""What a result was measured on: stands in every result file."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
from datetime import UTC, datetime
from pathlib import Path

from gpuscalp.device import core_count, describe
from gpuscalp.device_choice import processor

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = (
    "numpy",
    "numba",
    "pyarrow",
    "xgboost",
    "xgboost-cpu",
    "polars",
    "pandas",
    "scipy",
    "cupy-cuda12x",
    "cupy-cuda13x",
    "nvidia-cuda-nvrtc",
    "nvidia-cuda-nvrtc-cu12",
    "nvforest-cu12",
    "nvforest-cu13",
)


def environment() -> dict[str, object]:
    """Return commit, date, machine, GPU and versions."""
    return {
        # A copy of the tree gets the name from whoever made it.
        "commit": os.environ.get("GPUSCALP_COMMIT") or _git("rev-parse", "--short", "HEAD"),
        "changed_files": len((_git("status", "--porcelain") or "").splitlines()),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "processor": processor(),
        "cores": core_count(),
        "load_average": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        "versions": {name: version for name in PACKAGES if (version := _version(name))},
        # Card, driver, CuPy and NVRTC as CUDA names them; or why there is none.
        "cuda": describe()["cuda"],
    }


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()
