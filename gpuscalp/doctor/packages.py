"""Installed packages against what the distribution of gpuscalp asks for, and the build of XGBoost.

Owns: the checks ``packages`` and ``xgboost``. Never: imports any of the packages: metadata are read only.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping
from importlib.metadata import PackageNotFoundError, distributions, requires
from pathlib import Path
from typing import Final

from packaging.markers import default_environment
from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from gpuscalp.doctor.check import Check, fail, ok, skip, warn

_SETUP: Final = "make setup, or pip install 'gpuscalp' anew into this environment"
# Build by distribution: all three install the same package `xgboost`.
_XGBOOST: Final[Mapping[str, str]] = {"xgboost-cpu": "cpu", "xgboost": "cuda13", "xgboost-cu12": "cuda12"}
# Where a driver shows that is not reached through the loader: bare metal and containers, then WSL.
_DRIVER_PATHS: Final = ("/proc/driver/nvidia/version", "/dev/nvidiactl", "/dev/dxg")


def read_requirements() -> list[str] | None:
    """Return what the installed distribution requires; None for a checkout that is not installed."""
    try:
        return requires("gpuscalp") or []
    except PackageNotFoundError:
        return None


def read_installed() -> dict[str, str]:
    """Return version by name, in the normal form of names, of everything that can be imported here."""
    found: dict[str, str] = {}
    for distribution in distributions():
        name = distribution.metadata["Name"]
        if name:  # a half-removed package has none
            found.setdefault(canonicalize_name(name), distribution.version)
    return found


def driver_present() -> bool:
    """Whether this machine has an NVIDIA driver, usable or not."""
    return any(Path(path).exists() for path in _DRIVER_PATHS) or shutil.which("nvidia-smi") is not None


def check_packages(requirements: Iterable[str] | None, installed: Mapping[str, str]) -> Check:
    """Compare versions.

    Parameters
    ----------
    requirements : as the metadata have them, with markers; those of extras count where their package is
        installed. None: no metadata
    installed : version by normal name
    """
    if requirements is None:
        fix = "pip install -e . in the checkout, so that versions can be compared"
        return warn("packages", "gpuscalp runs from a checkout without metadata: versions are unknown", fix)
    missing: list[str] = []
    wrong: list[str] = []
    wrong_extra: list[str] = []
    count = 0
    for text in requirements:
        try:
            requirement = Requirement(text)
        except InvalidRequirement:
            wrong.append(f"{text}: not readable")
            continue
        extra = not _applies(requirement, extra="")
        if extra and not _belongs_to_an_extra(requirement):
            continue  # for another Python or platform
        version = installed.get(canonicalize_name(requirement.name))
        if version is None:
            if not extra:
                missing.append(str(requirement.name))
            continue
        count += 1
        if not requirement.specifier.contains(version, prereleases=True):
            told = f"{requirement.name} {version}, wanted {requirement.specifier}"
            (wrong_extra if extra else wrong).append(told)
    value = {"checked": count, "missing": missing, "wrong": wrong, "wrong_of_extras": wrong_extra}
    if missing or wrong:
        told = "; ".join([*(f"{name} is missing" for name in missing), *wrong])
        return fail("packages", told, _SETUP, value)
    if wrong_extra:
        return warn("packages", f"of optional parts: {'; '.join(wrong_extra)}", _SETUP, value)
    return ok("packages", f"{count} packages have the versions that gpuscalp requires", value)


def check_xgboost(installed: Mapping[str, str], *, has_driver: bool) -> Check:
    """Compare the build of XGBoost with the machine. A session predicts without it; training does not."""
    builds = {name: installed[name] for name in _XGBOOST if name in installed}
    value = {"builds": builds, "nvidia_driver": has_driver}
    if not builds:
        return skip("xgboost", "XGBoost is not installed; a session predicts without it", value)
    if len(builds) > 1:
        return warn(
            "xgboost",
            f"{' and '.join(builds)} overwrite one another",
            "make setup: it installs exactly one build",
            value,
        )
    (name, version), *_ = builds.items()
    if has_driver and _XGBOOST[name] == "cpu":
        return warn(
            "xgboost",
            f"{name} {version} cannot train on the NVIDIA GPU of this machine",
            "make setup DEVICE=cuda13 (driver 580 or newer), or DEVICE=cuda12",
            value,
        )
    return ok("xgboost", f"{name} {version}", value)


def _applies(requirement: Requirement, *, extra: str) -> bool:
    environment = {**default_environment(), "extra": extra}
    return requirement.marker is None or requirement.marker.evaluate(environment)  # type: ignore[arg-type]


def _belongs_to_an_extra(requirement: Requirement) -> bool:
    """Whether it applies here as soon as the extra that its marker names was asked for."""
    words = str(requirement.marker).replace("'", '"').split('"')
    return any(_applies(requirement, extra=word) for word in words[1::2])
