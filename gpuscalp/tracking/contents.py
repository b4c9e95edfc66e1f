"""What a run says of a bundle: parameters, metrics, tags.

Owns: their names (docs/mlflow.md). All of it comes out of the bundle itself, so that a run made at the
training and one made a year later from the same bundle say the same.
"""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec

from gpuscalp.config import flat_dict
from gpuscalp.contract import Contract
from gpuscalp.device import core_count
from gpuscalp.redaction import without_secrets
from gpuscalp.times import iso
from gpuscalp.user import user_name

DIGEST: Final = "gpuscalp.bundle_digest"

# What servers take, also those of some years ago.
_PARAM_MAX: Final = 6_000
_TAG_MAX: Final = 5_000
_NOT_FIGURES: Final = ("index", "test_start_ns", "test_end_ns")
_GIT_S: Final = 5.0


class Figure(NamedTuple):
    """One metric; ``step`` is the number of the fold, 0 where it is of everything."""

    name: str
    value: float
    step: int


def params_of(contract: Contract) -> dict[str, str]:
    """Return the training configuration by dotted key, in the form of ``GPUSCALP__…``; None is left out."""
    return {
        key: _param(value) for key, value in flat_dict(contract.training.config).items() if value is not None
    }


def figures_of(contract: Contract, result: Mapping[str, Any]) -> list[Figure]:
    """Return the metrics of a bundle.

    Parameters
    ----------
    result : what ``train --json`` said (``result.json`` of the bundle); empty where that is not there
    """
    found = dict(contract.training.metrics)
    training = contract.training
    found |= {"train_rows": training.rows, "trees": contract.tree_count, "trials": training.tried}
    found |= {name: result.get(name) for name in ("seconds", "peak_rss_mb")}
    found["rows"] = (result.get("overall") or {}).get("rows")
    figures = [Figure(name, value, 0) for name, value in _numbers(found)]
    for number, fold in enumerate(result.get("folds", ()), start=1):
        figures += [
            Figure(f"fold/{name}", value, number)
            for name, value in _numbers(fold)
            if name not in _NOT_FIGURES
        ]
    return figures


def version_tags(contract: Contract) -> dict[str, str]:
    """Return what a model version, and its run, can be found by."""
    training = contract.training
    tags = {
        DIGEST: contract.digest,
        "gpuscalp.data_digest": training.data_digest,
        "gpuscalp.graph_hash": contract.graph_hash,
        "gpuscalp.venue": training.venue,
        "gpuscalp.symbols": ",".join(training.symbols),
        "gpuscalp.trained_from": iso(training.trained_on.start_ns),
        "gpuscalp.trained_to": iso(training.trained_on.end_ns),
    }
    return {name: value[:_TAG_MAX] for name, value in tags.items()}


def run_tags(contract: Contract, *, trained_here: bool) -> dict[str, str]:
    """Return the tags of a run.

    Parameters
    ----------
    trained_here : just now, by this program; otherwise nothing is said of code and machine
    """
    tags = version_tags(contract)
    tags |= {
        "mlflow.user": user_name(),
        "mlflow.source.name": "gpuscalp train" if trained_here else "gpuscalp model push",
        "mlflow.source.type": "LOCAL",
        "gpuscalp.device": contract.training.device,
    }
    tags |= {f"version.{name}": version for name, version in contract.training.versions.items()}
    if trained_here:
        tags |= {"system.platform": platform.platform(), "system.cpus": str(core_count())}
        commit = _commit(Path(__file__).resolve().parent)
        if commit is not None:
            tags["mlflow.source.git.commit"] = commit
    return tags


def _numbers(values: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    for name, value in values.items():
        if isinstance(value, int | float) and not isinstance(value, bool):
            yield name, float(value)


def _param(value: object) -> str:
    text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
    return text if len(text) <= _PARAM_MAX else "too long for MLflow: it stands in bundle/contract.json"


def _commit(folder: Path) -> str | None:
    """Return the commit that these sources were checked out from; None where they are installed."""
    asked = (["ls-files", "--error-unmatch", Path(__file__).name], ["rev-parse", "HEAD"])
    found = ""
    for words in asked:  # a package inside of somebody's repository is not one of its files
        try:
            done = subprocess.run(
                ["git", "-C", str(folder), *words],  # noqa: S607  # the user's own git
                capture_output=True,
                text=True,
                timeout=_GIT_S,
                check=False,
                env=without_secrets(os.environ),
            )
        except (OSError, subprocess.TimeoutExpired):
            return None
        if done.returncode:
            return None
        found = done.stdout.strip()
    return found
