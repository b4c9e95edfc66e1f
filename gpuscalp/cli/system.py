"""``gpuscalp version`` and ``gpuscalp device``: what is installed, and what it can run on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gpuscalp.cli.app import DeviceOption, app
from gpuscalp.cli.output import JsonFlag, emit

# Packages whose version can change a number or a speed. The three builds of XGBoost and the two of CuPy
# exclude each other; what is absent is left out.
REPORTED_PACKAGES = (
    "numpy",
    "numba",
    "pyarrow",
    "scipy",
    "msgspec",
    "xgboost-cpu",
    "xgboost",
    "xgboost-cu12",
    "scikit-learn",
    "cupy-cuda13x",
    "cupy-cuda12x",
)


@app.command("version")
def version(json: JsonFlag = False) -> None:
    """Print the versions that matter to a number."""
    import platform
    from importlib.metadata import PackageNotFoundError
    from importlib.metadata import version as version_of

    from gpuscalp import __version__

    packages = {}
    for name in REPORTED_PACKAGES:
        try:
            packages[name] = version_of(name)
        except PackageNotFoundError:
            continue
    answer = {
        "gpuscalp": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": packages,
    }
    emit(answer, json=json, text=lambda: _lines({**answer, **packages}))


@app.command("device")
def device(device: DeviceOption = "auto", json: JsonFlag = False) -> None:
    """Say which device a run would use, and why.

    With --device cuda it fails where there is none.
    """
    from gpuscalp.device import describe, resolve

    if device == "cuda":
        resolve(device)
    answer = describe(device)
    emit(answer, json=json, text=lambda: _lines(answer))


def _lines(answer: Mapping[str, Any]) -> str:
    flat = {key: value for key, value in answer.items() if not isinstance(value, Mapping)}
    width = max(len(key) for key in flat)
    return "\n".join(f"{key:<{width}}  {value}" for key, value in flat.items())
