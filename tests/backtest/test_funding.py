"""Funding falls due once, at its time, at the last rate announced before it."""

from __future__ import annotations

from gpuscalp.backtest.funding import FundingSchedule
from tests.backtest.market import E8, MS, NOW, marks


def at(ms: float) -> int:
    return NOW + round(ms * MS)


def test_last_rate_before_the_time_counts() -> None:
    schedule = FundingSchedule()
    rows = [(0, 100.0, 0.0001, 50), (40, 101.0, 0.0002, 50), (51, 102.0, 0.0009, 900)]
    schedule.announce(0, marks(rows))
    assert schedule.due(at(49)) == []
    (event,) = schedule.due(at(50))
    assert (event.at_ns, event.mark_e8, event.rate_e8) == (at(50), 101 * E8, 20_000)
    assert schedule.due(at(60)) == []


def test_overlapping_windows_do_not_charge_twice() -> None:
    schedule = FundingSchedule()
    rows = [(0, 100.0, 0.0001, 50), (40, 101.0, 0.0002, 50)]
    schedule.announce(0, marks(rows))
    assert len(schedule.due(at(55))) == 1
    schedule.announce(0, marks(rows))
    assert schedule.due(at(60)) == []


def test_later_window_brings_the_better_rate() -> None:
    schedule = FundingSchedule()
    schedule.announce(0, marks([(0, 100.0, 0.0001, 500)]))
    schedule.announce(0, marks([(0, 100.0, 0.0001, 500), (400, 100.0, -0.0003, 500)]))
    (event,) = schedule.due(at(500))
    assert event.rate_e8 == -30_000


def test_symbols_are_charged_in_order_and_unknown_times_never() -> None:
    schedule = FundingSchedule()
    schedule.announce(1, marks([(0, 100.0, 0.0001, 50)]))
    schedule.announce(0, marks([(0, 100.0, 0.0001, 50), (1, float("nan"), 0.5, 60)]))
    assert [event.symbol_index for event in schedule.due(at(1_000))] == [0, 1]


def test_symbols_without_an_announcement_are_not_taken_for_charged() -> None:
    """Any row of marks used to count for all symbols, even one that names no funding time."""
    schedule = FundingSchedule()
    schedule.announce(0, marks([(0, 100.0, 0.0001, 50)]))
    schedule.announce(1, marks([(10, 100.0, 0.0001, 10)]))
    schedule.announce(2, marks([(0, float("nan"), 0.0001, 50)]))
    schedule.announce(3, marks([]))
    assert schedule.announced == {0}


def test_message_at_or_after_the_time_does_not_count() -> None:
    schedule = FundingSchedule()
    schedule.announce(0, marks([(50, 100.0, 0.0001, 50), (70, 100.0, 0.0001, 60)]))
    assert schedule.due(at(1_000)) == []
