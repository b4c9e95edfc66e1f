"""``gpuscalp version`` and ``gpuscalp device``: what is installed, and what it can run on."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

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
    "cupy-cuda13x",
    "cupy-cuda12x",
)


@app.command("version")
def version(json: JsonFlag = False) -> None:
    """Print the versions of what can change a number."""
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
def device(
    device: DeviceOption = "auto",
    symbols: Annotated[int | None, typer.Option(min=1, help="Symbols of a session.")] = None,
    trees: Annotated[int | None, typer.Option(min=1, help="Trees of its model, over all members.")] = None,
    deadline_ms: Annotated[
        float | None, typer.Option(min=0, help="Time that a step may take; default: a session's.")
    ] = None,
    profile: Annotated[
        Path | None, typer.Option(help="Device profile; default: where bench crossover writes it.")
    ] = None,
    json: JsonFlag = False,
) -> None:
    """Say which device a run would use, and why.

    With --symbols and --trees: for so much work, as gpuscalp bench crossover has measured it. With --device
    cuda it fails where there is none.
    """
    import time

    from gpuscalp.device import describe, resolve
    from gpuscalp.doctor.gpu import describe_health
    from gpuscalp.errors import UsageError
    from gpuscalp.monitoring.nvml import import_nvml, survey

    if device == "cuda":
        resolve(device)
    if (symbols is None) != (trees is None):
        raise UsageError("--symbols and --trees belong together", where="device", fix="name both, or neither")
    if symbols is None or trees is None:
        described = describe(device)
    else:
        from gpuscalp.device_choice import describe_choice
        from gpuscalp.device_profile import Workload

        described = describe_choice(device, Workload(symbols, trees), deadline_ms=deadline_ms, path=profile)
    nvml = import_nvml()
    found = "nvidia-ml-py is not installed" if nvml is None else survey(nvml, at_ns=time.time_ns())
    health = found if isinstance(found, str) else describe_health(found)
    answer = {**described, "health": None if isinstance(health, str) else health}
    emit(answer, json=json, text=lambda: "\n".join([_lines(described), *_health_lines(health)]))


def _health_lines(health: str | list[dict[str, Any]]) -> list[str]:
    """Return a line a card, counted as NVML does; nothing where no card can be asked."""
    if isinstance(health, str):
        return []
    lines = []
    for card in health:
        state = "failed" if card["failed"] else "doubtful" if card["doubtful"] else "well"
        told = [f"gpu {card['index']}: {card['name'] or '?'}", state, *card["failed"], *card["doubtful"]]
        if card["free_bytes"] is not None:
            told.append(f"{card['free_bytes'] >> 20} of {card['total_bytes'] >> 20} MiB free")
        if card["celsius"] is not None:
            told.append(f"{card['celsius']} C")
        lines.append(", ".join(told))
    return lines


def _lines(answer: Mapping[str, Any]) -> str:
    flat = {key: value for key, value in answer.items() if not isinstance(value, Mapping)}
    width = max(len(key) for key in flat)
    return "\n".join(f"{key:<{width}}  {value}" for key, value in flat.items())
