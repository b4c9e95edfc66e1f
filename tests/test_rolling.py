"""Rolling sums against a list of everything that was added."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuscalp.rolling import RollingSum


@given(
    steps=st.lists(st.tuples(st.integers(0, 40), st.integers(-5, 5)), min_size=1, max_size=60),
    later=st.integers(0, 100),
)
def test_sum_is_that_of_the_newest_buckets(steps, later):
    rolling = RollingSum((2,), bucket_ns=10, buckets=4)
    now, added = 1_000, []
    for step, value in steps:
        now += step
        rolling.add(now, [value, 1])
        added.append((now // 10, value))
    for asked, at in ((None, now), (now + later, now + later)):
        newest = at // 10
        kept = [value for bucket, value in added if bucket > newest - 4]
        assert rolling.total(asked).tolist() == [sum(kept), len(kept)]


def test_time_that_goes_back_counts_as_the_newest():
    rolling = RollingSum((), bucket_ns=10, buckets=2)
    rolling.add(100, 1.0)
    rolling.add(5, 1.0)
    assert rolling.total() == 2.0
    assert rolling.total(109) == 2.0
    assert rolling.total(120) == 0.0
    assert rolling.span_ns == 20


def test_nothing_was_added():
    assert RollingSum((3,), bucket_ns=10, buckets=2).total(50).tolist() == [0.0] * 3
    assert RollingSum((3,), bucket_ns=10, buckets=2).total().tolist() == pytest.approx([0.0] * 3)
    assert np.ndim(RollingSum((), bucket_ns=10, buckets=2).total()) == 0
