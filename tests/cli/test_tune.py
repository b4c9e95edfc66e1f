"""``tune`` where it cannot run. tests/tuning has it on a real Ray."""

from __future__ import annotations

import json
from importlib.metadata import PackageNotFoundError

import pytest

from gpuscalp.tuning import cluster


@pytest.mark.parametrize("missing", ["ray", "optuna"])
def test_missing_extra_is_told_before_anything_else(missing, cli, monkeypatch):
    def version(name: str) -> str:
        if name == missing:
            raise PackageNotFoundError(name)
        return "1"

    monkeypatch.setattr(cluster.metadata, "version", version)
    answer = cli("tune", "no/archive", "--trials", "3", "--json")
    error = json.loads(answer.stdout)["error"]
    assert (answer.code, error["where"]) == (4, "extra ray")
    assert error["what"] == f"{missing} is not installed"
    assert "EXTRAS=ray" in error["fix"]
