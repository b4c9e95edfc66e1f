"""``tune`` where it cannot run. tests/tuning has it on a real Ray."""

from __future__ import annotations

import io
import json
from importlib.metadata import PackageNotFoundError

import pytest
from rich.console import Console

from gpuscalp.cli.tune import _text
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


def test_trials_can_be_read_at_80_columns():
    """Every parameter had a column of its own: of names and numbers one letter was left."""
    names = [f"booster.parameter_with_a_name_{index}" for index in range(14)]
    params = dict.fromkeys(names, 0.25) | {"features.drop": ["*.512", "*.128"]}
    trial = {"trial": 0, "state": "finished", "rounds": 40, "score": 255.51, "params": params}
    folds = [{"acts": 200}, {"acts": 155}]
    summary = {
        "best": trial, "table": [{**trial, "folds": folds}], "warnings": [], "finished": 1, "stopped": 0,
        "failed": 0, "trials": 1, "metric": "net", "bundle": "b", "report": "r", "seconds": 1.0,
    }  # fmt: skip
    console = Console(width=80, file=io.StringIO(), record=True)
    console.print(_text(summary, None))
    text = console.export_text()
    assert "…" not in text
    lines = [" ".join(line.split()) for line in text.splitlines()]
    assert lines[:2] == ["trial state rounds score, bps/symbol·h acts", "0 finished 40 +255.5 355"]
    assert "parameter of trial 0 value" in lines
    assert f"{names[13]} 0.25" in lines
    assert "features.drop *.512 *.128" in lines
