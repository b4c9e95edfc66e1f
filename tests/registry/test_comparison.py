"""What is read of ``result.json``, a file for people that anything may have changed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from gpuscalp.registry.comparison import read_result

RESULT: dict[str, Any] = {
    "seconds": 3.5,
    "overall": {"rows": 5, "ic": None},
    "folds": [{"index": 0, "rows": 4}],
    "importance": [{"name": "price.return", "gain": 0.5, "column": 3}],
    "device": "cpu",
}


def read(folder: Path, told: Any) -> dict[str, Any]:
    (folder / "result.json").write_text(json.dumps(told))
    return read_result(folder)


def test_result_is_read_whole(tmp_path: Path) -> None:
    assert read_result(tmp_path) == {}
    assert read(tmp_path, RESULT) == RESULT
    assert read(tmp_path, {}) == {}


@pytest.mark.parametrize(
    "told",
    [
        [RESULT],
        7,
        RESULT | {"seconds": "long"},
        RESULT | {"overall": [1]},
        RESULT | {"folds": None},
        RESULT | {"folds": [RESULT, 7]},
        RESULT | {"importance": [{"name": "price.return"}]},
        RESULT | {"importance": [{"name": "price.return", "gain": "much"}]},
    ],
)
def test_result_of_another_form_says_nothing(tmp_path: Path, told: Any) -> None:
    """It was a traceback where two models were compared, or one was sent to MLflow."""
    assert read(tmp_path, told) == {}
