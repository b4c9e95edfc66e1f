"""The model: is it what it says it is, and does it give its own answers on this device?

Owns: the check ``model``. Never: imports XGBoost: ``gpuscalp model verify`` compares with it.
"""

from __future__ import annotations

import time
from pathlib import Path

from gpuscalp.bundle import load_bundle, read_contract
from gpuscalp.contract import Contract
from gpuscalp.device import DeviceName
from gpuscalp.device_profile import Workload
from gpuscalp.doctor.check import Check, failed_by, ok
from gpuscalp.errors import GpuscalpError
from gpuscalp.schema import NS_PER_MS


def symbols_of(path: Path) -> tuple[str, ...]:
    """Return the symbols that a bundle names, unchecked; none where its contract cannot be read."""
    try:
        return read_contract(path).training.symbols
    except GpuscalpError:
        return ()


def workload_of(path: Path) -> Workload | None:
    """Return what a bundle gives a device to do, unchecked; None where its contract cannot be read."""
    try:
        contract = read_contract(path)
    except GpuscalpError:
        return None
    return Workload(len(contract.training.symbols), contract.tree_count)


def check_model(path: Path, *, device: DeviceName) -> Check:
    """Load a bundle as a session does: files, columns of this version, canary rows on the device."""
    begin_ns = time.monotonic_ns()
    try:
        contract = _loaded(path, device)
    except GpuscalpError as error:
        return failed_by("model", error, fix="restore the bundle from its source, or train it again")
    took_ms = (time.monotonic_ns() - begin_ns) / NS_PER_MS
    rows = contract.canary.x.shape[0]
    value = {
        "bundle": str(path),
        "digest": contract.digest,
        "members": len(contract.members),
        "columns": len(contract.columns),
        "symbols": list(contract.training.symbols),
        "canary_rows": rows,
        "device": device,
        "load_ms": took_ms,
    }
    return ok("model", f"{rows} canary rows give the stored answers on the {device}", value)


def _loaded(path: Path, device: DeviceName) -> Contract:
    from gpuscalp.features import FeatureGraph

    training = read_contract(path).training
    graph = FeatureGraph(training.config.grid, training.config.features, training.symbols)
    return load_bundle(path, graph=graph, device=device).contract
