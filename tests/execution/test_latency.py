"""Latencies: in their range, the same for the same seed, and independent of each other."""

from __future__ import annotations

import numpy as np
import pytest

from gpuscalp.config import LegConfig
from gpuscalp.errors import ConfigError
from gpuscalp.execution.inbox import Inbox
from gpuscalp.execution.latency import at_quantile, least_ns, legs
from gpuscalp.execution.messages import Report, ReportKind
from gpuscalp.schema import NS_PER_MS

UNIFORM = LegConfig(kind="uniform", low_ms=2.0, high_ms=5.0)
EMPIRICAL = LegConfig(kind="empirical", samples_ms=(1.0, 7.5, 3.25))


def test_fixed_leg_always_takes_its_time() -> None:
    leg, _ = legs(LegConfig(low_ms=1.5), LegConfig(), 1)
    assert {leg.draw_ns() for _ in range(2_000)} == {1_500_000}


def test_uniform_leg_fills_its_range() -> None:
    leg, _ = legs(UNIFORM, UNIFORM, 1)
    drawn = np.array([leg.draw_ns() for _ in range(5_000)])
    assert drawn.min() >= 2_000_000
    assert drawn.max() <= 5_000_000
    # The mean of 5,000 draws from an interval of 3 ms lies within 5 standard errors (0.061 ms).
    assert abs(drawn.mean() - 3_500_000) < 61_500


def test_empirical_leg_gives_its_samples_and_nothing_else() -> None:
    leg, _ = legs(EMPIRICAL, UNIFORM, 1)
    assert {leg.draw_ns() for _ in range(500)} == {1_000_000, 7_500_000, 3_250_000}


def test_draws_of_one_leg_do_not_depend_on_those_of_the_other() -> None:
    first, back = legs(UNIFORM, EMPIRICAL, 9)
    again, _ = legs(UNIFORM, EMPIRICAL, 9)
    mixed = []
    for _ in range(3_000):
        mixed.append(first.draw_ns())
        back.draw_ns()
    assert mixed == [again.draw_ns() for _ in range(3_000)]
    other, _ = legs(UNIFORM, EMPIRICAL, 10)
    assert mixed != [other.draw_ns() for _ in range(3_000)]


@pytest.mark.parametrize(
    "config", [LegConfig(kind="uniform", low_ms=2.0, high_ms=1.0), LegConfig(kind="empirical")]
)
def test_leg_without_a_distribution_is_refused(config: LegConfig) -> None:
    with pytest.raises(ConfigError):
        legs(config, LegConfig(), 1)
    with pytest.raises(ConfigError):
        at_quantile(config, 0.5, fixed_factor=1.0)


def test_inbox_hands_out_reports_when_they_are_known() -> None:
    inbox = Inbox()
    reports = [Report(ReportKind.ACCEPTED, number, 0, number, number + 5) for number in (1, 2, 9)]
    inbox.put(reports)
    assert inbox.due(5) == []
    assert inbox.due(7) == reports[:2]
    assert len(inbox) == 1
    assert inbox.due(100) == reports[2:]


@pytest.mark.parametrize(
    ("config", "quantile", "taken_ms"),
    [
        (LegConfig(low_ms=4.0, high_ms=99.0), 0.9, 12.0),  # fixed: three times its time
        (LegConfig(kind="uniform", low_ms=2.0, high_ms=12.0), 0.9, 11.0),
        (LegConfig(kind="empirical", samples_ms=(7.0, 1.0, 3.0)), 0.5, 3.0),
        (LegConfig(kind="empirical", samples_ms=(7.0, 1.0, 3.0)), 1.0, 7.0),
    ],
)
def test_leg_at_a_quantile_takes_that_time_always(
    config: LegConfig, quantile: float, taken_ms: float
) -> None:
    found = at_quantile(config, quantile, fixed_factor=3.0)
    leg, _ = legs(found, found, 1)
    assert {leg.draw_ns() for _ in range(3_000)} == {round(taken_ms * NS_PER_MS)}
    assert least_ns(found) == round(taken_ms * NS_PER_MS)
