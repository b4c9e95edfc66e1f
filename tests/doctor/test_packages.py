"""Versions against requirements, and the build of XGBoost against the machine."""

from __future__ import annotations

import sys

import pytest

from gpuscalp.doctor.packages import check_packages, check_xgboost, read_installed, read_requirements

REQUIRED = [
    "numpy>=2.2",
    "Zstandard>=0.23",
    "old-backport>=1; python_version < '3'",
    "nvidia-ml-py>=13.580; extra == 'cuda13'",
    "winonly>=2; sys_platform == 'win32' and extra == 'cpu'",
]
GOOD = {"numpy": "2.4.6", "zstandard": "0.25.0"}


@pytest.mark.parametrize(
    ("installed", "status", "told"),
    [
        (GOOD, "ok", "2 packages"),
        ({**GOOD, "nvidia-ml-py": "13.600"}, "ok", "3 packages"),
        ({**GOOD, "numpy": "2.1.9"}, "fail", "numpy 2.1.9, wanted >=2.2"),
        ({"numpy": "2.4.6"}, "fail", "Zstandard is missing"),
        ({**GOOD, "nvidia-ml-py": "12.0"}, "warn", "nvidia-ml-py 12.0"),
        ({**GOOD, "old-backport": "0.1"}, "ok", "2 packages"),
        ({**GOOD, "winonly": "1"}, "ok", "2 packages"),
    ],
)
def test_versions_are_compared_with_what_applies_here(installed, status, told):
    check = check_packages(REQUIRED, installed)
    assert check.status == status
    assert told in check.what
    assert check.code == (1 if status == "fail" else 0)


def test_checkout_without_metadata_is_a_warning_only():
    check = check_packages(None, GOOD)
    assert (check.status, check.code) == ("warn", 0)


def test_requirement_that_cannot_be_read_is_told():
    assert check_packages(["numpy >> 3"], GOOD).status == "fail"


def test_this_environment_fits_its_own_requirements():
    requirements, installed = read_requirements(), read_installed()
    assert requirements
    assert installed["numpy"]
    assert check_packages(requirements, installed).status == "ok", sys.version


@pytest.mark.parametrize(
    ("installed", "has_driver", "status"),
    [
        ({"xgboost-cpu": "3.2"}, False, "ok"),
        ({"xgboost-cpu": "3.2"}, True, "warn"),
        ({"xgboost": "3.2"}, True, "ok"),
        ({"xgboost-cu12": "3.2"}, False, "ok"),
        ({"xgboost": "3.2", "xgboost-cpu": "3.2"}, False, "warn"),
        ({}, True, "skip"),
    ],
)
def test_build_of_xgboost_is_compared_with_the_machine(installed, has_driver, status):
    assert check_xgboost(installed, has_driver=has_driver).status == status
