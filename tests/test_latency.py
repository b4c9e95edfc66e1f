"""Histograms: exact to their step, of bounded size."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuscalp.latency import LatencyHistogram, Stage


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
