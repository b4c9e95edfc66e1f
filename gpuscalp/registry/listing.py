"""What a registry holds: told, and checked as a whole.

Owns: the answers of ``gpuscalp model list`` and of ``gpuscalp model verify`` without a bundle.
"""

from __future__ import annotations

from typing import Any, Final

from gpuscalp.bundle import load_bundle, read_contract
from gpuscalp.device import RequestedDevice, resolve
from gpuscalp.errors import ModelError
from gpuscalp.registry.history import ALIASES, State
from gpuscalp.registry.names import SHORT
from gpuscalp.registry.promotion import check_fit
from gpuscalp.registry.store import Registry
from gpuscalp.schema import NS_PER_S

_TOLD_MAX: Final = 3
_NOTHING: Final[dict[str, Any]] = {
    "venue": None,
    "symbols": (),
    "rows": None,
    "trained_to_ns": None,
    "metrics": {},
}


def list_models(registry: Registry, *, now_ns: int, acts: int = 0) -> dict[str, Any]:
    """Return the models, the newest first, and the newest ``acts`` of the history.

    A bundle that cannot be read is listed too, with the reason as ``damaged``; ``strays`` lie among the
    bundles and are none of the registry's.

    Raises
    ------
    ModelError
        the history was altered
    """
    history = registry.history()
    state = history.state()
    models = [_row(registry, state, digest, now_ns) for digest in registry.digests()]
    return {
        "registry": str(registry.path),
        "aliases": {alias: state.current(alias) for alias in ALIASES},
        "models": sorted(models, key=lambda row: (row["age_s"], row["digest"])),
        "strays": registry.strays(),
        "history": list(history.acts[len(history.acts) - min(acts, len(history.acts)) :]),
    }


def verify_registry(registry: Registry, *, device: RequestedDevice = "auto") -> dict[str, Any]:
    """Check the history line by line, that aliases and pins point to bundles, and every bundle.

    Returns
    -------
    dict for ``model verify --json``; ``unfit`` are whole bundles that cannot be promoted here

    Raises
    ------
    UsageError
        there is no registry
    ModelError
        anything is damaged or missing: all of it is counted, the first faults are told
    """
    registry.check_begun()  # a misspelt path would be good, with nothing in it
    history = registry.history()
    state = history.state()
    choice = resolve(device)
    faults = []
    there = registry.digests()
    for name, digest in [(f"@{alias}", state.current(alias)) for alias in ALIASES] + [
        ("a pin", digest) for digest in sorted(state.pinned)
    ]:
        if digest is not None and digest not in there:
            faults.append(f"{name} points to {digest[:SHORT]}, which is not there")
    unfit: dict[str, str] = {}
    for digest in there:
        path = registry.bundle_path(digest)
        try:
            found = load_bundle(path, graph=None, device=choice.name).contract.digest
        except ModelError as error:
            faults.append(f"{digest[:SHORT]}: {error.what}")
            continue
        if found != digest:
            faults.append(f"{digest[:SHORT]} holds the bundle {found[:SHORT]}")
            continue
        try:
            check_fit(registry, digest, choice.name)
        except ModelError as error:
            unfit[digest] = error.what
    if faults:
        raise ModelError(
            f"the registry has {len(faults)} fault{'s' if len(faults) > 1 else ''}",
            where=str(registry.path),
            value="; ".join(faults[:_TOLD_MAX]),
            fix="gpuscalp model add BUNDLE mends a damaged bundle; or promote another one",
        )
    return {
        "registry": str(registry.path),
        "verified": True,
        "device": choice.name,
        "device_reason": choice.reason,
        "models": len(there),
        "acts": len(history.acts),
        "unfit": unfit,
    }


def _row(registry: Registry, state: State, digest: str, now_ns: int) -> dict[str, Any]:
    path = registry.bundle_path(digest)
    act = state.added.get(digest)
    added_ns = path.stat().st_mtime_ns if act is None else act.time_ns
    row: dict[str, Any] = {
        "digest": digest,
        "age_s": (now_ns - added_ns) / NS_PER_S,
        "aliases": state.aliases_of(digest),
        "pinned": digest in state.pinned,
        "why": "" if act is None else act.why,
        "damaged": None,
    }
    try:
        training = read_contract(path).training
    except ModelError as error:
        return row | {"damaged": error.what, **_NOTHING}
    return row | {
        "venue": training.venue,
        "symbols": list(training.symbols),
        "rows": training.rows,
        "trained_to_ns": training.trained_on.end_ns,
        "metrics": training.metrics,
    }
