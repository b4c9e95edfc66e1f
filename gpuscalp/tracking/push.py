"""A bundle becomes a run and a model version.

Owns: the order. The version is made when everything of the run is on the server, so that a version is never
half a bundle, and what was broken off is simply sent again.
"""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from gpuscalp.bundle import load_bundle
from gpuscalp.contract import Contract
from gpuscalp.errors import TrackingError
from gpuscalp.registry import Registry
from gpuscalp.registry.comparison import read_result
from gpuscalp.registry.names import SHORT
from gpuscalp.tracking.connection import Target, connected, is_code
from gpuscalp.tracking.contents import DIGEST, figures_of, params_of, run_tags, version_tags

ARTEFACT: Final = "bundle"


def push(bundle: Path, target: Target, *, registry: Registry) -> dict[str, Any]:
    """Send a bundle, unless MLflow has it, and point there the aliases that the registry gives it.

    Parameters
    ----------
    bundle : checked before it is sent
    registry : aliases that point to the bundle are set; none is ever taken away

    Returns
    -------
    dict for ``model push --json``; ``run_id`` is that of the version, ``new`` whether it was made now

    Raises
    ------
    ModelError       the bundle is damaged
    TrackingError    MLflow cannot be used
    """
    return _send(bundle, target, registry, trained_here=False)


def track_training(bundle: Path, target: Target, *, registry: Registry) -> dict[str, Any]:
    """Send what has just been trained: always as a run, and as a version if its digest is new.

    MLflow that fails costs nobody the training: ``error`` tells it then, and ``push`` can send it later.
    """
    try:
        return _send(bundle, target, registry, trained_here=True) | {"error": None}
    except TrackingError as error:
        told = error.to_dict() | {"fix": f"gpuscalp model push {bundle}   when MLflow can be reached"}
        return {"tracking": target.shown, "error": told}


def _send(bundle: Path, target: Target, registry: Registry, *, trained_here: bool) -> dict[str, Any]:
    contract = load_bundle(bundle, graph=None).contract
    aliases = registry.history().state().aliases_of(contract.digest)
    with connected(target) as client:
        version = _version_of(client, target.name, contract.digest)
        new = version is None
        run_id, url = None if version is None else version.run_id, None
        if version is None or trained_here:
            run_id, url, source = _log_run(client, target, bundle, contract, trained_here=trained_here)
            if version is None:
                version = _make_version(client, target.name, contract, run_id, source)
        for alias in aliases:
            client.set_registered_model_alias(target.name, alias, version.version)
    return {
        "tracking": target.shown,
        "experiment": target.name,
        "run_id": run_id,
        "url": url,
        "model": target.name,
        "version": int(version.version),
        "new": new,
        "aliases": list(aliases),
        "digest": contract.digest,
    }


def _version_of(client: Any, name: str, digest: str) -> Any:
    """Return the newest version with a bundle's digest, or None."""
    found = client.search_model_versions(
        f"name = '{name}' and tags.`{DIGEST}` = '{digest}'",
        max_results=1,
        order_by=["version_number DESC"],
    )
    return found[0] if found else None


def _log_run(
    client: Any, target: Target, bundle: Path, contract: Contract, *, trained_here: bool
) -> tuple[str, str | None, str]:
    """Return (run id, its page if there is one, where its bundle lies)."""
    from mlflow.entities import Metric, Param

    experiment = _experiment(client, target)
    result = read_result(bundle)
    now_ms = time.time_ns() // 1_000_000
    lasted_s = result.get("seconds", 0.0) if trained_here else 0.0
    name = bundle.resolve().name
    short = contract.digest[:SHORT]
    info = client.create_run(
        experiment,
        start_time=now_ms - round(lasted_s * 1e3),
        tags=run_tags(contract, trained_here=trained_here),
        run_name=short if name == contract.digest else f"{name} {short}",
    ).info
    try:
        client.log_batch(
            info.run_id,
            metrics=[Metric(f.name, f.value, now_ms, f.step) for f in figures_of(contract, result)],
            params=[Param(key, text) for key, text in params_of(contract).items()],
        )
        client.log_artifacts(info.run_id, str(bundle), ARTEFACT)
    except BaseException:
        with suppress(Exception):  # the first error is the one to tell
            client.set_terminated(info.run_id, "FAILED")
        raise
    client.set_terminated(info.run_id, "FINISHED")
    page = f"{target.shown.rstrip('/')}/#/experiments/{experiment}/runs/{info.run_id}"
    return info.run_id, page if page.startswith("http") else None, f"{info.artifact_uri}/{ARTEFACT}"


def _experiment(client: Any, target: Target) -> str:
    """Return the id of the experiment, which is made where there is none."""
    from mlflow.exceptions import MlflowException

    found = client.get_experiment_by_name(target.name)
    if found is None:
        place = None if target.folder is None else (target.folder / "artifacts").as_uri()
        try:
            return str(client.create_experiment(target.name, artifact_location=place))
        except MlflowException as error:
            if not is_code(error, "RESOURCE_ALREADY_EXISTS"):
                raise
        found = client.get_experiment_by_name(target.name)  # another process was faster
    if found.lifecycle_stage != "active":
        raise TrackingError(
            "the experiment was deleted",
            where=target.uri,
            value=target.name,
            fix=f"mlflow experiments restore -x {found.experiment_id}, or another --experiment",
        )
    return str(found.experiment_id)


def _make_version(client: Any, name: str, contract: Contract, run_id: str, source: str) -> Any:
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if not is_code(error, "RESOURCE_ALREADY_EXISTS"):
            raise
    return client.create_model_version(name, source, run_id=run_id, tags=version_tags(contract))
