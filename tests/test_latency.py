"""Histograms: exact to their step, of bounded size."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuscalp.latency import OCTAVES_NS, LatencyHistogram, Stage, quantile_ns


@given(
    durations=st.lists(st.integers(64, 60_000_000_000), min_size=1, max_size=200),
    quantile=st.floats(0.001, 1.0),
)
def test_quantile_is_the_true_one_within_a_thirty_second(durations, quantile):
    histogram = LatencyHistogram()
    for duration in durations:
        histogram.add(Stage.DECODE, duration)
    true = sorted(durations)[max(1, int(np.ceil(quantile * len(durations)))) - 1]
    assert true <= histogram.quantile_ns(Stage.DECODE, quantile) <= true * (1 + 1 / 32)


def test_largest_is_exact_and_stages_are_apart():
    histogram = LatencyHistogram()
    histogram.add(Stage.GATE, 1_234_567, count=9)
    histogram.add(Stage.GATE, 7_654_321)
    assert histogram.quantile_ns(Stage.GATE, 1.0) == 7_654_321
    assert histogram.quantile_ns(Stage.ORDER, 0.5) is None
    summary = histogram.summary()
    assert list(summary) == ["gate"]
    assert summary["gate"]["count"] == 10
    assert summary["gate"]["p50_us"] == pytest.approx(1_234.567, rel=1 / 32)
    assert summary["gate"]["max_us"] == 7_654.321
    histogram.clear()
    assert histogram.summary() == {}


@pytest.mark.parametrize("duration", [-5, 0, 63, 1 << 40, 1 << 62])
def test_durations_outside_the_range_are_counted_at_its_ends(duration):
    histogram = LatencyHistogram()
    histogram.add(Stage.TOTAL, duration)
    assert histogram.counts.sum() == 1
    assert histogram.quantile_ns(Stage.TOTAL, 0.5) <= max(duration, 63)


@given(durations=st.lists(st.integers(0, 1 << 40), min_size=1, max_size=100))
def test_octaves_and_sums_are_those_of_the_durations(durations):
    histogram = LatencyHistogram()
    for duration in durations:
        histogram.add(Stage.GATE, duration, 2)
    found = histogram.octaves()[Stage.GATE]
    longest = OCTAVES_NS[-1] - 1
    for index, bound in enumerate(OCTAVES_NS):
        below = sum(min(duration, longest) < bound for duration in durations)
        assert found[: index + 1].sum() == 2 * below
    assert histogram.sum_ns[Stage.GATE] == 2 * sum(durations)
    assert histogram.octaves()[Stage.ORDER].sum() == 0
    histogram.clear()
    assert histogram.sum_ns.sum() == 0


@given(first=st.lists(st.integers(0, 10**9), max_size=50), then=st.lists(st.integers(0, 10**9), min_size=1))
def test_quantile_of_a_difference_is_that_of_what_came_since(first, then):
    whole, later = LatencyHistogram(), LatencyHistogram()
    for duration in first:
        whole.add(Stage.TOTAL, duration)
    before = whole.counts.copy()
    for duration in then:
        whole.add(Stage.TOTAL, duration)
        later.add(Stage.TOTAL, duration)
    found = quantile_ns((whole.counts - before)[Stage.TOTAL], 0.99)
    assert min(found, max(then)) == later.quantile_ns(Stage.TOTAL, 0.99)
    assert quantile_ns(before[Stage.GATE], 0.5) is None
