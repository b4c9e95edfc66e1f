"""The offset of our clock from the exchange's."""

from __future__ import annotations

import sys
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuscalp.config import FeedConfig
from gpuscalp.feeds.clock import ClockOffset
from gpuscalp.schema import NS_PER_MS, NS_PER_S

CONFIG = FeedConfig(clock_limit_ms=500)
NOW_NS = 1_700_000_000 * NS_PER_S


def _clock(offset_ms, trips_ms):
    """Feed replies whose way back took all of the delay beyond the shortest trip."""
    clock = ClockOffset(CONFIG)
    for index, trip_ms in enumerate(trips_ms):
        sent_ns = NOW_NS + index * NS_PER_S
        there_ns = min(trips_ms) * NS_PER_MS // 2
        clock.on_server_time(
            sent_ns, sent_ns + trip_ms * NS_PER_MS, sent_ns + there_ns + offset_ms * NS_PER_MS
        )
    return clock


@given(offset_ms=st.integers(-400, 400), trips_ms=st.lists(st.integers(1, 900), min_size=1, max_size=30))
def test_offset_is_within_its_stated_uncertainty(offset_ms, trips_ms):
    clock = _clock(offset_ms, trips_ms)
    assert abs(clock.offset_ns - offset_ms * NS_PER_MS) <= clock.uncertainty_ns


def test_slow_replies_do_not_disturb_the_estimate():
    clock = _clock(30, [10] * 5 + [900] * 40)
    assert clock.offset_ns == 30 * NS_PER_MS
    assert not clock.has_drifted


def test_one_wrong_reply_does_not_disturb_the_estimate():
    clock = _clock(30, [10] * 8)
    clock.on_server_time(NOW_NS, NOW_NS + 1, NOW_NS + 3_600 * NS_PER_S)
    assert clock.offset_ns == 30 * NS_PER_MS


@pytest.mark.parametrize("steps_ms", [(3_600_000, 0), (-5_000, 0), (400,), (-400,), (-3_600_000, 0)])
def test_clock_that_was_set_is_known_again_after_three_replies(steps_ms):
    """Replies from before counted for ten minutes: nothing was opened, or frames were closed early."""
    clock, at_ns = _clock(0, [2] * 20), NOW_NS + 20 * NS_PER_S

    def reply(step_ms, trip_ms):
        sent_ns = at_ns + step_ms * NS_PER_MS
        clock.on_server_time(sent_ns, sent_ns + trip_ms * NS_PER_MS, at_ns + trip_ms * NS_PER_MS // 2)

    for step_ms in steps_ms:
        for trip_ms in (4, 300, 6):  # worse ways than before, and one that alone would prove nothing
            at_ns += 10 * NS_PER_S
            reply(step_ms, trip_ms)
        assert abs(clock.offset_ns + step_ms * NS_PER_MS) <= clock.uncertainty_ns
    assert not clock.has_drifted


def test_estimate_is_never_between_two_clocks():
    """Of two replies from before a clock was set and two from after it the mean was taken, nobody's time."""
    clock = _clock(0, [2] * 20)
    for index, offset_ms in enumerate((400, 400, -400, -400, -400)):
        sent_ns = NOW_NS + (30 + 10 * index) * NS_PER_S
        clock.on_server_time(sent_ns, sent_ns + 2 * NS_PER_MS, sent_ns + (1 + offset_ms) * NS_PER_MS)
        assert clock.offset_ns in (0, 400 * NS_PER_MS, -400 * NS_PER_MS)[0 if index < 2 else 1 :]
    assert clock.offset_ns == -400 * NS_PER_MS


def test_without_a_sample_there_is_no_time_and_no_trading():
    clock = ClockOffset(CONFIG)
    assert clock.offset_ns is None
    assert clock.exchange_ns(5) is None
    assert clock.has_drifted


def test_large_offset_is_drift():
    assert _clock(501, [2] * 5).has_drifted
    assert _clock(-501, [2] * 5).has_drifted
    assert not _clock(499, [2] * 5).has_drifted


def test_old_samples_are_forgotten():
    clock = _clock(100, [2] * 10)
    later_ns = NOW_NS + 3_600 * NS_PER_S
    clock.on_server_time(later_ns, later_ns + 50 * NS_PER_MS, later_ns + 25 * NS_PER_MS)
    assert clock.offset_ns == 0


def test_events_from_the_future_of_the_corrected_clock_are_drift():
    clock = _clock(0, [10] * 5)
    clock.on_event(NOW_NS, NOW_NS - 20 * NS_PER_MS)
    assert not clock.has_drifted
    # Our clock has been set back by a second since the last server time.
    clock.on_event(NOW_NS - NS_PER_S, NOW_NS)
    assert clock.has_drifted


def test_events_may_lie_ahead_by_what_the_estimate_and_whole_milliseconds_leave_open():
    clock = _clock(0, [10] * 5)
    allowed_ns = clock.uncertainty_ns + 2 * NS_PER_MS
    clock.on_event(NOW_NS, NOW_NS + allowed_ns)
    assert not clock.has_drifted
    clock.on_event(NOW_NS, NOW_NS + allowed_ns + 1)
    assert clock.has_drifted


def test_fresh_events_of_before_do_not_hide_that_those_of_now_are_old():
    clock = _clock(0, [10] * 5)
    for second in range(100):
        late_ms = 5 if second < 50 else 3_000
        clock.on_event(NOW_NS + second * NS_PER_S, NOW_NS + second * NS_PER_S - late_ms * NS_PER_MS)
        # Two slices of ten seconds are looked at: at 50 s that of 40 s is one of them.
        assert clock.has_drifted == (second >= 60)


def test_events_that_are_all_old_are_drift_until_fresh_ones_come():
    clock = _clock(0, [10] * 5)
    clock.on_event(NOW_NS, NOW_NS - 3 * NS_PER_S)
    assert clock.has_drifted
    clock.on_event(NOW_NS + NS_PER_S, NOW_NS + NS_PER_S - 5 * NS_PER_MS)
    assert not clock.has_drifted


def test_clock_that_stepped_back_during_a_request_gives_no_sample():
    clock = ClockOffset(CONFIG)
    clock.on_server_time(NOW_NS, NOW_NS - 1, NOW_NS)
    assert clock.sample_count == 0


def test_the_offset_may_be_asked_while_another_thread_takes_samples() -> None:
    """A session ended by itself, about once in thousands of samples: "deque mutated during iteration"."""
    clock, failed, over = _clock(100, [2] * 64), [], threading.Event()

    def ask() -> None:
        try:
            while not over.is_set():
                assert clock.exchange_ns(NOW_NS) == NOW_NS + 100 * NS_PER_MS
                assert clock.uncertainty_ns == NS_PER_MS
        except BaseException as error:
            failed.append(error)

    engine, before = threading.Thread(target=ask), sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        engine.start()
        for index in range(20_000):
            sent_ns = NOW_NS + index * NS_PER_MS
            clock.on_server_time(sent_ns, sent_ns + 2 * NS_PER_MS, sent_ns + 101 * NS_PER_MS)
            if failed:
                break
    finally:
        over.set()
        engine.join()
        sys.setswitchinterval(before)
    assert not failed
