"""One status and one exit code out of many checks."""

from __future__ import annotations

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuscalp.doctor.check import Check, Diagnosis, fail, failed_by, ok, skip, warn
from gpuscalp.errors import (
    CanaryError,
    ConfigError,
    DeadlineError,
    DeviceError,
    FeedError,
    GpuscalpError,
    ModelError,
    ParityError,
)

# The order that docs/doctor.md promises, written out once more.
RANK = {4: 0, 6: 1, 8: 2, 5: 3, 1: 4}

CHECKS = st.lists(
    st.one_of(
        st.builds(ok, st.just("a"), st.text()),
        st.builds(warn, st.just("b"), st.text(), st.text()),
        st.builds(skip, st.just("c"), st.text()),
        st.builds(
            fail,
            st.just("d"),
            st.text(),
            st.text(),
            kind=st.sampled_from([ConfigError, DeviceError, ModelError, DeadlineError, FeedError]),
        ),
    ),
    max_size=8,
)


@given(CHECKS)
def test_exit_code_is_that_of_the_failure_that_ranks_first(checks: list[Check]) -> None:
    found = Diagnosis(tuple(checks))
    codes = [check.code for check in checks if check.status == "fail"]
    assert found.exit_code == (sorted(codes, key=RANK.__getitem__)[0] if codes else 0)
    assert (found.exit_code != 0) == (found.status == "fail")


@given(CHECKS)
def test_overall_status_is_the_worst(checks: list[Check]) -> None:
    statuses = {check.status for check in checks}
    worst = next((each for each in ("fail", "warn", "ok") if each in statuses), "skip")
    assert Diagnosis(tuple(checks)).status == worst


@given(CHECKS)
def test_every_failure_and_every_warning_has_a_fix(checks: list[Check]) -> None:
    for check in checks:
        assert (check.fix is not None) == (check.status in ("fail", "warn"))


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        (ConfigError, 4),
        (DeviceError, 6),
        (CanaryError, 8),
        (DeadlineError, 5),
        (FeedError, 1),
        (GpuscalpError, 1),
        (ParityError, 1),
    ],
)
def test_class_of_an_error_decides_the_code(kind, code):
    check = failed_by("x", kind("broken", where="there", value=3), fix="mend it")
    assert (check.code, check.what, check.fix, check.value) == (code, "broken (there)", "mend it", "3")


def test_fix_of_the_error_itself_comes_first():
    assert failed_by("x", ConfigError("broken", fix="this"), fix="that").fix == "this"


def test_json_has_exactly_the_promised_keys():
    found = Diagnosis((warn("x", "what", "fix", {"a": 1}),)).to_dict()
    assert json.loads(msgspec.json.encode(found)) == {
        "status": "warn",
        "code": 0,
        "checks": [{"name": "x", "status": "warn", "what": "what", "fix": "fix", "value": {"a": 1}}],
    }
