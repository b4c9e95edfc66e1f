from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuscalp.errors import DecodeError
from gpuscalp.feeds.times import to_ns

SECONDS = st.integers(1_230_768_000, 4_102_444_799)


@given(SECONDS, st.integers(0, 999_999_999))
def test_unit_is_told_by_size(seconds: int, rest_ns: int) -> None:
    ns = seconds * 10**9 + rest_ns
    assert to_ns(ns) == ns
    assert to_ns(ns // 10**3) == ns // 10**3 * 10**3
    assert to_ns(ns // 10**6) == ns // 10**6 * 10**6
    assert to_ns(seconds) == seconds * 10**9


@pytest.mark.parametrize(
    "time", [-1, 0, 1_230_767_999, 4_102_444_800, 17_213_470_225, 9_999_999_999_999, 10**19]
)
def test_time_out_of_range_is_refused(time: int) -> None:
    with pytest.raises(DecodeError, match="between 2009 and 2100"):
        to_ns(time)
