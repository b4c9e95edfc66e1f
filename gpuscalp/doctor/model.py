"""The model: is it what it says it is, and does it give its own answers on this device?

Owns: the checks ``model`` and ``model_expiry``. Never: imports XGBoost: ``gpuscalp model verify`` compares
with it.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Final

from gpuscalp.bundle import load_bundle, read_contract
from gpuscalp.config import LiveConfig
from gpuscalp.config.fields import Limit
from gpuscalp.contract import Contract
from gpuscalp.device import DeviceName
from gpuscalp.device_profile import Workload
from gpuscalp.doctor.check import Check, failed_by, ok, skip, warn
from gpuscalp.errors import GpuscalpError
from gpuscalp.live.venue import check_model_market
from gpuscalp.schema import NS_PER_MS, NS_PER_S

_HOUR_NS: Final = 3_600 * NS_PER_S
_SOON_H: Final = 24.0


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


def check_model(path: Path, *, device: DeviceName, live: LiveConfig | None = None) -> Check:
    """Load a bundle as a session does: files, columns of this version, canary rows on the device.

    Parameters
    ----------
    live : of a session on its venue, whose market the model has to be of; None: it may be of any
    """
    begin_ns = time.monotonic_ns()
    try:
        if live is not None:
            check_model_market(path, live)
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


def check_expiry(path: Path | None, limit_h: Limit, *, now_ns: int) -> Check:
    """Say when the gate will refuse what a model predicts (``risk.max_model_age_h``).

    Parameters
    ----------
    path : of the model that leads, or would; None: there is none
    limit_h : of its age, from the end of its own training
    now_ns : wall clock
    """
    name = "model_expiry"
    if path is None:
        return skip(name, "no model was named")
    if limit_h == "off":
        return ok(name, "models do not expire: risk.max_model_age_h is off")
    try:
        until_ns = read_contract(path).training.trained_on.end_ns
    except GpuscalpError:
        return skip(name, "the model cannot be read")
    left_h = limit_h - (now_ns - until_ns) / _HOUR_NS
    value = {"bundle": str(path), "trained_until_ns": until_ns, "limit_h": limit_h, "left_h": left_h}
    if left_h >= _SOON_H:
        return ok(name, f"the model expires in {left_h:,.0f} h", value)
    told = f"the model expires in {left_h:.1f} h" if left_h > 0 else "the model has expired"
    fix = "train a newer one (gpuscalp retrain), or raise risk.max_model_age_h"
    return warn(name, f"{told}: nothing is opened on its predictions then", fix, value)


def _loaded(path: Path, device: DeviceName) -> Contract:
    from gpuscalp.features import FeatureGraph

    training = read_contract(path).training
    graph = FeatureGraph(training.config.grid, training.config.features, training.symbols)
    return load_bundle(path, graph=graph, device=device).contract
