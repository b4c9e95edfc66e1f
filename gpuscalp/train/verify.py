"""Looks at a bundle and checks it from the ground: files, columns, canary, and the forest against XGBoost.

Owns: the answers of ``gpuscalp model show`` and ``gpuscalp model verify``. This is the one reader of a bundle
that imports XGBoost.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final, cast

import numpy as np

from gpuscalp.boosters import load_booster
from gpuscalp.bundle import load_bundle, margins_on, read_contract
from gpuscalp.contract import Contract
from gpuscalp.device import RequestedDevice, resolve
from gpuscalp.errors import MemberError
from gpuscalp.features import FeatureGraph
from gpuscalp.forest_reader import read_booster
from gpuscalp.ops.forest import Forest
from gpuscalp.schema import F32
from gpuscalp.times import iso
from gpuscalp.train.dataset import label_spec
from gpuscalp.xgb import import_xgboost

# Rows made from the canary's by mixing: they reach branches that the canary alone does not.
MIXED_ROWS: Final = 4_096


def describe_bundle(path: Path) -> dict[str, Any]:
    """Return what a bundle says about itself, unchecked.

    Raises
    ------
    ModelError
        there is no contract, or it cannot be read
    """
    contract = read_contract(path)
    training = contract.training
    return {
        "bundle": str(path),
        "venue": training.venue,
        "symbols": list(training.symbols),
        "label": label_spec(training.config.label),
        "trained_from": iso(training.trained_on.start_ns),
        "trained_to": iso(training.trained_on.end_ns),
        "trials": training.tried,
        "rows": training.rows,
        "members": len(contract.members),
        "rounds": [member.rounds for member in contract.members],
        "columns": len(contract.columns),
        "column_names": list(contract.names),
        "leader": training.leader,
        "device": training.device,
        "dtype": contract.dtype,
        "classes": list(contract.classes),
        "class_return_bps": list(contract.class_return_bps),
        "calibration": {
            "kind": contract.calibration.kind,
            "scale": list(contract.calibration.scale),
            "bias": list(contract.calibration.bias),
            "fitted_on": contract.calibration.fitted_on,
        },
        "folds": [
            {
                "train": [fold.train.start_ns, fold.train.end_ns],
                "test": [fold.test.start_ns, fold.test.end_ns],
                "embargo_ns": fold.embargo_ns,
            }
            for fold in training.folds
        ],
        "graph_hash": contract.graph_hash,
        "data_digest": training.data_digest,
        "digest": contract.digest,
        "metrics": training.metrics,
        "versions": training.versions,
        "config": training.config,
    }


def verify_bundle(path: Path, *, device: RequestedDevice = "auto") -> dict[str, Any]:
    """Check everything that can be checked without the data.

    Parameters
    ----------
    path : the bundle
    device : where the canary is computed

    Returns
    -------
    dict for ``model verify --json``: ``verified`` is true, because anything else is an error

    Raises
    ------
    ModelError, FeatureMismatchError, MemberError, CanaryError
    """
    choice = resolve(device)
    contract = read_contract(path)
    training = contract.training
    graph = FeatureGraph(training.config.grid, training.config.features, training.symbols)
    bundle = load_bundle(path, graph=graph, device=choice.name)
    x = mixed_rows(contract)
    margins, version = compare_members(path, contract, bundle.ensemble.forest, x)
    return {
        "bundle": str(path),
        "verified": True,
        "device": choice.name,
        "device_reason": choice.reason,
        "files": 1 + len(contract.members),
        "columns": len(contract.columns),
        "canary_rows": contract.canary.x.shape[0],
        "margins": margins,
        "differing": 0,
        "xgboost": version,
    }


def compare_members(path: Path, contract: Contract, forest: Forest, x: F32) -> tuple[int, str]:
    """Read the members with XGBoost and compare its margins with those of the forest.

    Parameters
    ----------
    path : the bundle, whose files have been checked
    contract : its contract
    forest : its forest
    x : float32[R, F]

    Returns
    -------
    (margins compared, of which none differs in a bit; version of XGBoost)

    Raises
    ------
    MemberError
        a member cannot be read, is not what the forest was read from, or XGBoost answers differently
    """
    xgboost = import_xgboost()

    ours = margins_on("cpu", forest, x)
    boosters = []
    for index, member in enumerate(contract.members):
        file = path / member.file.path
        booster = load_booster(file.read_bytes(), str(file))
        booster.set_param({"nthread": 1, "device": "cpu"})
        theirs = cast(
            F32, booster.inplace_predict(x, predict_type="margin", missing=np.nan, strict_shape=True)
        )
        differing = int((theirs.view(np.uint32) != ours[index].view(np.uint32)).sum())
        if differing:
            raise MemberError(
                "the forest does not give the margins of the member that it was read from",
                where=str(file),
                value=f"{differing} of {theirs.size} margins differ",
                fix="do not use this bundle",
            )
        boosters.append(booster)
    again = Forest.join([read_booster(bytes(booster.save_raw("json"))) for booster in boosters]).arrays()
    stored = forest.arrays()
    for name, array in again.items():
        if not np.array_equal(array, stored[name], equal_nan=array.dtype.kind == "f"):
            raise MemberError("the forest is not the one that the members make", where=f"{path}, {name}")
    return ours.size, str(xgboost.__version__)


def mixed_rows(contract: Contract) -> F32:
    """Return float32[MIXED_ROWS, F]: each column shuffled on its own among the canary's rows, seeded."""
    x = contract.canary.x.array("float32", "canary.x")
    rng = np.random.default_rng(0)
    at = rng.integers(0, len(x), (MIXED_ROWS, x.shape[1]))
    return np.ascontiguousarray(np.take_along_axis(x, at, axis=0))
