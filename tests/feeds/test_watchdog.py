"""Streams that were acknowledged and say nothing."""

from __future__ import annotations

from gpuscalp.config import FeedConfig
from gpuscalp.feeds.watchdog import Watchdog
from gpuscalp.schema import NS_PER_MS, NS_PER_S

CONFIG = FeedConfig(stale_min_ms=5_000, stale_max_ms=60_000, first_message_ms=15_000)
A, B = "btcusdt@aggTrade", "btcusdt@bookTicker"


def test_stream_that_never_begins_is_silent_after_the_time_for_a_first_message():
    watchdog = Watchdog(CONFIG)
    watchdog.start((A, B), 0)
    watchdog.on_message(B, 14 * NS_PER_S)
    assert watchdog.silent(15 * NS_PER_S - 1) == []
    assert watchdog.silent(15 * NS_PER_S) == [A]


def test_stream_that_stops_is_silent_though_its_neighbours_go_on():
    watchdog = Watchdog(CONFIG)
    watchdog.start((A, B), 0)
    for second in range(20):
        watchdog.on_message(A, second * NS_PER_S)
        watchdog.on_message(B, second * NS_PER_S)
    for second in range(20, 30):
        watchdog.on_message(B, second * NS_PER_S)
        assert watchdog.silent(second * NS_PER_S) == ([A] if second >= 24 else [])


def test_stream_delivers_from_its_first_message_after_the_start_until_it_is_silent():
    watchdog = Watchdog(CONFIG)
    watchdog.start((A, B), 0)
    # Acknowledged is not delivered: a session once opened positions on a stream that had gone silent,
    # because its new connection had been acknowledged.
    assert watchdog.delivering(1) == []
    watchdog.on_message(A, NS_PER_S)
    assert watchdog.delivering(2 * NS_PER_S) == [A]
    silent_ns = NS_PER_S + watchdog.limit_ns(A)
    assert watchdog.delivering(silent_ns - 1) == [A]
    assert watchdog.delivering(silent_ns) == []
    watchdog.start((A, B), silent_ns + 1)
    assert watchdog.delivering(silent_ns + 1) == []


def test_limit_follows_the_pauses_that_are_usual_for_a_stream():
    watchdog = Watchdog(CONFIG)
    watchdog.start((A, B), 0)
    for second in range(0, 60, 6):
        watchdog.on_message(A, second * NS_PER_S)
    for step in range(100):
        watchdog.on_message(B, step * 10 * NS_PER_MS)
    assert watchdog.limit_ns(B) == 5 * NS_PER_S
    assert watchdog.limit_ns(A) == 24 * NS_PER_S
    watchdog.on_message(A, 300 * NS_PER_S)
    assert watchdog.limit_ns(A) == 60 * NS_PER_S


def test_one_long_pause_is_forgotten():
    watchdog = Watchdog(CONFIG)
    watchdog.start((A,), 0)
    watchdog.on_message(A, 0)
    now_ns = 50 * NS_PER_S
    for _ in range(1_000):
        watchdog.on_message(A, now_ns)
        now_ns += NS_PER_S
    assert watchdog.limit_ns(A) < 6 * NS_PER_S


def test_usual_pause_survives_a_reconnection_but_the_first_message_is_awaited_anew():
    watchdog = Watchdog(CONFIG)
    watchdog.start((A,), 0)
    watchdog.on_message(A, 0)
    watchdog.on_message(A, 10 * NS_PER_S)
    watchdog.stop()
    assert watchdog.silent(1_000 * NS_PER_S) == []
    watchdog.start((A,), 1_000 * NS_PER_S)
    assert watchdog.limit_ns(A) == 15 * NS_PER_S
    watchdog.on_message(A, 1_001 * NS_PER_S)
    assert watchdog.limit_ns(A) == 40 * NS_PER_S


def test_message_of_a_stream_not_asked_for_is_no_matter():
    watchdog = Watchdog(CONFIG)
    watchdog.start((A,), 0)
    watchdog.on_message("other@trade", 1)
    assert watchdog.silent(1) == []


def test_stream_that_waits_for_something_to_happen_is_never_silent():
    # A day without liquidations led to a new connection every 15 s.
    watchdog = Watchdog(CONFIG)
    watchdog.start(("!forceOrder@arr", A), 0)
    watchdog.on_message("!forceOrder@arr", NS_PER_S)
    assert watchdog.silent(10_000 * NS_PER_S) == [A]


def test_stream_of_every_five_seconds_is_not_silent_after_its_first_message():
    # The shortest limit, which counted from the first message on, was the period of !bookTicker itself.
    watchdog = Watchdog(CONFIG)
    watchdog.start(("!bookTicker",), 0)
    for second in (1, 6, 12, 17):
        assert watchdog.silent(second * NS_PER_S) == []
        watchdog.on_message("!bookTicker", second * NS_PER_S)
    assert watchdog.silent(41 * NS_PER_S) == ["!bookTicker"]
