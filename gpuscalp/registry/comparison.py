"""Two bundles side by side: configuration, data, figures of the folds, calibration, importance.

Owns: the answer of ``gpuscalp model compare``. Never: judges. Figures over different data stand side by side
as well, and ``same_data`` says that they are no comparison.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from gpuscalp.bundle import read_contract
from gpuscalp.config import flat_dict
from gpuscalp.contract import Contract
from gpuscalp.errors import UNREADABLE

COLUMNS: Final = 20
_RESULT_FILE: Final = "result.json"


class _Gain(msgspec.Struct):
    name: str
    gain: float


class _Result(msgspec.Struct):
    """The form of what is read of ``result.json``; the rest may be anything."""

    seconds: float = 0.0
    overall: dict[str, Any] | None = None
    folds: list[dict[str, Any]] = []
    importance: list[_Gain] = []


def compare_models(a: Path, b: Path, *, columns: int = COLUMNS) -> dict[str, Any]:
    """Hold two bundles against each other, unchecked.

    Parameters
    ----------
    a, b : bundles
    columns : of the importance: the strongest of either

    Returns
    -------
    dict for ``model compare --json``: parts as lists of ``{"name", "a", "b"}``; None where a bundle does not
    tell

    Raises
    ------
    ModelError
        one of them cannot be read
    """
    left, right = read_contract(a), read_contract(b)
    ours, theirs = read_result(a), read_result(b)
    mine, its = flat_dict(left.training.config), flat_dict(right.training.config)
    return {
        "a": {"path": str(a), "digest": left.digest},
        "b": {"path": str(b), "digest": right.digest},
        "same_data": left.training.data_digest == right.training.data_digest,
        "same_columns": left.graph_hash == right.graph_hash,
        "configuration": [row for row in _rows(mine, its) if row["a"] != row["b"]],
        "data": _rows(_data(left), _data(right)),
        "metrics": _rows(left.training.metrics, right.training.metrics),
        "folds": _rows(_folds(ours), _folds(theirs)),
        "calibration": _rows(_calibration(left), _calibration(right)),
        "importance": _importance(_gains(ours), _gains(theirs), columns),
    }


def _rows(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return one row for every name of either, in the order in which they appear."""
    return [{"name": name, "a": a.get(name), "b": b.get(name)} for name in dict.fromkeys((*a, *b))]


def _data(contract: Contract) -> dict[str, Any]:
    training = contract.training
    return {
        "venue": training.venue,
        "symbols": list(training.symbols),
        "leader": training.leader,
        "trained_from_ns": training.trained_on.start_ns,
        "trained_to_ns": training.trained_on.end_ns,
        "rows": training.rows,
        "trials": training.tried,
        "data_digest": training.data_digest,
        "columns": len(contract.columns),
        "graph_hash": contract.graph_hash,
        "members": len(contract.members),
        "rounds": [member.rounds for member in contract.members],
        "device": training.device,
        **{f"made with {name}": version for name, version in training.versions.items()},
    }


def _calibration(contract: Contract) -> dict[str, Any]:
    calibration = contract.calibration
    parts: dict[str, Any] = {"kind": calibration.kind, "fitted_on": calibration.fitted_on}
    for name, values in (
        ("scale", calibration.scale),
        ("bias", calibration.bias),
        ("class return, bps", contract.class_return_bps),
    ):
        parts |= {f"{name} {label}": value for label, value in zip(contract.classes, values, strict=True)}
    return parts


def read_result(bundle: Path) -> dict[str, Any]:
    """Return what ``train --json`` said: a file for people, so one that cannot be read says nothing."""
    try:
        found = msgspec.json.decode((bundle / _RESULT_FILE).read_bytes(), type=dict[str, Any])
        msgspec.convert(found, _Result)
    except (OSError, *UNREADABLE):
        return {}
    return found


def _folds(result: Mapping[str, Any]) -> dict[str, Any]:
    names = ("train_rows", "rows", "log_loss", "base_log_loss", "ic", "ic_low", "ic_high")
    return {
        f"fold {number}: {name}": fold.get(name)
        for number, fold in enumerate(result.get("folds", ()), start=1)
        for name in names
    }


def _gains(result: Mapping[str, Any]) -> dict[str, float]:
    return {item["name"]: item["gain"] for item in result.get("importance", ())}


def _importance(a: Mapping[str, float], b: Mapping[str, float], count: int) -> list[dict[str, Any]]:
    names = sorted(a.keys() | b.keys(), key=lambda name: (-max(a.get(name, 0.0), b.get(name, 0.0)), name))
    # A column that is not listed was never split on; a bundle without a list tells nothing.
    return [
        {"name": name, "a": a.get(name, 0.0) if a else None, "b": b.get(name, 0.0) if b else None}
        for name in names[:count]
    ]
