"""Which Pythons are accepted."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from packaging.specifiers import SpecifierSet

from gpuscalp.doctor.interpreter import NEWEST, OLDEST, Interpreter, check_python, read_interpreter

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("found", "status"),
    [
        (Interpreter("cpython", (3, 11, 0), 64), "ok"),
        (Interpreter("cpython", (3, 13, 9), 64), "ok"),
        (Interpreter("cpython", (3, 10, 14), 64), "fail"),
        (Interpreter("cpython", (3, 14, 0), 64), "fail"),
        (Interpreter("cpython", (3, 12, 1), 32), "fail"),
        (Interpreter("pypy", (3, 11, 9), 64), "fail"),
    ],
)
def test_python_is_judged_by_version_width_and_kind(found, status):
    check = check_python(found)
    assert check.status == status
    assert (check.fix is None) == (status == "ok")
    assert check.code == (1 if status == "fail" else 0)


def test_limits_are_those_of_the_project_file():
    asked = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"]
    versions = [(3, minor) for minor in range(8, 20) if f"3.{minor}" in SpecifierSet(asked)]
    assert (versions[0], versions[-1]) == (OLDEST, NEWEST)


def test_this_python_is_read_and_accepted():
    assert check_python(read_interpreter()).status == "ok"
